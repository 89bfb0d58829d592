//! Distinguished names as text (RFC 4514): `CN=shop,OU=Sales+L=Berlin,O=Example\, Inc.,C=DE`.
//!
//! Attributes with a registered short name are written with it, as OpenSSL writes them (`-nameopt RFC2253`, but with UTF-8 as it is),
//! others as a dotted number with the value's DER in hexadecimal. Two names have the same text only if they say the same.

use std::fmt::Write;

use x509_parser::asn1_rs::{Any, FromDer, Tag};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The text of a name, most specific part first; `None` when a part cannot be read, or holds a NUL.
pub(super) fn text(name: &X509Name<'_>) -> Option<String> {
    if !is_whole(name) {
        return None;
    }
    let mut parts = Vec::new();
    for part in name.iter_rdn() {
        let attributes = part.iter().map(attribute).collect::<Option<Vec<_>>>()?;
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

/// Whether all of the name was read: the library passes over what follows a part that it cannot read, and the rest would be
/// somebody else's name.
fn is_whole(name: &X509Name<'_>) -> bool {
    let attributes = |part: &Any<'_>| {
        let attributes = elements(part, Tag::Set)?;
        let is_pair = |attribute: &Any<'_>| {
            let pair = elements(attribute, Tag::Sequence);
            pair.is_some_and(|pair| matches!(pair.as_slice(), [kind, _] if kind.tag() == Tag::Oid))
        };
        attributes.iter().all(is_pair).then_some(attributes.len())
    };
    let Ok((_, whole)) = Any::from_der(name.as_raw()) else {
        return false;
    };
    elements(&whole, Tag::Sequence).is_some_and(|parts| {
        let read = name.iter_rdn().map(|part| Some(part.iter().count()));
        parts.iter().map(attributes).eq(read)
    })
}

/// What `value` consists of, to its end; `None` where it is of another type.
fn elements<'d>(value: &Any<'d>, tag: Tag) -> Option<Vec<Any<'d>>> {
    value.tag().assert_eq(tag).ok()?;
    let (mut found, mut rest) = (Vec::new(), value.data);
    while !rest.is_empty() {
        let (behind, element) = Any::from_der(rest).ok()?;
        found.push(element);
        rest = behind;
    }
    Some(found)
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let number = attribute.attr_type().to_id_string();
    let value = attribute.attr_value();
    match short_name(&number) {
        Some(name) => {
            let text = string(value)?;
            if text.contains('\0') {
                return None;
            }
            Some(format!("{name}={}", escaped(&text)))
        }
        None => Some(format!("{number}=#{}", hexadecimal(value)?)),
    }
}

/// RFC 4519, RFC 2985 and RFC 5280, appendix A.
fn short_name(number: &str) -> Option<&'static str> {
    Some(match number {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "GN",
        "2.5.4.46" => "dnQualifier",
        "2.5.4.65" => "pseudonym",
        "2.5.4.97" => "organizationIdentifier",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

/// The value as text, by its own type.
fn string(value: &Any<'_>) -> Option<String> {
    let bytes = value.data;
    match value.tag() {
        Tag::Utf8String => String::from_utf8(bytes.to_vec()).ok(),
        Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => bytes
            .is_ascii()
            .then(|| bytes.iter().map(|byte| char::from(*byte)).collect()),
        // Nominally T.61; in practice always Latin-1.
        Tag::T61String => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
        Tag::BmpString => {
            let (pairs, rest) = bytes.as_chunks::<2>();
            let units: Vec<_> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
            String::from_utf16(&units).ok().filter(|_| rest.is_empty())
        }
        Tag::UniversalString => {
            let (quads, rest) = bytes.as_chunks::<4>();
            let text: Option<String> = quads
                .iter()
                .map(|quad| char::from_u32(u32::from_be_bytes(*quad)))
                .collect();
            text.filter(|_| rest.is_empty())
        }
        _ => None,
    }
}

/// RFC 4514 section 2.4; control characters as well, so that a name is one line of a log.
fn escaped(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (index, character) in text.chars().enumerate() {
        let at_edge =
            (index == 0 && matches!(character, ' ' | '#')) || (index == last && character == ' ');
        if character.is_control() {
            for byte in character.to_string().bytes() {
                let _ = write!(written, "\\{byte:02X}");
            }
            continue;
        }
        if at_edge || matches!(character, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
            written.push('\\');
        }
        written.push(character);
    }
    written
}

/// The DER of a primitive value; `None` for one with parts, which no attribute has.
fn hexadecimal(value: &Any<'_>) -> Option<String> {
    if value.header.is_constructed() {
        return None;
    }
    let tag = u8::try_from(value.tag().0).ok().filter(|tag| *tag < 31)?;
    let length = value.data.len();
    let mut der = vec![tag];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 0x80 => der.push(short),
        (Ok(short), _) => der.extend([0x81, short]),
        (_, Ok(long)) => {
            der.push(0x82);
            der.extend(long.to_be_bytes());
        }
        _ => return None,
    }
    der.extend(value.data);
    Some(der.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
