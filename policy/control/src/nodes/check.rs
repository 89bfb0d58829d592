//! `Check`: may this call pass? The slow way, for whoever holds no policy, and for operations that take long: asked at their start, now
//! and then while they go on, and at their end.
//!
//! What is not understood is denied, and so is what nobody published. Each phase is judged by what holds then; that an operation was begun
//! is remembered, because nobody may go on with what was never allowed to begin. Each node asks at a bounded [`Pace`], so that one that
//! floods holds up neither revocations nor quota of the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tollgate_policy::access::{WhyNot, decide_remote};
use tollgate_policy::directory::{Caller, CredentialRef};
use tollgate_policy::workload::WorkloadId;
use tollgate_proto::wire::{CheckRequest, CheckResponse, OnUnavailable};
use tollgate_proto::wire::{check_request::Phase, check_response::Decision};
use tonic::Status;

use crate::Control;
use crate::control::now;

/// How long an answer may be believed, in milliseconds.
const VALID: u64 = 10_000;
/// How long beyond, while nobody answers.
const STALE_OK: u64 = 300_000;

/// Questions of one node in a second, and how many at once after a silence.
const PACE: (u32, u32) = (200, 400);
/// Nodes whose pace is known; beyond these, who has not asked for long is forgotten.
const NODES: usize = 4096;

/// How fast nodes ask: by identity and address, because several share an identity.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the questions asked so far are made up for.
    made_up: Mutex<HashMap<(WorkloadId, Option<IpAddr>), Instant>>,
}

impl Pace {
    /// Counts a question.
    ///
    /// # Errors
    /// The node asks too fast.
    pub(super) fn count(
        &self,
        peer: WorkloadId,
        address: Option<IpAddr>,
        now: Instant,
    ) -> Result<(), Status> {
        let (per_second, at_once) = PACE;
        let each = Duration::from_secs(1) / per_second;
        let mut made_up = self.made_up.lock();
        if made_up.len() >= NODES {
            made_up.retain(|_, until| *until > now);
        }
        let known = made_up.get(&(peer.clone(), address)).copied();
        let next = known.map_or(now, |until| until.max(now)) + each;
        if next.saturating_duration_since(now) > each * at_once {
            return Err(Status::resource_exhausted("this node asks too fast"));
        }
        made_up.insert((peer, address), next);
        Ok(())
    }
}

/// Operations under way that are remembered. Some 300 bytes each.
const MOST: usize = 100_000;
/// One of which nothing was heard for so long is over.
const SILENT: Duration = Duration::from_secs(24 * 3600);

/// Which operation: of whom, and by the name it was given there.
type Name = (WorkloadId, String);

/// Operations that were allowed to begin and have not ended.
#[derive(Debug, Default)]
pub(super) struct Begun(Mutex<HashMap<Name, Operation>>);

/// What was begun.
#[derive(Debug)]
struct Operation {
    api: String,
    operation: String,
    credential: CredentialRef,
    heard: Instant,
}

impl Begun {
    /// Remembers what may begin. A name is free once its operation ended.
    fn begin(&self, name: Name, begun: Operation) -> Result<(), Status> {
        let mut all = self.0.lock();
        if let Some(known) = all.get(&name)
            && !known.is(&begun)
        {
            return Err(Status::already_exists("another operation has this name"));
        }
        if all.len() >= MOST {
            all.retain(|_, it| it.heard.elapsed() < SILENT);
        }
        if all.len() >= MOST {
            return Err(Status::resource_exhausted("too many operations under way"));
        }
        all.insert(name, begun);
        Ok(())
    }

    /// Whether this was begun. It is over where it may not go on, or ends.
    fn goes_on(&self, name: &Name, asked: &Operation, is_over: bool) -> Result<(), Status> {
        let mut all = self.0.lock();
        let known = all.get_mut(name).filter(|known| known.is(asked));
        let known = known.ok_or_else(|| Status::failed_precondition("it was never begun"))?;
        known.heard = asked.heard;
        if is_over {
            all.remove(name);
        }
        Ok(())
    }
}

impl Operation {
    fn is(&self, other: &Self) -> bool {
        self.api == other.api
            && self.operation == other.operation
            && self.credential == other.credential
    }
}

/// Judges by what the directory holds now.
pub(super) fn check(
    control: &Control,
    begun: &Begun,
    peer: WorkloadId,
    request: CheckRequest,
) -> Result<CheckResponse, Status> {
    let phase = match Phase::try_from(request.phase) {
        Ok(Phase::Unspecified) | Err(_) => {
            return Err(Status::invalid_argument("a phase nobody knows here"));
        }
        Ok(phase) => phase,
    };
    let credential = request.credential.as_ref();
    let credential = credential.ok_or_else(|| Status::invalid_argument("no credential"))?;
    let reference = CredentialRef::try_from(credential.clone())
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let (caller, judged) = judge(control, &reference, &request)?;
    let consumer = caller.map(|caller| caller.consumer.name.to_string());
    let (decision, (reason, detail)) = match (judged, phase) {
        (Ok(()), _) => (Decision::Allow, ("", String::new())),
        (Err(why), Phase::Start) => (Decision::Deny, why),
        (Err(why), _) => (Decision::Cut, why),
    };
    let is_over = phase == Phase::End || decision != Decision::Allow;
    let name = (peer, request.operation_id);
    let operation = Operation {
        api: request.api,
        operation: request.operation,
        credential: reference,
        heard: Instant::now(),
    };
    match phase {
        // Asked about a single call, it has no name and nothing goes on.
        Phase::Start if is_over || name.1.is_empty() => {}
        Phase::Start => begun.begin(name, operation)?,
        Phase::Continue | Phase::End | Phase::Unspecified => {
            begun.goes_on(&name, &operation, is_over)?;
        }
    }
    Ok(CheckResponse {
        decision: decision.into(),
        reason: reason.to_owned(),
        detail,
        consumer: consumer.unwrap_or_default(),
        failure: OnUnavailable::FailClosed.into(),
        valid_millis: VALID,
        stale_ok_millis: match decision {
            Decision::Allow => STALE_OK,
            _ => 0,
        },
    })
}

/// The code of the denial, as in problem documents, and what to add.
type Why = (&'static str, String);
/// Whose a credential is, and why the call may not pass.
type Judged = (Option<Arc<Caller>>, Result<(), Why>);

/// Whose the credential is, and whether the call may pass.
fn judge(
    control: &Control,
    reference: &CredentialRef,
    request: &CheckRequest,
) -> Result<Judged, Status> {
    if !control.facts_known() {
        return Err(Status::unavailable("the store was never read"));
    }
    let published = control.bundles().publishes(&request.api);
    let published = published.ok_or_else(|| Status::unavailable("policy was never read"))?;
    let caller = control.inner.index.read().resolve(reference).caller;
    let judged = match &caller {
        _ if !published => Err(("unknown_api", "nobody published such an API".to_owned())),
        None => Err((
            "credential_invalid",
            "nobody has this credential".to_owned(),
        )),
        Some(caller) => decide_remote(caller, &request.api, &request.operation, now())
            .map_err(|why| reason(&why)),
    };
    Ok((caller, judged))
}

fn reason(why: &WhyNot) -> Why {
    let code = match why {
        WhyNot::Suspended => "consumer_suspended",
        WhyNot::NotSubscribed => "not_subscribed",
        WhyNot::NotInPlan => "not_in_plan",
        WhyNot::CredentialExpired => "credential_invalid",
        WhyNot::CredentialRestricted => "credential_restricted",
        WhyNot::Terms { terms, version } => {
            let detail = format!("version {version} of `{terms}` has to be accepted");
            return ("terms_not_accepted", detail);
        }
        _ => "not_permitted",
    };
    (code, String::new())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_floods_is_held_to_its_pace_and_others_are_not() {
        let pace = Pace::default();
        let (flooder, other): (WorkloadId, WorkloadId) = (
            "spiffe://shop/gateway/edge".parse().unwrap(),
            "spiffe://shop/service/orders".parse().unwrap(),
        );
        let (here, there) = (Some([192, 0, 2, 7].into()), Some([192, 0, 2, 8].into()));
        let begun = Instant::now();
        let asked = |who: &WorkloadId, from, number: usize, after: u64| {
            let now = begun + Duration::from_secs(after);
            let passes = |_: &usize| pace.count(who.clone(), from, now).is_ok();
            (0..number).filter(passes).count()
        };
        assert_eq!(asked(&flooder, here, 1000, 0), 400);
        assert_eq!(asked(&flooder, here, 1000, 1), 200);
        assert_eq!(asked(&other, here, 100, 1), 100);
        assert_eq!(
            asked(&flooder, there, 100, 1),
            100,
            "another node of its kind"
        );
        assert_eq!(asked(&flooder, here, 1000, 60), 400);
    }

    fn operation(user: &str) -> Operation {
        Operation {
            api: "shop".to_owned(),
            operation: "export".to_owned(),
            credential: CredentialRef::User(user.into()),
            heard: Instant::now(),
        }
    }

    fn name(service: &str) -> Name {
        let id = format!("spiffe://tollgate.internal/service/{service}");
        (id.parse().unwrap(), "1".to_owned())
    }

    #[test]
    fn only_what_was_begun_goes_on_by_whom_and_as_it_was() {
        let (begun, orders) = (Begun::default(), name("orders"));
        let ann = operation("ann");
        assert!(begun.goes_on(&orders, &ann, false).is_err(), "never begun");
        begun.begin(orders.clone(), operation("ann")).unwrap();
        begun.goes_on(&orders, &ann, false).unwrap();
        assert!(begun.goes_on(&name("stock"), &ann, false).is_err());
        assert!(begun.goes_on(&orders, &operation("bob"), false).is_err());
        assert!(begun.begin(orders.clone(), operation("bob")).is_err());
        begun.goes_on(&orders, &ann, true).unwrap();
        assert!(begun.goes_on(&orders, &ann, false).is_err(), "it is over");
        begun.begin(orders, operation("bob")).unwrap();
    }
}
