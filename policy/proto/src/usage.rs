//! Usage on its way from a data plane to the intake: what was served, numbered without gaps.
//!
//! A record is known by (node, run, shard, sequence). The intake stores the number it expects next in the same transaction as
//! what it adds up, so a batch that comes twice changes nothing, and a number that is skipped is a provable loss.

use std::fmt;
use std::sync::Arc;

use tollgate_policy::time::Timestamp;

use crate::Meters;

/// One life of a process that writes records; random, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub u128);

/// 32 lower-case hexadecimal digits.
impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Records of one shard that follow on each other.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageBatch {
    /// The node that served the calls; unique in the installation.
    pub node: Arc<str>,
    /// The life of its process.
    pub run: RunId,
    /// The writer within the process, usually one per worker.
    pub shard: u32,
    /// Number of the first record; the others follow without a gap. Numbers begin at 0.
    pub first: u64,
    /// The records.
    pub records: Vec<UsageRecord>,
    /// After these records the run ended in order: there are no more.
    pub closing: bool,
}

/// One call that was admitted, or what a service without API reports.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageRecord {
    /// When it ended.
    pub at: Timestamp,
    /// Who pays.
    pub organisation: Arc<str>,
    /// The organisation's project.
    pub project: Arc<str>,
    /// The consumer; empty for calls of nobody in particular.
    pub consumer: Arc<str>,
    /// The API.
    pub api: Arc<str>,
    /// Label-safe name of the operation.
    pub operation: Arc<str>,
    /// The plan; empty for none.
    pub plan: Arc<str>,
    /// The plan's price version; 0 for none.
    pub price_version: u32,
    /// Currency of the plan's prices (ISO 4217), as it was when the call was made; empty where nobody said it.
    pub currency: Arc<str>,
    /// How it ended.
    pub outcome: UsageOutcome,
    /// Calls: 1 for a call that reached the service, 0 for one that is not charged.
    pub calls: u32,
    /// Cost units by name.
    pub units: Meters,
    /// Micro-units of the currency.
    pub money: u64,
    /// Bytes of request body.
    pub request_bytes: u64,
    /// Bytes of response body.
    pub response_bytes: u64,
    /// Estimated CPU time the gateway spent on it.
    pub cpu_nanos: u64,
    /// From its head to the end of its answer.
    pub micros: u64,
    /// Whole seconds a stream was open; 0 for what is none.
    pub stream_seconds: u64,
    /// Messages of a stream that the caller sent.
    pub request_messages: u64,
    /// Messages of a stream that the caller got.
    pub response_messages: u64,
}

/// How a call ended, as far as usage is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UsageOutcome {
    /// The service answered below 400.
    Served,
    /// The service answered 400 to 499.
    ClientError,
    /// The service answered 500 or more.
    ServerError,
    /// The service was not reached, or did not answer.
    Failed,
    /// The client left, or was cut off, before the end.
    Aborted,
}

impl UsageOutcome {
    /// All, in order.
    pub const ALL: [Self; 5] = [
        Self::Served,
        Self::ClientError,
        Self::ServerError,
        Self::Failed,
        Self::Aborted,
    ];

    /// As shown and stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }
}

/// What the intake says to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageReceipt {
    /// Everything below this number is stored for good; the sender may forget it.
    pub next: u64,
}
