//! What the directory alone says about a call, for whoever asks the control plane because it holds no policy of the API: rules of the API
//! itself (ACL, networks, scopes) are not part of it.

use super::WhyNot;
use super::standing::{Standing, standing};
use crate::directory::Caller;
use crate::time::Timestamp;

/// Whether a caller may use `operation` (label-safe name) of `api` now. Nobody passes without a plan.
///
/// # Errors
/// Why not.
pub fn decide_remote(
    caller: &Caller,
    api: &str,
    operation: &str,
    now: Timestamp,
) -> Result<(), WhyNot> {
    let (consumer, credential) = (&*caller.consumer, &caller.credential);
    if consumer.suspended {
        return Err(WhyNot::Suspended);
    }
    let begun = credential.not_before.is_none_or(|start| start <= now);
    if !begun || credential.expires.is_some_and(|end| end <= now) {
        return Err(WhyNot::CredentialExpired);
    }
    let opens = |names: &Option<Vec<std::sync::Arc<str>>>| {
        let names = names.as_deref();
        names.is_none_or(|names| names.iter().any(|name| **name == *operation))
    };
    // Where it may be used from is not known here.
    let anywhere = credential.networks.is_empty() && credential.referrers.is_empty();
    if !anywhere || !opens(&credential.operations) {
        return Err(WhyNot::CredentialRestricted);
    }
    let subscription = consumer.subscription(api).ok_or(WhyNot::NotSubscribed)?;
    let mut parts = subscription.plan.apis.iter();
    if !parts.any(|part| (*part.api == *api || &*part.api == "*") && opens(&part.operations)) {
        return Err(WhyNot::NotInPlan);
    }
    for duty in subscription.duties.iter().filter(|duty| !duty.shadow) {
        if let Standing::Due { version } = standing(duty, now) {
            let terms = duty.terms.clone();
            return Err(WhyNot::Terms { terms, version });
        }
    }
    Ok(())
}
