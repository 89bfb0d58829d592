//! Any text as JSON or YAML: it is read or refused with a place, without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_policy::source::Document;

fuzz_target!(|text: &str| {
    let _ = Document::parse("fuzz.yaml", text);
    let _ = Document::parse_json("fuzz.json", text);
    let _ = Document::parse_yaml("fuzz.yaml", text);
});
