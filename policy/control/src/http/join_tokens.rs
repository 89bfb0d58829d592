//! Tokens that let a node join, and the roots that nodes believe.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_policy::workload::{Kind, WorkloadId};

use super::call::{Call, Reply};
use super::problem::Problem;
use crate::Control;
use crate::ca::{Ca, CaError, RootView};
use crate::control::now;
use crate::nodes::tokens;
use crate::refusal::{Refusal, chain};
use crate::secret_file::random;
use crate::store::JoinTokenRow;
use crate::text::{hex, parse_days, put};

/// How long a token counts where nothing is said, and the bounds of what may be said.
const LIFETIME: &str = "1h";
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// Tokens are listed for so long after they expired.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// Tokens at once.
const TOKENS: i64 = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    service: Option<String>,
    gateway: Option<String>,
    lifetime: Option<String>,
}

impl NewToken {
    /// Who may join by it.
    fn identity(&self, domain: &str) -> Result<WorkloadId, Refusal> {
        let (kind, field, name) = match (&self.service, &self.gateway) {
            (Some(name), None) => (Kind::Service, "service", name),
            (None, Some(name)) => (Kind::Gateway, "gateway", name),
            (Some(_), Some(_)) | (None, None) => {
                return Err(Refusal::invalid("service", "name a service, or a gateway"));
            }
        };
        let wrong = |_| Refusal::invalid(field, "1 to 63 of a-z, 0-9 and -");
        WorkloadId::new(domain, kind, name).map_err(wrong)
    }

    fn lifetime(&self) -> Result<Duration, Refusal> {
        let text = self.lifetime.as_deref().unwrap_or(LIFETIME);
        let lifetime = parse_days(text).map_err(|why| Refusal::invalid("lifetime", why))?;
        if (SHORTEST..=LONGEST).contains(&lifetime) {
            return Ok(lifetime);
        }
        Err(Refusal::invalid("lifetime", "from 1m to 7d"))
    }
}

fn authority(control: &Control) -> Result<&Arc<Ca>, Refusal> {
    let why = "this control plane has no port for nodes; start it with one";
    let ca = control.inner.ca.get();
    ca.ok_or_else(|| Refusal::invalid("ca", why))
}

fn view(row: &JoinTokenRow) -> Value {
    let used_by = Some(&*row.used_by).filter(|node| !node.is_empty());
    json!({
        "id": &*row.id,
        "identity": &*row.identity,
        "created_at": row.created_at.to_string(),
        "expires": row.expires.to_string(),
        "used_at": row.used_at.map(|at| at.to_string()),
        "used_by": used_by,
    })
}

pub(super) async fn list(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let wanted = call.page()?;
    let store = control.store()?;
    let mut connection = store.read().await?;
    let after = wanted.after.as_deref().unwrap_or_default();
    let rows = JoinTokenRow::page(&mut connection, after, wanted.limit_number()).await?;
    let last = rows.last().map(|row| row.id.to_string());
    Ok(wanted.reply(rows.iter().map(view).collect(), last))
}

pub(super) async fn create(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let body: NewToken = call.body()?;
    let ca = authority(control)?;
    let identity = body.identity(ca.domain())?;
    let lifetime = body.lifetime()?;
    let unavailable = |error: std::io::Error| Refusal::Unavailable(error.to_string());
    let secret = random::<16>().map_err(unavailable)?;
    let number = random::<8>().map_err(unavailable)?;
    let token = tokens::text(secret, &ca.fingerprint());
    let at = now();
    let row = JoinTokenRow {
        id: format!("join_{}", hex(&number)).into(),
        digest: control.inner.pepper.digest(&token),
        identity: identity.to_string().into(),
        created_at: at,
        expires: at.plus(lifetime),
        used_at: None,
        used_by: Arc::from(""),
    };
    let mut change = control.begin().await?;
    JoinTokenRow::forget(change.on(), at.minus(REMEMBERED)).await?;
    if JoinTokenRow::count(change.on()).await? >= TOKENS {
        let why = format!("there are {TOKENS} already; delete some");
        return Err(Refusal::invalid("tokens", why).into());
    }
    row.insert(change.on()).await?;
    let mut shown = view(&row);
    change.note(call.entry("join_token.create", &row.id, json!({ "after": shown })));
    change.commit().await?;
    put(&mut shown, "token", token);
    Ok(Reply::created(shown))
}

pub(super) async fn delete(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let id = call.path("token");
    let mut change = control.begin().await?;
    if !JoinTokenRow::delete(change.on(), id).await? {
        return Err(Refusal::missing("join token", id).into());
    }
    change.note(call.entry("join_token.delete", id, json!({})));
    change.commit().await?;
    Ok(Reply::done())
}

fn roots(ca: &Ca, roots: &[RootView]) -> Value {
    let view = |root: &RootView| {
        json!({
            "fingerprint": root.fingerprint,
            "signs_from": root.signs_from.to_string(),
            "dropped_at": root.dropped_at.map(|at| at.to_string()),
        })
    };
    json!({ "domain": &**ca.domain(), "roots": roots.iter().map(view).collect::<Vec<_>>() })
}

pub(super) fn show_ca(control: &Control) -> Result<Reply, Problem> {
    let ca = authority(control)?;
    Ok(Reply::shown(roots(ca, &ca.view())))
}

pub(super) async fn rotate_ca(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let ca = authority(control)?;
    // Begun first: what cannot be noted is not done.
    let mut change = control.begin().await?;
    let rotated = ca.rotate().map_err(|error| match error {
        CaError::Exchanging { until } => Refusal::InUse {
            kind: "root",
            name: hex(&ca.fingerprint()),
            by: format!("an exchange of roots, until {until}"),
        },
        other => Refusal::Unavailable(chain(&other)),
    })?;
    let shown = roots(ca, &rotated);
    change.note(call.entry("ca.rotate", ca.domain(), json!({ "after": shown })));
    change.commit().await?;
    Ok(Reply::created(shown))
}
