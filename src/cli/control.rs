//! Asks the control plane over its HTTP API, and prints what it answers.
//!
//! Promises: the admin credential goes to this machine only, never onto a command line or into a message. Not here: what can be
//! asked; each verb has its own file.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

/// A backup of a large store takes a while; anything else answers at once.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Longest answer read.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;
/// Entries asked for at a time.
const PAGE: usize = 500;
/// The admin credential itself, for where no file can be given.
const CREDENTIAL: &str = "TOLLGATE_ADMIN_CREDENTIAL";

/// Whom to ask, and how to show the answer.
#[derive(Debug, clap::Args)]
pub(super) struct Control {
    /// Address of the control plane on this machine
    #[arg(
        long,
        value_name = "URL",
        global = true,
        default_value = "http://127.0.0.1:9911"
    )]
    control: String,
    /// File with the admin credential [default: $TOLLGATE_ADMIN_CREDENTIAL, else from the state directory]
    #[arg(long, value_name = "FILE", global = true)]
    admin_credential: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

impl Control {
    /// GETs `path`.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.exchange("GET", path, None)
    }

    /// POSTs `body` to `path`.
    pub(super) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.exchange("POST", path, Some(body))
    }

    /// PUTs `body` to `path`.
    pub(super) fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.exchange("PUT", path, Some(body))
    }

    /// PATCHes `path` with `body`.
    pub(super) fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.exchange("PATCH", path, Some(body))
    }

    /// DELETEs `path` and says so.
    pub(super) fn delete(&self, path: &str, what: &str) -> anyhow::Result<ExitCode> {
        self.exchange("DELETE", path, None)?;
        if !self.json {
            println!("deleted {what}");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// GETs a text, and the path of the page after it.
    pub(super) fn text(&self, path: &str) -> anyhow::Result<(String, Option<String>)> {
        let answer = self.fetch("GET", path, None)?;
        let (head, body) = good(&answer)?;
        Ok((body.to_owned(), next_page(head)))
    }

    /// All entries of a list, page by page.
    pub(super) fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let mut page = self.get(&format!("{path}{joint}limit={PAGE}{after}"))?;
            match page.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => all.extend(items),
                Some(_) | None => bail!("the answer is no list"),
            }
            let Some(next) = page.get("next").and_then(Value::as_str) else {
                return Ok(all);
            };
            after = format!("&after={}", segment(next));
        }
    }

    /// Prints a list: as JSON, or these columns, each a head and the path of a member (`/origin/file`).
    pub(super) fn print_list(
        &self,
        items: Vec<Value>,
        columns: &[(&str, &str)],
    ) -> anyhow::Result<ExitCode> {
        if self.json {
            println!("{:#}", Value::Array(items));
        } else {
            print!("{}", table(&items, columns));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Prints an object: as JSON, or one member a line.
    pub(super) fn print(&self, object: &Value) -> anyhow::Result<ExitCode> {
        if self.json {
            println!("{object:#}");
        } else {
            print!("{}", members(object));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Whether people do not read the output.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        understand(&self.fetch(method, path, body)?)
    }

    fn fetch(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<String> {
        let address = self.address()?;
        let credential = self.credential()?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).with_context(|| {
            format!("no control plane answers on {address}; start one, or name it with --control")
        })?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        // HTTP/1.0 keeps the answer unchunked and the connection short.
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {credential}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        let read = stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer);
        read.with_context(|| format!("{address} did not answer in full"))?;
        Ok(answer)
    }

    fn address(&self) -> anyhow::Result<SocketAddr> {
        let authority = self
            .control
            .strip_prefix("http://")
            .map(|it| it.trim_end_matches('/'));
        let authority = authority.map(|it| it.replacen("localhost:", "127.0.0.1:", 1));
        let address: Option<SocketAddr> = authority.and_then(|it| it.parse().ok());
        let Some(address) = address else {
            bail!("--control: write an address as in http://127.0.0.1:9911");
        };
        if !address.ip().to_canonical().is_loopback() {
            bail!(
                "--control: {address} is another machine, and the credential would travel in the clear; \
                 use a tunnel"
            );
        }
        Ok(address)
    }

    fn credential(&self) -> anyhow::Result<String> {
        let text = match (&self.admin_credential, super::environment(CREDENTIAL)) {
            (Some(file), _) => read(file)?,
            (None, Some(credential)) => credential,
            (None, None) => {
                let home = super::environment("HOME").map(PathBuf::from);
                let own = home.map(|home| home.join(".local/state/tollgate"));
                let places = [Some(PathBuf::from("/var/lib/tollgate")), own];
                let mut files = places
                    .into_iter()
                    .flatten()
                    .map(|it| it.join("admin-credential"));
                let Some(file) = files.find(|file| file.exists()) else {
                    bail!("name the file of the admin credential with --admin-credential");
                };
                read(&file)?
            }
        };
        let text = text.trim().to_owned();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("that is no admin credential: it has to be one word");
        }
        Ok(text)
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The body of a good answer; of another, what it says is wrong.
fn understand(answer: &str) -> anyhow::Result<Value> {
    let (_, body) = good(answer)?;
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(body).context("the answer is no JSON")
}

/// Where the header `Link` (RFC 8288) says that the next page is.
fn next_page(head: &str) -> Option<String> {
    let mut lines = head.lines();
    let link = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("link").then(|| value.trim())
    })?;
    let (target, relation) = link.strip_prefix('<')?.split_once('>')?;
    relation.contains("rel=\"next\"").then(|| target.to_owned())
}

/// Head and body of a good answer; of another, what it says is wrong.
fn good(answer: &str) -> anyhow::Result<(&str, &str)> {
    let parts = answer.split_once("\r\n\r\n");
    let (head, body) = parts.context("the answer is no HTTP")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') {
        return Ok((head, body));
    }
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    match problem.get("detail").and_then(Value::as_str) {
        Some(detail) => bail!("{detail}"),
        None => bail!("status {status}; is it the address of a control plane?"),
    }
}

/// A text as one segment of a path, or one value of a query.
pub(super) fn segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// Adds a member to an object.
pub(super) fn put(object: &mut Value, member: &str, value: impl Into<Value>) {
    if let Some(members) = object.as_object_mut() {
        members.insert(member.to_owned(), value.into());
    }
}

fn table(items: &[Value], columns: &[(&str, &str)]) -> String {
    let mut rows = vec![
        columns
            .iter()
            .map(|(head, _)| (*head).to_owned())
            .collect::<Vec<_>>(),
    ];
    rows.extend(items.iter().map(|item| {
        let cells = columns.iter().map(|(_, member)| item.pointer(member));
        cells
            .map(|cell| cell.map_or_else(|| "-".to_owned(), shown))
            .collect()
    }));
    let mut widths = vec![0; columns.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn members(object: &Value) -> String {
    let Some(members) = object.as_object() else {
        return format!("{}\n", shown(object));
    };
    let width = members
        .keys()
        .map(|key| key.chars().count())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for (key, value) in members {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key:width$}  {}", shown(value));
    }
    text
}

/// A value in one cell. What a control plane answers may hold what strangers wrote: control characters are not printed.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Object(members) => {
            let pairs = members
                .iter()
                .map(|(key, value)| format!("{key}={}", shown(value)));
            pairs.collect::<Vec<_>>().join(" ")
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    };
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn control(url: &str) -> Control {
        Control {
            control: url.to_owned(),
            admin_credential: None,
            json: false,
        }
    }

    #[test]
    fn the_credential_stays_on_this_machine() {
        for url in [
            "http://127.0.0.1:9911",
            "http://localhost:9911/",
            "http://[::1]:9911",
        ] {
            assert!(control(url).address().is_ok(), "{url}");
        }
        for url in [
            "http://192.0.2.1:9911",
            "https://127.0.0.1:9911",
            "127.0.0.1:9911",
            "http://x",
        ] {
            assert!(control(url).address().is_err(), "{url}");
        }
    }

    #[test]
    fn a_problem_is_said_in_its_own_words() {
        let answer = "HTTP/1.0 409 Conflict\r\n\r\n{\"detail\":\"plan `a` is in use\"}";
        assert_eq!(
            understand(answer).unwrap_err().to_string(),
            "plan `a` is in use"
        );
        assert!(
            understand("HTTP/1.0 204 No Content\r\n\r\n")
                .unwrap()
                .is_null()
        );
        assert!(understand("nonsense").is_err());
    }

    #[test]
    fn lists_line_up_and_hide_control_characters() {
        let items = [
            json!({ "name": "a", "roles": ["x", "y"] }),
            json!({ "name": "long\u{1b}[2J" }),
        ];
        let text = table(&items, &[("NAME", "/name"), ("ROLES", "/roles")]);
        assert_eq!(text, "NAME      ROLES\na         x, y\nlong [2J  -\n");
        assert_eq!(segment("GET /a"), "GET%20%2Fa");
    }
}
