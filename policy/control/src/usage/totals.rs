//! What usage is added up by, and what is added up.
//!
//! Promises: sums stop at the largest number instead of wrapping round. Not here: where they are kept (`write`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tollgate_policy::time::Timestamp;
use tollgate_proto::{UsageOutcome, UsageRecord};

/// What totals are told apart by; names of columns, of parameters and of members.
pub(crate) const DIMENSIONS: [&str; 8] = [
    "organisation",
    "project",
    "consumer",
    "api",
    "operation",
    "plan",
    PRICE_VERSION,
    "outcome",
];
/// The one dimension that is a number.
pub(crate) const PRICE_VERSION: &str = "price_version";

/// What is added up, in the order of [`Totals`]; names of columns and of members.
pub(crate) const METRICS: [&str; 11] = [
    "records",
    "calls",
    "units",
    "money",
    "request_bytes",
    "response_bytes",
    "cpu_nanos",
    "micros",
    "stream_seconds",
    "request_messages",
    "response_messages",
];

/// Place of `units` in [`METRICS`]: of all names together.
pub(crate) const UNITS: usize = 2;
/// Place of `money` in [`METRICS`]: of all currencies together.
pub(crate) const MONEY: usize = 3;

/// One sum for each of [`METRICS`].
pub(crate) type Totals = [u64; METRICS.len()];

/// The span a total covers. Buckets begin at whole multiples of it since 1970, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Minute,
    Hour,
    Day,
}

impl Step {
    /// Finest first.
    pub(crate) const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// As it is stored.
    pub(crate) const fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }

    /// Its length.
    pub(crate) const fn millis(self) -> i64 {
        self.seconds() * 1000
    }

    /// Begin of the bucket that `at` falls into.
    pub(crate) const fn bucket(self, at: Timestamp) -> Timestamp {
        let millis = at.millis();
        Timestamp::from_millis(millis.saturating_sub(millis.rem_euclid(self.millis())))
    }
}

/// What a total is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) organisation: Arc<str>,
    pub(crate) project: Arc<str>,
    pub(crate) consumer: Arc<str>,
    pub(crate) api: Arc<str>,
    pub(crate) operation: Arc<str>,
    pub(crate) plan: Arc<str>,
    pub(crate) price_version: u32,
    pub(crate) outcome: UsageOutcome,
}

impl Key {
    fn of(record: &UsageRecord) -> Self {
        Self {
            organisation: Arc::clone(&record.organisation),
            project: Arc::clone(&record.project),
            consumer: Arc::clone(&record.consumer),
            api: Arc::clone(&record.api),
            operation: Arc::clone(&record.operation),
            plan: Arc::clone(&record.plan),
            price_version: record.price_version,
            outcome: record.outcome,
        }
    }
}

/// What is added up by name beside [`METRICS`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Meter {
    /// Cost units of this name.
    Units(Arc<str>),
    /// Money of this currency.
    Money(Arc<str>),
}

impl Meter {
    /// The kind of cost units, as it is stored.
    pub(crate) const UNITS: &str = "units";
    /// The kind of money, as it is stored.
    pub(crate) const MONEY: &str = "money";

    /// Kind and name, as they are stored.
    pub(crate) fn stored(&self) -> (&'static str, &str) {
        match self {
            Self::Units(name) => (Self::UNITS, name),
            Self::Money(currency) => (Self::MONEY, currency),
        }
    }
}

/// What records came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) totals: Totals,
    /// What of it has a name.
    pub(crate) amounts: BTreeMap<Meter, u64>,
}

impl Sums {
    /// Adds all of another.
    pub(crate) fn add(&mut self, more: &Self) {
        add(&mut self.totals, &more.totals);
        for (meter, amount) in &more.amounts {
            self.meter(meter.clone(), *amount);
        }
    }

    fn record(&mut self, record: &UsageRecord, currency: Option<Arc<str>>) {
        add(&mut self.totals, &sums(record));
        for (name, amount) in record.units.named() {
            self.meter(Meter::Units(Arc::clone(name)), amount);
        }
        if let Some(currency) = currency {
            self.meter(Meter::Money(currency), record.money);
        }
    }

    fn meter(&mut self, meter: Meter, amount: u64) {
        let sum = self.amounts.entry(meter).or_default();
        *sum = sum.saturating_add(amount);
    }
}

/// Records added up in memory, by key and minute, on their way to the store.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    sums: HashMap<Key, BTreeMap<i64, Sums>>,
}

impl Tally {
    /// Adds records. `currency` tells that of a plan's prices in a version, for records that do not say it.
    pub(crate) fn add(
        &mut self,
        records: &[UsageRecord],
        currency: impl Fn(&str, u32) -> Option<Arc<str>>,
    ) {
        for record in records {
            let minute = Step::Minute.bucket(record.at).millis();
            let minutes = self.sums.entry(Key::of(record)).or_default();
            let currency = match record.money {
                0 => None,
                _ if is_currency(&record.currency) => Some(Arc::clone(&record.currency)),
                _ => currency(&record.plan, record.price_version),
            };
            minutes.entry(minute).or_default().record(record, currency);
        }
    }

    /// Each key with its minutes.
    pub(crate) fn sums(&self) -> impl Iterator<Item = (&Key, &BTreeMap<i64, Sums>)> {
        self.sums.iter()
    }
}

/// Whether it is written like one of ISO 4217.
pub(crate) fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Adds `more` to `sums`.
pub(crate) fn add(sums: &mut Totals, more: &Totals) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum = sum.saturating_add(*more);
    }
}

fn sums(record: &UsageRecord) -> Totals {
    [
        1,
        u64::from(record.calls),
        record.units.total(),
        record.money,
        record.request_bytes,
        record.response_bytes,
        record.cpu_nanos,
        record.micros,
        record.stream_seconds,
        record.request_messages,
        record.response_messages,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_begins_before_what_falls_into_it_whatever_the_time() {
        for millis in [i64::MIN, -1, 0, 59_999, 60_000, 86_400_001, i64::MAX] {
            for step in Step::ALL {
                let at = Timestamp::from_millis(millis);
                let bucket = step.bucket(at);
                assert!(bucket <= at, "{millis}");
                assert!(at.since(bucket).as_millis() < 86_400_000, "{millis}");
                // Coarse buckets are made of whole fine ones.
                assert_eq!(step.bucket(Step::Minute.bucket(at)), bucket, "{millis}");
            }
        }
    }
}
