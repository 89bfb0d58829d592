//! Between the wire and the types the rest of the program speaks: what is sent is said in full, what arrives is believed in nothing.
//!
//! A type that stands for itself has `From<&Type> for wire::Type` and `TryFrom<wire::Type> for Type`; what takes more than one message,
//! or leaves out what a message needs, is a function. A part that is missing, an enum that is zero or unknown, a text or a list beyond
//! its limit makes the whole message [`Malformed`]; nothing is replaced by a default. Whatever several parts of a message have in
//! common, such as the limits of a plan, is held once. Not here: how long a message may be in all, which is the transport's to say.

mod announcement;
mod audit;
mod caller;
mod lease;
mod limit;
mod terms;
mod usage;

pub use announcement::{FastLane, changes_event, revoked_sets};
pub use audit::{audit_records, audit_request};
pub use caller::{refused_resolve, resolve_questions, resolve_request, resolve_response, resolved};
pub use lease::{
    counters, lease_asks, leased, leases_request, leases_response, refused_leases, written_counters,
};
pub use terms::{about, document, json_document, terms_response, terms_texts};
pub use usage::{Received, refused_usage, usage_receipt};

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tollgate_policy::credentials::Digest;
use tollgate_policy::directory::Plan;
use tollgate_policy::quota::Limit;
use tollgate_policy::time::Timestamp;

use crate::wire;

/// Elements a list may have.
pub const LONGEST_LIST: usize = 10_000;

/// Bytes of a name or a sentence.
pub const LONGEST_TEXT: usize = 4 * 1024;

/// Bytes of what strangers chose: users, clients and subjects of tokens, and the counters named after them. As long as a
/// request's head may be, so that what one of them shows never spoils the message that others stand in as well.
pub const LONGEST_CLAIM: usize = 64 * 1024;

/// Bytes of a document: terms, and what consumers see of themselves.
pub const LONGEST_DOCUMENT: usize = 1024 * 1024;

/// A message that cannot be used: by which of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of the control plane's conversation is malformed: {0}")]
pub struct Malformed(pub &'static str);

/// What several parts of one message have in common, kept once.
#[derive(Default)]
struct Common {
    limits: HashMap<Arc<str>, Arc<Limit>>,
    plans: HashMap<Arc<str>, Arc<Plan>>,
}

impl Common {
    fn limit(&mut self, limit: wire::Limit) -> Result<Arc<Limit>, Malformed> {
        let limit = Limit::try_from(limit)?;
        if let Some(known) = self.limits.get(&limit.id)
            && **known == limit
        {
            return Ok(Arc::clone(known));
        }
        let limit = Arc::new(limit);
        self.limits
            .insert(Arc::clone(&limit.id), Arc::clone(&limit));
        Ok(limit)
    }

    fn plan(&mut self, plan: wire::Plan) -> Result<Arc<Plan>, Malformed> {
        let plan = caller::plan(plan, self)?;
        if let Some(known) = self.plans.get(&plan.name)
            && **known == plan
        {
            return Ok(Arc::clone(known));
        }
        let plan = Arc::new(plan);
        self.plans.insert(Arc::clone(&plan.name), Arc::clone(&plan));
        Ok(plan)
    }
}

/// A part that has to be there.
fn needed<T>(part: Option<T>, field: &'static str) -> Result<T, Malformed> {
    part.ok_or(Malformed(field))
}

/// A text of at most `longest` bytes.
fn bounded(text: String, longest: usize, field: &'static str) -> Result<String, Malformed> {
    if text.len() > longest {
        return Err(Malformed(field));
    }
    Ok(text)
}

/// A sentence, or a name that may be missing.
fn text(text: String, field: &'static str) -> Result<Arc<str>, Malformed> {
    bounded(text, LONGEST_TEXT, field).map(Arc::from)
}

/// What a stranger chose.
fn claim(text: String, field: &'static str) -> Result<Arc<str>, Malformed> {
    bounded(text, LONGEST_CLAIM, field).map(Arc::from)
}

/// A name without which its message says nothing.
fn name(text: String, field: &'static str) -> Result<Arc<str>, Malformed> {
    if text.is_empty() {
        return Err(Malformed(field));
    }
    self::text(text, field)
}

/// A list of at most [`LONGEST_LIST`] elements.
fn list<T, U>(
    elements: Vec<T>,
    field: &'static str,
    read: impl FnMut(T) -> Result<U, Malformed>,
) -> Result<Vec<U>, Malformed> {
    if elements.len() > LONGEST_LIST {
        return Err(Malformed(field));
    }
    elements.into_iter().map(read).collect()
}

fn texts(elements: Vec<String>, field: &'static str) -> Result<Vec<Arc<str>>, Malformed> {
    list(elements, field, |element| text(element, field))
}

fn to_texts(texts: &[Arc<str>]) -> Vec<String> {
    texts.iter().map(|text| text.to_string()).collect()
}

/// Names of operations; missing: all.
fn operations(
    operations: Option<wire::Operations>,
    field: &'static str,
) -> Result<Option<Vec<Arc<str>>>, Malformed> {
    operations
        .map(|operations| texts(operations.names, field))
        .transpose()
}

fn to_operations(operations: Option<&[Arc<str>]>) -> Option<wire::Operations> {
    operations.map(|names| wire::Operations {
        names: to_texts(names),
    })
}

fn digest(bytes: Vec<u8>, field: &'static str) -> Result<Digest, Malformed> {
    bytes.try_into().map(Digest).map_err(|_| Malformed(field))
}

/// A point in time; of parts of a millisecond nothing is kept.
fn time(time: prost_types::Timestamp, field: &'static str) -> Result<Timestamp, Malformed> {
    if !(0..1_000_000_000).contains(&time.nanos) {
        return Err(Malformed(field));
    }
    let millis = i128::from(time.seconds) * 1000 + i128::from(time.nanos / 1_000_000);
    i64::try_from(millis)
        .map(Timestamp::from_millis)
        .map_err(|_| Malformed(field))
}

fn needed_time(
    part: Option<prost_types::Timestamp>,
    field: &'static str,
) -> Result<Timestamp, Malformed> {
    time(needed(part, field)?, field)
}

fn to_time(time: Timestamp) -> prost_types::Timestamp {
    let millis = i32::try_from(time.millis().rem_euclid(1000)).unwrap_or(0);
    prost_types::Timestamp {
        seconds: time.seconds(),
        nanos: millis * 1_000_000,
    }
}

/// Whole milliseconds; what is longer than can be written is as good as endless.
fn to_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The beginning of a text that may be longer than it can be sent.
fn cut(text: &str) -> String {
    let mut end = text.len().min(LONGEST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]
mod tests;
