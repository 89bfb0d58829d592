//! Names people give and refer to: objects, roles and scopes, claims, header fields, operations, origins. Nothing is looked up.

use std::sync::Arc;

use super::Algorithm;
use super::value::Wrong;
use crate::quota::{LONGEST_METER, Metric};

/// The name of an object: `[a-z0-9-]`, at most 63 bytes.
pub(super) fn object(text: &str) -> Result<Arc<str>, Wrong> {
    let fit = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=63).contains(&text.len()) && text.bytes().all(fit) {
        return Ok(text.into());
    }
    Err(Wrong::new(
        format!("`{text}` cannot be a name"),
        "write lower-case letters, digits and `-`, at most 63",
    ))
}

/// The name of an organisation, project, consumer, API or plan.
///
/// # Errors
/// What is wrong and what to write instead.
pub fn parse_name(text: &str) -> Result<String, String> {
    said(text, object(text))
}

/// The label-safe name of an operation, as counters and usage have it.
///
/// # Errors
/// What is wrong and what to write instead.
pub fn parse_operation(text: &str) -> Result<String, String> {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:/{}-".contains(&byte);
    if (1..=128).contains(&text.len()) && text.bytes().all(safe) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{text}` is no operation; write 1 to 128 letters, digits and _.:/{{}}-"
    ))
}

/// Whose counter it is, as counters name it: `consumer:shop`, `everybody`.
///
/// # Errors
/// What is wrong and what to write instead.
pub fn parse_subject(text: &str) -> Result<String, String> {
    const KINDS: [&str; 6] = [
        "organisation",
        "project",
        "consumer",
        "credential",
        "user",
        "address",
    ];
    let known = match text.split_once(':') {
        Some((kind, name)) => KINDS.contains(&kind) && !name.is_empty(),
        None => text == "everybody",
    };
    let remedy = "write organisation:NAME, project:NAME, consumer:NAME, credential:ID, user:CONSUMER:NAME, address:IP or everybody";
    match known {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}` is no subject; {remedy}")),
    }
}

/// A limit's identity: `plan/<plan>/<name>` or `api/<api>/<name>`.
///
/// # Errors
/// What is wrong and what to write instead.
pub fn parse_limit_id(text: &str) -> Result<String, String> {
    said(text, limit_id(text))
}

fn said(text: &str, read: Result<Arc<str>, Wrong>) -> Result<String, String> {
    read.map(|_| text.to_owned())
        .map_err(|wrong| format!("{}; {}", wrong.what, wrong.remedy))
}

/// As [`parse_limit_id`].
pub(super) fn limit_id(text: &str) -> Result<Arc<str>, Wrong> {
    let mut parts = text.split('/');
    let named = |part: Option<&str>| part.is_some_and(|part| object(part).is_ok());
    if matches!(parts.next(), Some("plan" | "api"))
        && named(parts.next())
        && named(parts.next())
        && parts.next().is_none()
    {
        return Ok(text.into());
    }
    Err(Wrong::new(
        format!("`{text}` is no limit of a plan or an API"),
        "write plan/<plan>/<name of the limit> or api/<api>/<name>, such as plan/basic/calls-per-minute",
    ))
}

/// As [`object`], or `*` for any.
pub(super) fn object_or_any(text: &str) -> Result<Arc<str>, Wrong> {
    match text {
        "*" => Ok(text.into()),
        _ => object(text),
    }
}

/// A word of somebody else's: a role, a scope, a claim, a client. Visible, without white space.
pub(super) fn word(text: &str) -> Result<Arc<str>, Wrong> {
    let fit = |c: char| !c.is_whitespace() && !c.is_control();
    if (1..=512).contains(&text.len()) && text.chars().all(fit) {
        return Ok(text.into());
    }
    Err(Wrong::new(
        format!("`{text}` is no single word of at most 512 bytes"),
        "write it as the other side does, without spaces",
    ))
}

/// Text on one line that is compared as it stands: a certificate's subject, an operation.
pub(super) fn line(text: &str) -> Result<Arc<str>, Wrong> {
    if (1..=512).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(text.into());
    }
    Err(Wrong::new(
        format!("`{text}` is no text of one line and at most 512 bytes"),
        "correct it",
    ))
}

/// A pattern of certificate names: `*` only at the end.
pub(super) fn certificate_pattern(text: &str) -> Result<Arc<str>, Wrong> {
    let fixed = text.strip_suffix('*').unwrap_or(text);
    if fixed.contains('*') {
        return Err(Wrong::new(
            format!("`{text}` has a `*` that is not at its end"),
            "write `*` at the end only, such as spiffe://example.com/shop/*",
        ));
    }
    line(text)
}

/// What is counted: one of the metrics we know, or the name of cost units.
pub(super) fn metric(text: &str) -> Result<Metric, Wrong> {
    let fit = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    if (1..=LONGEST_METER).contains(&text.len()) && text.bytes().all(fit) {
        return Ok(Metric::named(text));
    }
    Err(Wrong::new(
        format!("`{text}` cannot be a metric"),
        "write calls, bytes, money, concurrent, messages, stream_seconds, or a name of cost units: letters, digits and `-_./`, at most 63",
    ))
}

/// A user name of `basic` (RFC 7617): no colon.
pub(super) fn user(text: &str) -> Result<Arc<str>, Wrong> {
    if text.contains(':') {
        return Err(Wrong::new(
            format!("`{text}` has a colon, which ends a user name (RFC 7617)"),
            "choose a name without",
        ));
    }
    line(text)
}

/// An origin or the beginning of a `Referer`: `https://shop.example.com/`.
pub(super) fn referrer(text: &str) -> Result<Arc<str>, Wrong> {
    let url = super::url::Url::parse(text);
    match url.filter(|url| matches!(url.scheme, "http" | "https")) {
        // Without a slash `https://shop.example.com` would also be the beginning of `https://shop.example.com.evil.example`.
        Some(url) if url.path.is_empty() => Ok(format!("{text}/").into()),
        Some(_) => Ok(text.into()),
        None => Err(Wrong::new(
            format!("`{text}` is no origin"),
            "write how the page's address begins: https://shop.example.com/",
        )),
    }
}

/// An algorithm by its registered name.
pub(super) fn algorithm(text: &str) -> Result<Algorithm, Wrong> {
    const ALL: [(&str, Algorithm); 12] = [
        ("RS256", Algorithm::Rs256),
        ("RS384", Algorithm::Rs384),
        ("RS512", Algorithm::Rs512),
        ("PS256", Algorithm::Ps256),
        ("PS384", Algorithm::Ps384),
        ("PS512", Algorithm::Ps512),
        ("ES256", Algorithm::Es256),
        ("ES384", Algorithm::Es384),
        ("EdDSA", Algorithm::EdDsa),
        ("HS256", Algorithm::Hs256),
        ("HS384", Algorithm::Hs384),
        ("HS512", Algorithm::Hs512),
    ];
    let found = ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, algorithm)| *algorithm).ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|(name, _)| *name).collect();
        Wrong::new(
            format!("`{text}` is no algorithm we verify"),
            format!("write one of {}", names.join(", ")),
        )
    })
}

/// A header field of a request, lower-cased: RFC 9110 section 5.6.2, no `_`, which many services take for `-`.
pub(super) fn field(text: &str) -> Result<Arc<str>, Wrong> {
    let lower = text.to_ascii_lowercase();
    let fit = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^`|~".contains(&b);
    if (1..=128).contains(&lower.len()) && lower.bytes().all(fit) {
        return Ok(lower.into());
    }
    Err(Wrong::new(
        format!("`{text}` cannot be a header field"),
        "write letters, digits and `-`: x-user",
    ))
}

/// Fields that frame a message, route it, or say what we say ourselves.
const RESERVED: [&str; 17] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-request-id",
];

/// A header field that a claim may become.
pub(super) fn claim_field(text: &str) -> Result<Arc<str>, Wrong> {
    let name = field(text)?;
    let ours = name.starts_with("x-tollgate-") || name.starts_with("x-forwarded-");
    if ours || RESERVED.contains(&&*name) {
        return Err(Wrong::new(
            format!("`{text}` has a meaning of its own on the way to the service"),
            "choose another name, such as x-user",
        ));
    }
    Ok(name)
}
