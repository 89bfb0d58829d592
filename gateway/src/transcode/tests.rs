//! The codec beside another one, and beside texts that must be read or refused.
//!
//! The other one is `buffa`, which passes the conformance suite of protobuf. Messages are made from bytes that proptest chooses, so that
//! what fails is made smaller by itself: as JSON with every liberty ProtoJSON leaves, and as wire bytes that no serializer would write.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;
use std::sync::{Arc, OnceLock};

use buffa_descriptor::DescriptorPool;
use buffa_descriptor::reflect::DynamicMessage;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::fixture::{print, read, schema, set};
use super::wire::{WireType, put_bytes, put_tag, put_varint};
use super::*;

/// What decides, byte by byte; zeros when they are used up.
struct Dice<'b>(&'b [u8]);

impl Dice<'_> {
    fn roll(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn below(&mut self, sides: usize) -> usize {
        usize::from(self.roll()) % sides
    }

    fn bits(&mut self) -> u64 {
        match self.below(4) {
            0 => u64::from(self.roll()),
            1 => u64::from(self.roll()).wrapping_neg(),
            2 => 1 << (self.roll() % 64),
            _ => (0..8).fold(0, |bits, _| bits << 8 | u64::from(self.roll())),
        }
    }

    fn text(&mut self) -> String {
        let letters = [
            "a", "B", "ä", "😀", "\"", "\\", "\n", "\u{1}", "/", " ", "_", "7",
        ];
        (0..self.below(9))
            .map(|_| letters[self.below(letters.len())])
            .collect()
    }

    /// A text in quotes, with escapes that need not be.
    fn quoted(&mut self) -> String {
        let text = self.text();
        match self.below(4) {
            0 => {
                let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
                format!("\"{}\"", units.collect::<String>())
            }
            _ => Json::from(text).to_string(),
        }
    }

    fn gap(&mut self) -> &'static str {
        ["", "", "", " ", "\n\t"][self.below(5)]
    }
}

/// A JSON form of a message.
fn json_of(dice: &mut Dice<'_>, id: MessageId, depth: u32) -> String {
    let message = schema().message_of(id);
    if let Some(known) = message.well_known {
        return json_of_well_known(dice, id, known, depth);
    }
    let fields = schema().fields(id);
    let mut members = Vec::new();
    let mut used = Vec::new();
    for _ in 0..dice.below(4) {
        let Some(field) = fields.get(dice.below(fields.len().max(1))) else {
            break;
        };
        let clashes = |other: &&Field| {
            other.id == field.id || (field.oneof.is_some() && other.oneof == field.oneof)
        };
        if used.iter().any(clashes) {
            continue;
        }
        used.push(field);
        let name = if dice.below(3) == 0 {
            &field.name
        } else {
            &field.json_name
        };
        let (name, gap) = (Json::from(&**name), dice.gap());
        members.push(format!(
            "{name}{gap}:{gap}{}",
            json_of_field(dice, field, depth)
        ));
    }
    format!("{{{}{}}}", dice.gap(), members.join(","))
}

fn json_of_field(dice: &mut Dice<'_>, field: &Field, depth: u32) -> String {
    if dice.below(12) == 0 {
        return "null".to_owned();
    }
    match field.cardinality {
        Cardinality::Singular => json_of_value(dice, field.kind, depth),
        Cardinality::Repeated => {
            let count = if depth > 4 { 0 } else { dice.below(4) };
            let elements: Vec<_> = (0..count)
                .map(|_| json_of_value(dice, field.kind, depth))
                .collect();
            format!("[{}{}]", elements.join(","), dice.gap())
        }
        Cardinality::Map => {
            let (key, value) = schema().map_entry(field).unwrap();
            let count = if depth > 4 { 0 } else { dice.below(3) };
            let mut entries = Vec::new();
            for at in 0..count {
                let key = match key.kind {
                    Kind::String => Json::from(format!("{}{at}", dice.text())).to_string(),
                    Kind::Bool => format!("\"{}\"", at == 0),
                    _ => format!("\"{at}\""),
                };
                entries.push(format!("{key}:{}", json_of_value(dice, value.kind, depth)));
            }
            format!("{{{}}}", entries.join(","))
        }
    }
}

fn json_of_value(dice: &mut Dice<'_>, kind: Kind, depth: u32) -> String {
    let bits = |dice: &mut Dice<'_>| dice.bits();
    let number = match kind {
        Kind::Message(id) | Kind::Group(id)
            if depth > 5 && schema().message_of(id).well_known.is_none() =>
        {
            return "{}".to_owned();
        }
        Kind::Message(id) | Kind::Group(id) => return json_of(dice, id, depth + 1),
        Kind::String => return dice.quoted(),
        Kind::Bool => return (dice.roll() & 1 == 1).to_string(),
        Kind::Bytes => {
            return [
                "\"\"",
                "\"AQI=\"",
                "\"AQI\"",
                "\"-_8\"",
                "\"+/8=\"",
                "\"\\/w==\"",
            ][dice.below(6)]
            .to_owned();
        }
        Kind::Enum(id) => {
            let definition = schema().enum_of(id);
            let value = &definition.values[dice.below(definition.values.len())];
            return match dice.below(3) {
                _ if definition.name.ends_with("NullValue") => "null".to_owned(),
                0 => value.number.to_string(),
                _ => format!("\"{}\"", value.name),
            };
        }
        Kind::Double => {
            let number = f64::from_bits(bits(dice));
            if number.is_finite() {
                format!("{number:e}")
            } else {
                "\"NaN\"".to_owned()
            }
        }
        Kind::Float => {
            let number = f32::from_bits(bits(dice) as u32);
            if number.is_finite() {
                format!("{number}")
            } else {
                "\"-Infinity\"".to_owned()
            }
        }
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => (bits(dice) as i32).to_string(),
        Kind::Uint32 | Kind::Fixed32 => (bits(dice) as u32).to_string(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => (bits(dice) as i64).to_string(),
        Kind::Uint64 | Kind::Fixed64 => bits(dice).to_string(),
    };
    // The oracle takes unquoted numbers with a point for doubles, however large: ours stay exact.
    let is_wide = number.len() > 15;
    match dice.below(5) {
        0 if !number.starts_with('"') => format!("\"{number}\""),
        1 if !is_wide && !number.contains(['"', '.', 'e']) => format!("{number}.0"),
        2 if !is_wide && !number.contains(['"', 'e']) => format!("{number}e0"),
        _ => number,
    }
}

fn json_of_well_known(
    dice: &mut Dice<'_>,
    id: MessageId,
    known: schema::WellKnown,
    depth: u32,
) -> String {
    use schema::WellKnown as Known;
    let choices: &[&str] = match known {
        Known::Wrapper => return json_of_value(dice, schema().fields(id)[0].kind, depth),
        Known::Any => &[
            r#"{"@type":"type.googleapis.com/kinds.Child","name":"x"}"#,
            r#"{"name":"x","@type":"type.googleapis.com/kinds.Child"}"#,
            r#"{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1.5s"}"#,
            r#"{"value":{"@type":"a.b/kinds.Child"},"@type":"type.googleapis.com/google.protobuf.Any"}"#,
        ],
        Known::Struct => &["{}", r#"{"a":null,"b":[1,{"c":false}]}"#, r#"{"":""}"#],
        Known::Value => &[
            "null",
            "0",
            "-1.5e3",
            "\"\"",
            "true",
            "[]",
            "{}",
            "[null,[{}]]",
        ],
        Known::ListValue => &["[]", "[null]", "[1,\"x\",[],{}]"],
        Known::Timestamp => &[
            "\"1970-01-01T00:00:00Z\"",
            "\"2026-11-21T09:30:15.123456789+01:30\"",
            "\"0001-01-01T00:00:00.5Z\"",
        ],
        Known::Duration => &[
            "\"0s\"",
            "\"-1.000000001s\"",
            "\"315576000000s\"",
            "\"0.5s\"",
        ],
        Known::FieldMask => &["\"\"", "\"a\"", "\"fooBar,baz.quxQuux\""],
    };
    choices[dice.below(choices.len())].to_owned()
}

/// Wire bytes of a message as nobody would write them.
fn wire_of(dice: &mut Dice<'_>, id: MessageId, depth: u32) -> Vec<u8> {
    let fields = schema().fields(id);
    let mut out = Vec::new();
    for _ in 0..dice.below(6) {
        let Some(field) = fields.get(dice.below(fields.len().max(1))) else {
            break;
        };
        match dice.below(12) {
            0 => stray(dice, &mut out),
            // Not in entries of maps: the oracle takes a key for what it should be, whatever its wire type.
            1 if field.kind.is_packable() && !schema().message_of(id).is_map_entry => {
                let mut packed = Vec::new();
                for _ in 0..dice.below(4) {
                    number(dice, field.kind.wire_type(), &mut packed);
                }
                put_tag(&mut out, field.number, WireType::Bytes);
                put_bytes(&mut out, &packed);
            }
            _ => value(dice, field, depth, &mut out),
        }
    }
    out
}

fn value(dice: &mut Dice<'_>, field: &Field, depth: u32, out: &mut Vec<u8>) {
    put_tag(out, field.number, field.kind.wire_type());
    match field.kind {
        Kind::Message(id) | Kind::Group(id) => {
            let inner = if depth > 5 {
                Vec::new()
            } else {
                wire_of(dice, id, depth + 1)
            };
            if field.kind.wire_type() == WireType::GroupStart {
                out.extend(inner);
                put_tag(out, field.number, WireType::GroupEnd);
            } else {
                put_bytes(out, &inner);
            }
        }
        Kind::String if field.message == schema().message("google.protobuf.FieldMask").unwrap() => {
            put_bytes(out, [&b"a"[..], b"foo_bar.baz"][dice.below(2)]);
        }
        Kind::String => put_bytes(out, dice.text().as_bytes()),
        Kind::Bytes => put_bytes(out, [&b""[..], b"\x01", b"\xff\xfe\xfd"][dice.below(3)]),
        kind => number(dice, kind.wire_type(), out),
    }
}

fn number(dice: &mut Dice<'_>, wire_type: WireType, out: &mut Vec<u8>) {
    let bits = dice.bits();
    match wire_type {
        WireType::Fixed64 => out.extend(bits.to_le_bytes()),
        WireType::Fixed32 => out.extend((bits as u32).to_le_bytes()),
        _ if dice.below(5) == 0 && bits < 1 << 42 => {
            // Three bytes longer than it needs.
            put_varint(out, bits | 1 << 49);
            let last = out.len() - 1;
            out[last] = 0;
        }
        _ => put_varint(out, bits),
    }
}

/// A field that no message here has, or a known number of another type.
fn stray(dice: &mut Dice<'_>, out: &mut Vec<u8>) {
    let number = [1900, 20, 5][dice.below(3)];
    match dice.below(4) {
        0 => {
            put_tag(out, number, WireType::Varint);
            put_varint(out, dice.bits());
        }
        // Not of a known number: what is replaced by a later value is not looked into here, but by the oracle.
        1 => {
            put_tag(out, number.max(20), WireType::Bytes);
            put_bytes(out, dice.text().as_bytes());
        }
        2 => {
            put_tag(out, 1900, WireType::GroupStart);
            put_tag(out, 1900, WireType::GroupStart);
            put_tag(out, 1900, WireType::GroupEnd);
            put_tag(out, 1900, WireType::GroupEnd);
        }
        _ => {
            put_tag(out, 1900, WireType::Fixed64);
            out.extend(dice.bits().to_le_bytes());
        }
    }
}

fn pool() -> Arc<DescriptorPool> {
    static POOL: OnceLock<Arc<DescriptorPool>> = OnceLock::new();
    POOL.get_or_init(|| Arc::new(DescriptorPool::decode(set()).unwrap()))
        .clone()
}

fn oracle_json(name: &str, json: &str) -> Result<DynamicMessage, String> {
    let index = pool().message_index(name).unwrap();
    DynamicMessage::from_json(pool(), index, json).map_err(|error| error.to_string())
}

fn oracle_wire(name: &str, wire: &[u8]) -> Result<DynamicMessage, String> {
    let index = pool().message_index(name).unwrap();
    DynamicMessage::decode(pool(), index, wire).map_err(|error| error.to_string())
}

fn meaning(message: &DynamicMessage) -> Json {
    let mut json = serde_json::from_str(&message.to_json().unwrap()).unwrap();
    drop_closed_maps(&mut json);
    json
}

/// An entry without a value has the first one of its closed enum; the oracle drops it.
fn drop_closed_maps(json: &mut Json) {
    match json {
        Json::Object(members) => {
            members.remove("closedMap");
            members.values_mut().for_each(drop_closed_maps);
        }
        Json::Array(elements) => elements.iter_mut().for_each(drop_closed_maps),
        _ => {}
    }
}

const NAMES: [&str; 4] = ["kinds.All", "kinds.Child", "kinds2.Old", "kinds.Optional"];

fn cases() -> ProptestConfig {
    // More of them: PROPTEST_CASES.
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn json_means_on_the_wire_what_it_means_to_the_oracle(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
        let mut dice = Dice(&bytes);
        let name = NAMES[dice.below(NAMES.len())];
        let json = json_of(&mut dice, schema().message(name).unwrap(), 0);
        let ours = read(name, &Profile::default(), &json);
        let theirs = oracle_json(name, &json);
        match (ours, theirs) {
            (Ok(wire), Ok(theirs)) => {
                let ours = oracle_wire(name, &wire).unwrap();
                prop_assert_eq!(meaning(&ours), meaning(&theirs), "{}", json);
            }
            (ours, theirs) => prop_assert!(false, "{}: {:?}, {:?}", json, ours, theirs.map(|_| ())),
        }
    }

    #[test]
    fn wire_bytes_mean_as_json_what_they_mean_to_the_oracle(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
        let mut dice = Dice(&bytes);
        let name = NAMES[dice.below(NAMES.len())];
        let wire = wire_of(&mut dice, schema().message(name).unwrap(), 0);
        let ours = print(name, &Profile::default(), &wire);
        let theirs = oracle_wire(name, &wire).and_then(|message| message.to_json().map_err(|error| error.to_string()));
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                let ours_again = oracle_json(name, &ours);
                prop_assert!(ours_again.is_ok(), "{}: {:?}", ours, ours_again.map(|_| ()));
                // It prints numbers that a closed enum does not have, and then does not read them.
                let Ok(theirs_again) = oracle_json(name, &theirs) else {
                    return Ok(());
                };
                prop_assert_eq!(meaning(&ours_again.unwrap()), meaning(&theirs_again), "{}", ours);
            }
            (Err(_), Err(_)) => {}
            (ours, theirs) => prop_assert!(false, "{:02x?}: {:?}, {:?}", wire, ours, theirs),
        }
    }

    #[test]
    fn what_is_printed_is_read_as_the_same(bytes in prop::collection::vec(any::<u8>(), 1..200), profile in profiles()) {
        let mut dice = Dice(&bytes);
        let name = NAMES[dice.below(NAMES.len())];
        let wire = wire_of(&mut dice, schema().message(name).unwrap(), 0);
        if let Ok(printed) = print(name, &profile, &wire) {
            let again = read(name, &profile, &printed);
            prop_assert!(again.is_ok(), "{}: {:?}", printed, again);
            let second = print(name, &profile, &again.unwrap()).unwrap();
            let third = print(name, &profile, &read(name, &profile, &second).unwrap()).unwrap();
            prop_assert_eq!(second, third);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        for name in NAMES {
            drop(print(name, &Profile::default(), &bytes));
            let mut writer = Writer::new(schema(), schema().message(name).unwrap(), &Profile::default());
            drop(writer.body(&bytes));
        }
    }

    #[test]
    fn damaged_json_is_read_only_if_it_is_json(bytes in prop::collection::vec(any::<u8>(), 1..200), at: prop::sample::Index, byte: u8) {
        let mut dice = Dice(&bytes);
        let mut json = json_of(&mut dice, schema().message("kinds.All").unwrap(), 0).into_bytes();
        let at = at.index(json.len());
        json[at] = byte;
        let mut writer = Writer::new(schema(), schema().message("kinds.All").unwrap(), &Profile::default());
        if writer.body(&json).is_ok() {
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&json).is_ok(), "{:?}", json);
            prop_assert!(print("kinds.All", &Profile::default(), &writer.finish().unwrap()).is_ok());
        }
    }
}

fn profiles() -> impl Strategy<Value = Profile> {
    (any::<[bool; 5]>(), 0..3u8).prop_map(|([names, enums, strip, any_case, wide], unset)| {
        Profile {
            unknown: Unknown::Refuse,
            unset: [Unset::Omit, Unset::Primitives, Unset::All][usize::from(unset)],
            names: if names { Names::Json } else { Names::Proto },
            enums: if enums { Enums::Name } else { Enums::Number },
            strip_enum_prefix: strip,
            any_case_enums: any_case,
            wide: if wide { Wide::String } else { Wide::Number },
        }
    })
}

/// Every text of the suite as a `google.protobuf.Value`: `y_` is read and `n_` refused; of `i_` only that it ends well.
#[test]
fn the_json_test_suite_is_read_as_it_wants() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/jsontestsuite");
    let Ok(files) = std::fs::read_dir(&folder) else {
        println!("skipped: {} is not there", folder.display());
        return;
    };
    let mut counts = [0; 3];
    for file in files {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read(&path).unwrap();
        let message = schema().message("google.protobuf.Value").unwrap();
        let mut writer = Writer::new(schema(), message, &Profile::default());
        let is_read = writer.body(&text).is_ok();
        match name.split_once('_') {
            Some(("y", _)) => {
                assert!(is_read, "{name} is JSON");
                counts[0] += 1;
                let mut printed = Vec::new();
                let wire = writer.finish().unwrap();
                write_json(schema(), message, &Profile::default(), &wire, &mut printed).unwrap();
                let printed: Json = serde_json::from_slice(&printed).unwrap();
                let expected: Json = serde_json::from_slice(&text).unwrap();
                assert!(
                    alike(&printed, &expected),
                    "{name}: {printed} for {expected}"
                );
            }
            Some(("n", _)) => {
                assert!(!is_read, "{name} is no JSON");
                counts[1] += 1;
            }
            _ => counts[2] += 1,
        }
    }
    assert!(counts[0] > 90 && counts[1] > 180, "{counts:?}");
}

/// Equal, where every number is a double.
fn alike(one: &Json, other: &Json) -> bool {
    match (one, other) {
        (Json::Number(one), Json::Number(other)) => one.as_f64() == other.as_f64(),
        (Json::Array(one), Json::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
        }
        (Json::Object(one), Json::Object(other)) => {
            let same = |(name, value): (&String, &Json)| {
                other.get(name).is_some_and(|other| alike(value, other))
            };
            one.len() == other.len() && one.iter().all(same)
        }
        (one, other) => one == other,
    }
}

/// Worker threads have 2 MiB, of which a codec must not take the most even without optimisation.
#[test]
fn the_deepest_messages_fit_a_small_stack() {
    let list = format!("{{\"wValue\":{}{}}}", "[".repeat(99), "]".repeat(99));
    let map = format!(
        "{}{}{}",
        "{\"byName\":{\"a\":".repeat(49),
        "{}",
        "}}".repeat(49)
    );
    let child = format!("{}{}{}", "{\"child\":".repeat(99), "{}", "}".repeat(99));
    let any = r#"{"@type":"x/google.protobuf.Any","value":"#.repeat(97);
    let any = format!("{{\"wAny\":{any}{{}}{}}}", "}".repeat(97));
    let run = move || {
        for (name, json) in [
            ("kinds.All", list),
            ("kinds.Child", map),
            ("kinds.Child", child),
            ("kinds.All", any),
        ] {
            let wire = read(name, &Profile::default(), &json).unwrap();
            print(name, &Profile::default(), &wire).unwrap();
        }
    };
    let thread = std::thread::Builder::new().stack_size(512 << 10);
    thread.spawn(run).unwrap().join().unwrap();
}
