//! `cost` of an operation: as written, and turned into what a call costs. Not here: what becomes of it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::amount;
use super::decode::{Text, nearest};
use super::names;
use super::reader::Reader;
use super::value::{self, Wrong};
use crate::quota::{Cost, CostSource, Metric, UNNAMED_METER};

/// Metrics a call costs something in.
const MAX_COSTS: usize = 16;

/// A number of cost units, or the cost by metric.
#[derive(Debug, Deserialize)]
pub(super) enum WrittenCosts {
    Text(Text),
    Map(BTreeMap<Text, WrittenCost>),
}

/// A fixed amount, or where it is taken from.
#[derive(Debug, Deserialize)]
pub(super) enum WrittenCost {
    Text(Text),
    Map(WrittenSource),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenSource {
    from: Text,
    name: Option<Text>,
    reserve: Option<Text>,
    per: Option<Text>,
}

/// The meaning of `cost`; mistakes go to `reader`.
pub(super) fn costs(reader: &mut Reader, field: &str, written: &WrittenCosts) -> Vec<Cost> {
    let by_metric = match written {
        WrittenCosts::Text(units) => {
            let metric = Metric::named(UNNAMED_METER);
            return fixed(reader, field, metric, units).into_iter().collect();
        }
        WrittenCosts::Map(by_metric) => by_metric,
    };
    let mut found = Vec::new();
    for (at, (key, written)) in by_metric.iter().enumerate() {
        if at == MAX_COSTS {
            let wrong = Wrong::new(
                format!("a call costs something in more than {MAX_COSTS} metrics"),
                "keep those that a limit counts",
            );
            reader.refuse(field, key, wrong);
            break;
        }
        let Some(metric) = reader.value(field, Some(key), counted) else {
            continue;
        };
        let field = format!("{field}.{}", key.text);
        found.extend(match written {
            WrittenCost::Text(text) => fixed(reader, &field, metric, text),
            WrittenCost::Map(written) => taken(reader, &field, metric, written),
        });
    }
    found
}

/// A metric whose cost can be written.
fn counted(text: &str) -> Result<Metric, Wrong> {
    match names::metric(text)? {
        metric
        @ (Metric::Bytes | Metric::Concurrent | Metric::Messages | Metric::StreamSeconds) => {
            Err(Wrong::new(
                format!(
                    "what a call costs in {} is seen, not written",
                    metric.as_str()
                ),
                "remove it; a limit on it counts all the same",
            ))
        }
        metric @ (Metric::Calls | Metric::Money | Metric::Units(_)) => Ok(metric),
    }
}

fn fixed(reader: &mut Reader, field: &str, metric: Metric, text: &Text) -> Option<Cost> {
    let parse = |text: &str| amount::amount(&metric, text);
    let reserve = reader.value(field, Some(text), parse)?;
    Some(Cost {
        metric,
        reserve,
        source: CostSource::Fixed,
    })
}

fn taken(
    reader: &mut Reader,
    field: &str,
    metric: Metric,
    written: &WrittenSource,
) -> Option<Cost> {
    let parse = |text: &str| amount::amount(&metric, text);
    let reserve = written.reserve.as_ref();
    let reserve = reader.value(&format!("{field}.reserve"), reserve, parse);
    let source = source(reader, field, written)?;
    let callers = matches!(
        source,
        CostSource::Path(_) | CostSource::Query(_) | CostSource::Header(_)
    );
    if metric == Metric::Money && callers && written.reserve.is_none() {
        let what = "is missing: a call that names no price would be free";
        let remedy = "write `reserve: 0.01`: what such a call costs";
        let field = format!("{field}.reserve");
        reader.refuse(&field, &written.from, Wrong::new(what, remedy));
        return None;
    }
    // Of money nobody guesses how much.
    let unsaid = u64::from(metric != Metric::Money);
    Some(Cost {
        reserve: reserve.unwrap_or(unsaid),
        metric,
        source,
    })
}

fn source(reader: &mut Reader, field: &str, written: &WrittenSource) -> Option<CostSource> {
    let from = &written.from;
    let unfit = |reader: &mut Reader, inner: &str, said: &Option<Text>, remedy: &str| {
        if let Some(said) = said {
            let what = format!("means nothing with `from: {}`", from.text);
            reader.refuse(&format!("{field}.{inner}"), said, Wrong::new(what, remedy));
        }
    };
    if from.text == "response_bytes" {
        unfit(reader, "name", &written.name, "remove it");
        let Some(per) = &written.per else {
            let wrong = Wrong::new("is missing", "write `per: 1KiB`: what one unit stands for");
            reader.refuse(&format!("{field}.per"), from, wrong);
            return None;
        };
        let per = reader.value(&format!("{field}.per"), Some(per), value::size)?;
        return Some(CostSource::ResponseBytes { per });
    }
    unfit(
        reader,
        "per",
        &written.per,
        "remove it, or write `from: response_bytes`",
    );
    let known = reader.value(&format!("{field}.from"), Some(from), origin)?;
    let Some(name) = &written.name else {
        let wrong = Wrong::new("is missing", known.remedy());
        reader.refuse(&format!("{field}.name"), from, wrong);
        return None;
    };
    let field = format!("{field}.name");
    match known {
        Origin::Path => {
            let name = reader.value(&field, Some(name), names::word)?;
            Some(CostSource::Path(name))
        }
        Origin::Query => {
            let name = reader.value(&field, Some(name), names::word)?;
            Some(CostSource::Query(name))
        }
        Origin::Header => {
            let name = reader.value(&field, Some(name), names::field)?;
            Some(CostSource::Header(name))
        }
        Origin::ResponseHeader => {
            let name = reader.value(&field, Some(name), names::field)?;
            Some(CostSource::ResponseHeader(name))
        }
    }
}

/// Where a number stands that has a name.
#[derive(Clone, Copy)]
enum Origin {
    Path,
    Query,
    Header,
    ResponseHeader,
}

impl Origin {
    fn remedy(self) -> &'static str {
        match self {
            Self::Path => "write the parameter of the path: `name: count`",
            Self::Query => "write the parameter of the query: `name: limit`",
            Self::Header => "write the header of the request: `name: x-rows`",
            Self::ResponseHeader => "write the header the service answers with: `name: x-rows`",
        }
    }
}

fn origin(text: &str) -> Result<Origin, Wrong> {
    const KNOWN: [&str; 5] = [
        "path",
        "query",
        "header",
        "response_header",
        "response_bytes",
    ];
    match text {
        "path" => Ok(Origin::Path),
        "query" => Ok(Origin::Query),
        "header" => Ok(Origin::Header),
        "response_header" => Ok(Origin::ResponseHeader),
        _ => Err(Wrong::new(
            format!("`{text}` is nothing a cost is taken from"),
            match nearest(text, KNOWN) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("write one of {}", KNOWN.join(", ")),
            },
        )),
    }
}

/// What a call costs: by metric, each from `inner` where it is said there and else from `outer`.
pub(super) fn merged(inner: Option<&Vec<Cost>>, outer: Option<&Vec<Cost>>) -> Option<Vec<Cost>> {
    let (Some(inner), Some(outer)) = (inner, outer) else {
        return inner.or(outer).cloned();
    };
    let mut costs = inner.clone();
    let unsaid = |cost: &&Cost| inner.iter().all(|said| said.metric != cost.metric);
    costs.extend(outer.iter().filter(unsaid).cloned());
    Some(costs)
}

#[cfg(test)]
mod tests;
