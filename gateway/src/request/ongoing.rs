//! A call that goes on: judged again while it does, by the decision it began with, and charged as it goes.
//!
//! What a judge needs is kept once, when a call turns out to go on; calls that end soon pay nothing. Judged is by the policy of the
//! moment, by what the directory says of the caller now, and by the API's external authoriser; where nobody answers, by what was known.
//! Not here: withdrawals, which end calls at once (`identity/standing.rs`).

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use pingora_http::RequestHeader;
use tollgate_policy::access::Refusal;
use tollgate_policy::credentials::BadCredential;
use tollgate_policy::credentials::certificate::CertificateIdentity;
use tollgate_policy::settings::Recheck;
use tollgate_policy::time::Timestamp;

use super::flow::{Flow, Spoken, Stream};
use super::{Exchange, current_policy, decide};
use crate::denial::Denial;
use crate::door::asked::{Host, target_of};
use crate::door::target::Target;
use crate::explain::Ear;
use crate::forward::watch::{Ending, Watch};
use crate::identity::{self, Identified, Unidentified, clock};
use crate::journey::{Asked, Called, Journey, Peer, Shared};
use crate::quota::{self, Settled, Tab, Unpaid};
use crate::verdict;

/// What is needed to judge a call again.
#[derive(Debug)]
pub(crate) struct Ongoing {
    shared: Arc<Shared>,
    /// As it was admitted.
    called: Called,
    identified: Identified,
    head: RequestHeader,
    client: Option<IpAddr>,
    certificate: Option<Arc<CertificateIdentity>>,
    tab: Option<Arc<Tab>>,
    watch: Arc<Watch>,
    flow: Arc<Flow>,
    rhythm: Recheck,
    last: Mutex<Last>,
    is_judged: AtomicBool,
}

/// How it stood when it was judged last.
#[derive(Debug)]
struct Last {
    at: Instant,
    bytes: u64,
    messages: u64,
}

impl Exchange {
    /// From now on the call is judged again while it goes on. `head` is the caller's.
    pub(crate) fn goes_on(&mut self, head: &RequestHeader, peer: &Peer, spoken: Spoken) {
        let Journey::Admitted(admitted) = &mut self.journey else {
            return;
        };
        let (Some(watch), Some(listed)) = (Watch::current(), &admitted.listed) else {
            return;
        };
        let flow = Arc::new(Flow::new(&spoken));
        let operation = admitted.api.operations.get(admitted.operation);
        let rhythm = operation.map(|operation| operation.settings.recheck);
        listed.goes_on(Arc::new(Ongoing {
            shared: Arc::clone(&self.shared),
            called: Called {
                api: Arc::clone(&admitted.api),
                operation: admitted.operation,
                route: admitted.route,
                base_length: admitted.base_length,
            },
            identified: admitted.identified.clone(),
            head: head.clone(),
            client: peer.client,
            certificate: peer.certificate.clone(),
            tab: admitted.reservation.as_mut().map(quota::Reservation::tab),
            watch,
            flow: Arc::clone(&flow),
            rhythm: rhythm.unwrap_or_default(),
            last: Mutex::new(Last {
                at: Instant::now(),
                bytes: 0,
                messages: 0,
            }),
            is_judged: AtomicBool::new(false),
        }));
        self.stream = Some(Box::new(Stream { spoken, flow }));
    }
}

impl Ongoing {
    /// Whether it has to be judged again; then it does not, until it comes to more.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let (sent, got) = self.flow.bytes();
        let (bytes, messages) = (sent.saturating_add(got), self.flow.messages());
        let mut last = self.last.lock();
        let more = |limit: Option<u64>, now: u64, then: u64| {
            limit.is_some_and(|limit| now.saturating_sub(then) >= limit)
        };
        let due = now.saturating_duration_since(last.at) >= self.rhythm.every
            || more(self.rhythm.bytes, bytes, last.bytes)
            || more(self.rhythm.messages, messages, last.messages);
        if due {
            *last = Last {
                at: now,
                bytes,
                messages,
            };
        }
        due && !self.is_judged.load(Ordering::Relaxed)
    }

    /// Judges it again, and ends it where it may not go on.
    pub(crate) async fn look_again(self: Arc<Self>) {
        self.is_judged.store(true, Ordering::Relaxed);
        if let Err(ending) = self.judge().await {
            self.watch.end(ending);
        }
        self.is_judged.store(false, Ordering::Relaxed);
    }

    async fn judge(&self) -> Result<(), Ending> {
        let (called, identified) = (self.called_now()?, self.identified_now().await?);
        let now = clock::now();
        self.credentials(&called, &identified, now)?;
        self.decide(&called, &identified, now).await?;
        let Some(tab) = &self.tab else { return Ok(()) };
        let (request_bytes, response_bytes) = self.flow.bytes();
        let streamed = self.flow.streamed();
        let settled = Settled {
            reached: true,
            request_bytes,
            response_bytes,
            messages: self.flow.messages(),
            seconds: streamed.seconds,
            // The service said it in its head; it is charged in the end.
            said: &[],
        };
        let charged = self.shared.quotas.charge_on(tab, &settled).await;
        charged.map_err(|why| Ending {
            reason: quota::verdict::reason_of(&why),
            denial: unpaid(why),
        })
    }

    /// The operation as its API has it now; as it was where the API is there no more, or is none that files define.
    fn called_now(&self) -> Result<Called, Ending> {
        let (then, index) = (&self.called.api, self.called.operation);
        let called = |api, operation| Called {
            api,
            operation,
            route: self.called.route,
            base_length: self.called.base_length,
        };
        let apis = self.shared.apis.load();
        let name = &then.config.name;
        let current = apis.all().iter().find(|api| api.config.name == *name);
        let current = current.unwrap_or(then);
        if Arc::ptr_eq(current, then) {
            return Ok(called(Arc::clone(then), index));
        }
        let operation = then.operations.get(index).and_then(|own| {
            let mut all = current.operations.iter();
            all.position(|one| one.name == own.name)
        });
        let gone = || Ending {
            denial: Denial::UnknownOperation,
            reason: Cow::Borrowed("the API has no such operation any more"),
        };
        let operation = operation.ok_or_else(gone)?;
        Ok(called(Arc::clone(current), operation))
    }

    /// Who calls, as the directory has it now.
    async fn identified_now(&self) -> Result<Identified, Ending> {
        let mut identified = self.identified.clone();
        let Some(held) = identified.held.as_ref().filter(|it| it.caller.is_some()) else {
            return Ok(identified);
        };
        let directory = &self.shared.identities.directory;
        // Where nobody answers, what was known counts, for as long as `stale_ok` says.
        if let Ok(found) = directory.find_proven(&held.reference).await {
            let Some(caller) = &found.caller else {
                return Err(Ending {
                    denial: Denial::CredentialRevoked,
                    reason: Cow::Borrowed("nobody has the credential any more"),
                });
            };
            identified.identity.caller = Some(Arc::clone(caller));
        }
        Ok(identified)
    }

    /// What was verified when the call began, and may have ended since.
    fn credentials(
        &self,
        called: &Called,
        identified: &Identified,
        now: Timestamp,
    ) -> Result<(), Ending> {
        let bad = |why: BadCredential| {
            let why = Unidentified::Bad(why);
            Ending {
                reason: verdict::reason_of(&why),
                denial: verdict::unidentified(&called.api, called.operation, why),
            }
        };
        let identity = &identified.identity;
        if let Some(claims) = &identity.claims {
            let mut issuers = called.api.issuers.iter();
            let issuer = issuers.find(|issuer| *issuer.rules.issuer == *claims.issuer);
            let leeway = issuer.map(|issuer| issuer.rules.leeway).unwrap_or_default();
            if claims.expires.is_some_and(|end| now >= end.plus(leeway)) {
                return Err(bad(BadCredential::Expired));
            }
            if self.shared.identities.directory.token_revoked(claims) == Some(true) {
                return Err(bad(BadCredential::Revoked));
            }
        }
        let shown = self.certificate.as_ref();
        let counts = shown.filter(|_| identity.certificate.is_some());
        match counts.map(|certificate| certificate.check_time(now)) {
            Some(Err(why)) => Err(bad(why)),
            Some(Ok(())) | None => Ok(()),
        }
    }

    async fn decide(
        &self,
        called: &Called,
        identified: &Identified,
        now: Timestamp,
    ) -> Result<(), Ending> {
        let unseen = |denial: Denial| Ending {
            denial,
            reason: Cow::Borrowed("judged again while it went on"),
        };
        let host = Host::of(&self.head).map_err(unseen)?;
        let target = target_of(&self.head).and_then(Target::parse);
        let target = target.map_err(unseen)?;
        let asked = Asked {
            request: identity::Request {
                head: &self.head,
                query: target.query,
                client: self.client,
                certificate: self.certificate.as_deref(),
                workload: identified.admitted_by.as_ref(),
                now,
            },
            host: host.as_str(),
            path: target.path,
        };
        let refused = |refusal: Refusal| Ending {
            reason: verdict::reason_of_refusal(&refusal),
            denial: verdict::refused(&called.api, called.base_length, refusal),
        };
        {
            let policy = current_policy(&self.shared, called, identified).map_err(unseen)?;
            decide(&policy, &asked, &mut Ear::default()).map_err(refused)?;
        }
        let Some(authoriser) = &called.api.authoriser else {
            return Ok(());
        };
        let judged = authoriser.judge_again(called, identified, &asked).await;
        judged.map(drop).map_err(refused)
    }
}

fn unpaid(why: Unpaid) -> Denial {
    Denial::Unpaid(Box::new(why))
}
