//! `overrides` of a consumer: as written in files and sent as JSON, what they mean, and what becomes of a limit under one. Not here:
//! the time, which whoever keeps them holds against `expires`.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::amount;
use super::decode::{Text, decode};
use super::names;
use super::reader::Reader;
use super::reference::References;
use super::value::{self, Wrong};
use crate::directory::Defined;
use crate::finding::Finding;
use crate::quota::{Limit, Metric};
use crate::source::Document;
use crate::time::Timestamp;

/// Overrides of one consumer.
const MAX_OVERRIDES: usize = 64;

/// What one consumer is granted beyond a limit of its plan, or held to below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// [`Limit::id`] of the plan's limit: `plan/<plan>/<name>`.
    pub limit: Arc<str>,
    /// How much.
    pub quantity: Quantity,
    /// `quantity` counts also where it is less than the plan allows.
    pub cap: bool,
    /// Who answers for it.
    pub owner: Arc<str>,
    /// Why, for whoever finds it later.
    pub reason: Arc<str>,
    /// From then on it counts no more; `None`: until it is removed.
    pub expires: Option<Timestamp>,
    /// Where it was defined.
    pub origin: Defined,
}

/// As written: how much it is depends on what the limit counts, and the plan may stand elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// In place of the plan's amount.
    Amount(Arc<str>),
    /// Besides the plan's amount.
    Extra(Arc<str>),
}

impl Quantity {
    fn text(&self) -> &Arc<str> {
        match self {
            Self::Amount(text) | Self::Extra(text) => text,
        }
    }
}

impl Override {
    /// The limit as it is under this override; `None` where the quantity is none of what the limit counts, such as a size of calls.
    pub fn applied(&self, limit: &Limit) -> Option<Limit> {
        let quantity = amount::amount(&limit.metric, self.quantity.text()).ok()?;
        let amount = match &self.quantity {
            Quantity::Extra(_) => limit.amount.saturating_add(quantity),
            Quantity::Amount(_) if self.cap => quantity,
            Quantity::Amount(_) => limit.amount.max(quantity),
        };
        // What is held below its plan must not be let through at once either.
        let burst = limit.burst.map(|burst| match amount < limit.amount {
            true => burst.min(amount),
            false => burst,
        });
        Some(Limit {
            amount,
            burst,
            ..limit.clone()
        })
    }

    /// As JSON, in the shape it is written in.
    pub fn written(&self) -> Value {
        let (amount, extra) = match &self.quantity {
            Quantity::Amount(text) => (Some(&**text), None),
            Quantity::Extra(text) => (None, Some(&**text)),
        };
        let expires = self.expires.map(|at| at.to_string());
        let mut shown = json!({
            "limit": &*self.limit, "cap": self.cap, "owner": &*self.owner, "reason": &*self.reason,
        });
        let said = [
            ("amount", amount),
            ("extra", extra),
            ("expires", expires.as_deref()),
        ];
        if let Some(members) = shown.as_object_mut() {
            for (name, value) in said {
                members.extend(value.map(|value| (name.to_owned(), value.into())));
            }
        }
        shown
    }
}

/// A plan's limits as a consumer has them.
pub fn overridden(limits: &[Arc<Limit>], overrides: &[Override]) -> Vec<Arc<Limit>> {
    let under = |limit: &Arc<Limit>| {
        let found = overrides.iter().find(|it| it.limit == limit.id);
        let applied = found.and_then(|it| it.applied(limit));
        applied.map_or_else(|| Arc::clone(limit), Arc::new)
    };
    limits.iter().map(under).collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenOverride {
    limit: Text,
    amount: Option<Text>,
    extra: Option<Text>,
    cap: Option<Text>,
    owner: Text,
    reason: Text,
    expires: Option<Text>,
}

/// An override of the store, sent or kept as JSON in the shape of `consumers.yaml`.
///
/// # Errors
/// Everything that is wrong with it; places are those of `json`.
pub fn stored_override(json: &str) -> Result<Override, Vec<Finding>> {
    let document = Document::parse_json("override", json).map_err(|finding| vec![finding])?;
    let references = References::unread();
    let (written, mut findings) = decode::<WrittenOverride>(&document, &document.root, &references);
    let mut reader = Reader::on(&document);
    let meaning = written.and_then(|written| {
        let origin = Defined::Store;
        one(&mut reader, "override", &written, origin)
    });
    match reader.finish(meaning) {
        Ok(meaning) if findings.is_empty() => Ok(meaning),
        Ok(_) => Err(findings),
        Err(more) => {
            findings.extend(more);
            Err(findings)
        }
    }
}

/// The meaning of a consumer's overrides, each with the place of its quantity; mistakes go to `reader`.
pub(super) fn overrides(
    reader: &mut Reader,
    field: &str,
    written: &[WrittenOverride],
) -> Vec<Override> {
    let mut found: Vec<Override> = Vec::new();
    for (at, written) in written.iter().enumerate() {
        let limit = &written.limit;
        if at == MAX_OVERRIDES {
            let wrong = Wrong::new(
                format!("has more than {MAX_OVERRIDES} entries"),
                "give the consumer a plan of its own",
            );
            reader.refuse(field, limit, wrong);
            break;
        }
        let origin = Defined::File(reader.place(limit));
        let Some(one) = one(reader, field, written, origin) else {
            continue;
        };
        if found.iter().any(|other| other.limit == one.limit) {
            let what = format!("`{}` stands twice", one.limit);
            let wrong = Wrong::new(what, "keep one of the two");
            reader.refuse(&format!("{field}.limit"), limit, wrong);
        }
        found.push(one);
    }
    found
}

fn one(
    reader: &mut Reader,
    field: &str,
    written: &WrittenOverride,
    origin: Defined,
) -> Option<Override> {
    let within = |inner: &str| format!("{field}.{inner}");
    let limit = reader.value(&within("limit"), Some(&written.limit), limit_id);
    let amount = written.amount.as_ref();
    let amount = reader.value(&within("amount"), amount, |text| quantity(text, true));
    let extra = written.extra.as_ref();
    let extra = reader.value(&within("extra"), extra, |text| quantity(text, false));
    let cap = reader.value(&within("cap"), written.cap.as_ref(), value::switch);
    let owner = reader.value(&within("owner"), Some(&written.owner), names::line);
    let reason = reader.value(&within("reason"), Some(&written.reason), names::line);
    let expires = written.expires.as_ref();
    let expires = reader.value(&within("expires"), expires, value::moment);
    let wrong = match (&written.amount, &written.extra, cap) {
        (None, None, _) => Some(("amount", "is missing", "write `amount`, or `extra`")),
        (Some(_), Some(_), _) => Some(("extra", "stands beside `amount`", "keep one of the two")),
        (None, Some(_), Some(true)) => {
            let remedy = "write `amount`, or remove `cap`";
            Some((
                "cap",
                "holds a consumer to an `amount`, not to an `extra`",
                remedy,
            ))
        }
        (Some(_), None, _) | (None, Some(_), _) => None,
    };
    if let Some((inner, what, remedy)) = wrong {
        reader.refuse(&within(inner), &written.limit, Wrong::new(what, remedy));
        return None;
    }
    let quantity = amount.map(Quantity::Amount);
    Some(Override {
        limit: limit?,
        quantity: quantity.or_else(|| extra.map(Quantity::Extra))?,
        cap: cap.unwrap_or_default(),
        owner: owner?,
        reason: reason?,
        expires,
        origin,
    })
}

fn limit_id(text: &str) -> Result<Arc<str>, Wrong> {
    let mut parts = text.split('/');
    let named = |part: Option<&str>| part.is_some_and(|part| names::object(part).is_ok());
    if parts.next() == Some("plan")
        && named(parts.next())
        && named(parts.next())
        && parts.next().is_none()
    {
        return Ok(text.into());
    }
    Err(Wrong::new(
        format!("`{text}` is no limit of a plan"),
        "write plan/<plan>/<name of the limit>, such as plan/basic/calls-per-minute",
    ))
}

/// An amount of anything that is counted.
fn quantity(text: &str, zero: bool) -> Result<Arc<str>, Wrong> {
    let read = [Metric::Calls, Metric::Bytes, Metric::Money]
        .iter()
        .find_map(|metric| amount::amount(metric, text).ok());
    match read {
        Some(0) if !zero => Err(Wrong::new(
            "adds nothing",
            "write how much more there is, or `amount` with `cap: on`",
        )),
        Some(_) => Ok(text.into()),
        None => Err(Wrong::new(
            format!("`{text}` is no amount"),
            "write it as the limit does: 500, 10MiB, 12.50",
        )),
    }
}

#[cfg(test)]
mod tests;
