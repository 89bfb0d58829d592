//! `Check`: may this call pass? The slow way, for whoever holds no policy, and for operations that take long: asked at their start, now
//! and then while they go on, and at their end.
//!
//! What is not understood is denied. Nothing is kept between the phases: each is judged by what holds then.

use tollgate_policy::access::{WhyNot, decide_remote};
use tollgate_policy::directory::CredentialRef;
use tollgate_proto::wire::{CheckRequest, CheckResponse, OnUnavailable};
use tollgate_proto::wire::{check_request::Phase, check_response::Decision};
use tonic::Status;

use crate::Control;
use crate::control::now;

/// How long an answer may be believed, in milliseconds.
const VALID: u64 = 10_000;
/// How long beyond, while nobody answers.
const STALE_OK: u64 = 300_000;

/// Judges by what the directory holds now.
pub(super) fn check(control: &Control, request: CheckRequest) -> Result<CheckResponse, Status> {
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
    if !control.facts_known() {
        return Err(Status::unavailable("the store was never read"));
    }
    let caller = control.inner.index.read().resolve(&reference).caller;
    let judged = match &caller {
        None => Err((
            "credential_invalid",
            "nobody has this credential".to_owned(),
        )),
        Some(caller) => decide_remote(caller, &request.api, &request.operation, now())
            .map_err(|why| reason(&why)),
    };
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
fn reason(why: &WhyNot) -> (&'static str, String) {
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
