//! `limits` and `price`: as written in files and sent as JSON, and turned into what they mean. Not here: whether anything a limit
//! counts is ever counted, and where limits come together.

mod choice;
mod shown;

use std::sync::Arc;
use std::time::Duration;

use chrono_tz::{TZ_VARIANTS, Tz};
use serde::Deserialize;

use super::amount;
use super::decode::{Text, decode, nearest};
use super::names;
use super::reader::Reader;
use super::reference::References;
use super::value::{self, Wrong};
use crate::directory::{Defined, Price};
use crate::finding::Finding;
use crate::quota::{Limit, Metric, Scope, Subject, Window};
use crate::source::{Document, Node};
use choice::{COUNTS, FAIL_MODES, SCOPES, one_of};
pub use shown::written_limits;

/// Limits of one owner. A call touches all of them that are about it.
const MAX_LIMITS: usize = 64;

/// Longest span; what is longer is a month or a lifetime.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenLimit {
    name: Text,
    metric: Option<Text>,
    amount: Text,
    window: Option<Text>,
    timezone: Option<Text>,
    burst: Option<Text>,
    per: Option<Text>,
    scope: Option<Text>,
    operations: Option<Vec<Text>>,
    on_unavailable: Option<Text>,
    counts: Option<Text>,
    shadow: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenPrice {
    version: Option<Text>,
    currency: Option<Text>,
}

/// Whose limits they are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner<'o> {
    /// A plan of a file.
    Plan(&'o str),
    /// A plan of the store.
    Stored(&'o str),
    /// An API.
    Api(&'o str),
    /// A description, which does not know under what name it is served: the name stands for the `id`.
    Description,
}

impl Owner<'_> {
    /// Where a limit of this owner, written there, was defined.
    fn origin(self, reader: &Reader, at: &Text) -> Defined {
        match self {
            Self::Stored(_) => Defined::Store,
            Self::Plan(_) | Self::Api(_) | Self::Description => Defined::File(reader.place(at)),
        }
    }

    fn id(self, name: &Arc<str>) -> Arc<str> {
        match self {
            Self::Plan(plan) | Self::Stored(plan) => format!("plan/{plan}/{name}").into(),
            Self::Api(api) => api_limit(api, name),
            Self::Description => Arc::clone(name),
        }
    }
}

/// [`Limit::id`] of an API's limit.
pub(super) fn api_limit(api: &str, name: &str) -> Arc<str> {
    format!("api/{api}/{name}").into()
}

/// The limits of `x-tollgate` at the top of a description, with what is wrong with them. One mistake costs that list alone.
pub(crate) fn limits_from_node(
    document: &Document,
    node: &Node,
) -> (Vec<Arc<Limit>>, Vec<Finding>) {
    match read(document, node, "x-tollgate.limits", Owner::Description) {
        Ok((limits, warnings)) => (limits, warnings),
        Err(findings) => (Vec::new(), findings),
    }
}

/// Limits of a plan of the store, sent or kept as JSON in the shape of `plans.yaml`.
///
/// # Errors
/// Everything that is wrong with them; places are those of `json`.
pub fn stored_limits(plan: &str, json: &str) -> Result<Vec<Arc<Limit>>, Vec<Finding>> {
    let document = Document::parse_json("limits", json).map_err(|finding| vec![finding])?;
    let owner = Owner::Stored(plan);
    read(&document, &document.root, "limits", owner).map(|(limits, _)| limits)
}

/// As [`stored_limits`], of `price`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn stored_price(json: &str) -> Result<Price, Vec<Finding>> {
    let document = Document::parse_json("price", json).map_err(|finding| vec![finding])?;
    let references = References::unread();
    let (written, mut findings) = decode::<WrittenPrice>(&document, &document.root, &references);
    let mut reader = Reader::on(&document);
    let meaning = written.map(|written| price(&mut reader, "price", &written));
    match reader.finish(meaning) {
        Ok(price) if findings.is_empty() => Ok(price),
        Ok(_) => Err(findings),
        Err(more) => {
            findings.extend(more);
            Err(findings)
        }
    }
}

type Read = Result<(Vec<Arc<Limit>>, Vec<Finding>), Vec<Finding>>;

fn read(document: &Document, node: &Node, field: &str, owner: Owner<'_>) -> Read {
    let references = References::unread();
    let (written, mut findings) = decode::<Vec<WrittenLimit>>(document, node, &references);
    let mut reader = Reader::on(document);
    let meaning = written.map(|written| limits(&mut reader, field, &written, owner));
    match reader.conclude(meaning) {
        Ok(read) if findings.is_empty() => Ok(read),
        Ok(_) => Err(findings),
        Err(more) => {
            findings.extend(more);
            Err(findings)
        }
    }
}

/// The meaning of a list of limits; mistakes go to `reader`.
pub(super) fn limits(
    reader: &mut Reader,
    field: &str,
    written: &[WrittenLimit],
    owner: Owner<'_>,
) -> Vec<Arc<Limit>> {
    let mut found: Vec<(Arc<Limit>, u32)> = Vec::new();
    for (at, written) in written.iter().enumerate() {
        if at == MAX_LIMITS {
            let wrong = Wrong::new(
                format!("has more than {MAX_LIMITS} limits"),
                "every call is counted against all of them; keep those that matter",
            );
            reader.refuse(field, &written.name, wrong);
            break;
        }
        let Some(limit) = limit(reader, field, written, owner) else {
            continue;
        };
        if let Some((_, first)) = found.iter().find(|(other, _)| other.name == limit.name) {
            let wrong = Wrong::new(
                format!("`{}` stands twice, first in line {first}", limit.name),
                "give each limit a name of its own: headers, overrides and counters speak of it",
            );
            reader.refuse(&format!("{field}.name"), &written.name, wrong);
        }
        found.push((Arc::new(limit), written.name.line));
    }
    found.into_iter().map(|(limit, _)| limit).collect()
}

fn limit(
    reader: &mut Reader,
    field: &str,
    written: &WrittenLimit,
    owner: Owner<'_>,
) -> Option<Limit> {
    let at = &written.name;
    let within = |inner: &str| format!("{field}.{inner}");
    let name = reader.value(&within("name"), Some(at), names::object);
    let metric = match &written.metric {
        Some(said) => reader.value(&within("metric"), Some(said), names::metric),
        None => Some(Metric::Calls),
    };
    let counted = metric.clone().unwrap_or(Metric::Calls);
    // Where the metric is wrong, what the amount should be is not known.
    let amount = metric
        .as_ref()
        .and_then(|metric| amount_of(reader, field, written, metric));
    let window = window(reader, field, written, &counted);
    let burst = burst(reader, field, written, &counted, window);
    let subject = reader.value(&within("per"), written.per.as_ref(), subject);
    let scope = scope(reader, &within("scope"), written, owner);
    let operations = written.operations.as_ref();
    let operations =
        operations.map(|list| reader.some(&within("operations"), at, Some(list), names::line));
    let on_unavailable = written.on_unavailable.as_ref();
    let on_unavailable = reader.value(&within("on_unavailable"), on_unavailable, |text| {
        one_of(text, FAIL_MODES)
    });
    let counts = reader.value(&within("counts"), written.counts.as_ref(), |text| {
        one_of(text, COUNTS)
    });
    let shadow = reader.value(&within("shadow"), written.shadow.as_ref(), value::switch);
    let name = name?;
    Some(Limit {
        id: owner.id(&name),
        name,
        metric: metric?,
        amount: amount?,
        window: window?,
        burst,
        subject: subject.unwrap_or_default(),
        scope,
        operations,
        on_unavailable: on_unavailable.unwrap_or_default(),
        counts: counts.unwrap_or_default(),
        shadow: shadow.unwrap_or_default(),
        origin: owner.origin(reader, at),
    })
}

fn amount_of(
    reader: &mut Reader,
    field: &str,
    written: &WrittenLimit,
    metric: &Metric,
) -> Option<u64> {
    let parse = |text: &str| amount::amount(metric, text);
    let amount = reader.value(&format!("{field}.amount"), Some(&written.amount), parse);
    if amount == Some(0) {
        let place = reader.place(&written.amount);
        let what = format!("limit `{}` allows nothing", written.name.text);
        let remedy = "leave the operations out of the plan instead, or suspend the consumer";
        reader.warn("allows-nothing", place, what, remedy);
    }
    amount
}

/// What is written about time.
enum Length {
    Span(Duration),
    Day,
    Month,
    Lifetime,
}

fn window(
    reader: &mut Reader,
    field: &str,
    written: &WrittenLimit,
    metric: &Metric,
) -> Option<Window> {
    let within = |inner: &str| format!("{field}.{inner}");
    let zone = written.timezone.as_ref();
    let zone_meant = reader.value(&within("timezone"), zone, timezone);
    let said = written.window.as_ref();
    if *metric == Metric::Concurrent {
        for (name, said) in [("window", said), ("timezone", zone)] {
            if let Some(said) = said {
                let wrong = Wrong::new(
                    "calls under way at the same time have no window",
                    "remove it, or count `calls`",
                );
                reader.refuse(&within(name), said, wrong);
            }
        }
        return Some(Window::Gauge);
    }
    let Some(said) = said else {
        let wrong = Wrong::new(
            "is missing",
            "write `window: 1m`, `1d`, `month` or `lifetime`",
        );
        reader.refuse(&within("window"), &written.name, wrong);
        return None;
    };
    let window = match reader.value(&within("window"), Some(said), length)? {
        Length::Day => return Some(Window::Day(zone_meant.unwrap_or(Tz::UTC))),
        Length::Month => return Some(Window::Month(zone_meant.unwrap_or(Tz::UTC))),
        Length::Span(length) => Window::Span(length),
        Length::Lifetime => Window::Lifetime,
    };
    if let Some(zone) = zone {
        let wrong = Wrong::new(
            format!("a window of `{}` follows no calendar", said.text),
            "remove it, or write `window: 1d` or `window: month`",
        );
        reader.refuse(&within("timezone"), zone, wrong);
    }
    Some(window)
}

fn length(text: &str) -> Result<Length, Wrong> {
    const KNOWN: &str = "write 1s, 30s, 1m, 1h, 1d, month or lifetime";
    match text {
        "1d" => return Ok(Length::Day),
        "month" => return Ok(Length::Month),
        "lifetime" => return Ok(Length::Lifetime),
        _ => {}
    }
    let Some(millis) = value::milliseconds(text) else {
        return Err(Wrong::new(format!("`{text}` is no window"), KNOWN));
    };
    let length = Duration::from_millis(millis);
    if length < Duration::from_secs(1) {
        let what = format!("`{text}` is shorter than a second");
        return Err(Wrong::new(what, "write 1s or longer"));
    }
    if length.subsec_millis() != 0 {
        let what = format!("`{text}` is no whole number of seconds");
        return Err(Wrong::new(what, KNOWN));
    }
    if length > LONGEST {
        let what = format!("`{text}` is longer than a year");
        return Err(Wrong::new(what, "write month or lifetime"));
    }
    Ok(Length::Span(length))
}

/// A limit's window as [`written_limits`] writes it, whichever way it is said: `60s` for `1m`.
///
/// # Errors
/// What is wrong and what to write instead.
pub fn parse_window(text: &str) -> Result<String, String> {
    let length = length(text).map_err(|wrong| format!("{}; {}", wrong.what, wrong.remedy))?;
    Ok(match length {
        Length::Span(length) => format!("{}s", length.as_secs()),
        Length::Day | Length::Month | Length::Lifetime => text.to_owned(),
    })
}

/// A time zone by its name in the database of IANA.
fn timezone(text: &str) -> Result<Tz, Wrong> {
    text.parse().map_err(|_| {
        let near = nearest(text, TZ_VARIANTS.iter().map(|zone| zone.name()));
        Wrong::new(
            format!("there is no time zone `{text}`"),
            match near {
                Some(name) => format!("did you mean `{name}`?"),
                None => "write one of the IANA database, such as Europe/Berlin, or UTC".to_owned(),
            },
        )
    })
}

fn burst(
    reader: &mut Reader,
    field: &str,
    written: &WrittenLimit,
    metric: &Metric,
    window: Option<Window>,
) -> Option<u64> {
    let field = format!("{field}.burst");
    let said = written.burst.as_ref()?;
    let parse = |text: &str| match amount::amount(metric, text)? {
        0 => Err(Wrong::new(
            "must be more than zero",
            "write how much may come at once, or remove it",
        )),
        burst => Ok(burst),
    };
    let burst = reader.value(&field, Some(said), parse)?;
    match window {
        None | Some(Window::Span(_)) => Some(burst),
        Some(Window::Day(_) | Window::Month(_) | Window::Lifetime | Window::Gauge) => {
            let wrong = Wrong::new(
                "only a span refills little by little; this window starts anew as a whole",
                "remove it, or write a window such as 1m or 24h",
            );
            reader.refuse(&field, said, wrong);
            None
        }
    }
}

fn subject(text: &str) -> Result<Subject, Wrong> {
    const ALL: [Subject; 7] = [
        Subject::Organisation,
        Subject::Project,
        Subject::Consumer,
        Subject::Credential,
        Subject::EndUser,
        Subject::Address,
        Subject::Everybody,
    ];
    one_of(text, ALL.map(|subject| (subject.as_str(), subject)))
}

fn scope(reader: &mut Reader, field: &str, written: &WrittenLimit, owner: Owner<'_>) -> Scope {
    let parse = |text: &str| one_of(text, SCOPES);
    let said = written.scope.as_ref();
    let scope = reader.value(field, said, parse).unwrap_or_default();
    match owner {
        Owner::Plan(_) | Owner::Stored(_) => {}
        Owner::Api(_) | Owner::Description => {
            if let (Scope::Everything, Some(said)) = (scope, said) {
                let wrong = Wrong::new(
                    "an API's limit counts calls of this API alone",
                    "write api or operation, or move the limit to a plan",
                );
                reader.refuse(field, said, wrong);
            }
        }
    }
    scope
}

/// The meaning of `price`; mistakes go to `reader`.
pub(super) fn price(reader: &mut Reader, field: &str, written: &WrittenPrice) -> Price {
    let unsaid = Price::default();
    let version = reader.value(
        &format!("{field}.version"),
        written.version.as_ref(),
        |text| value::number(text, 1, u64::from(u32::MAX)),
    );
    let currency = written.currency.as_ref();
    let currency = reader.value(&format!("{field}.currency"), currency, |text| {
        match text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase()) {
            true => Ok(Arc::from(text)),
            false => Err(Wrong::new(
                format!("`{text}` is no currency"),
                "write three capital letters as in ISO 4217: EUR",
            )),
        }
    });
    Price {
        version: version.unwrap_or(unsaid.version),
        currency: currency.unwrap_or(unsaid.currency),
    }
}

#[cfg(test)]
mod tests;
