//! The counters of one caller at an API, whatever operation it calls: those it is told of when it asks how its quota stands, and those
//! that count its calls to no operation at all.

use std::net::IpAddr;
use std::sync::Arc;

use tollgate_policy::access::Identity;
use tollgate_policy::quota::{Counter, Counts, Limit, Metric, Scope, Subject};

use super::cells::Varying;
use super::charges;
use crate::api::Api;
use crate::overload::network_named;

/// What the caller may see: the counters that its calls from there draw from, first of what was sold, then of what the API says itself.
/// One that counts each operation apart stands for all of them, and names none. What everybody shares says what others use, and is
/// nobody's to see.
pub fn counters(api: &Api, identity: &Identity, client: Option<IpAddr>) -> Vec<Counter> {
    let shown = |limit: &Limit| limit.subject != Subject::Everybody;
    of(api, identity, client, shown)
}

/// What a call counts against that no operation answers: limits on calls that count what was tried, whichever the operation. Those that
/// are enforced and shadows apart, as one cell holds one kind.
pub(super) fn missed(
    api: &Api,
    identity: &Identity,
    client: Option<IpAddr>,
) -> impl Iterator<Item = Vec<Counter>> {
    let counts = |limit: &Limit| {
        limit.counts == Counts::Tried
            && limit.metric == Metric::Calls
            && limit.operations.is_none()
            && limit.scope != Scope::Operation
    };
    let (shadows, enforced): (Vec<_>, Vec<_>) = of(api, identity, client, counts)
        .into_iter()
        .partition(|counter| counter.limit.shadow);
    [enforced, shadows]
        .into_iter()
        .filter(|counters| !counters.is_empty())
}

fn of(
    api: &Api,
    identity: &Identity,
    client: Option<IpAddr>,
    wanted: impl Fn(&Limit) -> bool,
) -> Vec<Counter> {
    let name = &api.config.name;
    let sold = identity.subscription(name);
    let sold = sold.map_or(&[][..], |held| &held.limits);
    let user = identity.claims.as_ref().map(|claims| &claims.subject);
    let varying = Varying {
        address: client.map(network_named),
        user: user.filter(|it| !it.is_empty()).cloned(),
    };
    let caller = identity.caller.as_deref();
    let counter = |limit: Arc<Limit>| Counter {
        key: charges::key(&limit, name, None, caller, &varying),
        limit,
    };
    let limits = sold.iter().cloned().chain(charges::own(api, caller));
    limits.filter(|it| wanted(it)).map(counter).collect()
}
