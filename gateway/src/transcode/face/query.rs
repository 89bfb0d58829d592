//! The query of a call, parameter by parameter, each name and value decoded once.

use std::borrow::Cow;

use super::BindError;
use super::template::decode;

/// Names and values, in their order. Empty parts between two `&` are nothing.
pub(super) fn parameters(
    query: &str,
) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), BindError>> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts.map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let name = text(name).map_err(|why| BindError::new(shown(name), why))?;
        let value = text(value).map_err(|why| BindError::new(shown(&name), why))?;
        Ok((name, value))
    })
}

/// A name as far as a message may hold it.
pub(super) fn shown(name: &str) -> String {
    const LONGEST: usize = 120;
    let fit = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    name.chars().take(LONGEST).map(fit).collect()
}

/// As forms write it: `+` is a space.
fn text(raw: &str) -> Result<Cow<'_, str>, &'static str> {
    if !raw.contains('+') {
        return decode(raw, false);
    }
    let spaced = raw.replace('+', " ");
    decode(&spaced, false).map(|text| Cow::Owned(text.into_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded_exactly_once() {
        let all: Result<Vec<_>, _> = parameters("a=1&&b.c=x+y%2B%252F&d&%61=%C3%A9&=e").collect();
        let all = all.unwrap();
        let all: Vec<(&str, &str)> = all
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        assert_eq!(
            all,
            [
                ("a", "1"),
                ("b.c", "x y+%2F"),
                ("d", ""),
                ("a", "é"),
                ("", "e")
            ]
        );
        assert_eq!(parameters("").count(), 0);
    }

    #[test]
    fn what_is_no_text_is_refused_with_the_name_of_the_parameter() {
        for query in ["a=%", "a=%zz", "a=%ff", "a=%1"] {
            let refused = parameters(query).next().unwrap().unwrap_err();
            assert_eq!(refused.field, "a", "{query}");
        }
        assert!(parameters("%ff=1").next().unwrap().is_err());
    }
}
