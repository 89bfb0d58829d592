//! Path templates of `google.api.http` (AIP-127): taken apart, turned into what the classifier matches, and read off a path.
//!
//! Matching is the classifier's; here the values of a path that is known to match are found, and decoded exactly once. Not here: which
//! fields the variables are.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;
use tollgate_policy::openapi::PathParameter;

/// A template such as `/v1/{name=shelves/*/books/*}:publish`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: Arc<str>,
    pieces: Vec<Piece>,
    variables: Vec<Variable>,
    verb: Option<Box<str>>,
}

/// What stands between two slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    /// `*`
    One,
    /// `**`: zero or more segments, always the last piece.
    Rest,
}

/// A variable and the pieces it spans.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Variable {
    field: Box<str>,
    pieces: Range<usize>,
    /// More than one segment: a `%2F` in it stays as written, so that it differs from a separator.
    several: bool,
}

/// A route for the classifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateRoute {
    /// In the classifier's own form.
    pub route: Arc<str>,
    /// Its expressions; everything may be percent-encoded in them, for the path is not forwarded.
    pub parameters: Vec<PathParameter>,
}

/// The variables' values in the order of the template, still encoded.
pub(super) type Values<'p> = SmallVec<[&'p str; 4]>;

impl Template {
    /// Takes a template apart.
    ///
    /// # Errors
    /// What is wrong with it, for the end of a message.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err("it does not begin with `/`".to_owned());
        };
        if text.len() > LONGEST {
            return Err(format!("it is longer than {LONGEST} bytes"));
        }
        let (path, verb) = split_verb(rest)?;
        let mut template = Self {
            text: text.into(),
            pieces: Vec::new(),
            variables: Vec::new(),
            verb,
        };
        let mut rest = path;
        while !rest.is_empty() {
            rest = template.segment(rest)?;
        }
        let before_last = template.pieces.iter().rev().skip(1);
        if before_last.into_iter().any(|piece| *piece == Piece::Rest) {
            return Err("`**` is not its last segment".to_owned());
        }
        Ok(template)
    }

    /// As written.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The dotted field paths of its variables, in its order.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|variable| &*variable.field)
    }

    /// What the classifier matches: two routes where `**` may stand for nothing.
    pub fn routes(&self) -> Vec<TemplateRoute> {
        let mut routes = vec![self.route(&self.pieces)];
        if let Some((Piece::Rest, before)) = self.pieces.split_last() {
            routes.push(self.route(before));
        }
        routes
    }

    /// The path as OpenAPI has it: `*` is a parameter, and a variable of several segments is as many of them as it has wildcards.
    pub fn spelled_out(&self) -> (String, Vec<PathPlace>) {
        let mut path = String::new();
        let mut places: Vec<PathPlace> = Vec::new();
        let mut before = "";
        for (index, piece) in self.pieces.iter().enumerate() {
            path.push('/');
            if let Piece::Literal(text) = piece {
                path.push_str(text);
                before = text;
                continue;
            }
            let mut variables = self.variables.iter();
            let field = variables.position(|it| it.pieces.contains(&index));
            let variable = field.and_then(|field| self.variables.get(field));
            let whole = variable.is_some_and(|it| it.pieces.len() == 1);
            let name = match variable {
                Some(variable) if whole => variable.field.to_string(),
                _ => singular(before),
            };
            let name = unused(&name, &places);
            path.extend(["{", &name, "}"]);
            places.push(PathPlace {
                name,
                field,
                whole,
                rest: *piece == Piece::Rest,
            });
        }
        if path.is_empty() {
            path.push('/');
        }
        if let Some(verb) = &self.verb {
            path.extend([":", verb]);
        }
        (path, places)
    }

    fn route(&self, pieces: &[Piece]) -> TemplateRoute {
        let mut route = String::new();
        let mut parameters = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            route.push('/');
            let many = match piece {
                Piece::Literal(text) => {
                    route.push_str(text);
                    continue;
                }
                Piece::One => "",
                Piece::Rest => "+",
            };
            let name = self.name_of(index);
            route.extend(["{", &name, many, "}"]);
            parameters.push(PathParameter {
                name: name.into(),
                multi_segment: *piece == Piece::Rest,
                matrix: true,
                allow_encoded_slash: true,
                allow_encoded_percent: true,
            });
        }
        if route.is_empty() {
            route.push('/');
        }
        if let Some(verb) = &self.verb {
            route.extend([":", verb]);
        }
        TemplateRoute {
            route: route.into(),
            parameters,
        }
    }

    /// The variable's name where it is one piece; the piece's number is added where it has several.
    fn name_of(&self, piece: usize) -> String {
        let variable = self.variables.iter().find(|it| it.pieces.contains(&piece));
        match variable {
            Some(it) if it.pieces.len() == 1 => it.field.to_string(),
            Some(it) => format!("{}.{}", it.field, piece - it.pieces.start),
            None => format!("_{piece}"),
        }
    }

    /// The values of the variables in a path that matched, without its base path and query. `None` where it does not fit after all.
    pub(super) fn values<'p>(&self, path: &'p str) -> Option<Values<'p>> {
        let mut rest = path.strip_prefix('/')?;
        if let Some(verb) = &self.verb {
            rest = rest.strip_suffix(&**verb)?.strip_suffix(':')?;
        }
        // Where each segment begins and ends.
        let mut segments: SmallVec<[(usize, usize); 12]> = SmallVec::new();
        let mut start = 0;
        for segment in rest.split('/').filter(|_| !rest.is_empty()) {
            segments.push((start, start + segment.len()));
            start += segment.len() + 1;
        }
        let open = self.pieces.last() == Some(&Piece::Rest);
        let fits = match open {
            true => segments.len() + 1 >= self.pieces.len(),
            false => segments.len() == self.pieces.len(),
        };
        let value = |variable: &Variable| {
            let to_the_end = open && variable.pieces.end == self.pieces.len();
            let end = if to_the_end {
                segments.len()
            } else {
                variable.pieces.end
            };
            match segments.get(variable.pieces.start..end) {
                Some([(first, last)]) => rest.get(*first..*last),
                Some([(first, _), .., (_, last)]) => rest.get(*first..*last),
                Some([]) => Some(""),
                None => None,
            }
        };
        if !fits {
            return None;
        }
        self.variables.iter().map(value).collect()
    }

    /// Decodes the value of a variable: once, and all of it but for `%2F` in one that spans segments, unless `fully`.
    ///
    /// # Errors
    /// Bad percent-encoding, or bytes that are no UTF-8 once decoded.
    pub fn decoded<'p>(
        &self,
        variable: usize,
        raw: &'p str,
        fully: bool,
    ) -> Result<Cow<'p, str>, &'static str> {
        let several = self.variables.get(variable).is_some_and(|it| it.several);
        decode(raw, several && !fully)
    }

    /// Reads one segment, or a variable that spans several, and returns what is left.
    fn segment<'t>(&mut self, text: &'t str) -> Result<&'t str, String> {
        if let Some(inner) = text.strip_prefix('{') {
            let Some((inner, rest)) = inner.split_once('}') else {
                return Err("a `{` has no `}`".to_owned());
            };
            self.variable(inner)?;
            return after_segment(rest);
        }
        let end = text.find('/').unwrap_or(text.len());
        let (segment, rest) = text.split_at(end);
        self.pieces.push(piece(segment)?);
        after_segment(rest)
    }

    fn variable(&mut self, inner: &str) -> Result<(), String> {
        if inner.contains('{') {
            return Err("a variable stands within a variable".to_owned());
        }
        let (field, pattern) = inner.split_once('=').unwrap_or((inner, "*"));
        let named = field.split('.').all(is_identifier);
        if !named {
            return Err(format!("`{field}` is no field"));
        }
        if self.variables().any(|known| known == field) {
            return Err(format!("it has `{{{field}}}` twice"));
        }
        let start = self.pieces.len();
        for segment in pattern.split('/') {
            self.pieces.push(piece(segment)?);
        }
        let pieces = start..self.pieces.len();
        let several = pieces.len() > 1 || self.pieces.last() == Some(&Piece::Rest);
        let all_literal = self
            .pieces
            .get(pieces.clone())
            .is_some_and(|own| own.iter().all(|piece| matches!(piece, Piece::Literal(_))));
        if all_literal && pieces.len() == 1 && pattern.is_empty() {
            return Err(format!("`{{{field}=}}` matches nothing"));
        }
        self.variables.push(Variable {
            field: field.into(),
            pieces,
            several,
        });
        Ok(())
    }
}

/// A parameter of a path as OpenAPI has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPlace {
    /// Unique within the path.
    pub name: String,
    /// Index of the variable it belongs to.
    pub field: Option<usize>,
    /// It is all of the variable.
    pub whole: bool,
    /// It stands for any number of segments.
    pub rest: bool,
}

/// `shelf` of `shelves`, as far as that follows from the letters.
fn singular(word: &str) -> String {
    let cut = |end: &str, instead: &str| {
        word.strip_suffix(end)
            .map(|stem| format!("{stem}{instead}"))
    };
    let found = cut("lves", "lf").or_else(|| cut("ies", "y"));
    let found = found.or_else(|| cut("sses", "ss")).or_else(|| cut("s", ""));
    match found {
        Some(singular) if !singular.is_empty() => singular,
        _ if word.is_empty() => "value".to_owned(),
        _ => word.to_owned(),
    }
}

fn unused(wish: &str, places: &[PathPlace]) -> String {
    let taken = |name: &str| places.iter().any(|place| place.name == name);
    let mut numbered = (2_u32..).map(|number| format!("{wish}{number}"));
    match taken(wish) {
        false => wish.to_owned(),
        true => numbered.find(|name| !taken(name)).unwrap_or_default(),
    }
}

/// Bytes of a template.
const LONGEST: usize = 4096;

/// Cuts off the verb. A `:` within a variable or before the last segment is none.
fn split_verb(rest: &str) -> Result<(&str, Option<Box<str>>), String> {
    let last = rest.rfind(['/', '}']).map_or(0, |at| at + 1);
    let (before, tail) = rest.split_at(last);
    let Some((literal, verb)) = tail.split_once(':') else {
        return Ok((rest, None));
    };
    if verb.is_empty() || verb.contains(':') || !verb.bytes().all(is_literal) {
        return Err(format!("`:{verb}` is no verb"));
    }
    let path = rest.get(..before.len() + literal.len()).unwrap_or(rest);
    Ok((path, Some(verb.into())))
}

/// What follows a segment: nothing, or a slash and another one.
fn after_segment(rest: &str) -> Result<&str, String> {
    match rest.strip_prefix('/') {
        Some("") => Err("it ends with `/`".to_owned()),
        Some(next) => Ok(next),
        None if rest.is_empty() => Ok(rest),
        None => Err(format!("`{rest}` stands right behind a variable")),
    }
}

fn piece(segment: &str) -> Result<Piece, String> {
    match segment {
        "*" => Ok(Piece::One),
        "**" => Ok(Piece::Rest),
        "" => Err("it has an empty segment".to_owned()),
        "." | ".." => Err(format!(
            "it has `{segment}` as a segment, which no path keeps"
        )),
        _ if segment.contains('*') => Err(format!("`{segment}` has a `*` that is no segment")),
        _ if segment.contains(':') => Err(format!("`{segment}` has a `:` before the last segment")),
        _ if segment.bytes().all(is_literal) => Ok(Piece::Literal(segment.into())),
        _ => Err(format!("`{segment}` cannot stand in a path")),
    }
}

/// `pchar` of RFC 3986 without `:` and `%`.
fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()+,;=@".contains(&byte)
}

fn is_identifier(text: &str) -> bool {
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(fit)
}

/// Percent-decodes once; an encoded slash stays as it is where `keep_slash`.
pub(super) fn decode(raw: &str, keep_slash: bool) -> Result<Cow<'_, str>, &'static str> {
    if !raw.contains('%') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    loop {
        match rest {
            [] => break,
            [b'%', b'2', b'F' | b'f', after @ ..] if keep_slash => {
                decoded.extend(rest.get(..3).unwrap_or_default());
                rest = after;
            }
            [b'%', high, low, after @ ..] => {
                let (Some(high), Some(low)) = (hex(*high), hex(*low)) else {
                    return Err("a `%` stands without two hex digits");
                };
                decoded.push(high << 4 | low);
                rest = after;
            }
            [b'%', ..] => return Err("a `%` stands without two hex digits"),
            [byte, after @ ..] => {
                decoded.push(*byte);
                rest = after;
            }
        }
    }
    let text = String::from_utf8(decoded).map_err(|_| "it is no UTF-8 once decoded")?;
    Ok(Cow::Owned(text))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]
mod tests {
    use super::*;

    fn routes(text: &str) -> Vec<String> {
        let template = Template::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        let routes = template.routes().into_iter();
        routes.map(|route| route.route.to_string()).collect()
    }

    /// Must-have: path templates with `*`, `**`, nested variables and verbs, as AIP-127 has them.
    #[test]
    fn the_grammar_of_aip_127_becomes_routes_of_the_classifier() {
        for (text, expected) in [
            ("/v1/books", &["/v1/books"][..]),
            ("/v1/books/*", &["/v1/books/{_2}"]),
            ("/v1/{id}", &["/v1/{id}"]),
            ("/v1/{id=*}", &["/v1/{id}"]),
            ("/v1/{book.name=*}", &["/v1/{book.name}"]),
            (
                "/v1/{name=shelves/*/books/*}",
                &["/v1/shelves/{name.1}/books/{name.3}"],
            ),
            ("/v1/{name=**}", &["/v1/{name+}", "/v1"]),
            ("/v1/**", &["/v1/{_1+}", "/v1"]),
            ("/**", &["/{_0+}", "/"]),
            (
                "/v1/{name=files/**}:watch",
                &["/v1/files/{name.1+}:watch", "/v1/files:watch"],
            ),
            ("/v1/books:batchGet", &["/v1/books:batchGet"]),
            (
                "/v1/{name=books/*}:publish",
                &["/v1/books/{name.1}:publish"],
            ),
            ("/v1/{kind=books}/{id}", &["/v1/books/{id}"]),
            ("/", &["/"]),
        ] {
            assert_eq!(routes(text), expected, "{text}");
        }
    }

    /// Must-have: what is no template is told, and not served.
    #[test]
    fn what_is_no_template_is_refused_with_the_reason() {
        for (text, why) in [
            ("v1/books", "does not begin"),
            ("/v1//books", "empty segment"),
            ("/v1/books/", "ends with `/`"),
            ("/v1/{name", "no `}`"),
            ("/v1/{a={b}}", "within a variable"),
            ("/v1/{a=**}/b", "not its last"),
            ("/v1/**/b", "not its last"),
            ("/v1/{a}b", "right behind"),
            ("/v1/a*", "no segment"),
            ("/v1/{a=}", "empty segment"),
            ("/v1/{}", "no field"),
            ("/v1/{a..b}", "no field"),
            ("/v1/{1a}", "no field"),
            ("/v1/{a}/{a}", "twice"),
            ("/v1/a:", "no verb"),
            ("/v1/a:b:c", "no verb"),
            ("/v1/a:b/c", "before the last segment"),
            ("/v1/../c", "no path keeps"),
            ("/v1/a b", "cannot stand"),
            ("/v1/a?b", "cannot stand"),
            ("/v1/%2F", "cannot stand"),
        ] {
            let refused = Template::parse(text).expect_err(text);
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    fn values(template: &str, path: &str) -> Option<Vec<String>> {
        let template = Template::parse(template).unwrap();
        let values = template.values(path)?;
        let decoded = values.iter().enumerate().map(|(index, raw)| {
            template
                .decoded(index, raw, false)
                .unwrap_or("bad".into())
                .into_owned()
        });
        Some(decoded.collect())
    }

    /// Must-have: one segment is decoded in full, several keep `%2F`, and nothing is decoded twice.
    #[test]
    fn a_variable_of_one_segment_is_fully_decoded_and_one_of_several_keeps_its_encoded_slash() {
        for (template, path, expected) in [
            ("/v1/{id}", "/v1/a%2Fb", Some(&["a/b"][..])),
            ("/v1/{id}", "/v1/a%2fb", Some(&["a/b"])),
            ("/v1/{name=**}", "/v1/a%2Fb/c%20d", Some(&["a%2Fb/c d"])),
            ("/v1/{name=**}", "/v1/a%2fb", Some(&["a%2fb"])),
            (
                "/v1/{name=shelves/*}",
                "/v1/shelves/a%2Fb",
                Some(&["shelves/a%2Fb"]),
            ),
            // Exactly once.
            ("/v1/{id}", "/v1/a%252Fb", Some(&["a%2Fb"])),
            ("/v1/{name=**}", "/v1/a%252Fb", Some(&["a%2Fb"])),
            ("/v1/{id}", "/v1/%C3%A9", Some(&["é"])),
            ("/v1/{id}", "/v1/%FF", Some(&["bad"])),
            ("/v1/{id}", "/v1/a+b", Some(&["a+b"])),
        ] {
            let expected = expected.map(|list| list.iter().map(ToString::to_string).collect());
            assert_eq!(values(template, path), expected, "{template} {path}");
        }
    }

    /// Must-have: a variable never takes the leading slash.
    #[test]
    fn a_variable_takes_the_segments_it_spans_without_the_slash_before_them() {
        for (template, path, expected) in [
            (
                "/v1/{name=shelves/*/books/*}",
                "/v1/shelves/1/books/2",
                Some(&["shelves/1/books/2"][..]),
            ),
            (
                "/v1/{a}/x/{b=y/*}:do",
                "/v1/1/x/y/2:do",
                Some(&["1", "y/2"]),
            ),
            ("/v1/{name=**}", "/v1", Some(&[""])),
            ("/v1/{name=**}:watch", "/v1:watch", Some(&[""])),
            ("/{name=**}", "/", Some(&[""])),
            ("/{name=**}", "/a/b/c", Some(&["a/b/c"])),
            ("/v1/{name=files/**}", "/v1/files", Some(&["files"])),
            ("/v1/{name=files/**}", "/v1/files/a/b", Some(&["files/a/b"])),
            ("/v1/{id}/**", "/v1/5/a/b", Some(&["5"])),
            ("/v1/{id}", "/v1/5:do", Some(&["5:do"])),
            ("/v1/{id}:do", "/v1/a%3Ado", None),
            ("/v1/{id}", "/v1/5/6", None),
            ("/v1/{id}", "/v1", None),
            ("/", "/", Some(&[])),
        ] {
            let expected = expected.map(|list| list.iter().map(ToString::to_string).collect());
            assert_eq!(values(template, path), expected, "{template} {path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_and_no_path_make_it_panic(text in "[/{}*=:.a-c%]{0,24}", path in "\\PC{0,24}") {
            if let Ok(template) = Template::parse(&text) {
                let _ = template.routes();
                for (index, value) in template.values(&path).into_iter().flatten().enumerate() {
                    let _ = template.decoded(index, value, false);
                }
            }
        }
    }
}
