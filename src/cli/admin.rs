//! Asks the admin listener of a running gateway.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};

/// A local process that does not answer within this time is stuck.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer read: thousands of APIs, not an endless stream.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// Where a gateway's admin listener is by default.
pub(super) const DEFAULT: &str = "127.0.0.1:9900";

/// GETs `path`.
pub(super) fn get(admin: SocketAddr, path: &str) -> anyhow::Result<String> {
    exchange(admin, "GET", path, "")
}

/// POSTs `json` to `path`.
pub(super) fn post(admin: SocketAddr, path: &str, json: &str) -> anyhow::Result<String> {
    exchange(admin, "POST", path, json)
}

/// What keeps the process from being ready; `None`: nothing. It has `limit` to say so.
pub(super) fn ready(admin: SocketAddr, limit: Duration) -> anyhow::Result<Option<String>> {
    let (status, body) = answer(admin, "GET", "/readyz", "", limit.min(TIMEOUT))?;
    match status.as_str() {
        "200" => Ok(None),
        "503" => Ok(Some(body.trim().to_owned())),
        status => {
            bail!("{admin} answered with status {status}; is it an admin address?")
        }
    }
}

fn exchange(admin: SocketAddr, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
    let (status, body) = answer(admin, method, path, body, TIMEOUT)?;
    match status.as_str() {
        "200" => Ok(body),
        "400" | "404" => bail!("{} ({status})", body.trim()),
        status => {
            bail!("{admin} answered with status {status}; is it the admin address of a gateway?")
        }
    }
}

/// Status and body.
fn answer(
    admin: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    limit: Duration,
) -> anyhow::Result<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&admin, limit).with_context(|| {
        format!("no gateway answers on {admin}; start one, or name its address with --admin")
    })?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    // HTTP/1.0 keeps the answer unchunked and the connection short.
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {admin}\r\nAccept: application/json\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    let read = stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer);
    read.with_context(|| format!("{admin} did not answer in full"))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer is no HTTP")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    Ok((status.to_owned(), body.to_owned()))
}
