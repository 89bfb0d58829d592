//! Limits and the counters they become.

use std::time::Duration;

use chrono_tz::Tz;
use tollgate_policy::Place;
use tollgate_policy::directory::Defined;
use tollgate_policy::quota::{
    CounterKey, Counts, Limit, Metric, OnUnavailable, Scope, Subject, Window,
};

use super::{Malformed, claim, name, needed, operations, text, to_millis, to_operations};
use crate::wire::{self, defined::Where, window};

/// Shortest window.
const SHORTEST: Duration = Duration::from_secs(1);

impl From<&Limit> for wire::Limit {
    fn from(limit: &Limit) -> Self {
        Self {
            id: limit.id.to_string(),
            name: limit.name.to_string(),
            metric: limit.metric.as_str().to_owned(),
            amount: limit.amount,
            window: Some(wire::Window::from(&limit.window)),
            burst: limit.burst,
            subject: wire::Subject::from(limit.subject).into(),
            scope: wire::Scope::from(limit.scope).into(),
            operations: to_operations(limit.operations.as_deref()),
            on_unavailable: wire::OnUnavailable::from(limit.on_unavailable).into(),
            counts: wire::Counts::from(limit.counts).into(),
            shadow: limit.shadow,
            defined: Some(wire::Defined::from(&limit.origin)),
        }
    }
}

impl TryFrom<wire::Limit> for Limit {
    type Error = Malformed;

    fn try_from(limit: wire::Limit) -> Result<Self, Malformed> {
        let metric = Metric::named(&name(limit.metric, "limit.metric")?);
        let window = Window::try_from(needed(limit.window, "limit.window")?)?;
        // What is under way has no time, and nothing else has none: the books of the two are kept differently.
        if (metric == Metric::Concurrent) != (window == Window::Gauge) {
            return Err(Malformed("limit.window"));
        }
        let unknown = |field| move |_| Malformed(field);
        Ok(Self {
            id: name(limit.id, "limit.id")?,
            name: name(limit.name, "limit.name")?,
            metric,
            amount: limit.amount,
            window,
            burst: limit.burst,
            subject: wire::Subject::try_from(limit.subject)
                .map_err(unknown("limit.subject"))?
                .try_into()?,
            scope: wire::Scope::try_from(limit.scope)
                .map_err(unknown("limit.scope"))?
                .try_into()?,
            operations: operations(limit.operations, "limit.operations")?,
            on_unavailable: wire::OnUnavailable::try_from(limit.on_unavailable)
                .map_err(unknown("limit.on_unavailable"))?
                .try_into()?,
            counts: wire::Counts::try_from(limit.counts)
                .map_err(unknown("limit.counts"))?
                .try_into()?,
            shadow: limit.shadow,
            origin: needed(limit.defined, "limit.defined")?.try_into()?,
        })
    }
}

impl From<&Window> for wire::Window {
    fn from(window: &Window) -> Self {
        let kind = match window {
            Window::Span(length) => window::Kind::Span(to_millis(*length)),
            Window::Day(zone) => window::Kind::Day(zone.name().to_owned()),
            Window::Month(zone) => window::Kind::Month(zone.name().to_owned()),
            Window::Lifetime => window::Kind::Lifetime(wire::Lifetime {}),
            Window::Gauge => window::Kind::Gauge(wire::Gauge {}),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::Window> for Window {
    type Error = Malformed;

    fn try_from(window: wire::Window) -> Result<Self, Malformed> {
        let zone = |name: &str, field| name.parse::<Tz>().map_err(|_| Malformed(field));
        match needed(window.kind, "window.kind")? {
            window::Kind::Span(millis) => {
                let length = Duration::from_millis(millis);
                // Windows are counted in signed milliseconds.
                if length < SHORTEST || i64::try_from(millis).is_err() {
                    return Err(Malformed("window.span"));
                }
                Ok(Self::Span(length))
            }
            window::Kind::Day(name) => zone(&name, "window.day").map(Self::Day),
            window::Kind::Month(name) => zone(&name, "window.month").map(Self::Month),
            window::Kind::Lifetime(wire::Lifetime {}) => Ok(Self::Lifetime),
            window::Kind::Gauge(wire::Gauge {}) => Ok(Self::Gauge),
        }
    }
}

impl From<Subject> for wire::Subject {
    fn from(subject: Subject) -> Self {
        match subject {
            Subject::Organisation => Self::Organisation,
            Subject::Project => Self::Project,
            Subject::Consumer => Self::Consumer,
            Subject::Credential => Self::Credential,
            Subject::EndUser => Self::EndUser,
            Subject::Address => Self::Address,
            Subject::Everybody => Self::Everybody,
        }
    }
}

impl TryFrom<wire::Subject> for Subject {
    type Error = Malformed;

    fn try_from(subject: wire::Subject) -> Result<Self, Malformed> {
        match subject {
            wire::Subject::Unspecified => Err(Malformed("limit.subject")),
            wire::Subject::Organisation => Ok(Self::Organisation),
            wire::Subject::Project => Ok(Self::Project),
            wire::Subject::Consumer => Ok(Self::Consumer),
            wire::Subject::Credential => Ok(Self::Credential),
            wire::Subject::EndUser => Ok(Self::EndUser),
            wire::Subject::Address => Ok(Self::Address),
            wire::Subject::Everybody => Ok(Self::Everybody),
        }
    }
}

impl From<Scope> for wire::Scope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Everything => Self::Everything,
            Scope::Api => Self::Api,
            Scope::Operation => Self::Operation,
        }
    }
}

impl TryFrom<wire::Scope> for Scope {
    type Error = Malformed;

    fn try_from(scope: wire::Scope) -> Result<Self, Malformed> {
        match scope {
            wire::Scope::Unspecified => Err(Malformed("limit.scope")),
            wire::Scope::Everything => Ok(Self::Everything),
            wire::Scope::Api => Ok(Self::Api),
            wire::Scope::Operation => Ok(Self::Operation),
        }
    }
}

impl From<OnUnavailable> for wire::OnUnavailable {
    fn from(mode: OnUnavailable) -> Self {
        match mode {
            OnUnavailable::FailOpen => Self::FailOpen,
            OnUnavailable::Degraded => Self::Degraded,
            OnUnavailable::FailClosed => Self::FailClosed,
        }
    }
}

impl TryFrom<wire::OnUnavailable> for OnUnavailable {
    type Error = Malformed;

    fn try_from(mode: wire::OnUnavailable) -> Result<Self, Malformed> {
        match mode {
            wire::OnUnavailable::Unspecified => Err(Malformed("on_unavailable")),
            wire::OnUnavailable::FailOpen => Ok(Self::FailOpen),
            wire::OnUnavailable::Degraded => Ok(Self::Degraded),
            wire::OnUnavailable::FailClosed => Ok(Self::FailClosed),
        }
    }
}

impl From<Counts> for wire::Counts {
    fn from(counts: Counts) -> Self {
        match counts {
            Counts::Reached => Self::Reached,
            Counts::Tried => Self::Tried,
        }
    }
}

impl TryFrom<wire::Counts> for Counts {
    type Error = Malformed;

    fn try_from(counts: wire::Counts) -> Result<Self, Malformed> {
        match counts {
            wire::Counts::Unspecified => Err(Malformed("limit.counts")),
            wire::Counts::Reached => Ok(Self::Reached),
            wire::Counts::Tried => Ok(Self::Tried),
        }
    }
}

impl From<&Defined> for wire::Defined {
    fn from(defined: &Defined) -> Self {
        let place = match defined {
            Defined::File(place) => Where::File(wire::Place {
                file: place.file.to_string(),
                line: place.line,
                column: place.column,
            }),
            Defined::Store => Where::Store(wire::InStore {}),
        };
        Self {
            r#where: Some(place),
        }
    }
}

impl TryFrom<wire::Defined> for Defined {
    type Error = Malformed;

    fn try_from(defined: wire::Defined) -> Result<Self, Malformed> {
        match needed(defined.r#where, "defined.where")? {
            Where::File(place) => Ok(Self::File(Place {
                file: text(place.file, "place.file")?,
                line: place.line,
                column: place.column,
            })),
            Where::Store(wire::InStore {}) => Ok(Self::Store),
        }
    }
}

impl From<&CounterKey> for wire::CounterKey {
    fn from(key: &CounterKey) -> Self {
        Self {
            limit: key.limit.to_string(),
            api: key.api.to_string(),
            operation: key.operation.to_string(),
            subject: key.subject.to_string(),
        }
    }
}

impl TryFrom<wire::CounterKey> for CounterKey {
    type Error = Malformed;

    fn try_from(key: wire::CounterKey) -> Result<Self, Malformed> {
        if key.subject.is_empty() {
            return Err(Malformed("counter_key.subject"));
        }
        Ok(Self {
            limit: name(key.limit, "counter_key.limit")?,
            api: text(key.api, "counter_key.api")?,
            operation: text(key.operation, "counter_key.operation")?,
            subject: claim(key.subject, "counter_key.subject")?,
        })
    }
}
