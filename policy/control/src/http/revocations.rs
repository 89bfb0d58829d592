//! Revocations of what is no key of ours: tokens, subjects, certificates, whole consumers. They win over files and stand for ever; of a
//! token that is known to have ended by itself nobody is told any more.

use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_policy::directory::Revoked;

use super::call::{Call, Reply, text, time};
use super::problem::Problem;
use crate::Control;
use crate::control::now;
use crate::index::Edit;
use crate::refusal::Refusal;
use crate::store::RevocationRow;
use crate::text::put;

/// Longest reason, in bytes.
const REASON: usize = 512;

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Token,
    Subject,
    Certificate,
    Consumer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRevocation {
    kind: Kind,
    issuer: Option<String>,
    id: Option<String>,
    subject: Option<String>,
    before: Option<String>,
    expires: Option<String>,
    name: Option<String>,
    #[serde(default)]
    reason: String,
}

/// Why something was revoked.
pub(super) fn reason(reason: String) -> Result<String, Refusal> {
    if reason.len() > REASON || reason.chars().any(char::is_control) {
        let why = format!("at most {REASON} bytes without control characters");
        return Err(Refusal::invalid("reason", why));
    }
    Ok(reason)
}

impl NewRevocation {
    fn what(&self) -> Result<Revoked, Refusal> {
        let need = |field: &'static str, value: &Option<String>| match value {
            Some(value) => text(field, value),
            None => Err(Refusal::invalid(field, "this kind needs it")),
        };
        let none = |field: &'static str, value: &Option<String>| match value {
            Some(_) => Err(Refusal::invalid(field, "this kind has none")),
            None => Ok(()),
        };
        if !matches!(self.kind, Kind::Token) {
            none("expires", &self.expires)?;
        }
        match self.kind {
            Kind::Token => {
                none("subject", &self.subject)?;
                none("before", &self.before)?;
                none("name", &self.name)?;
                let (issuer, id) = (need("issuer", &self.issuer)?, need("id", &self.id)?);
                let expires = time("expires", self.expires.as_ref())?;
                Ok(Revoked::Token {
                    issuer,
                    id,
                    expires,
                })
            }
            Kind::Subject => {
                none("id", &self.id)?;
                none("name", &self.name)?;
                Ok(Revoked::Subject {
                    issuer: need("issuer", &self.issuer)?,
                    subject: need("subject", &self.subject)?,
                    before: time("before", self.before.as_ref())?.unwrap_or_else(now),
                })
            }
            Kind::Certificate | Kind::Consumer => {
                none("issuer", &self.issuer)?;
                none("id", &self.id)?;
                none("subject", &self.subject)?;
                none("before", &self.before)?;
                let name = need("name", &self.name)?;
                Ok(match self.kind {
                    Kind::Consumer => Revoked::Consumer(name),
                    Kind::Certificate | Kind::Token | Kind::Subject => Revoked::Certificate(name),
                })
            }
        }
    }
}

fn view(what: &Revoked) -> Value {
    match what {
        // The digest of a key is nobody's business; its public identifier stands in the audit log.
        Revoked::Key(_) => json!({ "kind": "key" }),
        Revoked::Token {
            issuer,
            id,
            expires,
        } => {
            let mut shown = json!({ "kind": "token", "issuer": &**issuer, "id": &**id });
            if let Some(expires) = expires {
                put(&mut shown, "expires", expires.to_string());
            }
            shown
        }
        Revoked::Subject {
            issuer,
            subject,
            before,
        } => json!({
            "kind": "subject",
            "issuer": &**issuer,
            "subject": &**subject,
            "before": before.to_string(),
        }),
        Revoked::Certificate(name) => json!({ "kind": "certificate", "name": &**name }),
        Revoked::Consumer(name) => json!({ "kind": "consumer", "name": &**name }),
    }
}

pub(super) async fn list(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let wanted = call.page()?;
    let after = wanted.after_number()?;
    let store = control.store()?;
    let mut connection = store.read().await?;
    let rows = RevocationRow::page(&mut connection, after, wanted.limit_number()).await?;
    let last = rows.last().map(|row| row.seq.to_string());
    let view = |row: &RevocationRow| {
        let mut shown = view(&row.what);
        put(&mut shown, "seq", row.seq);
        put(&mut shown, "reason", row.reason.to_string());
        put(&mut shown, "at", row.at.to_string());
        shown
    };
    Ok(wanted.reply(rows.iter().map(view).collect(), last))
}

pub(super) async fn create(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let body: NewRevocation = call.body()?;
    let what = body.what()?;
    let reason = reason(body.reason)?;
    let mut shown = view(&what);
    put(&mut shown, "reason", reason.clone());
    let mut change = control.begin().await?;
    {
        let index = control.inner.index.read();
        if index.is_revoked(&what) {
            return Ok(Reply::shown(shown));
        }
        if let Revoked::Consumer(name) = &what
            && !index.consumers.contains_key(name)
        {
            return Err(Refusal::missing("consumer", name).into());
        }
    }
    let entry = call.entry("revocation.create", "", json!({ "after": shown }));
    RevocationRow::insert(change.on(), &what, &reason, entry.at).await?;
    change.note(entry);
    change.edit(Edit::Revoked(what));
    change.commit().await?;
    Ok(Reply::created(shown))
}
