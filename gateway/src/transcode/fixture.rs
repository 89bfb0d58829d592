//! The definitions the tests of the codec share: `kinds.proto`, `kinds2.proto` and `order.proto`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::OnceLock;

use super::{CodecError, MessageId, Profile, Schema, Writer, write_json};

/// The descriptor set of all.
pub(crate) fn set() -> &'static [u8] {
    static SET: OnceLock<Vec<u8>> = OnceLock::new();
    SET.get_or_init(|| {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let mut compiler = protox::Compiler::new([fixtures]).unwrap();
        compiler.include_imports(true).include_source_info(true);
        compiler
            .open_files(["kinds.proto", "kinds2.proto", "order.proto"])
            .unwrap();
        compiler.encode_file_descriptor_set()
    })
}

pub(crate) fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| Schema::read(set()).unwrap())
}

pub(crate) fn message(name: &str) -> MessageId {
    schema().message(name).unwrap()
}

/// JSON to wire.
pub(crate) fn read(name: &str, profile: &Profile, json: &str) -> Result<Vec<u8>, CodecError> {
    let mut writer = Writer::new(schema(), message(name), profile);
    writer.body(json.as_bytes())?;
    writer.finish()
}

/// Wire to JSON.
pub(crate) fn print(name: &str, profile: &Profile, wire: &[u8]) -> Result<String, CodecError> {
    let mut out = b"before".to_vec();
    write_json(schema(), message(name), profile, wire, &mut out)?;
    Ok(String::from_utf8(out.split_off(6)).unwrap())
}

/// JSON to wire to JSON.
pub(crate) fn both_ways(name: &str, json: &str) -> Result<String, CodecError> {
    let profile = Profile::default();
    print(name, &profile, &read(name, &profile, json)?)
}
