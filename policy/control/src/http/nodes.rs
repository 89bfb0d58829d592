//! What is published, and the nodes that hold it.

use serde_json::Value;

use super::call::{Call, Reply};
use super::problem::Problem;
use crate::Control;
use crate::refusal::Refusal;

pub(super) fn list(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let nodes = control.nodes().shown(&control.bundles().generations());
    let key = |node: &Value| format!("{} {}", text(node, "node"), text(node, "run"));
    page(call, nodes, key)
}

pub(super) fn show(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let name = call.path("node");
    let mut nodes = control.nodes().shown(&control.bundles().generations());
    nodes.retain(|node| text(node, "node") == name);
    if nodes.is_empty() {
        return Err(Refusal::missing("node", name).into());
    }
    Ok(Reply::shown(serde_json::json!({ "processes": nodes })))
}

pub(super) fn list_bundles(control: &Control, call: &Call) -> Result<Reply, Problem> {
    page(call, control.bundles().shown(), |bundle| {
        text(bundle, "api").to_owned()
    })
}

/// For an API whose file went while nobody looked: a file that goes later withdraws its API by itself.
pub(super) async fn withdraw(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let api = call.path("api");
    let withdrawn = control.bundles().withdraw(api).await;
    match withdrawn.map_err(|error| Refusal::Unavailable(error.to_string()))? {
        true => Ok(Reply::done()),
        false => Err(Refusal::missing("bundle", api).into()),
    }
}

fn page(call: &Call, all: Vec<Value>, key: impl Fn(&Value) -> String) -> Result<Reply, Problem> {
    let page = call.page()?;
    let after = page.after.clone().unwrap_or_default();
    let items = all.into_iter().filter(|item| key(item) > after);
    let items: Vec<Value> = items.take(page.limit).collect();
    let last = items.last().map(&key);
    Ok(page.reply(items, last))
}

fn text<'v>(object: &'v Value, member: &str) -> &'v str {
    object
        .get(member)
        .and_then(Value::as_str)
        .unwrap_or_default()
}
