//! Any bytes as a message: printed or refused, and what is printed is read as the same, whatever the profile.
//!
//! Input: a byte for the message, a byte for the profile, the wire bytes.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tollgate_gateway::transcode::{
    Enums, Names, Profile, Schema, Unknown, Unset, Wide, Writer, write_json, write_json_field,
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

fuzz_target!(|input: &[u8]| {
    let [which, bits, wire @ ..] = input else {
        return;
    };
    let name = NAMES[usize::from(*which) % NAMES.len()];
    let (message, profile) = (schema().message(name).unwrap(), profile(*bits));
    let print = |wire: &[u8]| {
        let mut out = Vec::new();
        write_json(schema(), message, &profile, wire, &mut out).map(|()| out)
    };
    let read = |json: &[u8]| {
        let mut writer = Writer::new(schema(), message, &profile);
        writer.body(json)?;
        writer.finish()
    };
    let Ok(first) = print(wire) else {
        return;
    };
    for field in schema().fields(message) {
        let mut out = Vec::new();
        let printed = write_json_field(schema(), message, field.id, &profile, wire, &mut out);
        printed.expect("what is printed as a whole is printed in parts");
    }
    match read(&first) {
        Ok(again) => {
            // A NullValue of another number is null, and null is nothing: from here on it is the same.
            let second = print(&again).expect("what was read is printed");
            let third = read(&second).and_then(|wire| print(&wire));
            assert_eq!(third.expect("what was printed is read"), second);
        }
        // Messages may be nested as deep as lists and objects together may not.
        Err(error) => assert_eq!(error.what, "nested too deep"),
    }
});
