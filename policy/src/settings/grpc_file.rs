//! The `grpc:` section of an API file: as written, and turned into [`GrpcConfig`]. Reads no descriptors.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::decode::{Text, nearest};
use super::reader::Reader;
use super::value::{self, Wrong};
use super::{
    CallerKind, DescriptorSource, ErrorShape, GrpcConfig, MethodProfile, NamedService, PrintUnset,
    ProfileSettings, StreamShape, UpstreamConfig, UpstreamProtocol,
};

/// How often a service is asked for its descriptors again.
const REFRESH: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenGrpc {
    descriptors: Option<Text>,
    protos: Option<Vec<Text>>,
    include: Option<Vec<Text>>,
    reflection: Option<WrittenReflection>,
    rules: Option<Text>,
    services: Option<Vec<Text>>,
    callers: Option<WrittenCallers>,
    profile: Option<WrittenProfile>,
    methods: Option<BTreeMap<Text, Option<WrittenProfile>>>,
}

impl WrittenGrpc {
    /// Has everything taken from copies. A directory of which nothing was needed has none.
    pub(super) fn moved(&mut self, kept: impl Fn(&Text) -> PathBuf) {
        let files = self.protos.iter_mut().flatten();
        for text in files.chain(&mut self.descriptors).chain(&mut self.rules) {
            text.text = kept(text).display().to_string();
        }
        for directory in self.include.iter_mut().flatten() {
            directory.text = kept(directory).display().to_string();
        }
        let there = |directory: &Text| PathBuf::from(&directory.text).is_dir();
        if let Some(include) = &mut self.include {
            include.retain(there);
        }
    }
}

/// A switch, or how often.
#[derive(Debug, Deserialize)]
enum WrittenReflection {
    Text(Text),
    Map(WrittenRefresh),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRefresh {
    refresh: Option<Text>,
}

/// `anyone`, or what they show.
#[derive(Debug, Deserialize)]
enum WrittenCallers {
    Text(Text),
    List(Vec<Text>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenProfile {
    unknown_fields: Option<Text>,
    unknown_query: Option<Text>,
    print_unset: Option<Text>,
    names: Option<Text>,
    enums: Option<Text>,
    strip_enum_prefix: Option<Text>,
    enums_any_case: Option<Text>,
    int64: Option<Text>,
    errors: Option<Text>,
    streams: Option<Text>,
    update_mask: Option<Text>,
}

/// The meaning; mistakes go to `reader`.
pub(super) fn grpc(reader: &mut Reader, written: &WrittenGrpc) -> Option<GrpcConfig> {
    let source = source(reader, written);
    let rules = existing(reader, "grpc.rules", written.rules.as_ref());
    let services = services(reader, written.services.as_ref());
    let callers = callers(reader, written.callers.as_ref());
    let profile = profile(reader, "grpc.profile", written.profile.as_ref());
    let methods = methods(reader, written.methods.as_ref());
    Some(GrpcConfig {
        source: source?,
        rules,
        services,
        callers,
        profile,
        methods,
        place: reader.key("grpc"),
    })
}

/// A service that speaks gRPC is asked over HTTP/2.
pub(super) fn fits(reader: &mut Reader, upstream: Option<&UpstreamConfig>) {
    if upstream.is_some_and(|it| it.protocol == UpstreamProtocol::Http1) {
        let place = reader.key("upstream");
        let what = "`upstream` is HTTP/1.1, and the service beside `grpc` speaks HTTP/2";
        let remedy = "write grpc://host:port, or grpcs:// over TLS";
        reader.push("bad-value", place, what.to_owned(), remedy.to_owned());
    }
}

fn source(reader: &mut Reader, written: &WrittenGrpc) -> Option<DescriptorSource> {
    let refresh = match &written.reflection {
        None => None,
        Some(WrittenReflection::Text(text)) => reader
            .value("grpc.reflection", Some(text), value::switch)?
            .then_some(REFRESH),
        Some(WrittenReflection::Map(map)) => Some(
            reader
                .value(
                    "grpc.reflection.refresh",
                    map.refresh.as_ref(),
                    value::duration_or_off,
                )
                .unwrap_or(REFRESH),
        ),
    };
    let set = existing(reader, "grpc.descriptors", written.descriptors.as_ref());
    let protos = protos(reader, written);
    let named = [
        written.descriptors.is_some(),
        written.protos.is_some(),
        refresh.is_some(),
    ];
    match named.iter().filter(|it| **it).count() {
        0 => {
            let place = reader.key("grpc");
            let what = "`grpc` does not say where the descriptors come from".to_owned();
            let remedy = "write `descriptors: FILE`, `protos: [FILE]`, or `reflection: on`";
            reader.push("missing-field", place, what, remedy.to_owned());
            None
        }
        1 => {
            let set = set.map(DescriptorSource::Set);
            let reflection = refresh.map(|refresh| DescriptorSource::Reflection { refresh });
            set.or(protos).or(reflection)
        }
        _ => {
            let place = reader.key("grpc");
            let what = "`grpc` names descriptors twice".to_owned();
            let remedy = "keep one of `descriptors`, `protos` and `reflection`";
            reader.push("bad-value", place, what, remedy.to_owned());
            None
        }
    }
}

fn protos(reader: &mut Reader, written: &WrittenGrpc) -> Option<DescriptorSource> {
    let named = written.protos.as_ref();
    if named.is_some_and(Vec::is_empty) {
        reader.empty(
            "grpc.protos",
            "name the .proto files that hold the services",
        );
    }
    let files: Vec<PathBuf> = named
        .into_iter()
        .flatten()
        .filter_map(|file| existing(reader, "grpc.protos", Some(file)))
        .collect();
    let mut include = Vec::new();
    for directory in written.include.iter().flatten() {
        let path = reader.path(directory);
        if path.is_dir() {
            include.push(path);
        } else {
            let what = format!("there is no directory `{}`", path.display());
            let remedy = "paths are relative to the directory of this file";
            reader.refuse("grpc.include", directory, Wrong::new(what, remedy));
        }
    }
    if let (Some(first), None) = (written.include.iter().flatten().next(), named) {
        let wrong = Wrong::new("stands beside no `protos`", "remove it, or name the files");
        reader.refuse("grpc.include", first, wrong);
    }
    // Without a word about it, imports are relative to where the files lie.
    if include.is_empty() {
        include.extend(
            files
                .iter()
                .filter_map(|file| file.parent())
                .map(PathBuf::from),
        );
        include.dedup();
    }
    let found = named.is_some_and(|named| named.len() == files.len());
    (found && !files.is_empty()).then_some(DescriptorSource::Protos { files, include })
}

fn existing(reader: &mut Reader, field: &str, written: Option<&Text>) -> Option<PathBuf> {
    let written = written?;
    let path = reader.path(written);
    if path.is_file() {
        return Some(path);
    }
    let what = format!("there is no file `{}`", path.display());
    let remedy = "paths are relative to the directory of this file";
    reader.refuse(field, written, Wrong::new(what, remedy));
    None
}

fn services(reader: &mut Reader, written: Option<&Vec<Text>>) -> Vec<NamedService> {
    let mut found = Vec::new();
    for text in written.into_iter().flatten() {
        let name = reader.value("grpc.services", Some(text), full_name);
        let place = reader.place(text);
        found.extend(name.map(|name| NamedService { name, place }));
    }
    if written.is_some_and(Vec::is_empty) {
        reader.empty(
            "grpc.services",
            "name a service, or remove the field, which means all",
        );
    }
    found
}

fn full_name(text: &str) -> Result<Arc<str>, Wrong> {
    let part = |part: &str| {
        let fit = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        !part.is_empty() && !part.starts_with(|c: char| c.is_ascii_digit()) && part.bytes().all(fit)
    };
    if text.len() <= 512 && text.split('.').all(part) {
        return Ok(text.into());
    }
    Err(Wrong::new(
        format!("`{text}` is no full name"),
        "write package and name: bookstore.v1.Bookstore",
    ))
}

fn method_name(text: &str) -> Result<Arc<str>, Wrong> {
    let split = text.rsplit_once('/').or_else(|| text.rsplit_once('.'));
    let fits = split.is_some_and(|(service, method)| {
        full_name(service).is_ok() && full_name(method).is_ok() && !method.contains('.')
    });
    if fits {
        return Ok(text.into());
    }
    Err(Wrong::new(
        format!("`{text}` is no method"),
        "write service and method: bookstore.v1.Bookstore/GetBook",
    ))
}

fn callers(reader: &mut Reader, written: Option<&WrittenCallers>) -> Vec<CallerKind> {
    const KINDS: [(&str, CallerKind); 4] = [
        ("key", CallerKind::Key),
        ("token", CallerKind::Token),
        ("basic", CallerKind::Basic),
        ("certificate", CallerKind::Certificate),
    ];
    match written {
        None => vec![CallerKind::Key, CallerKind::Token],
        Some(WrittenCallers::Text(text)) => {
            let any = |text: &str| one_of(text, &[("anyone", ())]);
            reader.value("grpc.callers", Some(text), any);
            Vec::new()
        }
        Some(WrittenCallers::List(list)) => {
            if list.is_empty() {
                reader.empty("grpc.callers", "write `anyone`, or what callers show");
            }
            reader.list("grpc.callers", Some(list), |text| one_of(text, &KINDS))
        }
    }
}

fn methods(
    reader: &mut Reader,
    written: Option<&BTreeMap<Text, Option<WrittenProfile>>>,
) -> Vec<MethodProfile> {
    let mut found = Vec::new();
    for (key, written) in written.into_iter().flatten() {
        let field = format!("grpc.methods.{}", key.text);
        let name = reader.value("grpc.methods", Some(key), method_name);
        let profile = profile(reader, &field, written.as_ref());
        let place = reader.place(key);
        found.extend(name.map(|name| MethodProfile {
            name,
            profile,
            place,
        }));
    }
    found
}

fn profile(reader: &mut Reader, field: &str, written: Option<&WrittenProfile>) -> ProfileSettings {
    let unsaid = WrittenProfile::default();
    let written = written.unwrap_or(&unsaid);
    let mut entry = Entry { reader, field };
    let lenience = [("refuse", false), ("ignore", true)];
    let unset = [
        ("none", PrintUnset::None),
        ("primitives", PrintUnset::Primitives),
        ("all", PrintUnset::All),
    ];
    let errors = [
        ("status", ErrorShape::Status),
        ("aip193", ErrorShape::Aip193),
    ];
    let streams = [
        ("array", StreamShape::Array),
        ("ndjson", StreamShape::Ndjson),
        ("sse", StreamShape::Sse),
    ];
    let masks = [("as_given", false), ("derive", true)];
    ProfileSettings {
        ignore_unknown_fields: entry.one("unknown_fields", &written.unknown_fields, &lenience),
        ignore_unknown_query: entry.one("unknown_query", &written.unknown_query, &lenience),
        print_unset: entry.one("print_unset", &written.print_unset, &unset),
        proto_names: entry.one("names", &written.names, &[("json", false), ("proto", true)]),
        enum_numbers: entry.one(
            "enums",
            &written.enums,
            &[("name", false), ("number", true)],
        ),
        strip_enum_prefix: entry.switch("strip_enum_prefix", &written.strip_enum_prefix),
        enums_any_case: entry.switch("enums_any_case", &written.enums_any_case),
        int64_numbers: entry.one(
            "int64",
            &written.int64,
            &[("string", false), ("number", true)],
        ),
        errors: entry.one("errors", &written.errors, &errors),
        streams: entry.one("streams", &written.streams, &streams),
        derive_update_mask: entry.one("update_mask", &written.update_mask, &masks),
    }
}

/// One profile while it is read.
struct Entry<'r, 'f> {
    reader: &'r mut Reader,
    field: &'f str,
}

impl Entry<'_, '_> {
    fn one<T: Copy>(&mut self, name: &str, text: &Option<Text>, words: &[(&str, T)]) -> Option<T> {
        let field = format!("{}.{name}", self.field);
        self.reader
            .value(&field, text.as_ref(), |text| one_of(text, words))
    }

    fn switch(&mut self, name: &str, text: &Option<Text>) -> Option<bool> {
        let field = format!("{}.{name}", self.field);
        self.reader.value(&field, text.as_ref(), value::switch)
    }
}

/// One of a few words.
fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Wrong> {
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*meaning);
    }
    let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let remedy = match nearest(text, all.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? Known: {}", all.join(", ")),
        None => format!("write one of {}", all.join(", ")),
    };
    Err(Wrong::new(format!("`{text}` is not known here"), remedy))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]
mod tests {
    use crate::settings::tests::{Files, Row, expect};
    use crate::settings::*;

    fn files() -> Files {
        let files = Files::new();
        files.write("books.binpb", "");
        files.write("protos/books.proto", "");
        files
    }

    fn read(files: &Files, text: &str) -> Result<ApiConfig, Vec<crate::Finding>> {
        files.api(&format!("upstream: grpc://service:9000\n{text}\n"))
    }

    #[test]
    fn a_service_needs_no_openapi_file() {
        let files = files();
        let config = read(&files, "grpc: { descriptors: books.binpb }").unwrap();
        assert_eq!(config.spec, None);
        let grpc = config.grpc.unwrap();
        let set = DescriptorSource::Set(files.path().join("books.binpb"));
        assert_eq!(grpc.source, set);
        assert_eq!(grpc.callers, [CallerKind::Key, CallerKind::Token]);
        assert_eq!(grpc.profile, ProfileSettings::default());
        let text = "grpc: { protos: [protos/books.proto], callers: anyone, services: [a.B] }";
        let grpc = read(&files, text).unwrap().grpc.unwrap();
        let protos = DescriptorSource::Protos {
            files: vec![files.path().join("protos/books.proto")],
            include: vec![files.path().join("protos")],
        };
        assert_eq!(grpc.source, protos);
        assert!(grpc.callers.is_empty());
        assert_eq!(&*grpc.services[0].name, "a.B");
        for (text, seconds) in [("on", 60), ("{ refresh: 5s }", 5), ("{ refresh: off }", 0)] {
            let grpc = read(&files, &format!("grpc: {{ reflection: {text} }}"))
                .unwrap()
                .grpc;
            let refresh = std::time::Duration::from_secs(seconds);
            assert_eq!(
                grpc.unwrap().source,
                DescriptorSource::Reflection { refresh }
            );
        }
    }

    #[test]
    fn a_profile_is_taken_from_the_method_before_the_api() {
        let text = "grpc:
  descriptors: books.binpb
  profile: { unknown_fields: ignore, print_unset: all, int64: number, streams: sse }
  methods:
    a.b.Books/List: { streams: ndjson, names: proto, update_mask: derive }
    a.b.Books.Get: { unknown_fields: refuse, errors: aip193, enums: number }";
        let grpc = read(&files(), text).unwrap().grpc.unwrap();
        let list = grpc.profile_of("a.b.Books", "List");
        assert_eq!(list.streams, Some(StreamShape::Ndjson));
        assert_eq!(list.ignore_unknown_fields, Some(true));
        assert_eq!(
            (list.proto_names, list.derive_update_mask),
            (Some(true), Some(true))
        );
        let get = grpc.profile_of("a.b.Books", "Get");
        assert_eq!(get.ignore_unknown_fields, Some(false));
        assert_eq!(get.print_unset, Some(PrintUnset::All));
        assert_eq!(get.errors, Some(ErrorShape::Aip193));
        assert_eq!(grpc.profile_of("a.b", "Books"), grpc.profile);
    }

    #[test]
    fn a_mistake_in_grpc_is_told_with_its_place_and_a_remedy() {
        let table: &[Row<'_>] = &[
            (
                "grpc: {}",
                2,
                1,
                "missing-field",
                &["where the descriptors come from"],
            ),
            (
                "grpc: { descriptors: books.binpb, servces: [a.B] }",
                2,
                35,
                "unknown-field",
                &["did you mean `services`?"],
            ),
            (
                "grpc: { descriptors: none.binpb }",
                2,
                22,
                "bad-value",
                &["no file", "none.binpb"],
            ),
            (
                "grpc: { descriptors: books.binpb, reflection: on }",
                2,
                1,
                "bad-value",
                &["twice"],
            ),
            (
                "grpc: { reflection: perhaps }",
                2,
                21,
                "bad-value",
                &["no switch"],
            ),
            (
                "grpc: { protos: [] }",
                0,
                0,
                "bad-value",
                &["grpc.protos", "empty"],
            ),
            (
                "grpc: { protos: [protos/books.proto], include: [nowhere] }",
                2,
                49,
                "bad-value",
                &["no directory"],
            ),
            (
                "grpc: { descriptors: books.binpb, services: [Books/List] }",
                2,
                46,
                "bad-value",
                &["no full name"],
            ),
            (
                "grpc: { descriptors: books.binpb, profile: { print_unset: al } }",
                2,
                59,
                "bad-value",
                &["did you mean `all`?"],
            ),
            (
                "grpc: { descriptors: books.binpb, profile: { unknown_feilds: ignore } }",
                2,
                46,
                "unknown-field",
                &["did you mean `unknown_fields`?"],
            ),
            (
                "grpc: { descriptors: books.binpb, methods: { Books: { names: proto } } }",
                2,
                46,
                "bad-value",
                &["no method", "bookstore.v1.Bookstore/GetBook"],
            ),
            (
                "grpc: { descriptors: books.binpb, callers: nobody }",
                2,
                44,
                "bad-value",
                &["anyone"],
            ),
        ];
        let files = files();
        for (text, line, column, code, words) in table {
            let whole = format!("upstream: grpc://service:9000\n{text}\n");
            expect((&whole, *line, *column, code, words), files.api(&whole));
        }
        let http1 =
            files.api("grpc: { descriptors: books.binpb }\nupstream: http://service:9000\n");
        assert!(http1.unwrap_err()[0].what.contains("HTTP/2"));
    }
}
