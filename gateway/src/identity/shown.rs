//! Credentials as a request shows them: found where the OpenAPI file says they belong, judged for form only.
//!
//! A credential shown twice is not picked from: two readers would pick differently.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, COOKIE};
use pingora_http::RequestHeader;
use tollgate_policy::access::CredentialPlace;
use tollgate_policy::credentials::BadCredential;

/// Longest credential looked at: a token of an identity provider that lists hundreds of groups.
const LONGEST: usize = 16 * 1024;

/// What stands at `place`; `None` where nothing does.
///
/// # Errors
/// It stands there twice, is too long, or is no text.
pub fn shown<'h>(
    head: &'h RequestHeader,
    query: Option<&'h str>,
    place: &CredentialPlace,
) -> Result<Option<Cow<'h, str>>, BadCredential> {
    let found = match place {
        CredentialPlace::Header(name) => single(head, name)?.map(Cow::Borrowed),
        CredentialPlace::Query(name) => in_query(query.unwrap_or_default(), name)?,
        CredentialPlace::Cookie(name) => in_cookies(head, name)?.map(Cow::Borrowed),
        CredentialPlace::Bearer => authorization(head, "bearer")?.map(Cow::Borrowed),
        CredentialPlace::Basic => authorization(head, "basic")?.map(Cow::Borrowed),
        CredentialPlace::Certificate | CredentialPlace::Nowhere => None,
    };
    match found {
        Some(text) if text.len() > LONGEST => Err(BadCredential::TooLarge),
        Some(text) if text.is_empty() => Ok(None),
        found => Ok(found),
    }
}

fn single<'h>(head: &'h RequestHeader, name: &str) -> Result<Option<&'h str>, BadCredential> {
    let mut values = head.headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(BadCredential::Malformed);
    }
    value
        .to_str()
        .map(|text| Some(text.trim()))
        .map_err(|_| BadCredential::Malformed)
}

/// What follows a scheme in `Authorization` (RFC 9110 section 11.6.2); another scheme shows nothing.
fn authorization<'h>(
    head: &'h RequestHeader,
    scheme: &str,
) -> Result<Option<&'h str>, BadCredential> {
    let Some(value) = single(head, AUTHORIZATION.as_str())? else {
        return Ok(None);
    };
    let (named, rest) = value.split_once(' ').unwrap_or((value, ""));
    Ok(named.eq_ignore_ascii_case(scheme).then(|| rest.trim()))
}

fn in_cookies<'h>(head: &'h RequestHeader, name: &str) -> Result<Option<&'h str>, BadCredential> {
    let mut found = None;
    for value in head.headers.get_all(COOKIE) {
        let text = value.to_str().map_err(|_| BadCredential::Malformed)?;
        for pair in text.split(';') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if key.trim() == name && found.replace(value.trim().trim_matches('"')).is_some() {
                return Err(BadCredential::Malformed);
            }
        }
    }
    Ok(found)
}

fn in_query<'h>(query: &'h str, name: &str) -> Result<Option<Cow<'h, str>>, BadCredential> {
    let mut found = None;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decoded(key).is_some_and(|key| key == name) {
            let value = decoded(value).ok_or(BadCredential::Malformed)?;
            if found.replace(value).is_some() {
                return Err(BadCredential::Malformed);
            }
        }
    }
    Ok(found)
}

/// A component of a query, decoded once; `None` where its encoding is broken.
pub fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut head = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn a_credential_is_found_where_the_file_says() {
        let head = head(&[
            ("x-api-key", "one"),
            ("authorization", "bEaReR  two "),
            ("cookie", "a=b; sid=\"three\""),
        ]);
        let query = Some("x=1&k%65y=fo%75r&y");
        for (place, expected) in [
            (CredentialPlace::Header("x-api-key".into()), Some("one")),
            (CredentialPlace::Header("x-other".into()), None),
            (CredentialPlace::Bearer, Some("two")),
            (CredentialPlace::Basic, None),
            (CredentialPlace::Cookie("sid".into()), Some("three")),
            (CredentialPlace::Query("key".into()), Some("four")),
            (CredentialPlace::Certificate, None),
        ] {
            let found = shown(&head, query, &place).unwrap();
            assert_eq!(found.as_deref(), expected, "{place:?}");
        }
    }

    #[test]
    fn two_of_them_are_none() {
        let head = head(&[
            ("x-api-key", "one"),
            ("x-api-key", "one"),
            ("authorization", "Bearer a"),
            ("authorization", "Bearer a"),
            ("cookie", "sid=a; sid=a"),
        ]);
        for place in [
            CredentialPlace::Header("x-api-key".into()),
            CredentialPlace::Bearer,
            CredentialPlace::Cookie("sid".into()),
            CredentialPlace::Query("key".into()),
        ] {
            let query = Some("key=a&key=a");
            assert_eq!(
                shown(&head, query, &place),
                Err(BadCredential::Malformed),
                "{place:?}"
            );
        }
    }

    #[test]
    fn what_is_empty_too_long_or_broken_is_not_used() {
        let long = "k".repeat(LONGEST + 1);
        let place = CredentialPlace::Header("x-api-key".into());
        assert_eq!(shown(&head(&[("x-api-key", " ")]), None, &place), Ok(None));
        let too_long = head(&[("x-api-key", &long)]);
        assert_eq!(shown(&too_long, None, &place), Err(BadCredential::TooLarge));
        let query = CredentialPlace::Query("key".into());
        let empty = head(&[]);
        let broken = shown(&empty, Some("key=%zz"), &query);
        assert_eq!(broken, Err(BadCredential::Malformed));
    }
}
