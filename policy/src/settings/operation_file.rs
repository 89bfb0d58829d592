//! `x-tollgate` and the operation entries of the API file: as written, and turned into what they mean.

use serde::Deserialize;

use super::acl_file::{Scope, WrittenRule, rules};
use super::cost_file::{WrittenCosts, costs};
use super::decode::{Text, decode};
use super::overload_file::priority;
use super::reader::Reader;
use super::reference::References;
use super::usage_file::durability;
use super::value::{self, Wrong};
use super::{Effect, OperationSettings, RuleConfig, SecurityMode};
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
    let unsaid = WrittenTimeouts::default();
    let timeouts = written.timeouts.as_ref().unwrap_or(&unsaid);
    let mut timeout = |name: &str, text: &Option<Text>| {
        reader.value(
            &format!("{field}.timeouts.{name}"),
            text.as_ref(),
            value::duration,
        )
    };
    let total = timeout("total", &timeouts.total);
    let first_byte = timeout("first_byte", &timeouts.first_byte);
    let idle = timeout("idle", &timeouts.idle);
    let security = reader.value(
        &format!("{field}.security"),
        written.security.as_ref(),
        value::security,
    );
    let upgrades = reader.list(
        &format!("{field}.upgrade"),
        written.upgrade.as_ref(),
        upgrade,
    );
    let acl = written.acl.as_ref();
    let acl = acl.map(|list| rules(reader, &format!("{field}.acl"), list, Scope::Operation));
    let cost = written.cost.as_ref();
    let costs = cost.map(|it| costs(reader, &format!("{field}.cost"), it));
    OperationSettings {
        acl,
        costs,
        total,
        first_byte,
        idle,
        retries: reader.value(
            &format!("{field}.retries"),
            written.retries.as_ref(),
            |text| value::number(text, 0, 3),
        ),
        websocket: written.upgrade.as_ref().map(|_| !upgrades.is_empty()),
        max_body: reader.value(
            &format!("{field}.max_body"),
            written.max_body.as_ref(),
            value::size,
        ),
        durability: reader.value(
            &format!("{field}.durability"),
            written.durability.as_ref(),
            durability,
        ),
        priority: reader.value(
            &format!("{field}.priority"),
            written.priority.as_ref(),
            priority,
        ),
        security_off: security.map(|mode| mode == SecurityMode::Off),
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
