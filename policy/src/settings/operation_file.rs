//! `x-tollgate` and the operation entries of the API file: as written, and turned into what they mean.

use std::time::Duration;

use serde::Deserialize;

use super::acl_file::{Scope, WrittenRule, rules};
use super::authoriser_file::failure;
use super::cost_file::{WrittenCosts, costs};
use super::decode::{Text, decode};
use super::overload_file::priority;
use super::reader::Reader;
use super::reference::References;
use super::usage_file::durability;
use super::value::{self, Wrong};
use super::{Effect, OperationSettings, Recheck, RuleConfig, SecurityMode};
use crate::finding::{Finding, Place};
use crate::source::{Document, Node};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenOperation {
    timeouts: Option<WrittenTimeouts>,
    retries: Option<Text>,
    upgrade: Option<Vec<Text>>,
    max_body: Option<Text>,
    priority: Option<Text>,
    durability: Option<Text>,
    stale_ok: Option<Text>,
    on_unavailable: Option<Text>,
    recheck: Option<WrittenRecheck>,
    security: Option<Text>,
    acl: Option<Vec<WrittenRule>>,
    cost: Option<WrittenCosts>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTimeouts {
    total: Option<Text>,
    first_byte: Option<Text>,
    idle: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRecheck {
    every: Option<Text>,
    bytes: Option<Text>,
    messages: Option<Text>,
}

/// Reads `x-tollgate` as it stands in an OpenAPI file. References are not honoured there: a description may come from
/// somebody who must not read our environment.
///
/// # Errors
/// The first mistake, with its place.
pub fn from_node(document: &Document, node: &Node) -> Result<OperationSettings, Finding> {
    let references = References::unread();
    let (written, findings) = decode::<WrittenOperation>(document, node, &references);
    if let Some(finding) = findings.into_iter().next() {
        return Err(finding);
    }
    let mut reader = Reader::on(document);
    let settings = settings(&mut reader, "x-tollgate", &written.unwrap_or_default());
    let first = |mut findings: Vec<Finding>| findings.swap_remove(0);
    reader.finish(Some(settings)).map_err(first)
}

/// What holds where [`from_node`] cannot read `node`: nothing, but that rules nobody can read let nobody pass.
pub fn unreadable(node: &Node, place: &Place) -> OperationSettings {
    let closed = || RuleConfig {
        name: "unreadable".into(),
        effect: Effect::Deny,
        operations: Vec::new(),
        consumers: Vec::new(),
        projects: Vec::new(),
        organisations: Vec::new(),
        plans: Vec::new(),
        scopes: Vec::new(),
        roles: Vec::new(),
        networks: Vec::new(),
        not_before: None,
        not_after: None,
        hours: None,
        when: None,
        shadow: false,
        place: place.clone(),
    };
    OperationSettings {
        acl: node.get("acl").map(|_| vec![closed()]),
        ..OperationSettings::default()
    }
}

/// The meaning of one entry; mistakes go to `reader`.
pub(super) fn settings(
    reader: &mut Reader,
    field: &str,
    written: &WrittenOperation,
) -> OperationSettings {
    let within = |name: &str| format!("{field}.{name}");
    let unsaid = WrittenTimeouts::default();
    let timeouts = written.timeouts.as_ref().unwrap_or(&unsaid);
    let mut timeout = |name: &str, text: &Option<Text>| {
        let name = within(&format!("timeouts.{name}"));
        reader.value(&name, text.as_ref(), value::duration)
    };
    let total = timeout("total", &timeouts.total);
    let first_byte = timeout("first_byte", &timeouts.first_byte);
    let idle = timeout("idle", &timeouts.idle);
    let security = written.security.as_ref();
    let security = reader.value(&within("security"), security, value::security);
    let upgrades = reader.list(&within("upgrade"), written.upgrade.as_ref(), upgrade);
    let acl = written.acl.as_ref();
    let acl = acl.map(|list| rules(reader, &within("acl"), list, Scope::Operation));
    let cost = written.cost.as_ref();
    let costs = cost.map(|it| costs(reader, &within("cost"), it));
    let retries = |text: &str| value::number(text, 0, 3);
    let (body, kept) = (written.max_body.as_ref(), written.durability.as_ref());
    let recheck = written.recheck.as_ref();
    let recheck = recheck.map(|it| recheck_of(reader, &within("recheck"), it));
    OperationSettings {
        acl,
        costs,
        recheck,
        total,
        first_byte,
        idle,
        retries: reader.value(&within("retries"), written.retries.as_ref(), retries),
        websocket: written.upgrade.as_ref().map(|_| !upgrades.is_empty()),
        max_body: reader.value(&within("max_body"), body, value::size),
        durability: reader.value(&within("durability"), kept, durability),
        priority: reader.value(&within("priority"), written.priority.as_ref(), priority),
        stale_ok: reader.value(
            &within("stale_ok"),
            written.stale_ok.as_ref(),
            value::duration,
        ),
        on_unavailable: reader.value(
            &within("on_unavailable"),
            written.on_unavailable.as_ref(),
            failure,
        ),
        security_off: security.map(|mode| mode == SecurityMode::Off),
    }
}

fn recheck_of(reader: &mut Reader, field: &str, written: &WrittenRecheck) -> Recheck {
    let within = |name: &str| format!("{field}.{name}");
    let messages = |text: &str| value::number(text, 1, u64::from(u32::MAX));
    let every = reader.value(&within("every"), written.every.as_ref(), often);
    Recheck {
        every: every.unwrap_or(Recheck::default().every),
        bytes: reader.value(&within("bytes"), written.bytes.as_ref(), value::size),
        messages: reader.value(&within("messages"), written.messages.as_ref(), messages),
    }
}

/// Calls that go on are looked through once a second.
fn often(text: &str) -> Result<Duration, Wrong> {
    let every = value::duration(text)?;
    match every >= Duration::from_secs(1) {
        true => Ok(every),
        false => Err(Wrong::new(
            format!("`{text}` is more often than is looked"),
            "write 1s or more",
        )),
    }
}

fn upgrade(text: &str) -> Result<(), Wrong> {
    match text {
        "websocket" => Ok(()),
        _ => Err(Wrong::new(
            format!("`{text}` is no upgrade we know"),
            "write websocket",
        )),
    }
}
