//! Terms: documents, their versions, and who accepted them.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_policy::directory::TermsVersion;
use tollgate_proto::Acceptance;

use super::call::{Call, Reply, new_name, text, texts, time};
use super::ownership::{changeable, same, shown};
use super::plans::plain;
use super::problem::Problem;
use super::projects::{in_use, page};
use crate::Control;
use crate::control::now;
use crate::index::{Edit, Index, Terms};
use crate::refusal::Refusal;
use crate::service::record;
use crate::store::{AcceptanceRow, TermsRow};
use crate::text::{hex, parse_days, put};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTerms {
    name: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    apis: Vec<String>,
    #[serde(default)]
    shadow: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewVersion {
    version: Option<u32>,
    effective: Option<String>,
    grace: Option<String>,
    text: String,
    #[serde(default)]
    purpose_required: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAcceptance {
    consumer: String,
    version: u32,
    text_hash: Option<String>,
    #[serde(default)]
    purpose: String,
}

fn summary(name: &str, terms: &Terms) -> Value {
    let versions = terms.versions.iter().map(|(version, _)| view(version));
    json!({
        "name": name,
        "title": terms.title,
        "apis": plain(&terms.apis),
        "shadow": terms.shadow,
        "versions": versions.collect::<Vec<_>>(),
        "origin": shown(&terms.origin),
    })
}

fn view(version: &TermsVersion) -> Value {
    json!({
        "version": version.version,
        "effective": version.effective.to_string(),
        "enforced": version.effective.plus(version.grace).to_string(),
        "text_hash": &*version.text_hash,
        "purpose_required": version.purpose_required,
    })
}

/// With the texts.
fn full(name: &str, terms: &Terms) -> Value {
    let mut full = summary(name, terms);
    let versions = terms.versions.iter().map(|(version, text)| {
        let mut shown = view(version);
        put(&mut shown, "text", text.to_string());
        shown
    });
    put(&mut full, "versions", versions.collect::<Vec<_>>());
    full
}

fn find<'a>(index: &'a Index, name: &str) -> Result<&'a Terms, Refusal> {
    let terms = index.terms.get(name);
    terms.ok_or_else(|| Refusal::missing("terms", name))
}

pub(super) fn list(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let wanted = call.page()?;
    let index = control.inner.index.read();
    let show = |name: &Arc<str>, terms: &Terms| summary(name, terms);
    Ok(page(&wanted, &index.terms, show))
}

pub(super) fn show(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let name = call.path("terms");
    let index = control.inner.index.read();
    Ok(Reply::shown(full(name, find(&index, name)?)))
}

pub(super) async fn create(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let body: NewTerms = call.body()?;
    if !body.title.is_empty() {
        text("title", &body.title)?;
    }
    let row = TermsRow {
        name: new_name("name", &body.name)?,
        title: body.title,
        apis: texts("apis", &body.apis)?,
        shadow: body.shadow,
    };
    let name = Arc::clone(&row.name);
    let mut change = control.begin().await?;
    if let Some(held) = control.inner.index.read().terms.get(&name) {
        let equal = held.title == row.title && held.apis == row.apis && held.shadow == row.shadow;
        same("terms", &name, &held.origin, equal)?;
        return Ok(Reply::shown(summary(&name, held)));
    }
    let detail = json!({ "after": { "apis": plain(&row.apis), "shadow": row.shadow } });
    let entry = call.entry("terms.create", &name, detail);
    row.insert(change.on(), entry.at).await?;
    change.note(entry);
    change.edit(Edit::Terms(row));
    change.commit().await?;
    let index = control.inner.index.read();
    Ok(Reply::created(summary(&name, find(&index, &name)?)))
}

/// Of a document nobody requires and nobody accepted, nothing is left to keep.
pub(super) async fn delete(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let name = call.path("terms");
    let mut change = control.begin().await?;
    let before = {
        let index = control.inner.index.read();
        let terms = find(&index, name)?;
        changeable("terms", name, &terms.origin)?;
        if let Some(by) = index.user_of_terms(name, terms) {
            return Err(in_use("terms", name, by));
        }
        summary(name, terms)
    };
    TermsRow::delete(change.on(), name).await?;
    change.note(call.entry("terms.delete", name, json!({ "before": before })));
    change.edit(Edit::NoTerms(Arc::from(name)));
    change.commit().await?;
    Ok(Reply::done())
}

/// A version is never changed, only followed by the next.
pub(super) async fn create_version(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let name: Arc<str> = Arc::from(call.path("terms"));
    let (wanted, asked, text) = call.body::<NewVersion>()?.read()?;
    let mut change = control.begin().await?;
    let version = {
        let index = control.inner.index.read();
        let terms = find(&index, &name)?;
        changeable("terms", &name, &terms.origin)?;
        let last = terms.versions.last().map_or(0, |(v, _)| v.version);
        let number = asked.unwrap_or(last.saturating_add(1));
        let version = TermsVersion {
            version: number,
            ..wanted
        };
        if let Some((held, _)) = terms.versions.iter().find(|(v, _)| v.version == number) {
            same(
                "terms",
                &format!("{name} version {number}"),
                &terms.origin,
                *held == version,
            )?;
            return Ok(Reply::shown(full(&name, terms)));
        }
        if number != last.saturating_add(1) {
            let why = format!("the next version is {}", last.saturating_add(1));
            return Err(Refusal::invalid("version", why).into());
        }
        version
    };
    TermsRow::add(change.on(), &name, &version, &text).await?;
    let detail = json!({ "after": view(&version) });
    change.note(call.entry("terms.version", &name, detail));
    let terms = Arc::clone(&name);
    change.edit(Edit::Version {
        terms,
        version,
        text,
    });
    change.commit().await?;
    let index = control.inner.index.read();
    Ok(Reply::created(full(&name, find(&index, &name)?)))
}

impl NewVersion {
    /// The version, its number where one is asked for, and the text.
    fn read(self) -> Result<(TermsVersion, Option<u32>, Arc<str>), Refusal> {
        if self.text.trim().is_empty() {
            return Err(Refusal::invalid("text", "a document has a text"));
        }
        let grace = self.grace.as_deref().map(parse_days).transpose();
        let grace = grace.map_err(|why| Refusal::invalid("grace", why))?;
        let version = TermsVersion {
            version: 0,
            effective: time("effective", self.effective.as_ref())?.unwrap_or_else(now),
            grace: grace.unwrap_or(Duration::ZERO),
            text_hash: hex(digest(&SHA256, self.text.as_bytes()).as_ref()).into(),
            purpose_required: self.purpose_required,
        };
        Ok((version, self.version, Arc::from(self.text)))
    }
}

pub(super) async fn list_acceptances(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let name = call.path("terms");
    let wanted = call.page()?;
    find(&control.inner.index.read(), name)?;
    let store = control.store()?;
    let after = wanted.after_number()?;
    let mut connection = store.read().await?;
    let rows = AcceptanceRow::page(&mut connection, name, after, wanted.limit_number()).await?;
    let last = rows.last().map(|row| row.seq.to_string());
    let view = |row: &AcceptanceRow| {
        json!({
            "seq": row.seq,
            "consumer": &*row.consumer,
            "credential": &*row.credential,
            "terms": &*row.terms,
            "version": row.version,
            "text_hash": &*row.text_hash,
            "purpose": &*row.purpose,
            "at": row.at.to_string(),
            "from": row.from.map(|a| a.to_string()),
        })
    };
    Ok(wanted.reply(rows.iter().map(view).collect(), last))
}

/// An operator records what a consumer agreed to elsewhere, on paper for instance.
pub(super) async fn record_acceptance(control: &Control, call: &Call) -> Result<Reply, Problem> {
    let body: NewAcceptance = call.body()?;
    let acceptance = Acceptance {
        consumer: body.consumer.into(),
        credential: Arc::from("operator"),
        terms: Arc::from(call.path("terms")),
        version: body.version,
        text_hash: body.text_hash.map(Arc::from),
        purpose: body.purpose,
        at: now(),
        from: call.from(),
    };
    let shown = json!({
        "consumer": &*acceptance.consumer,
        "terms": &*acceptance.terms,
        "version": acceptance.version,
        "at": acceptance.at.to_string(),
    });
    record(control, acceptance, Some("admin")).await?;
    Ok(Reply::created(shown))
}
