//! Certificates, good and odd. Where no library makes an odd one, bytes of a good one are replaced: nothing here looks at signatures.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, DnValue, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::*;

fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    change(&mut parameters);
    let key = KeyPair::generate().unwrap();
    parameters.self_signed(&key).unwrap().der().to_vec()
}

/// A certificate whose subject is this common name.
pub(in crate::credentials) fn plain(subject: &str) -> Vec<u8> {
    let name = subject.strip_prefix("CN=").unwrap();
    certificate(|parameters| parameters.distinguished_name.push(DnType::CommonName, name))
}

fn with_uris(uris: &[&str]) -> Vec<u8> {
    certificate(|parameters| {
        parameters.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().unwrap()))
            .collect();
    })
}

/// The certificate with `from` replaced by as many bytes.
fn patched(der: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut der = der;
    let places: Vec<_> = (0..der.len() - from.len())
        .filter(|at| der[*at..].starts_with(from))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        der[at..at + to.len()].copy_from_slice(to);
    }
    der
}

#[test]
fn a_spiffe_id_names_the_owner() {
    let der = certificate(|parameters| {
        parameters
            .distinguished_name
            .push(DnType::CommonName, "shop");
        parameters.subject_alt_names = vec![
            SanType::DnsName("shop.example".try_into().unwrap()),
            SanType::URI(
                "spiffe://example.org/ns/Prod/sa/shop_1.a-b"
                    .try_into()
                    .unwrap(),
            ),
        ];
    });
    let identity = identity(&der).unwrap();
    assert_eq!(
        identity.spiffe_id.as_deref(),
        Some("spiffe://example.org/ns/Prod/sa/shop_1.a-b")
    );
    assert_eq!(&*identity.subject, "CN=shop");
    assert_eq!(identity.name(), identity.spiffe_id.as_ref());
}

#[test]
fn without_one_the_subject_does() {
    let named = identity(&plain("CN=shop")).unwrap();
    assert_eq!(
        (named.spiffe_id.as_deref(), named.name().map(|name| &**name)),
        (None, Some("CN=shop"))
    );
    assert_eq!(identity(&certificate(|_| {})).unwrap().name(), None);
    // Other URIs are none of SPIFFE's business, however many there are.
    for uris in [
        &["https://a.example/"][..],
        &["https://a.example/", "urn:a"],
        &["spiffes://a/b"],
    ] {
        assert_eq!(identity(&with_uris(uris)).unwrap().spiffe_id, None);
    }
}

#[test]
fn the_rules_of_spiffe_hold() {
    let long = format!("spiffe://a/{}", "b".repeat(MAX_SPIFFE_ID - 11));
    assert!(is_spiffe_id(&long) && !is_spiffe_id(&format!("{long}b")));
    assert!(is_spiffe_id("spiffe://a_1.b-2/x"));
    for id in [
        "spiffe://",
        "spiffe:///a",
        "spiffe://a",
        "spiffe://a/",
        "spiffe://a//b",
        "spiffe://a/b/",
        "spiffe://a/./b",
        "spiffe://a/../b",
        "spiffe://a/..",
        "spiffe://A/b",
        "spiffe://a.Example/b",
        "spiffe://a:443/b",
        "spiffe://user@a/b",
        "spiffe://a/b?c",
        "spiffe://a/b#c",
        "spiffe://a/b%20c",
        "spiffe://a/b*c",
        "spiffe://[::1]/b",
        "spiffe:/a/b",
        "spiffe:a",
        "SPIFFE://a/b",
        "Spiffe://a/b",
    ] {
        assert_eq!(
            identity(&with_uris(&[id])),
            Err(BadCredential::Malformed),
            "{id}"
        );
        assert!(!is_spiffe_id(id), "{id}");
    }
    for id in [
        "",
        "spiffe://ä/b",
        "spiffe://a/ä",
        "spiffe://a/b\0",
        "https://a/b",
    ] {
        assert!(!is_spiffe_id(id), "{id}");
    }
}

#[test]
fn a_spiffe_id_stands_alone() {
    for uris in [
        &["spiffe://a/b", "spiffe://a/c"][..],
        &["spiffe://a/b", "spiffe://a/b"],
        &["spiffe://a/b", "https://a.example"],
        &["https://a.example", "spiffe://a/b"],
    ] {
        assert_eq!(
            identity(&with_uris(uris)),
            Err(BadCredential::Malformed),
            "{uris:?}"
        );
    }
}

#[test]
fn who_may_sign_certificates_is_no_workload() {
    let authority = |purposes: &[KeyUsagePurpose], is_ca| {
        certificate(|parameters| {
            parameters.subject_alt_names = vec![SanType::URI("spiffe://a/b".try_into().unwrap())];
            parameters.key_usages = purposes.to_vec();
            parameters.is_ca = is_ca;
        })
    };
    let unlimited = || IsCa::Ca(BasicConstraints::Unconstrained);
    assert!(
        identity(&authority(
            &[KeyUsagePurpose::DigitalSignature],
            IsCa::ExplicitNoCa
        ))
        .is_ok()
    );
    for (purposes, is_ca) in [
        (&[][..], unlimited()),
        (&[KeyUsagePurpose::KeyCertSign], IsCa::ExplicitNoCa),
        (&[KeyUsagePurpose::CrlSign], IsCa::NoCa),
    ] {
        assert_eq!(
            identity(&authority(purposes, is_ca)),
            Err(BadCredential::Malformed)
        );
    }
}

#[test]
fn a_nul_makes_no_name() {
    // CVE-2025-66220: a reader that stops at NUL sees another name than one that does not.
    let uri = with_uris(&["spiffe://good.example/aXevil"]);
    assert_eq!(
        identity(&patched(uri, b"/aXevil", b"/a\0evil")),
        Err(BadCredential::Malformed)
    );
    let other = with_uris(&["https://good.example/aXevil"]);
    assert_eq!(
        identity(&patched(other, b"/aXevil", b"/a\0evil")),
        Err(BadCredential::Malformed)
    );
    let dns = certificate(|parameters| {
        parameters.subject_alt_names =
            vec![SanType::DnsName("good.exampleXevil".try_into().unwrap())];
    });
    assert_eq!(
        identity(&patched(dns, b"eXevil", b"e\0evil")),
        Err(BadCredential::Malformed)
    );
    let subject = plain("CN=goodXevil");
    assert_eq!(
        identity(&patched(subject, b"goodXevil", b"good\0evil")),
        Err(BadCredential::Malformed)
    );
    let utf8 = with_uris(&["spiffe://good.example/aXevil"]);
    assert_eq!(
        identity(&patched(utf8, b"/aXevil", b"/a\xffevil")),
        Err(BadCredential::Malformed)
    );
}

#[test]
fn a_name_of_which_a_part_cannot_be_read_is_no_name() {
    let named = || {
        certificate(|parameters| {
            let name = &mut parameters.distinguished_name;
            name.push(DnType::OrganizationName, "Example");
            name.push(DnType::CommonName, "shop");
        })
    };
    assert_eq!(&*identity(&named()).unwrap().subject, "CN=shop,O=Example");
    for (from, to) in [
        // No object identifier; a longer one, over the value; half of the value is left over; a pair of another type.
        (
            b"\x06\x03\x55\x04\x03\x0c\x04",
            b"\x04\x03\x55\x04\x03\x0c\x04",
        ),
        (
            b"\x06\x03\x55\x04\x03\x0c\x04",
            b"\x06\x09\x55\x04\x03\x0c\x04",
        ),
        (
            b"\x06\x03\x55\x04\x03\x0c\x04",
            b"\x06\x03\x55\x04\x03\x0c\x02",
        ),
        (
            b"\x30\x0b\x06\x03\x55\x04\x03",
            b"\x04\x0b\x06\x03\x55\x04\x03",
        ),
    ] {
        let patched = patched(named(), from, to);
        assert_eq!(identity(&patched), Err(BadCredential::Malformed), "{to:?}");
    }
}

#[test]
fn what_is_no_certificate_is_refused() {
    let good = plain("CN=shop");
    assert_eq!(identity(&[]), Err(BadCredential::Malformed));
    assert_eq!(
        identity(b"-----BEGIN CERTIFICATE-----"),
        Err(BadCredential::Malformed)
    );
    assert_eq!(
        identity(&[&good[..], &[0]].concat()),
        Err(BadCredential::Malformed)
    );
    assert_eq!(
        identity(&vec![0x30; MAX_CERTIFICATE + 1]),
        Err(BadCredential::TooLarge)
    );
    for end in 0..good.len() {
        assert_eq!(
            identity(&good[..end]),
            Err(BadCredential::Malformed),
            "{end}"
        );
    }
    // Alternative names that cannot be read, and two lists of them.
    let san = |content: &[u8]| CustomExtension::from_oid_content(&[2, 5, 29, 17], content.to_vec());
    for content in [&[0x30, 0x05, 0x86][..], &[0x04, 0x00], b"\xff\xff"] {
        let der = certificate(|parameters| parameters.custom_extensions = vec![san(content)]);
        assert_eq!(identity(&der), Err(BadCredential::Malformed), "{content:?}");
    }
    let one = b"\x30\x0e\x86\x0cspiffe://a/b";
    let twice = certificate(|parameters| parameters.custom_extensions = vec![san(one), san(one)]);
    assert_eq!(identity(&twice), Err(BadCredential::Malformed));
    let once = certificate(|parameters| parameters.custom_extensions = vec![san(one)]);
    assert_eq!(
        identity(&once).unwrap().spiffe_id.as_deref(),
        Some("spiffe://a/b")
    );
}

#[test]
fn subjects_are_written_as_rfc_4514_says() {
    let subject = |parts: &[(DnType, DnValue)]| {
        let der = certificate(|parameters| {
            for (kind, value) in parts {
                parameters
                    .distinguished_name
                    .push(kind.clone(), value.clone());
            }
        });
        identity(&der).unwrap().subject.to_string()
    };
    let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
    let many = [
        (
            DnType::CountryName,
            DnValue::PrintableString("DE".try_into().unwrap()),
        ),
        (DnType::OrganizationName, utf8("Example, Inc.")),
        (DnType::OrganizationalUnitName, utf8("Sales+More")),
        (DnType::CommonName, utf8("shop")),
    ];
    assert_eq!(
        subject(&many),
        r"CN=shop,OU=Sales\+More,O=Example\, Inc.,C=DE"
    );
    for (text, expected) in [
        (" a ", r"CN=\ a\ "),
        ("#a#", r"CN=\#a#"),
        (" ", r"CN=\ "),
        ("", "CN="),
        (r#"a"b\c<d>e;f=g"#, r#"CN=a\"b\\c\<d\>e\;f=g"#),
        ("a\nb\u{7f}", r"CN=a\0Ab\7F"),
        ("Müller", "CN=Müller"),
        ("a,CN=admin", r"CN=a\,CN=admin"),
    ] {
        assert_eq!(subject(&[(DnType::CommonName, utf8(text))]), expected);
    }
    let bmp = DnValue::BmpString("Łódź".try_into().unwrap());
    assert_eq!(subject(&[(DnType::LocalityName, bmp)]), "L=Łódź");
    let universal = DnValue::UniversalString("a😀".try_into().unwrap());
    assert_eq!(subject(&[(DnType::LocalityName, universal)]), "L=a😀");
    let mail = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
    let ia5 = DnValue::Ia5String("a@b.example".try_into().unwrap());
    assert_eq!(subject(&[(mail, ia5)]), "emailAddress=a@b.example");
    let unknown = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99999, 1]);
    assert_eq!(
        subject(&[(unknown, utf8("ab"))]),
        "1.3.6.1.4.1.99999.1=#0c026162"
    );
}

#[test]
fn a_certificate_counts_from_first_to_last_second() {
    let der = certificate(|parameters| {
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2026, 2, 1);
    });
    let identity = identity(&der).unwrap();
    let at = |text| identity.check_time(Timestamp::parse(text).unwrap());
    assert_eq!(at("2025-12-31T23:59:59.999Z"), Err(BadCredential::NotYet));
    assert_eq!(at("2026-01-01T00:00:00Z"), Ok(()));
    assert_eq!(at("2026-02-01T00:00:00.999Z"), Ok(()));
    assert_eq!(at("2026-02-01T00:00:01Z"), Err(BadCredential::Expired));
}
