//! Quota: what is limited, what a call costs, and the algorithm that hands quota out in advance.
//!
//! A [`Limit`] is what a plan or an API promises to allow. For one caller and one operation it becomes a counter
//! ([`CounterKey`]), kept by the grantor. A process that serves calls draws tokens from all counters a call touches in one step
//! and spends them locally. Pure: time comes in as a value, and nothing here waits.

mod account;
mod book;
pub mod cell;
mod credit;
pub mod grantor;
mod lease;
pub mod sync;
mod window;
mod word;

use std::fmt;
use std::sync::Arc;

pub use book::Standing;
pub use cell::Cell;
pub use grantor::{Alert, Balance, Grantor};
pub use lease::{Counter, EmergencyShare, HolderId, LeaseAsk, LeaseGrant};
pub use window::{Instance, Window};

use crate::directory::Defined;

/// A promise of a plan or an API: so much, in such a window, to such a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Unique: `plan/<plan>/<name>`, `api/<api>/<name>`.
    pub id: Arc<str>,
    /// As written: `[a-z0-9-]`, unique within its owner; what headers, problems and metrics show.
    pub name: Arc<str>,
    /// What is counted.
    pub metric: Metric,
    /// How much, in the metric's unit. 0 allows nothing.
    pub amount: u64,
    /// In which time. [`Metric::Concurrent`] has none: [`Window::Gauge`].
    pub window: Window,
    /// Set: a token bucket of this capacity that refills by `amount` per window. Windows below ten seconds are always buckets, of
    /// capacity `amount` where nothing else is written; the others start anew at their end.
    pub burst: Option<u64>,
    /// Who shares it.
    pub subject: Subject,
    /// Which calls share it.
    pub scope: Scope,
    /// The operations it is about, as in [`crate::directory::PlanApi`]; `None`: all. Those named share one counter unless
    /// `scope` is [`Scope::Operation`].
    pub operations: Option<Vec<Arc<str>>>,
    /// What happens when nobody can say whether quota is left.
    pub on_unavailable: OnUnavailable,
    /// Which of the calls that get nothing from the service count all the same.
    pub counts: Counts,
    /// Counted and reported, not enforced.
    pub shadow: bool,
    /// Where it was defined.
    pub origin: Defined,
}

impl Limit {
    /// Whether a part of it may be spent while nobody grants.
    pub fn has_emergency_share(&self) -> bool {
        self.on_unavailable == OnUnavailable::Degraded && self.window != Window::Gauge
    }
}

/// Which calls count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counts {
    /// Those that reached the service.
    #[default]
    Reached,
    /// Also those that were refused when their caller was known, those that failed on the way to the service, and, of a limit on calls of
    /// all operations, those to no operation at all. Not those the limit itself refused, and not concurrency.
    Tried,
}

/// The name of cost units whose publisher chose none.
pub const UNNAMED_METER: &str = "units";

/// Names of cost units, beside [`UNNAMED_METER`], that one call may cost something in.
pub const METERS_PER_CALL: usize = 16;

/// Names of cost units that all operations of an API may cost something in.
pub const METERS_PER_API: usize = 64;

/// Bytes of a name of cost units.
pub const LONGEST_METER: usize = 63;

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// Calls that reached the service.
    Calls,
    /// Bytes of request and response bodies.
    Bytes,
    /// Micro-units of the plan's currency. A limit on money is a spend cap: it answers 402.
    Money,
    /// Calls under way at the same time.
    Concurrent,
    /// Messages of streams, both ways.
    Messages,
    /// Whole seconds streams are open.
    StreamSeconds,
    /// Cost units of a name of the publisher's choice, `units` where it chose none.
    Units(Arc<str>),
}

impl Metric {
    /// As written in files.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Calls => "calls",
            Self::Bytes => "bytes",
            Self::Money => "money",
            Self::Concurrent => "concurrent",
            Self::Messages => "messages",
            Self::StreamSeconds => "stream_seconds",
            Self::Units(name) => name,
        }
    }

    /// From what is written: any name that means nothing else is one of cost units.
    pub fn named(name: &str) -> Self {
        match name {
            "calls" => Self::Calls,
            "bytes" => Self::Bytes,
            "money" => Self::Money,
            "concurrent" => Self::Concurrent,
            "messages" => Self::Messages,
            "stream_seconds" => Self::StreamSeconds,
            other => Self::Units(other.into()),
        }
    }
}

/// Who shares a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Subject {
    /// All consumers of all projects of the organisation.
    Organisation,
    /// All consumers of the project.
    Project,
    /// The consumer (the default). A caller without a consumer counts by its address.
    #[default]
    Consumer,
    /// The credential.
    Credential,
    /// The end user: `sub` of the token, within its consumer. Without a token: the credential.
    EndUser,
    /// The client address, IPv6 by /64.
    Address,
    /// Everybody together.
    Everybody,
}

impl Subject {
    /// As written in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Organisation => "organisation",
            Self::Project => "project",
            Self::Consumer => "consumer",
            Self::Credential => "credential",
            Self::EndUser => "end_user",
            Self::Address => "address",
            Self::Everybody => "everybody",
        }
    }
}

/// Which calls share a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Scope {
    /// Calls of all APIs the limit's owner reaches.
    Everything,
    /// Calls of one API (the default).
    #[default]
    Api,
    /// Calls of one operation.
    Operation,
}

/// What happens to a call when the grantor cannot be reached and what was handed out is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum OnUnavailable {
    /// It passes, and is counted later.
    FailOpen,
    /// It passes as long as an emergency credit of 5 % of the limit lasts, then it is refused (the default).
    #[default]
    Degraded,
    /// It is refused with 503.
    FailClosed,
}

/// The names of a counter: one per limit, subject and scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CounterKey {
    /// [`Limit::id`].
    pub limit: Arc<str>,
    /// Name of the API; empty where several share the counter.
    pub api: Arc<str>,
    /// Label-safe name of the operation; empty where several share the counter.
    pub operation: Arc<str>,
    /// `consumer:shop`, `project:web`, `address:192.0.2.7`, `everybody`.
    pub subject: Arc<str>,
}

impl fmt::Display for CounterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.limit, self.subject)?;
        if !self.api.is_empty() {
            write!(f, " at {}", self.api)?;
        }
        if !self.operation.is_empty() {
            write!(f, " for {}", self.operation)?;
        }
        Ok(())
    }
}

/// What a call of an operation costs in one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The metric it is counted in. [`Metric::Calls`] costs 1 where nothing is written, [`Metric::Bytes`] what they are.
    pub metric: Metric,
    /// What is reserved before the call.
    pub reserve: u64,
    /// What it comes to.
    pub source: CostSource,
}

/// Where the cost of a call is taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CostSource {
    /// [`Cost::reserve`] is all.
    Fixed,
    /// A path parameter's whole number, `reserve` where it is none; known before the call.
    Path(Arc<str>),
    /// A query parameter's whole number, the largest where it is repeated, `reserve` where it is missing or none; known before the call.
    Query(Arc<str>),
    /// A request header's whole number, the largest where it is repeated, `reserve` where it is missing or none; known before the call.
    Header(Arc<str>),
    /// A whole number in the service's response header, which callers do not see; settled after the call.
    ResponseHeader(Arc<str>),
    /// One for each so many bytes of response body begun; settled after the call.
    ResponseBytes {
        /// Bytes per unit, at least 1.
        per: u64,
    },
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]
mod tests;
