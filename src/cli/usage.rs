//! `tollgate usage`: what was used, who reported it, what is missing, and whether all counts agree.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::admin;
use super::amounts::told_apart;
use super::control::{Control, segment};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate usage
  tollgate usage --by consumer,operation --from 2026-11-01T00:00:00Z
  tollgate usage --api books --by operation --granularity day
  tollgate usage --consumer shop --by operation --granularity hour --format csv > usage.csv
  tollgate usage --by consumer --granularity day --format cloudevents
  tollgate usage senders
  tollgate usage gaps
  tollgate usage reconcile --admin 127.0.0.1:9900";

/// Pause between two counts that did not agree.
const PAUSE: Duration = Duration::from_millis(200);

/// What to show.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    act: Option<Act>,
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    control: Control,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// List who reports usage, and how far each has come
    Senders {
        /// Of this node only
        #[arg(long)]
        node: Option<String>,
    },
    /// List numbers of records that were skipped, and whether they came after all
    Gaps,
    /// Compare what a gateway counted, what its journal holds and what is stored; exit code 1 where they differ
    Reconcile(Reconcile),
}

#[derive(Debug, clap::Args)]
struct Asked {
    /// Of this organisation only
    #[arg(long)]
    organisation: Option<String>,
    /// Of this project only
    #[arg(long)]
    project: Option<String>,
    /// Of this consumer only
    #[arg(long)]
    consumer: Option<String>,
    /// Of this API only
    #[arg(long)]
    api: Option<String>,
    /// Of this operation only
    #[arg(long)]
    operation: Option<String>,
    /// Begin of the period, in UTC [default: the current month's]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// End of the period, not part of it [default: none]
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// A row for each of these: organisation, project, consumer, api, operation, plan, price_version, outcome
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    by: Vec<String>,
    /// A row for each minute, hour or day, or for the whole period
    #[arg(long, value_parser = ["minute", "hour", "day", "total"], default_value = "total")]
    granularity: String,
    /// How to write it
    #[arg(long, value_parser = ["table", "json", "csv", "cloudevents"], default_value = "table")]
    format: String,
}

#[derive(Debug, clap::Args)]
struct Reconcile {
    /// Admin address of the gateway
    #[arg(long, value_name = "ADDR", default_value = admin::DEFAULT)]
    admin: SocketAddr,
    /// The gateway's node, where several report and its metrics do not name it
    #[arg(long)]
    node: Option<String>,
    /// How long to count again while the numbers differ, because calls go on
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,
}

/// Asks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let control = args.control;
    if args.act.is_some() && !args.asked.is_nothing() {
        // clap would forbid --control along with these.
        eprintln!("error: periods, filters, groups and formats belong to `tollgate usage` alone");
        return Ok(ExitCode::from(2));
    }
    match args.act {
        None => list(&control, &args.asked),
        Some(Act::Senders { node }) => control.print_list(
            senders(&control, node.as_deref())?,
            &[
                ("NODE", "/node"),
                ("RUN", "/run"),
                ("SHARD", "/shard"),
                ("NEXT", "/next"),
                ("RECORDS", "/records"),
                ("MISSING", "/missing"),
                ("STATE", "/state"),
                ("LAST SEEN", "/last_seen"),
            ],
        ),
        Some(Act::Gaps) => control.print_list(
            control.list("/v1/usage/gaps")?,
            &[
                ("NODE", "/node"),
                ("RUN", "/run"),
                ("SHARD", "/shard"),
                ("FROM", "/from"),
                ("TO", "/to"),
                ("FOUND", "/found_at"),
                ("CLOSED", "/closed_at"),
            ],
        ),
        Some(Act::Reconcile(reconcile)) => reconcile.run(&control),
    }
}

fn senders(control: &Control, node: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let node = node.map(|node| format!("?node={}", segment(node)));
    control.list(&format!("/v1/usage/senders{}", node.unwrap_or_default()))
}

fn list(control: &Control, asked: &Asked) -> anyhow::Result<ExitCode> {
    let path = asked.path();
    match asked.format.as_str() {
        format @ ("csv" | "cloudevents") => export(control, &format!("{path}&format={format}")),
        "json" => {
            println!("{:#}", Value::Array(control.list(&path)?));
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            let by: Vec<(String, String)> = asked
                .by
                .iter()
                .map(|name| (name.to_uppercase(), format!("/{name}")))
                .collect();
            let mut columns = match asked.granularity.as_str() {
                "total" => Vec::new(),
                _ => vec![("FROM", "/from")],
            };
            columns.extend(by.iter().map(|(head, member)| (&**head, &**member)));
            columns.extend([
                ("CALLS", "/calls"),
                ("UNITS", "/units"),
                ("MONEY", "/money"),
                ("REQUEST BYTES", "/request_bytes"),
                ("RESPONSE BYTES", "/response_bytes"),
                ("STREAM SECONDS", "/stream_seconds"),
                ("REQUEST MESSAGES", "/request_messages"),
                ("RESPONSE MESSAGES", "/response_messages"),
            ]);
            let rows = control.list(&path)?;
            let rows = if control.is_json() {
                rows
            } else {
                told_apart(rows)
            };
            control.print_list(rows, &columns)
        }
    }
}

impl Asked {
    fn is_nothing(&self) -> bool {
        let path = "/v1/usage?granularity=total";
        self.path() == path && self.format == "table"
    }

    fn path(&self) -> String {
        let mut path = format!("/v1/usage?granularity={}", self.granularity);
        let by = (!self.by.is_empty()).then(|| self.by.join(","));
        for (name, value) in [
            ("organisation", &self.organisation),
            ("project", &self.project),
            ("consumer", &self.consumer),
            ("api", &self.api),
            ("operation", &self.operation),
            ("from", &self.from),
            ("to", &self.to),
            ("group_by", &by),
        ] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", segment(value)));
            }
        }
        path
    }
}

/// Page by page, as they come: one CSV with one header, one JSON array of events.
fn export(control: &Control, path: &str) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let csv = path.ends_with("csv");
    let mut next = Some(format!("{path}&limit=500"));
    let mut first = true;
    while let Some(path) = next {
        let (text, more) = control.text(&path)?;
        let rows = if csv {
            // The header of a further page is known.
            match (first, text.split_once("\r\n")) {
                (false, Some((_, rows))) => rows,
                (true, _) | (false, None) => &text,
            }
        } else {
            let events = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
            let events = events.context("the answer is no list of events")?;
            write!(
                out,
                "{}",
                if first {
                    "["
                } else if events.is_empty() {
                    ""
                } else {
                    ",\n"
                }
            )?;
            events
        };
        out.write_all(rows.as_bytes())?;
        (next, first) = (more, false);
    }
    if !csv {
        writeln!(out, "]")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The counts of one gateway's run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counts {
    node: String,
    run: String,
    /// Calls that are billed and were answered, as the gateway counted them before each was recorded.
    edge: u64,
    /// Records that wait in its journal.
    waiting: u64,
    /// Calls of these that were served without a record, as its policy allows.
    unmetered: u64,
    /// The numbers that the intake has received up to.
    received: u64,
    /// Records that the intake has added up.
    stored: u64,
    /// Numbers that never came.
    missing: u64,
    /// Whether all that was ever received is added up.
    balanced: bool,
}

impl Counts {
    fn journal(&self) -> u64 {
        self.received.saturating_add(self.waiting)
    }

    fn agree(&self) -> bool {
        self.edge == self.journal().saturating_add(self.unmetered)
            && self.journal() == self.stored.saturating_add(self.waiting)
            && self.missing == 0
            && self.balanced
    }
}

impl Reconcile {
    fn run(&self, control: &Control) -> anyhow::Result<ExitCode> {
        let until = Instant::now() + Duration::from_secs(self.wait);
        let mut counts = self.count(control)?;
        // Three places are not read at one moment: while calls go on they differ by what is on its way.
        while !counts.agree() && Instant::now() < until {
            std::thread::sleep(PAUSE);
            counts = self.count(control)?;
        }
        let agree = counts.agree();
        control.print(&json!({
            "node": counts.node,
            "run": counts.run,
            "edge": counts.edge,
            "journal": counts.journal(),
            "store": counts.stored.saturating_add(counts.waiting),
            "waiting": counts.waiting,
            "missing": counts.missing,
            "unmetered": counts.unmetered,
            "totals": if counts.balanced { "add up" } else { "do not add up" },
            "agree": agree,
        }))?;
        Ok(if agree {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// The journal is read between the two others.
    fn count(&self, control: &Control) -> anyhow::Result<Counts> {
        let metrics = admin::get(self.admin, "/metrics")?;
        let series = |name| series(&metrics, name);
        let counted = series("tollgate_usage_records_total");
        let Some(sample) = counted.last() else {
            bail!("{} counts no usage: is it metered?", self.admin);
        };
        let named = self.node.clone().or_else(|| sample.label("node"));
        let senders = senders(control, named.as_deref())?;
        let (node, run) = match (named, sample.label("run")) {
            (Some(node), Some(run)) => (node, run),
            (_, _) => newest(&senders)?,
        };
        let of_run = |member: &str| -> u64 {
            let own = senders
                .iter()
                .filter(|it| is(it, "node", &node) && is(it, "run", &run));
            own.filter_map(|sender| sender.get(member)?.as_u64()).sum()
        };
        let billed = series("tollgate_usage_billed_total");
        if billed.is_empty() {
            bail!(
                "{} does not count what it bills: it is of an older version",
                self.admin
            );
        }
        let balance = control.get("/v1/usage/balance")?;
        Ok(Counts {
            edge: total(&billed),
            waiting: total(&series("tollgate_usage_pending_records")),
            unmetered: total(&series("tollgate_usage_unmetered_total"))
                + total(&series("tollgate_usage_unopened_total")),
            received: of_run("next"),
            stored: of_run("records"),
            missing: of_run("missing"),
            balanced: balance.get("balanced").is_some_and(|it| it == true),
            node,
            run,
        })
    }
}

fn is(sender: &Value, member: &str, text: &str) -> bool {
    sender.get(member).is_some_and(|it| it == text)
}

/// The run that began last, of a gateway.
fn newest(senders: &[Value]) -> anyhow::Result<(String, String)> {
    let text = |sender: &Value, member: &str| {
        let text = sender.get(member).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let gateways = senders
        .iter()
        .filter(|it| !text(it, "node").starts_with("service:"));
    let newest = gateways.max_by_key(|it| text(it, "first_seen"));
    let newest = newest.context("nobody has reported usage yet")?;
    Ok((text(newest, "node"), text(newest, "run")))
}

/// One line of the metrics page.
struct Sample<'m> {
    labels: &'m str,
    value: f64,
}

impl Sample<'_> {
    /// A label's value; ours hold nothing that is escaped.
    fn label(&self, name: &str) -> Option<String> {
        let mut labels = self.labels.split(',');
        let value = labels.find_map(|label| label.strip_prefix(name)?.strip_prefix("=\""))?;
        value.strip_suffix('"').map(str::to_owned)
    }
}

/// All samples of a metric, in Prometheus' text format.
fn series<'m>(metrics: &'m str, name: &str) -> Vec<Sample<'m>> {
    let samples = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once('}')?,
            None => ("", rest.strip_prefix(' ')?),
        };
        let value = value.trim().split(' ').next()?.parse().ok()?;
        Some(Sample { labels, value })
    });
    samples.collect()
}

/// Their sum. Counts stay below 2^53, where floating-point numbers are whole.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts, see above"
)]
fn total(samples: &[Sample<'_>]) -> u64 {
    samples
        .iter()
        .map(|sample| sample.value.max(0.0) as u64)
        .sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    const METRICS: &str = "# HELP tollgate_usage_records_total Records.
# TYPE tollgate_usage_records_total counter
tollgate_usage_records_total{node=\"edge-1\",run=\"07\"} 40
tollgate_usage_records_total_more 9
tollgate_usage_pending_records 2
";

    #[test]
    fn counts_are_read_from_the_metrics_page() {
        let records = series(METRICS, "tollgate_usage_records_total");
        assert_eq!((records.len(), total(&records)), (1, 40));
        assert_eq!(records[0].label("run").unwrap(), "07");
        assert_eq!(records[0].label("node").unwrap(), "edge-1");
        assert!(records[0].label("shard").is_none());
        assert_eq!(total(&series(METRICS, "tollgate_usage_pending_records")), 2);
        assert_eq!(total(&series(METRICS, "tollgate_usage_unmetered_total")), 0);
    }

    #[test]
    fn counts_agree_when_nothing_is_missing_and_nothing_is_left_over() {
        let good = Counts {
            node: "edge-1".to_owned(),
            run: "07".to_owned(),
            edge: 40,
            waiting: 2,
            unmetered: 0,
            received: 38,
            stored: 38,
            missing: 0,
            balanced: true,
        };
        assert!(good.agree());
        let unmetered = Counts {
            unmetered: 3,
            edge: 43,
            ..good.clone()
        };
        assert!(unmetered.agree());
        for wrong in [
            Counts {
                edge: 41,
                ..good.clone()
            },
            Counts {
                unmetered: 1,
                ..good.clone()
            },
            Counts {
                waiting: 1,
                ..good.clone()
            },
            Counts {
                received: 39,
                edge: 41,
                ..good.clone()
            },
            Counts {
                stored: 37,
                missing: 1,
                ..good.clone()
            },
            Counts {
                balanced: false,
                ..good.clone()
            },
        ] {
            assert!(!wrong.agree(), "{wrong:?}");
        }
    }

    #[test]
    fn the_newest_run_is_that_of_a_gateway() {
        let sender = |node: &str, run: &str, first_seen: &str| json!({ "node": node, "run": run, "first_seen": first_seen });
        let senders = [
            sender("edge-1", "a", "2026-11-21T16:00:00Z"),
            sender("edge-1", "b", "2026-11-21T17:00:00Z"),
            sender("service:jobs", "c", "2026-11-21T18:00:00Z"),
        ];
        assert_eq!(
            newest(&senders).unwrap(),
            ("edge-1".to_owned(), "b".to_owned())
        );
        assert!(newest(&[]).is_err());
    }
}
