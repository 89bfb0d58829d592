//! Numbers and addresses as text, without the formatting machinery: it costs ten times as much, and every request writes a dozen.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

/// Appends a number in decimal.
pub(crate) fn decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for place in digits.iter_mut().rev() {
        *place = digit(value);
        value /= 10;
        used += 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// Appends the last `WIDTH` digits of a number, with leading zeros.
pub(crate) fn padded<const WIDTH: usize>(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [b'0'; WIDTH];
    for place in digits.iter_mut().rev() {
        *place = digit(value);
        value /= 10;
    }
    out.extend_from_slice(&digits);
}

/// Appends a number of thousandths with three decimals.
pub(crate) fn thousandths(out: &mut Vec<u8>, value: u128) {
    let value = u64::try_from(value).unwrap_or(u64::MAX);
    decimal(out, value / 1000);
    out.push(b'.');
    padded::<3>(out, value % 1000);
}

/// Appends an address.
pub(crate) fn ip(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            let [first, rest @ ..] = v4.octets();
            decimal(out, first.into());
            for octet in rest {
                out.push(b'.');
                decimal(out, octet.into());
            }
        }
        // Compression has rules of its own; writing to a vector cannot fail.
        IpAddr::V6(v6) => {
            let _ = write!(out, "{v6}");
        }
    }
}

/// Appends an address with its port.
pub(crate) fn socket_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(v4) => {
            ip(out, (*v4.ip()).into());
            out.push(b':');
            decimal(out, v4.port().into());
        }
        SocketAddr::V6(v6) => {
            let _ = write!(out, "{v6}");
        }
    }
}

/// The last digit.
fn digit(value: u64) -> u8 {
    b'0' + u8::try_from(value % 10).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn everything_reads_as_the_formatting_machinery_writes_it() {
        for value in [0, 7, 10, 99, 100, 65_535, u64::MAX] {
            assert_eq!(written(|out| decimal(out, value)), value.to_string());
            let last = format!("{:03}", value % 1000);
            assert_eq!(written(|out| padded::<3>(out, value)), last);
            let exact = format!("{}.{last}", value / 1000);
            assert_eq!(written(|out| thousandths(out, value.into())), exact);
        }
        for address in [
            "0.0.0.0:0",
            "192.0.2.1:65535",
            "255.255.255.255:80",
            "[2001:db8::1]:443",
        ] {
            let parsed: SocketAddr = address.parse().unwrap();
            assert_eq!(written(|out| socket_address(out, parsed)), address);
            let host = parsed.ip();
            assert_eq!(written(|out| ip(out, host)), host.to_string());
        }
    }
}
