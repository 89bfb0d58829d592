//! Single values as people write them: durations, sizes, numbers, hosts, networks, addresses, paths.
//!
//! Each function turns text into a value or says what is wrong and what to write instead. Nothing is looked up.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Timestamp;

use super::{AccessLogTarget, HostPattern, ListenAddress, Network, SecurityMode};

/// What is wrong with a value and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) remedy: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// A duration above zero: `250ms`, `30s`, `5m`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    match milliseconds(text) {
        Some(0) => Err(Wrong::new(
            "must be longer than zero",
            "write for example 250ms or 30s",
        )),
        // A week: anything longer is a slip of the unit.
        Some(total) if total > 7 * 24 * 3_600_000 => Err(Wrong::new(
            format!("`{text}` is longer than a week"),
            "write at most 168h",
        )),
        Some(total) if !text.ends_with('d') => Ok(Duration::from_millis(total)),
        _ => Err(Wrong::new(
            format!("`{text}` is no duration"),
            "write a whole number and a unit: 250ms, 30s, 5m, 1h",
        )),
    }
}

/// A duration as [`duration`] reads it, or `off` for none.
pub(super) fn duration_or_off(text: &str) -> Result<Duration, Wrong> {
    match text {
        "off" | "0s" => Ok(Duration::ZERO),
        _ => duration(text),
    }
}

/// A time people live by, up to ten years: `14d`, `48h`, or `off` for none.
pub(super) fn days(text: &str) -> Result<Duration, Wrong> {
    const TEN_YEARS: u64 = 3_650 * 24 * 3_600_000;
    match milliseconds(text) {
        _ if text == "off" => Ok(Duration::ZERO),
        Some(total) if total <= TEN_YEARS => Ok(Duration::from_millis(total)),
        _ => Err(Wrong::new(
            format!("`{text}` is no time of up to ten years"),
            "write a whole number and a unit, such as 14d or 48h, or off",
        )),
    }
}

/// A whole number and a unit, as milliseconds.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 24 * 3_600_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(milliseconds)
}

/// A moment in RFC 3339.
pub(super) fn moment(text: &str) -> Result<Timestamp, Wrong> {
    Timestamp::parse(text).ok_or_else(|| {
        Wrong::new(
            format!("`{text}` is no time"),
            "write date, time and zone as in RFC 3339: 2026-11-21T16:00:00Z",
        )
    })
}

/// Hours of the day as minutes, from and to: `08:00-18:00`.
pub(super) fn hours(text: &str) -> Result<(u16, u16), Wrong> {
    let minutes = |text: &str| -> Option<u16> {
        let (hour, minute) = text.split_once(':')?;
        let two = |part: &str, most: u16| {
            let plain = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
            part.parse().ok().filter(|n| plain && *n <= most)
        };
        match (two(hour, 24)?, two(minute, 59)?) {
            (24, 1..) => None,
            (hour, minute) => Some(hour * 60 + minute),
        }
    };
    let split = text.split_once('-');
    match split.and_then(|(from, to)| minutes(from).zip(minutes(to))) {
        Some((from, to)) if from == to => Err(Wrong::new(
            format!("`{text}` is no time at all"),
            "write an end that differs from the beginning, or remove the field",
        )),
        Some((from, to)) if from < 24 * 60 => Ok((from, to)),
        _ => Err(Wrong::new(
            format!("`{text}` are no hours"),
            "write beginning and end in UTC: \"08:00-18:00\", in quotes",
        )),
    }
}

/// Bytes above zero: `500`, `32KiB`, `1MiB`, `2GiB`.
pub(super) fn size(text: &str) -> Result<u64, Wrong> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let factor: Option<u64> = match unit {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    match digits
        .parse::<u64>()
        .ok()
        .zip(factor)
        .and_then(|(n, f)| n.checked_mul(f))
    {
        Some(0) => Err(Wrong::new(
            "must be more than zero",
            "write for example 32KiB or 1MiB",
        )),
        Some(bytes) => Ok(bytes),
        None => Err(Wrong::new(
            format!("`{text}` is no size"),
            "write a whole number of bytes, or with KiB, MiB or GiB: 500, 32KiB, 1MiB",
        )),
    }
}

/// A whole number from `least` to `most`.
pub(super) fn number<N: TryFrom<u64>>(text: &str, least: u64, most: u64) -> Result<N, Wrong> {
    let wrong = || {
        Wrong::new(
            format!("`{text}` is no whole number from {least} to {most}"),
            format!("write one from {least} to {most}"),
        )
    };
    let number = text
        .parse::<u64>()
        .ok()
        .filter(|number| (least..=most).contains(number));
    number
        .and_then(|number| N::try_from(number).ok())
        .ok_or_else(wrong)
}

/// A host name without port, or `*.` and a suffix. Lower-cased.
pub(super) fn host(text: &str) -> Result<HostPattern, Wrong> {
    let lower = text.to_ascii_lowercase();
    let wrong = || {
        Wrong::new(
            format!("`{text}` is no host name"),
            "write a name without scheme, port or path: api.example.com, or *.example.com",
        )
    };
    match lower.strip_prefix("*.") {
        Some(suffix) if name(suffix) => Ok(HostPattern::Suffix(format!(".{suffix}").into())),
        None if name(&lower) || ipv6(&lower) => Ok(HostPattern::Exact(lower.into())),
        _ => Err(wrong()),
    }
}

/// In brackets, as in a URL.
pub(super) fn ipv6(text: &str) -> bool {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    inner.is_some_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

/// Letters, digits, `-` and `_` in labels of at most 63 bytes. `_` is no host name by RFC 1123 but common inside clusters.
pub(super) fn name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// A base path: starts with `/`, no trailing slash; `/` and the empty text mean none.
pub(super) fn base_path(text: &str) -> Result<Arc<str>, Wrong> {
    let trimmed = text.strip_suffix('/').unwrap_or(text);
    if trimmed.is_empty() {
        return Ok("".into());
    }
    let fit = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@/".contains(&b);
    let segments_fit = trimmed
        .split('/')
        .skip(1)
        .all(|segment| !matches!(segment, "" | "." | ".."));
    if trimmed.starts_with('/') && segments_fit && trimmed.bytes().all(fit) {
        return Ok(trimmed.into());
    }
    Err(Wrong::new(
        format!("`{text}` is no base path"),
        "write a plain path such as /v1: a leading slash, no empty or dot segments, no escapes, no query",
    ))
}

/// A path of an HTTP request, for the health check.
pub(super) fn request_path(text: &str) -> Result<Arc<str>, Wrong> {
    if text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Ok(text.into());
    }
    Err(Wrong::new(
        format!("`{text}` is no path"),
        "write a path such as /healthz",
    ))
}

/// A network in CIDR notation, or a single address.
pub(super) fn network(text: &str) -> Result<Network, Wrong> {
    let (address, prefix) = text
        .split_once('/')
        .map_or((text, None), |(a, p)| (a, Some(p)));
    let wrong = || {
        Wrong::new(
            format!("`{text}` is no network"),
            "write CIDR notation: 10.0.0.0/8, fd00::/8",
        )
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(prefix) => number::<u8>(prefix, 0, u64::from(width)).map_err(|_| wrong())?,
        None => width,
    };
    let cleared = match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    };
    if cleared != address {
        return Err(Wrong::new(
            format!("`{text}` has bits beyond its prefix"),
            format!("write {cleared}/{prefix}, or {address} for the single address"),
        ));
    }
    Ok(Network { address, prefix })
}

/// `0.0.0.0:8080`, `[::]:8080` or `unix:/run/tollgate.sock`.
pub(super) fn listen_address(text: &str) -> Result<ListenAddress, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.starts_with('/') {
            true => Ok(ListenAddress::Unix(PathBuf::from(path))),
            false => Err(Wrong::new(
                format!("`{text}` is no absolute socket path"),
                "write unix:/run/tollgate.sock",
            )),
        };
    }
    text.parse().map(ListenAddress::Tcp).map_err(|_| {
        Wrong::new(
            format!("`{text}` is no address to listen on"),
            "write address and port, 0.0.0.0:8080 or [::]:8080, or unix:/run/tollgate.sock",
        )
    })
}

/// Address and port of the admin listener.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| {
        Wrong::new(
            format!("`{text}` is no address with port"),
            "write 127.0.0.1:9900",
        )
    })
}

/// `enforce` or `off`.
pub(super) fn security(text: &str) -> Result<SecurityMode, Wrong> {
    match text {
        "enforce" => Ok(SecurityMode::Enforce),
        "off" => Ok(SecurityMode::Off),
        _ => Err(Wrong::new(
            format!("`{text}` is neither enforce nor off"),
            "write one of them",
        )),
    }
}

/// A switch: `on`, `off`, `true` or `false`.
pub(super) fn switch(text: &str) -> Result<bool, Wrong> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(Wrong::new(
            format!("`{text}` is no switch"),
            "write `on` or `off`",
        )),
    }
}

/// `stdout`, `off`, or the path of a file.
pub(super) fn access_log(text: &str) -> Result<AccessLogTarget, Wrong> {
    match text {
        "stdout" => Ok(AccessLogTarget::Stdout),
        "off" => Ok(AccessLogTarget::Off),
        "" => Err(Wrong::new(
            "is empty",
            "write stdout, off, or the path of a file",
        )),
        path => Ok(AccessLogTarget::File(PathBuf::from(path))),
    }
}

/// A duration of the command line, such as `30s`.
///
/// # Errors
/// What is wrong and what to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text).map_err(|wrong| format!("{}; {}", wrong.what, wrong.remedy))
}

/// An address to listen on, such as `0.0.0.0:8080` or `unix:/run/tollgate.sock`.
///
/// # Errors
/// What is wrong and what to write instead.
pub fn parse_listen_address(text: &str) -> Result<ListenAddress, String> {
    listen_address(text).map_err(|wrong| format!("{}; {}", wrong.what, wrong.remedy))
}

/// `stdout`, `off`, or the path of a file.
///
/// # Errors
/// What is wrong and what to write instead.
pub fn parse_access_log(text: &str) -> Result<AccessLogTarget, String> {
    access_log(text).map_err(|wrong| format!("{}; {}", wrong.what, wrong.remedy))
}
