//! API keys: made, shown once, rotated with an overlap, revoked.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_policy::credentials::Digest;
use tollgate_policy::credentials::key::make_key;
use tollgate_policy::directory::Revoked;
use tollgate_policy::time::Timestamp;

use super::call::{Call, Reply, new_name, texts, time};
use super::ownership::{changeable, shown};
use super::plans::plain;
use super::problem::Problem;
use crate::Control;
use crate::control::now;
use crate::index::{Edit, FileKey};
use crate::refusal::Refusal;
use crate::secret_file::random;
use crate::store::{Connection, KeyRow, RevocationRow};
use crate::text::{hex, network_text, parse_days, parse_network, put};

/// How long an old key goes on beside its successor, where nothing else is asked for.
const OVERLAP: &str = "24h";
/// Keys a consumer may have.
const KEYS: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    name: Option<String>,
    not_before: Option<String>,
    expires: Option<String>,
    operations: Option<Vec<String>>,
    #[serde(default)]
    networks: Vec<String>,
    #[serde(default)]
    referrers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    overlap: Option<String>,
    expires: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    #[serde(default)]
    reason: String,
}

fn view(control: &Control, row: &KeyRow) -> Value {
    let revoked = Revoked::Key(row.digest);
    let written = |at: Option<Timestamp>| at.map(|at| at.to_string());
    json!({
        "id": &*row.id,
        "consumer": &*row.consumer,
        "name": &*row.name,
        "created_at": row.created_at.to_string(),
        "not_before": written(row.not_before),
        "expires": written(row.expires),
        "operations": row.operations.as_deref().map(plain),
        "networks": row.networks.iter().map(network_text).collect::<Vec<_>>(),
        "referrers": plain(&row.referrers),
        "revoked": control.inner.index.read().is_revoked(&revoked),
        "origin": { "kind": "store" },
    })
}

pub(super) async fn list(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let consumer = call.path("consumer");
    // A consumer has few keys: the list has one page.
    let wanted = call.page()?;
    let mut items: Vec<Value> = {
        let index = control.inner.index.read();
        if !index.consumers.contains_key(consumer) {
            return Err(Refusal::missing("consumer", consumer).into());
        }
        let keys = index
            .file_keys
            .iter()
            .filter(|(_, k)| *k.consumer == *consumer);
        let view = |(id, key): (&Arc<str>, &FileKey)| {
            json!({
                "id": &**id,
                "consumer": consumer,
                "name": &*key.name,
                "revoked": index.is_revoked(&Revoked::Key(key.digest)),
                "origin": shown(&key.origin),
            })
        };
        keys.map(view).collect()
    };
    let store = control.store()?;
    let rows = KeyRow::of_consumer(&mut *store.read().await?, consumer).await?;
    items.extend(rows.iter().map(|row| view(control, row)));
    Ok(wanted.reply(items, None))
}

/// A new key with the given limits; its secret is in the answer and nowhere else.
async fn make(
    control: &Control,
    on: &mut Connection,
    mut row: KeyRow,
) -> Result<(KeyRow, String), Problem> {
    let (number, secret) = match (random::<8>(), random::<16>()) {
        (Ok(number), Ok(secret)) => (number, secret),
        (Err(error), _) | (_, Err(error)) => {
            return Err(Refusal::Unavailable(error.to_string()).into());
        }
    };
    let secret = make_key(&control.inner.key_environment, secret);
    row.id = format!("key_{}", hex(&number)).into();
    row.digest = control.inner.pepper.digest(&secret);
    if row.name.is_empty() {
        row.name = row.id.replace('_', "-").into();
    }
    let held = KeyRow::of_consumer(&mut *on, &row.consumer).await?;
    if held.len() >= KEYS {
        let why = format!("a consumer has at most {KEYS} keys; delete old ones");
        return Err(Refusal::invalid("consumer", why).into());
    }
    if held.iter().any(|key| key.name == row.name) {
        return Err(Refusal::differs("key", &row.name).into());
    }
    row.insert(on).await?;
    Ok((row, secret))
}

pub(super) async fn create(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let wanted = call.body::<NewKey>()?.row(call.path("consumer"))?;
    let mut change = control.begin().await?;
    if !control
        .inner
        .index
        .read()
        .consumers
        .contains_key(&wanted.consumer)
    {
        return Err(Refusal::missing("consumer", &wanted.consumer).into());
    }
    let (row, secret) = make(control, change.on(), wanted).await?;
    let mut shown = view(control, &row);
    change.note(call.entry("key.create", &row.id, json!({ "after": shown })));
    change.edit(Edit::Key(row));
    change.commit().await?;
    put(&mut shown, "secret", secret);
    Ok(Reply::created(shown))
}

impl NewKey {
    fn row(self, consumer: &str) -> Result<KeyRow, Refusal> {
        let name = self.name.as_deref().map(|name| new_name("name", name));
        let operations = self.operations.as_deref();
        let networks = texts("networks", &self.networks)?;
        let network = |text: &Arc<str>| {
            let why = format!("`{text}` is no network; write 192.0.2.0/24, host bits clear");
            parse_network(text).ok_or_else(|| Refusal::invalid("networks", why))
        };
        Ok(KeyRow {
            id: Arc::from(""),
            consumer: Arc::from(consumer),
            name: name.transpose()?.unwrap_or_else(|| Arc::from("")),
            digest: Digest([0; 32]),
            created_at: now(),
            not_before: time("not_before", self.not_before.as_ref())?,
            expires: time("expires", self.expires.as_ref())?,
            operations: operations
                .map(|list| texts("operations", list))
                .transpose()?,
            networks: networks.iter().map(network).collect::<Result<_, _>>()?,
            referrers: texts("referrers", &self.referrers)?,
        })
    }
}

pub(super) async fn rotate(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let body: Rotation = call.body()?;
    let overlap = body.overlap.as_deref().unwrap_or(OVERLAP);
    // A key that leaked is replaced without any: 0s.
    let overlap = parse_days(overlap).map_err(|why| Refusal::invalid("overlap", why))?;
    let expires = time("expires", body.expires.as_ref())?;
    let mut change = control.begin().await?;
    let mut old = stored(control, change.on(), call.path("key")).await?;
    if control
        .inner
        .index
        .read()
        .is_revoked(&Revoked::Key(old.digest))
    {
        return Err(Refusal::invalid("key", "it was revoked; create a new one").into());
    }
    let at = now();
    let successor = KeyRow {
        name: Arc::from(""),
        created_at: at,
        not_before: None,
        expires: expires.or(old.expires),
        ..old.clone()
    };
    let (new, secret) = make(control, change.on(), successor).await?;
    let end = at.plus(overlap);
    let end = old.expires.map_or(end, |before| before.min(end));
    old.expires = Some(end);
    KeyRow::expire(change.on(), &old.id, end).await?;
    let mut shown = view(control, &new);
    let detail = json!({ "old_expires": end.to_string(), "after": shown });
    change.note(call.entry("key.rotate", &old.id, detail));
    put(&mut shown, "replaces", view(control, &old));
    change.edit(Edit::Key(old));
    change.edit(Edit::Key(new));
    change.commit().await?;
    put(&mut shown, "secret", secret);
    Ok(Reply::created(shown))
}

/// A key made through the API.
async fn stored(control: &Control, on: &mut Connection, id: &str) -> Result<KeyRow, Refusal> {
    if let Some(key) = control.inner.index.read().file_keys.get(id) {
        changeable("key", id, &key.origin)?;
    }
    let found = KeyRow::find(on, id).await?;
    found.ok_or_else(|| Refusal::missing("key", id))
}

/// Revoking restricts, so it holds for keys of files as well.
pub(super) async fn revoke(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let id = call.path("key");
    let reason = super::revocations::reason(call.body::<Reason>()?.reason)?;
    let mut change = control.begin().await?;
    let of_file = control.inner.index.read().file_keys.get(id).cloned();
    let (digest, mut shown) = match of_file {
        Some(FileKey { digest, origin, .. }) => {
            (digest, json!({ "id": id, "origin": shown(&origin) }))
        }
        None => {
            let row = stored(control, change.on(), id).await?;
            (row.digest, view(control, &row))
        }
    };
    let what = Revoked::Key(digest);
    if !control.inner.index.read().is_revoked(&what) {
        let entry = call.entry("key.revoke", id, json!({ "reason": reason }));
        RevocationRow::insert(change.on(), &what, &reason, entry.at).await?;
        change.note(entry);
        change.edit(Edit::Revoked(what));
        change.commit().await?;
    }
    put(&mut shown, "revoked", true);
    Ok(Reply::shown(shown))
}

pub(super) async fn delete(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let mut change = control.begin().await?;
    let row = stored(control, change.on(), call.path("key")).await?;
    KeyRow::delete(change.on(), &row.id).await?;
    let before = view(control, &row);
    change.note(call.entry("key.delete", &row.id, json!({ "before": before })));
    change.edit(Edit::NoKey {
        consumer: row.consumer,
        digest: row.digest,
    });
    change.commit().await?;
    Ok(Reply::done())
}
