//! Small texts the control plane reads and writes: names, digests, networks, members of JSON objects.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use tollgate_policy::credentials::Digest;
use tollgate_policy::settings::Network;

/// Longest name of an object, in bytes.
const NAME: usize = 63;

/// Whether `name` is one objects may have: `[a-z0-9-]`, 1 to 63 bytes, no hyphen at either end.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// A time people live by, up to ten years, written as in files: `14d`, `48h`, or `off` for none.
pub(crate) fn parse_days(text: &str) -> Result<Duration, String> {
    const TEN_YEARS: u64 = 3_650 * 24 * 3_600_000;
    if text == "off" {
        return Ok(Duration::ZERO);
    }
    let split = text.find(|c: char| !c.is_ascii_digit());
    let (digits, unit) = text.split_at(split.unwrap_or(text.len()));
    let unit: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 24 * 3_600_000,
        _ => 0,
    };
    let total = digits
        .parse()
        .ok()
        .and_then(|count: u64| count.checked_mul(unit));
    match total {
        Some(total) if unit > 0 && total <= TEN_YEARS => Ok(Duration::from_millis(total)),
        Some(_) | None => Err(format!(
            "`{text}` is no time of up to ten years; write a whole number and a unit, such as 14d or 48h, or off"
        )),
    }
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A digest from 64 lower-case hexadecimal digits.
pub(crate) fn parse_digest(text: &str) -> Option<Digest> {
    let nibble = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let bytes = text.as_bytes();
    if bytes.len() != 64 {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(Digest(digest))
}

/// A network as it is written: `192.0.2.0/24`.
pub(crate) fn network_text(network: &Network) -> String {
    format!("{}/{}", network.address, network.prefix)
}

/// A network in CIDR notation, or a single address. Host bits must be clear.
pub(crate) fn parse_network(text: &str) -> Option<Network> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address.parse().ok()?, Some(prefix.parse::<u8>().ok()?)),
        None => (text.parse::<IpAddr>().ok()?, None),
    };
    let (bits, width) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let prefix = prefix.unwrap_or(width);
    let host_bits = bits.checked_shl(u32::from(prefix)).unwrap_or(0);
    (prefix <= width && host_bits == 0).then_some(Network { address, prefix })
}

/// Adds a member to a JSON object.
pub(crate) fn put(object: &mut Value, member: &str, value: impl Into<Value>) {
    if let Some(members) = object.as_object_mut() {
        members.insert(member.to_owned(), value.into());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_strictly() {
        for text in ["192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32", "192.0.2.1/32"] {
            assert_eq!(network_text(&parse_network(text).unwrap()), text);
        }
        assert_eq!(parse_network("192.0.2.7").unwrap().prefix, 32);
        for text in ["192.0.2.1/24", "192.0.2.0/33", "::/129", "x", ""] {
            assert_eq!(parse_network(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_written_as_in_files() {
        let hours = |hours: u64| Ok(Duration::from_secs(hours * 3600));
        for (text, time) in [
            ("30d", hours(720)),
            ("48h", hours(48)),
            ("off", hours(0)),
            ("0s", hours(0)),
        ] {
            assert_eq!(parse_days(text), time);
        }
        for text in ["", "30", "d", "-1d", "3651d", "1w", "99999999999999999999d"] {
            assert!(parse_days(text).is_err(), "{text}");
        }
    }

    #[test]
    fn digests_return() {
        let digest = Digest([0xa5; 32]);
        assert_eq!(parse_digest(&hex(&digest.0)), Some(digest));
        assert_eq!(parse_digest("a5"), None);
        assert_eq!(parse_digest(&"G".repeat(64)), None);
    }

    #[test]
    fn names_are_plain() {
        assert!(is_name("a") && is_name("shop-2") && is_name(&"a".repeat(63)));
        for name in ["", "A", "a_b", "-a", "a-", "a/b", &"a".repeat(64)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
