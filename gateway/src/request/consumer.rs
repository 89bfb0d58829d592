//! A call to what Tollgate itself answers under `/.tollgate/`.

use std::sync::Arc;

use tollgate_policy::access;

use super::Exchange;
use crate::api::Api;
use crate::denial::{Denial, Forbidden};
use crate::journey::{Asked, Journey, Own};
use crate::verdict;

impl Exchange {
    /// A consumer asks about itself: the same steps, without an operation.
    pub(super) async fn admit_own(
        &mut self,
        api: Arc<Api>,
        base_length: usize,
        asked: &Asked<'_>,
    ) -> Result<Journey, Denial> {
        let identities = self.shared.identities.clone();
        let identified = identities
            .anybody(&api.access, &api.issuers, asked.request)
            .await;
        self.step("identify");
        let identified = identified.map_err(|why| {
            self.reason = verdict::reason_of(&why);
            verdict::unidentified_own(&api, why)
        })?;
        let values = verdict::RequestValues { api: &api, asked };
        let decided = access::decide_own(
            &api.access,
            &api.config.name,
            &identified.identity,
            &verdict::circumstances(asked, &values),
            &mut self.ear,
        );
        self.step("decide");
        decided.map_err(|refusal| {
            self.reason = verdict::reason_of_refusal(&refusal);
            verdict::refused(&api, base_length, refusal)
        })?;
        match &identified.identity.caller {
            Some(_) => Ok(Journey::Own(Box::new(Own {
                api,
                base_length,
                identified,
                client: asked.request.client,
            }))),
            None => Err(Denial::NotPermitted(Forbidden::NotSubscribed)),
        }
    }
}
