//! The PROXY protocol, versions 1 and 2 (haproxy.org/download/3.0/doc/proxy-protocol.txt): who the client of a trusted proxy is.
//!
//! Promises: read under a deadline and a cap, and strictly; what follows the header is given back. Not here: whom to trust.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use super::socket::Accepted;

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;

/// The longest line of version 1, by its specification.
const V1_LONGEST: usize = 107;

/// The longest header of version 2 we accept: addresses of any family and the TLVs that load balancers send (certificate
/// names, identifiers) fit; the format would allow 64 KiB.
const V2_LONGEST: usize = 4096;

/// Reads the header. The client is `None` where the proxy speaks for itself (`LOCAL`, `UNKNOWN`).
pub(super) async fn read(
    accepted: &mut Accepted,
    limit: Duration,
) -> io::Result<(Option<SocketAddr>, BytesMut)> {
    let mut bytes = BytesMut::new();
    let read = async {
        loop {
            if let Some((client, length)) = parse(&bytes)? {
                drop(bytes.split_to(length));
                return Ok((client, bytes));
            }
            let received = match accepted {
                Accepted::Tcp(stream) => stream.read_buf(&mut bytes).await?,
                Accepted::Unix(stream) => stream.read_buf(&mut bytes).await?,
            };
            if received == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    match pingora_timeout::timeout(limit, read).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// The client and the header's length, once it is complete; the client is `None` where the proxy speaks for itself.
///
/// # Errors
/// `InvalidData`: no header, or one that says what cannot be believed.
pub fn parse(bytes: &[u8]) -> io::Result<Option<(Option<SocketAddr>, usize)>> {
    let common = bytes.len().min(V2_SIGNATURE.len());
    if bytes.get(..common) == V2_SIGNATURE.get(..common) {
        return parse_v2(bytes);
    }
    let common = bytes.len().min(6);
    if bytes.get(..common) == b"PROXY ".get(..common) {
        return parse_v1(bytes);
    }
    Err(invalid())
}

fn parse_v1(bytes: &[u8]) -> io::Result<Option<(Option<SocketAddr>, usize)>> {
    let window = bytes.get(..bytes.len().min(V1_LONGEST)).unwrap_or_default();
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if bytes.len() < V1_LONGEST {
            Ok(None)
        } else {
            Err(invalid())
        };
    };
    let line = window
        .get(..end)
        .and_then(|line| line.strip_suffix(b"\r"))
        .ok_or_else(invalid)?;
    let line = std::str::from_utf8(line).map_err(|_| invalid())?;
    let mut words = line.split(' ').skip(1);
    let client = match words.next() {
        Some("UNKNOWN") => None,
        Some(family @ ("TCP4" | "TCP6")) => {
            let rest: Vec<&str> = words.collect();
            let [source, destination, source_port, destination_port] = rest.as_slice() else {
                return Err(invalid());
            };
            let address = |text: &str| text.parse::<IpAddr>().map_err(|_| invalid());
            // One spelling of each number: no sign, no leading zero.
            let port = |text: &str| match text.parse::<u16>() {
                Ok(port) if port.to_string() == text => Ok(port),
                _ => Err(invalid()),
            };
            let (source, destination) = (address(source)?, address(destination)?);
            port(destination_port)?;
            if source.is_ipv4() != (family == "TCP4") || destination.is_ipv4() != source.is_ipv4() {
                return Err(invalid());
            }
            Some(SocketAddr::new(source, port(source_port)?))
        }
        _ => return Err(invalid()),
    };
    Ok(Some((client, end + 1)))
}

fn parse_v2(bytes: &[u8]) -> io::Result<Option<(Option<SocketAddr>, usize)>> {
    let Some(fixed) = bytes.first_chunk::<V2_FIXED>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *fixed;
    let length = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > V2_LONGEST {
        return Err(invalid());
    }
    let Some(body) = bytes.get(V2_FIXED..length) else {
        return Ok(None);
    };
    let client = match (command, family) {
        (0x20, _) | (0x21, 0x00) => None,
        (0x21, 0x11) => {
            let [a, b, c, d, _, _, _, _, high, low, _, _] =
                *body.first_chunk::<12>().ok_or_else(invalid)?;
            let port = u16::from_be_bytes([high, low]);
            Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port))
        }
        (0x21, 0x21) => {
            let addresses = body.first_chunk::<36>().ok_or_else(invalid)?;
            let source = addresses.first_chunk::<16>().ok_or_else(invalid)?;
            let [.., high, low, _, _] = *addresses;
            let port = u16::from_be_bytes([high, low]);
            Some(SocketAddr::new(Ipv6Addr::from(*source).into(), port))
        }
        // UDP makes no sense here, Unix sockets have no address to believe.
        _ => return Err(invalid()),
    };
    Ok(Some((client, length)))
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no valid PROXY protocol header")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE.as_slice(), &[command, family], &length, body].concat()
    }

    #[test]
    fn headers_of_both_versions_tell_the_client() {
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 80];
        let mut six = [0; 36];
        six[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        six[32..34].copy_from_slice(&12345_u16.to_be_bytes());
        let cases = [
            (
                b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n".to_vec(),
                Some("192.0.2.7:12345"),
            ),
            (
                b"PROXY TCP6 2001:db8::7 ::1 12345 80\r\n".to_vec(),
                Some("[2001:db8::7]:12345"),
            ),
            (b"PROXY UNKNOWN whatever\r\n".to_vec(), None),
            (v2(0x21, 0x11, &four), Some("192.0.2.7:12345")),
            (
                v2(0x21, 0x11, &[four.as_slice(), &[4, 0, 1, 0]].concat()),
                Some("192.0.2.7:12345"),
            ),
            (v2(0x21, 0x21, &six), Some("[2001:db8::7]:12345")),
            (v2(0x20, 0x00, &[]), None),
        ];
        for (header, client) in cases {
            let client = client.map(|text| text.parse().unwrap());
            for cut in 0..header.len() {
                assert_eq!(parse(&header[..cut]).unwrap(), None);
            }
            let followed = [header.as_slice(), b"GET"].concat();
            assert_eq!(parse(&followed).unwrap(), Some((client, header.len())));
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let cases = [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 12345\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 123456 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 +1234 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1234 080\r\n".to_vec(),
            b"PROXY UNKNOWN\n".to_vec(),
            [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100]].concat(),
            v2(0x21, 0x11, &[1, 2, 3]),
            v2(0x31, 0x11, &[0; 12]),
            v2(0x21, 0x12, &[0; 12]),
            v2(0x21, 0x11, &[0; 5000]),
        ];
        for header in cases {
            assert!(
                parse(&header).is_err(),
                "{}",
                String::from_utf8_lossy(&header)
            );
        }
    }
}
