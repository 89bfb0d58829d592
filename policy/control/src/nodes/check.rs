//! `Check`: may this call pass? The slow way, for whoever holds no policy, and for operations that take long: asked at their start, now
//! and then while they go on, and at their end.
//!
//! What is not understood is denied, and so is what nobody published. Each phase is judged by what holds then, by the rules that nodes
//! have; nothing is remembered between them, so that a control plane that was restarted knows as much as before. Each node asks at a
//! bounded [`Pace`], so that one that floods holds up neither revocations nor quota of the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tollgate_policy::access::{Told, WhyNot, decide_remote};
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

/// Scopes and roles of a token, each.
const MOST_NAMES: usize = 1000;

/// Judges by what holds now.
pub(super) fn check(control: &Control, request: &CheckRequest) -> Result<CheckResponse, Status> {
    let phase = match Phase::try_from(request.phase) {
        Ok(Phase::Unspecified) | Err(_) => {
            return Err(Status::invalid_argument("a phase nobody knows here"));
        }
        Ok(phase) => phase,
    };
    let (caller, judged) = judge(control, request)?;
    let consumer = caller.map(|caller| caller.consumer.name.to_string());
    let (decision, (reason, detail)) = match (judged, phase) {
        (Ok(()), _) => (Decision::Allow, ("", String::new())),
        (Err(why), Phase::Start) => (Decision::Deny, why),
        (Err(why), _) => (Decision::Cut, why),
    };
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
fn judge(control: &Control, request: &CheckRequest) -> Result<Judged, Status> {
    let credential = request.credential.clone();
    let credential = credential.ok_or_else(|| Status::invalid_argument("no credential"))?;
    let credential = CredentialRef::try_from(credential)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    if !control.facts_known() {
        return Err(Status::unavailable("the store was never read"));
    }
    let (api, bundles) = (&request.api, control.bundles());
    let published = bundles.publishes(api);
    let published = published.ok_or_else(|| Status::unavailable("policy was never read"))?;
    let caller = control.inner.index.read().resolve(&credential).caller;
    let deny = |code, detail: &str| Err((code, detail.to_owned()));
    if !published {
        let why = deny("unknown_api", "nobody published such an API");
        return Ok((caller, why));
    }
    let Some(known) = &caller else {
        let why = deny("credential_invalid", "nobody has this credential");
        return Ok((None, why));
    };
    let access = bundles.access(api);
    let access = access.ok_or_else(|| Status::unavailable("its files were not read yet"))?;
    let Some(operation) = access.operation(&request.operation) else {
        let why = deny("unknown_operation", "the API has no such operation");
        return Ok((caller, why));
    };
    let (scopes, roles) = (names(&request.scopes)?, names(&request.roles)?);
    let told = Told {
        credential: &credential,
        caller: known,
        scopes: &scopes,
        roles: &roles,
        client: client(&request.client)?,
        referrer: Some(&*request.referrer).filter(|it| !it.is_empty()),
    };
    let judged = decide_remote(&access, api, operation, told, now()).map_err(reason);
    Ok((caller, judged))
}

fn names(told: &[String]) -> Result<Vec<Arc<str>>, Status> {
    if told.len() > MOST_NAMES {
        return Err(Status::invalid_argument("too many scopes or roles"));
    }
    Ok(told.iter().map(|name| Arc::from(&**name)).collect())
}

/// Empty: it is not known.
fn client(told: &str) -> Result<Option<IpAddr>, Status> {
    match told {
        "" => Ok(None),
        told => told
            .parse()
            .map(Some)
            .map_err(|_| Status::invalid_argument("`client` is no address")),
    }
}

fn reason(why: WhyNot) -> Why {
    match why {
        WhyNot::Suspended => ("consumer_suspended", String::new()),
        WhyNot::NotSubscribed => ("not_subscribed", String::new()),
        WhyNot::NotInPlan => ("not_in_plan", String::new()),
        WhyNot::CredentialExpired => ("credential_invalid", "outside its time".to_owned()),
        WhyNot::CredentialRestricted => ("credential_restricted", String::new()),
        WhyNot::Scope(scope) => ("scope_missing", format!("the scope `{scope}` is missing")),
        WhyNot::Terms { terms, version } => {
            let detail = format!("version {version} of `{terms}` has to be accepted");
            ("terms_not_accepted", detail)
        }
        WhyNot::Undecidable => {
            let detail =
                "only a node can tell: a condition, an authoriser or what was not told decides";
            ("policy_unavailable", detail.to_owned())
        }
        WhyNot::Network | WhyNot::Acl | WhyNot::Authoriser => ("not_permitted", String::new()),
    }
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
}
