//! `acl` and `networks`: as written, and turned into rules. Not here: compiling conditions, and judging.

use std::sync::Arc;

use serde::Deserialize;

use super::decode::Text;
use super::names;
use super::reader::Reader;
use super::value::{self, Wrong};
use super::{Effect, Network, NetworkLists, RuleConfig};
use crate::access::LONGEST_EXPRESSION;

/// Rules of one list. More belong into roles and plans.
const MAX_RULES: usize = 1_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenRule {
    name: Text,
    effect: Text,
    operations: Option<Vec<Text>>,
    consumers: Option<Vec<Text>>,
    projects: Option<Vec<Text>>,
    organisations: Option<Vec<Text>>,
    plans: Option<Vec<Text>>,
    scopes: Option<Vec<Text>>,
    roles: Option<Vec<Text>>,
    networks: Option<Vec<Text>>,
    not_before: Option<Text>,
    not_after: Option<Text>,
    hours: Option<Text>,
    when: Option<Text>,
    shadow: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenNetworks {
    allow: Option<Vec<Text>>,
    deny: Option<Vec<Text>>,
    shadow: Option<Text>,
}

/// Where rules stand: on the API they may name operations, on an operation they are about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Api,
    Operation,
}

/// The meaning of a list of rules; mistakes go to `reader`.
pub(super) fn rules(
    reader: &mut Reader,
    field: &str,
    written: &[WrittenRule],
    scope: Scope,
) -> Vec<RuleConfig> {
    let mut found: Vec<RuleConfig> = Vec::new();
    for (at, written) in written.iter().enumerate() {
        if at == MAX_RULES {
            let wrong = Wrong::new(
                format!("has more than {MAX_RULES} rules"),
                "say it with roles, plans or an authoriser",
            );
            reader.refuse(field, &written.name, wrong);
            break;
        }
        let Some(rule) = rule(reader, field, written, scope) else {
            continue;
        };
        if let Some(first) = found.iter().find(|other| other.name == rule.name) {
            let wrong = Wrong::new(
                format!(
                    "`{}` stands twice, first in line {}",
                    rule.name, first.place.line
                ),
                "give each rule a name of its own: explanations and counters speak of it",
            );
            reader.refuse(&format!("{field}.name"), &written.name, wrong);
        }
        found.push(rule);
    }
    found
}

fn rule(
    reader: &mut Reader,
    field: &str,
    written: &WrittenRule,
    scope: Scope,
) -> Option<RuleConfig> {
    let at = &written.name;
    let within = |inner: &str| format!("{field}.{inner}");
    if let (Scope::Operation, Some(_)) = (scope, &written.operations) {
        let wrong = Wrong::new(
            "cannot stand here: the rule is about the operation it hangs on",
            "remove it, or move the rule to `acl` of the API file",
        );
        reader.refuse(&within("operations"), at, wrong);
    }
    let mut some = |inner: &str, list: &Option<Vec<Text>>, parse: Parse| {
        reader.some(&within(inner), at, list.as_ref(), parse)
    };
    let operations = some("operations", &written.operations, names::line);
    let consumers = some("consumers", &written.consumers, names::object);
    let projects = some("projects", &written.projects, names::object);
    let organisations = some("organisations", &written.organisations, names::object);
    let plans = some("plans", &written.plans, names::object);
    let scopes = some("scopes", &written.scopes, names::word);
    let roles = some("roles", &written.roles, names::word);
    let networks = written.networks.as_ref();
    let networks = reader.some(&within("networks"), at, networks, value::network);
    let name = reader.value(&within("name"), Some(at), names::object);
    let effect = reader.value(&within("effect"), Some(&written.effect), effect);
    let (not_before, not_after) = times(reader, field, written);
    let hours = reader.value(&within("hours"), written.hours.as_ref(), value::hours);
    let when = reader.value(&within("when"), written.when.as_ref(), condition);
    let shadow = reader.value(&within("shadow"), written.shadow.as_ref(), value::switch);
    Some(RuleConfig {
        name: name?,
        effect: effect?,
        operations,
        consumers,
        projects,
        organisations,
        plans,
        scopes,
        roles,
        networks,
        not_before,
        not_after,
        hours,
        when,
        shadow: shadow.unwrap_or_default(),
        place: reader.place(at),
    })
}

type Parse = fn(&str) -> Result<Arc<str>, Wrong>;

type Times = (
    Option<crate::time::Timestamp>,
    Option<crate::time::Timestamp>,
);

fn times(reader: &mut Reader, field: &str, written: &WrittenRule) -> Times {
    let before = written.not_before.as_ref();
    let after = written.not_after.as_ref();
    let from = reader.value(&format!("{field}.not_before"), before, value::moment);
    let until = reader.value(&format!("{field}.not_after"), after, value::moment);
    if let (Some(from), Some(until), Some(at)) = (from, until, after)
        && until <= from
    {
        let wrong = Wrong::new(
            "is not later than `not_before`, so the rule never matches",
            "write a later time",
        );
        reader.refuse(&format!("{field}.not_after"), at, wrong);
    }
    (from, until)
}

fn effect(text: &str) -> Result<Effect, Wrong> {
    match text {
        "allow" => Ok(Effect::Allow),
        "deny" => Ok(Effect::Deny),
        _ => Err(Wrong::new(
            format!("`{text}` is neither allow nor deny"),
            "write one of them",
        )),
    }
}

fn condition(text: &str) -> Result<Arc<str>, Wrong> {
    let text = text.trim();
    if (1..=LONGEST_EXPRESSION).contains(&text.len()) {
        return Ok(text.into());
    }
    Err(Wrong::new(
        format!("is no condition of at most {LONGEST_EXPRESSION} bytes"),
        "write one in CEL, such as path.book == claims.book, or leave the decision to an `authoriser`",
    ))
}

/// The meaning of `networks`; mistakes go to `reader`.
pub(super) fn networks(reader: &mut Reader, written: Option<&WrittenNetworks>) -> NetworkLists {
    let Some(written) = written else {
        return NetworkLists::default();
    };
    let place = reader.key("networks");
    if written.allow.as_ref().is_some_and(Vec::is_empty) {
        let what = "`networks.allow`: is empty".to_owned();
        let remedy = "name at least one network, or remove the field, which means any".to_owned();
        reader.push("bad-value", place.clone(), what, remedy);
    }
    let allow = reader.list("networks.allow", written.allow.as_ref(), value::network);
    let deny = reader.list("networks.deny", written.deny.as_ref(), value::network);
    let denied = |network: &Network| deny.iter().any(|wide| covers(wide, network));
    if !allow.is_empty() && allow.iter().all(denied) {
        reader.warn(
            "never-matches",
            place.clone(),
            "`networks`: `deny` covers all of `allow`, so nobody may call".to_owned(),
            "`deny` wins; make it narrower",
        );
    }
    let shadow = reader.value("networks.shadow", written.shadow.as_ref(), value::switch);
    NetworkLists {
        allow,
        deny,
        shadow: shadow.unwrap_or_default(),
        place: Some(place),
    }
}

fn covers(wide: &Network, narrow: &Network) -> bool {
    wide.prefix <= narrow.prefix && wide.contains(narrow.address)
}

#[cfg(test)]
mod tests;
