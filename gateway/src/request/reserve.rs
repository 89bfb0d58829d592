//! The step `reserve`: what a call costs is taken before it goes to the service.

use std::sync::Arc;

use tollgate_policy::access::Grant;
use tollgate_policy::quota::CostSource;
use tollgate_policy::settings::Durability;

use super::{Exchange, Found};
use crate::admission;
use crate::denial::Denial;
use crate::identity::{Identified, Unidentified};
use crate::journey::{Asked, Called};
use crate::quota::{self, Reservation, Unpaid};

impl Exchange {
    /// Counts a call that was refused though its caller is known, against the limits that want that.
    pub(super) fn count_refused(
        &self,
        called: &Called,
        identified: &Identified,
        asked: &Asked<'_>,
    ) {
        let call = quota::Call {
            api: &called.api,
            operation: called.operation,
            identified,
            client: asked.request.client,
        };
        let ours = !self.is_described && identified.admitted_by.is_none();
        if let Some(charges) = self.shared.quotas.charges(&call).filter(|_| ours) {
            let cost = |source: &_| quota::verdict::cost_of(source, &called.api, asked);
            self.shared.quotas.count_refused(&charges, cost);
        }
    }

    /// Counts a call that no operation of its API answers, against the limits that want that. The answer stays what it was, whoever asks.
    pub(super) async fn count_unclassified(
        &self,
        why: &Denial,
        asked: &Asked<'_>,
        found: &mut Found,
    ) {
        let missed = matches!(why, Denial::UnknownOperation | Denial::MethodNotAllowed(_));
        let request = asked.request;
        let counted_before = admission::shown(request.head, request.workload).is_some();
        let Some(api) = found.api.clone().filter(|_| missed) else {
            return;
        };
        if self.is_described || counted_before {
            return;
        }
        let identities = Arc::clone(&self.shared.identities);
        let identified = identities.anybody(&api.access, &api.issuers, request).await;
        let identified = match identified {
            Ok(identified) => identified,
            // As at an operation that asks for nothing.
            Err(Unidentified::Nothing) => Identified::default(),
            Err(_) => return,
        };
        let (identity, client) = (&identified.identity, request.client);
        self.shared.quotas.count_miss(&api, identity, client);
        found.identified = Some(identified);
    }

    /// Takes what the call costs of everything it counts against.
    pub(super) async fn reserve(
        &mut self,
        called: &Called,
        identified: &Identified,
        asked: &Asked<'_>,
        grant: &mut Grant,
    ) -> Result<Option<Reservation>, Denial> {
        if identified.admitted_by.is_some() {
            return Ok(None);
        }
        let shared = Arc::clone(&self.shared);
        let recorded =
            identified.identity.caller.is_some() && called.durability() != Durability::Metric;
        if recorded && !shared.metering.admits() {
            self.reason = quota::verdict::reason_of(&Unpaid::Unrecordable);
            return Err(Denial::Unpaid(Box::new(Unpaid::Unrecordable)));
        }
        let call = quota::Call {
            api: &called.api,
            operation: called.operation,
            identified,
            client: asked.request.client,
        };
        let Some(charges) = shared.quotas.charges(&call) else {
            return Ok(None);
        };
        let now = shared.quotas.ticks(self.started);
        let value = |source: &CostSource| quota::verdict::cost_of(source, &called.api, asked);
        if self.is_described {
            let refused = charges.would_refuse(value, now).map(Unpaid::Exceeded);
            quota::verdict::tell(&charges, refused.as_ref(), now, &mut self.ear);
            return refused.map_or(Ok(None), |why| {
                self.reason = quota::verdict::reason_of(&why);
                Err(Denial::Unpaid(Box::new(why)))
            });
        }
        let reserved = shared
            .quotas
            .reserve(Arc::clone(&charges), value, now)
            .await;
        self.step("reserve");
        quota::verdict::tell(&charges, reserved.as_ref().err(), now, &mut self.ear);
        match reserved {
            Ok(reservation) => {
                grant.shadowed.extend(reservation.shadowed.iter().cloned());
                Ok(Some(reservation))
            }
            Err(why) => {
                self.reason = quota::verdict::reason_of(&why);
                Err(Denial::Unpaid(Box::new(why)))
            }
        }
    }
}
