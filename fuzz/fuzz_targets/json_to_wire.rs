//! Any bytes as the JSON of a message, and texts for its fields: what is read is JSON to another reader as well, is printed again, and
//! what was printed is read as the same.
//!
//! Input: a byte for the message, a byte for the profile, the JSON up to a byte `ff`, then `path=text` with `ff` between them; of two
//! the first is of the path, the others of the query.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use tollgate_gateway::transcode::{
    Bound, CodecError, Enums, MessageId, Names, Profile, Schema, Unknown, Unset, Wide, Writer,
    write_json,
};

const NAMES: [&str; 6] = [
    "kinds.All",
    "kinds.Child",
    "kinds.Optional",
    "kinds2.Old",
    "kinds2.Set",
    "google.protobuf.Value",
];

fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/fixtures");
        let mut compiler = protox::Compiler::new([fixtures]).unwrap();
        compiler.include_imports(true);
        compiler
            .open_files(["kinds.proto", "kinds2.proto"])
            .unwrap();
        Schema::read(&compiler.encode_file_descriptor_set()).unwrap()
    })
}

fn profile(bits: u8) -> Profile {
    let is = |bit: u8| bits >> bit & 1 == 1;
    Profile {
        unknown: if is(0) {
            Unknown::Ignore
        } else {
            Unknown::Refuse
        },
        unset: match bits >> 6 {
            0 | 1 => Unset::Omit,
            2 => Unset::Primitives,
            _ => Unset::All,
        },
        names: if is(1) { Names::Proto } else { Names::Json },
        enums: if is(2) { Enums::Number } else { Enums::Name },
        strip_enum_prefix: is(3),
        any_case_enums: is(4),
        wide: if is(5) { Wide::Number } else { Wide::String },
    }
}

fn read(message: MessageId, profile: &Profile, json: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut writer = Writer::new(schema(), message, profile);
    writer.body(json)?;
    writer.finish()
}

fn print(message: MessageId, profile: &Profile, wire: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_json(schema(), message, profile, wire, &mut out).expect("what was read is printed");
    out
}

fuzz_target!(|input: &[u8]| {
    let [which, bits, rest @ ..] = input else {
        return;
    };
    let name = NAMES[usize::from(*which) % NAMES.len()];
    let (message, profile) = (schema().message(name).unwrap(), profile(*bits));
    let mut parts = rest.split(|byte| *byte == 0xff);
    let json = parts.next().unwrap_or_default();
    if let Ok(wire) = read(message, &profile, json) {
        assert!(serde_json::from_slice::<IgnoredAny>(json).is_ok());
        let printed = print(message, &profile, &wire);
        match read(message, &profile, &printed) {
            Ok(again) => assert_eq!(print(message, &profile, &again), printed),
            // Fields that are not set may be printed one level further down than what was read.
            Err(error) => assert_eq!(error.what, "nested too deep"),
        }
    }
    let mut writer = Writer::new(schema(), message, &profile);
    if writer.body(json).is_err() {
        writer = Writer::new(schema(), message, &profile);
    }
    for (at, part) in parts.enumerate() {
        let by = if at == 0 { Bound::Path } else { Bound::Query };
        let Some((path, text)) = str::from_utf8(part)
            .ok()
            .and_then(|part| part.split_once('='))
        else {
            continue;
        };
        if let Ok(path) = schema().path(message, path)
            && writer.bind(&path, text, by).is_err()
        {
            return;
        }
    }
    if let Ok(wire) = writer.finish() {
        print(message, &profile, &wire);
    }
});
