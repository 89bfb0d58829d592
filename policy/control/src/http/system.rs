//! The control plane itself: health, audit log, backup, reload.

use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::call::{Call, Reply};
use super::problem::Problem;
use crate::control::ReloadError;
use crate::refusal::{Refusal, chain};
use crate::{Control, audit};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    file: String,
}

/// Open to everybody: says whether changes are possible, not why not.
pub(super) fn health(control: &Control) -> Reply {
    let store = if control.store_problem().is_none() {
        "ok"
    } else {
        "unavailable"
    };
    Reply::shown(json!({ "status": "ok", "store": store }))
}

pub(super) async fn list_audit(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let wanted = call.page()?;
    let store = control.store()?;
    let records = audit::page(&store, wanted.after_number()?, wanted.limit_number()).await?;
    let last = records.last().map(|record| record.seq.to_string());
    let items = records.iter().map(|record| json!(record));
    Ok(wanted.reply(items.collect(), last))
}

pub(super) async fn verify_audit(control: &Control) -> Result<Reply, Problem> {
    let store = control.store()?;
    let verdict = audit::verify(&store, &control.inner.state_dir).await?;
    Ok(Reply::shown(json!(verdict)))
}

/// Never over an existing file, and readable by its owner only.
pub(super) async fn backup(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let Target { file } = call.body()?;
    if !Path::new(&file).is_absolute() || file.contains('\0') {
        let why = "an absolute path on the control plane's machine";
        return Err(Refusal::invalid("file", why).into());
    }
    let store = control.store()?;
    // Noted first, so that the copy says of itself where it went.
    let mut change = control.begin().await?;
    change.note(call.entry("backup", &file, json!({})));
    change.commit().await?;
    let done = store.backup(Path::new(&file)).await;
    done.map_err(|error| Refusal::invalid("file", chain(&error)))?;
    Ok(Reply::created(json!({ "file": file })))
}

pub(super) async fn reload(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let reloaded = control.reload().await.map_err(|error| match error {
        ReloadError::Files(_) => Refusal::Files(error.to_string()),
        ReloadError::Store(error) => error.into(),
    })?;
    let detail = json!({ "generation": reloaded.generation });
    // Without a store the files count all the same.
    if let Err(error) = control.note(call.entry("reload", "", detail)).await {
        tracing::warn!(%error, "the reload could not be noted in the audit log");
    }
    let store = control.store_problem();
    Ok(Reply::shown(json!({
        "generation": reloaded.generation,
        "remarks": reloaded.remarks,
        "store": store.as_deref().unwrap_or("ok"),
    })))
}
