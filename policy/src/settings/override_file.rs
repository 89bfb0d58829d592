//! `overrides` of organisations, projects and consumers: as written in files and sent as JSON, what they mean, and what becomes of a
//! limit under one. Not here: the time, which whoever keeps them holds against `expires`.

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
use crate::quota::{Limit, Metric, Subject};
use crate::source::Document;
use crate::time::Timestamp;

/// Overrides of one organisation, project or consumer.
const MAX_OVERRIDES: usize = 64;

/// Who is granted something. A counter is one grantee's at most, so whoever shares it has the same limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grantee {
    /// All consumers of an organisation together.
    Organisation,
    /// All consumers of a project together.
    Project,
    /// A consumer, each of its credentials, each of its end users.
    Consumer,
}

impl Grantee {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Organisation, Self::Project, Self::Consumer];

    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Organisation => "organisation",
            Self::Project => "project",
            Self::Consumer => "consumer",
        }
    }

    /// Whose the counters of a limit are; `None`: those of an address, or everybody's.
    pub const fn of(subject: Subject) -> Option<Self> {
        match subject {
            Subject::Organisation => Some(Self::Organisation),
            Subject::Project => Some(Self::Project),
            Subject::Consumer | Subject::Credential | Subject::EndUser => Some(Self::Consumer),
            Subject::Address | Subject::Everybody => None,
        }
    }

    /// Why a limit cannot be overridden for it, and what to do instead; `None`: it can.
    pub fn is_none_of(self, limit: &Limit) -> Option<(String, String)> {
        let owner = Self::of(limit.subject);
        if owner == Some(self) {
            return None;
        }
        let (id, per, own) = (&limit.id, limit.subject.as_str(), self.as_str());
        let what = format!("`{id}` is a limit per {per}, and cannot be another for one {own}");
        let remedy = match owner {
            Some(owner) => format!("override it for the {}", owner.as_str()),
            None => format!("change the limit itself, or write one that is `per: {own}`"),
        };
        Some((what, remedy))
    }
}

/// What is granted beyond a limit of a plan or an API, or what is held below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// [`Limit::id`]: `plan/<plan>/<name>` or `api/<api>/<name>`.
    pub limit: Arc<str>,
    /// How much.
    pub quantity: Quantity,
    /// `quantity` counts also where it is less than the limit allows.
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

/// An override as whoever charges calls has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitOverride {
    /// Who is granted it.
    pub grantee: Grantee,
    /// [`Limit::id`].
    pub limit: Arc<str>,
    /// How much.
    pub quantity: Quantity,
    /// `quantity` counts also where it is less than the limit allows.
    pub cap: bool,
}

/// As written: how much it is depends on what the limit counts, and the limit may stand elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// In place of the limit's amount.
    Amount(Arc<str>),
    /// Besides the limit's amount.
    Extra(Arc<str>),
}

impl Quantity {
    fn text(&self) -> &Arc<str> {
        match self {
            Self::Amount(text) | Self::Extra(text) => text,
        }
    }

    /// A limit with this quantity; `None` where it is none of what the limit counts, such as a size of calls.
    fn of(&self, limit: &Limit, cap: bool) -> Option<Limit> {
        let quantity = amount::amount(&limit.metric, self.text()).ok()?;
        let amount = match self {
            Self::Extra(_) => limit.amount.saturating_add(quantity),
            Self::Amount(_) if cap => quantity,
            Self::Amount(_) => limit.amount.max(quantity),
        };
        // What is held below its limit must not be let through at once either.
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
}

impl Override {
    /// The limit as it is under this override; `None` where the quantity is none of what the limit counts, such as a size of calls.
    pub fn applied(&self, limit: &Limit) -> Option<Limit> {
        self.quantity.of(limit, self.cap)
    }

    /// What of it whoever charges calls of this grantee has to know.
    pub fn told(&self, grantee: Grantee) -> LimitOverride {
        LimitOverride {
            grantee,
            limit: Arc::clone(&self.limit),
            quantity: self.quantity.clone(),
            cap: self.cap,
        }
    }

    /// The API whose limit it is about; `None`: it is about a plan's.
    pub fn api(&self) -> Option<&str> {
        let (api, _) = self.limit.strip_prefix("api/")?.split_once('/')?;
        Some(api)
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

/// Limits as a caller has them that was granted this.
pub fn overridden(limits: &[Arc<Limit>], overrides: &[LimitOverride]) -> Vec<Arc<Limit>> {
    limits.iter().map(|limit| under(limit, overrides)).collect()
}

/// A limit as a caller has it that was granted this. What is not for the limit's subject does not change it: whoever shares its
/// counter has no other limit.
pub fn under(limit: &Arc<Limit>, overrides: &[LimitOverride]) -> Arc<Limit> {
    let grantee = Grantee::of(limit.subject);
    let found = overrides
        .iter()
        .find(|it| it.limit == limit.id && Some(it.grantee) == grantee);
    let applied = found.and_then(|it| it.quantity.of(limit, it.cap));
    applied.map_or_else(|| Arc::clone(limit), Arc::new)
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

/// The meaning of the overrides of one grantee, each with its place; mistakes go to `reader`.
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
                "make a plan of its own instead",
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
    let limit = reader.value(&within("limit"), Some(&written.limit), names::limit_id);
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
            Some(("cap", "holds to an `amount`, not to an `extra`", remedy))
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
