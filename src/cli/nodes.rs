//! `tollgate nodes` and `tollgate bundles`: the data planes, and what they are given.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::control::{Control, put, segment};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate nodes
  tollgate nodes edge-1
  tollgate nodes --json";

pub(super) const BUNDLE_EXAMPLES: &str = "Examples:
  tollgate bundles list
  tollgate bundles withdraw books";

/// Which nodes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One node, with its APIs; all where none is named
    name: Option<String>,
    #[command(flatten)]
    control: Control,
}

/// What to do with bundles.
#[derive(Debug, clap::Args)]
pub(super) struct BundleArgs {
    #[command(subcommand)]
    act: Act,
    #[command(flatten)]
    control: Control,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// List what is published of each API, and what is wrong with its files
    List,
    /// Withdraw an API from all nodes
    Withdraw { api: String },
}

/// Asks and prints nodes.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let control = args.control;
    let Some(name) = args.name else {
        let nodes = control.list("/v1/nodes")?;
        let rows = if control.is_json() {
            nodes
        } else {
            nodes.iter().map(row).collect()
        };
        return control.print_list(
            rows,
            &[
                ("NODE", "/node"),
                ("ROLE", "/role"),
                ("SERVICE", "/service"),
                ("IDENTITY", "/identity"),
                ("APIS", "/served"),
                ("LAG", "/lag"),
                ("HITS", "/hit_rate"),
                ("LAST-CONTACT", "/last_contact"),
                ("WARNING", "/warning"),
            ],
        );
    };
    let node = control.get(&format!("/v1/nodes/{}", segment(&name)))?;
    if control.is_json() {
        return control.print(&node);
    }
    for process in list(&node, "processes") {
        print_process(&control, process)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks about bundles, or acts on them.
pub(super) fn run_bundles(args: BundleArgs) -> anyhow::Result<ExitCode> {
    let control = args.control;
    match args.act {
        Act::List => {
            let bundles = control.list("/v1/bundles")?;
            let columns = [
                ("API", "/api"),
                ("GENERATION", "/generation"),
                ("STATE", "/state"),
                ("SERVICE", "/service"),
                ("SINCE", "/since"),
            ];
            let findings = bundles.clone();
            let done = control.print_list(bundles, &columns)?;
            if !control.is_json() {
                findings.iter().for_each(print_findings);
            }
            Ok(done)
        }
        Act::Withdraw { api } => {
            let path = format!("/v1/bundles/{}", segment(&api));
            control.delete(&path, &format!("API {api} from all nodes"))
        }
    }
}

/// A node on one line.
fn row(node: &Value) -> Value {
    let mut row = node.clone();
    let apis: Vec<String> = list(node, "apis").iter().map(api_text).collect();
    put(&mut row, "served", apis.join(" "));
    put(&mut row, "hit_rate", hit_rate(node));
    if node.get("connected") == Some(&json!(false)) {
        let last = member(node, "last_contact");
        put(&mut row, "last_contact", format!("{last} (gone)"));
    }
    put(&mut row, "warning", first_warning(node));
    row
}

/// `books@3`, or `books@3(nack 4)`.
fn api_text(api: &Value) -> String {
    let (name, generation) = (member(api, "api"), member(api, "generation"));
    match member(api, "state").as_str() {
        "ack" => format!("{name}@{generation}"),
        state => format!(
            "{name}@{generation}({state} {})",
            member(api, "refused_generation")
        ),
    }
}

/// Callers found in the process, of all that called.
fn hit_rate(node: &Value) -> String {
    let count = |path| {
        node.pointer(path)
            .and_then(Value::as_u64)
            .unwrap_or_default()
    };
    let (hits, asked) = (count("/counts/hits"), count("/counts/asked"));
    match hits.saturating_add(asked) {
        0 => "-".to_owned(),
        all => {
            let tenths = u128::from(hits) * 1_000 / u128::from(all);
            format!("{}.{}%", tenths / 10, tenths % 10)
        }
    }
}

fn print_process(control: &Control, process: &Value) -> anyhow::Result<()> {
    let mut head = process.clone();
    if let Some(members) = head.as_object_mut() {
        members.remove("apis");
        members.remove("counts");
        members.remove("warnings");
        if let Some(counts) = process.get("counts").and_then(Value::as_object) {
            members.extend(counts.clone());
        }
    }
    put(&mut head, "hit_rate", hit_rate(process));
    put(&mut head, "warning", first_warning(process));
    control.print(&head)?;
    println!();
    let apis = list(process, "apis");
    control.print_list(
        apis.to_vec(),
        &[
            ("API", "/api"),
            ("GENERATION", "/generation"),
            ("STATE", "/state"),
            ("REFUSED", "/refused_generation"),
        ],
    )?;
    for api in apis {
        let reason = api
            .get("reason")
            .and_then(Value::as_str)
            .unwrap_or_default();
        print_lines(&member(api, "api"), reason.lines());
    }
    Ok(())
}

fn print_findings(bundle: &Value) {
    let lines = list(bundle, "findings").iter().filter_map(Value::as_str);
    print_lines(&member(bundle, "api"), lines);
}

fn print_lines<'l>(api: &str, lines: impl Iterator<Item = &'l str>) {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        println!("\n{api}:");
    }
    lines.for_each(|line| println!("  {line}"));
}

fn first_warning(node: &Value) -> String {
    let warnings = list(node, "warnings");
    let first = warnings.first().and_then(Value::as_str);
    first.unwrap_or_default().to_owned()
}

fn list<'v>(object: &'v Value, name: &str) -> &'v [Value] {
    let list = object.get(name).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

fn member(object: &Value, name: &str) -> String {
    match object.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_told_on_one_line() {
        let node = json!({
            "node": "a", "connected": false, "last_contact": "then", "warnings": ["two"],
            "counts": { "hits": 998, "asked": 2 },
            "apis": [
                { "api": "books", "generation": 3, "state": "ack" },
                { "api": "pets", "generation": 1, "state": "nack", "refused_generation": 2 },
            ],
        });
        let row = row(&node);
        assert_eq!(row["served"], "books@3 pets@1(nack 2)");
        assert_eq!(row["hit_rate"], "99.8%");
        assert_eq!(row["last_contact"], "then (gone)");
        assert_eq!(row["warning"], "two");
        assert_eq!(hit_rate(&json!({})), "-");
    }
}
