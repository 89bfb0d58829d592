//! `tollgate explain`: why a call is answered as it is, asked from a running gateway.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::admin;

pub(super) const EXAMPLES: &str = "Examples:
  tollgate explain GET http://api.example.com/v1/books -H 'x-api-key: tg_live_…'
  tollgate explain DELETE /v1/books/1 -H 'authorization: Bearer eyJ…' --client 192.0.2.7
  tollgate explain --request-id 7f9c2ba4e88f827d6160455076058

Exit codes: 0 the call would pass, 1 it would be refused.";

/// A call, described or named.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Method, such as GET
    #[arg(required_unless_present = "request_id", requires = "url")]
    method: Option<String>,
    /// URL or path, such as http://api.example.com/v1/books?limit=2
    url: Option<String>,
    /// Header field of the call (repeatable)
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Client address the call would come from
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// A recent call instead, by its x-request-id
    #[arg(long, value_name = "ID", conflicts_with_all = ["method", "url", "headers", "client"])]
    request_id: Option<String>,
    /// Admin address of the gateway
    #[arg(long, value_name = "ADDR", default_value = admin::DEFAULT)]
    admin: SocketAddr,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Asks and prints.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let answer = match (&args.request_id, &args.method, &args.url) {
        (Some(id), _, _) if id.bytes().all(|byte| byte.is_ascii_graphic()) => {
            admin::get(args.admin, &format!("/explain/{id}"))?
        }
        (None, Some(method), Some(url)) => {
            let headers = args.headers.iter().map(|text| field(text));
            let headers = headers.collect::<anyhow::Result<Vec<_>>>()?;
            let call =
                json!({ "method": method, "url": url, "headers": headers, "client": args.client });
            admin::post(args.admin, "/explain", &call.to_string())?
        }
        _ => bail!("name METHOD and URL, or --request-id"),
    };
    let explained: Value = serde_json::from_str(&answer).context("the answer is no JSON")?;
    if args.json {
        println!("{explained:#}");
    } else {
        print!("{}", text(&explained));
    }
    let passes = explained.get("verdict").and_then(Value::as_str) == Some("allow");
    Ok(ExitCode::from(u8::from(!passes)))
}

fn field(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text
        .split_once(':')
        .with_context(|| format!("`{text}` is no header field; write NAME: VALUE"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn text(explained: &Value) -> String {
    let get = |name: &str| explained.get(name).and_then(Value::as_str).unwrap_or("");
    let mut text = String::new();
    for (label, name) in [
        ("api", "api"),
        ("operation", "operation"),
        ("consumer", "consumer"),
        ("credential", "credential"),
        ("plan", "plan"),
        ("at", "at"),
    ] {
        if !get(name).is_empty() {
            text.push_str(&format!("{label:12}{}\n", get(name)));
        }
    }
    if let Some(age) = explained.get("held_for_ms").and_then(Value::as_u64) {
        text.push_str(&format!("{:12}{age} ms\n", "held for"));
    }
    let rules = explained.get("rules").and_then(Value::as_array);
    for rule in rules.into_iter().flatten() {
        let get = |name: &str| rule.get(name).and_then(Value::as_str).unwrap_or("");
        let place = match get("place") {
            "" => String::new(),
            place => format!("{place} "),
        };
        let detail = match get("detail") {
            "" => String::new(),
            detail => format!(" ({detail})"),
        };
        let (kind, name, outcome) = (get("kind"), get("name"), get("outcome"));
        text.push_str(&format!("  {place}{kind} {name}: {outcome}{detail}\n"));
    }
    let status = explained.get("status").and_then(Value::as_u64).unwrap_or(0);
    match status {
        0 => text.push_str(&format!("{:12}{}\n", "verdict", get("verdict"))),
        _ => text.push_str(&format!("{:12}{} ({status})\n", "verdict", get("verdict"))),
    }
    for name in ["reason", "note"] {
        if !get(name).is_empty() {
            text.push_str(&format!("{name:12}{}\n", get(name)));
        }
    }
    text
}
