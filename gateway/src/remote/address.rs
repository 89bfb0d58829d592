//! Which addresses are not for the public: a name somebody else controls must not lead there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is private, loopback, link-local, or for documentation or special use (IANA registries).
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => private_v4(v4),
        IpAddr::V6(v6) => private_v6(v6),
    }
}

fn private_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_unspecified()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_documentation()
        || first == 0
        || first >= 240
        // Shared address space of carriers (RFC 6598), where clouds keep metadata services too.
        || (first == 100 && (64..128).contains(&second))
        // IETF protocol assignments and benchmarking.
        || (first == 192 && second == 0 && third == 0)
        // Anycast relays of 6to4, withdrawn (RFC 7526).
        || (first == 192 && second == 88 && third == 99)
        || (first == 198 && (second == 18 || second == 19))
}

fn private_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [first, second, ..] = segments;
    // Addresses that carry an IPv4 address are judged by it: 6to4, NAT64.
    match segments {
        [0x2002, high, low, ..] | [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => {
            return private_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
        }
        _ => {}
    }
    // Of all that is assigned, only this part is for the public; and not all of it.
    let global = (first & 0xe000) == 0x2000;
    let protocol_assignments = first == 0x2001 && second < 0x0200;
    let documentation =
        (first == 0x2001 && second == 0x0db8) || (first == 0x3fff && second < 0x1000);
    !global || protocol_assignments || documentation
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_inside_of_a_network_is_told_from_the_outside() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.100.100.200",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::a9fe:a9fe",
            "198.18.0.1",
            "224.0.0.1",
            "192.88.99.1",
            "ff02::1",
            "fec0::1",
            "::127.0.0.1",
            "64:ff9b:1::a00:1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
        ] {
            assert!(is_private(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "2002:101:101::",
            "64:ff9b::101:101",
            "2a00:1450:4001::200e",
        ] {
            assert!(!is_private(outside.parse().unwrap()), "{outside}");
        }
    }
}
