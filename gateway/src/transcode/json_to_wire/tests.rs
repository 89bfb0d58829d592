//! Requests from JSON and parameters.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests"
)]

use super::*;
use crate::transcode::fixture::{both_ways, message, print, read, schema};
use crate::transcode::{Enums, Names, Unknown};

const ALL: &str = "kinds.All";

fn wire(json: &str) -> Vec<u8> {
    read(ALL, &Profile::default(), json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn refused(name: &str, json: &str) -> String {
    match read(name, &Profile::default(), json) {
        Err(error) => error.to_string(),
        Ok(wire) => panic!("{json} was read as {wire:02x?}"),
    }
}

#[test]
fn every_kind_has_its_bytes() {
    for (json, bytes) in [
        (r#"{"fDouble":1.5}"#, &b"\x09\0\0\0\0\0\0\xf8\x3f"[..]),
        (r#"{"fFloat":-2}"#, b"\x15\0\0\0\xc0"),
        (
            r#"{"fInt64":"-1"}"#,
            b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ),
        (
            r#"{"fUint64":18446744073709551615}"#,
            b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ),
        (
            r#"{"fInt32":-1}"#,
            b"\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ),
        (r#"{"fFixed64":1}"#, b"\x31\x01\0\0\0\0\0\0\0"),
        (r#"{"fFixed32":"1"}"#, b"\x3d\x01\0\0\0"),
        (r#"{"fBool":true}"#, b"\x40\x01"),
        (r#"{"fString":"ä\u00e4"}"#, b"\x4a\x04\xc3\xa4\xc3\xa4"),
        (r#"{"fChild":{}}"#, b"\x52\x00"),
        (r#"{"fBytes":"AQI="}"#, b"\x5a\x02\x01\x02"),
        (r#"{"fUint32":1e2}"#, b"\x60\x64"),
        (r#"{"fColor":"COLOR_BLUE"}"#, b"\x68\x02"),
        (
            r#"{"fColor":-1}"#,
            b"\x68\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ),
        (r#"{"fSfixed32":-1}"#, b"\x75\xff\xff\xff\xff"),
        (
            r#"{"fSfixed64":-1}"#,
            b"\x79\xff\xff\xff\xff\xff\xff\xff\xff",
        ),
        (r#"{"fSint32":-1}"#, b"\x80\x01\x01"),
        (r#"{"fSint64":"1.0"}"#, b"\x88\x01\x02"),
        (r#"{"rInt32":[0,1,-0]}"#, b"\x9a\x02\x03\x00\x01\x00"),
        (r#"{"uInt32":[0,1]}"#, b"\x80\x03\x00\x80\x03\x01"),
        (r#"{"rString":["",""]}"#, b"\xba\x02\x00\xba\x02\x00"),
        (
            r#"{"mBool":{"false":true}}"#,
            b"\xea\x03\x04\x08\x00\x10\x01",
        ),
        (r#"{"mChild":{"":{}}}"#, b"\x82\x04\x04\x0a\x00\x12\x00"),
        (r#"{"far":1}"#, b"\xf8\xff\xff\xff\x0f\x01"),
    ] {
        assert_eq!(wire(json), bytes, "{json}");
    }
}

/// Must-have: either spelling of a name is read.
#[test]
fn either_spelling_of_a_name_is_read() {
    assert_eq!(wire(r#"{"f_int32":1}"#), wire(r#"{"fInt32":1}"#));
    assert_eq!(wire(r#"{"renamed":"x"}"#), wire(r#"{"called \"so\"":"x"}"#));
    assert_eq!(wire(r#"{"f\u0049nt32":1}"#), wire(r#"{"fInt32":1}"#));
}

/// Must-have: numbers or texts for all numbers, exponents also in quotes; either base64; enums by name or number.
#[test]
fn what_means_the_same_is_read_the_same() {
    for (one, other) in [
        (r#"{"fInt32":15}"#, r#"{"fInt32":"1.5e1"}"#),
        (r#"{"fInt32":15}"#, r#"{"fInt32":1500e-2}"#),
        (r#"{"fUint64":"10000"}"#, r#"{"fUint64":1e4}"#),
        (r#"{"fSfixed64":-2}"#, r#"{"fSfixed64":"-2.0"}"#),
        (r#"{"fDouble":1000}"#, r#"{"fDouble":"1E3"}"#),
        (r#"{"fFloat":0.5}"#, r#"{"fFloat":"5e-1"}"#),
        (r#"{"fBytes":"+/8="}"#, r#"{"fBytes":"-_8"}"#),
        (r#"{"fColor":"COLOR_BLUE"}"#, r#"{"fColor":2}"#),
        (r#"{"mInt64":{"1":"2"}}"#, r#"{"mInt64":{"1":2e0}}"#),
        (r#"{"wInt64":"3"}"#, r#"{"wInt64":3.0}"#),
    ] {
        assert_eq!(wire(one), wire(other), "{one} {other}");
        assert!(!wire(one).is_empty());
    }
}

/// Must-have: null is unset, but for Value and NullValue.
#[test]
fn defaults_and_nulls_write_nothing_where_nothing_tells_them_apart() {
    for json in [
        r#"{"fInt32":0,"fDouble":0.0,"fString":"","fBytes":"","fBool":false,"fColor":0}"#,
        r#"{"fInt32":null,"rInt32":null,"mInt32":null,"fChild":null,"wTimestamp":null,"oInt32":null}"#,
        r#"{"rInt32":[],"mInt32":{},"rChild":[]}"#,
        r#"{"cInt32":null,"cString":null,"wInt64":null,"wNull":null}"#,
    ] {
        assert_eq!(wire(json), b"", "{json}");
    }
    assert_eq!(wire(r#"{"oInt32":0}"#), b"\xa8\x01\x00");
    assert_eq!(wire(r#"{"oString":""}"#), b"\xb2\x01\x00");
    assert_eq!(wire(r#"{"cInt32":0}"#), b"\xb8\x04\x00");
    assert_eq!(wire(r#"{"fDouble":-0}"#), b"\x09\0\0\0\0\0\0\0\x80");
    assert_eq!(wire(r#"{"wValue":null}"#), b"\x9a\x05\x02\x08\x00");
    assert_eq!(wire(r#"{"cNull":null}"#), b"\xd8\x04\x00");
    assert_eq!(
        wire(r#"{"cInt32":null,"cString":"x"}"#),
        wire(r#"{"cString":"x"}"#)
    );
}

#[test]
fn lengths_are_right_whatever_is_inside() {
    for length in [0, 1, 100, 126, 127, 128, 129, 16_383, 16_384, 70_000] {
        let text = "x".repeat(length);
        let json = format!(
            r#"{{"rChild":[{{"name":"{text}","child":{{"name":"\n{text}","number":1}}}},{{}}],"fInt32":7}}"#
        );
        let printed = print(ALL, &Profile::default(), &wire(&json)).unwrap();
        let read: serde_json::Value = serde_json::from_str(&printed).unwrap();
        let mut expected: serde_json::Value = serde_json::from_str(&json).unwrap();
        if length == 0 {
            expected["rChild"][0]
                .as_object_mut()
                .unwrap()
                .remove("name");
        }
        assert_eq!(read, expected, "{length}");
    }
}

/// Must-have: two members of a oneof, duplicates, unknown fields, null in lists and maps are refused with the path of the field.
#[test]
fn refusals_name_the_field() {
    for (json, told) in [
        (r#"{"fInt32":"x"}"#, "fInt32: expected a number"),
        (
            r#"{"fInt32":true}"#,
            "fInt32: expected a number, found a bool",
        ),
        (r#"{"fInt32":1.5}"#, "fInt32: expected a whole number"),
        (
            r#"{"fInt32":2147483648}"#,
            "fInt32: out of the range of 32 bits with sign",
        ),
        (
            r#"{"fUint64":-1}"#,
            "fUint64: out of the range of 64 bits without sign",
        ),
        (r#"{"fInt32":" 1"}"#, "fInt32: expected a number"),
        (r#"{"fInt32":""}"#, "fInt32: expected a number"),
        (r#"{"fInt32":"0x1"}"#, "fInt32: expected a number"),
        (
            r#"{"fFloat":3.5e38}"#,
            "fFloat: out of the range of a float",
        ),
        (
            r#"{"fDouble":"1e309"}"#,
            "fDouble: out of the range of a double",
        ),
        (r#"{"fDouble":"nan"}"#, "fDouble: expected a number"),
        (
            r#"{"fString":1}"#,
            "fString: expected a text, found a number",
        ),
        (
            r#"{"fBool":"true"}"#,
            "fBool: expected true or false, found a text",
        ),
        (r#"{"fBytes":"*"}"#, "fBytes: no valid base64"),
        (
            r#"{"fColor":"RED"}"#,
            "fColor: kinds.Color has no value `RED`",
        ),
        (r#"{"fColor":"1"}"#, "fColor: kinds.Color has no value `1`"),
        (
            r#"{"fColor":2147483648}"#,
            "fColor: kinds.Color has no value `2147483648`",
        ),
        (
            r#"{"rChild":[{},{"name":1}]}"#,
            "rChild[1].name: expected a text, found a number",
        ),
        (r#"{"rInt32":[1,null]}"#, "rInt32[1]: null in a list"),
        (r#"{"rChild":[null]}"#, "rChild[0]: null in a list"),
        (r#"{"rInt32":1}"#, "rInt32: expected a list, found a number"),
        (
            r#"{"mInt32":[]}"#,
            "mInt32: expected an object, found a list",
        ),
        (r#"{"mInt32":{"1":null}}"#, "mInt32[\"1\"]: null in a map"),
        (r#"{"mInt32":{"x":1}}"#, "mInt32[\"x\"]: expected a number"),
        (
            r#"{"mBool":{"yes":true}}"#,
            "mBool[\"yes\"]: expected true or false",
        ),
        (
            r#"{"mChild":{"a":{"name":1}}}"#,
            "mChild[\"a\"].name: expected a text, found a number",
        ),
        (
            r#"{"mInt32":{"1":1,"1":2}}"#,
            "mInt32[\"1\"]: is there twice",
        ),
        (
            r#"{"mInt32":{"1":1,"1.0":2}}"#,
            "mInt32[\"1.0\"]: is there twice",
        ),
        (r#"{"fInt32":1,"f_int32":1}"#, "f_int32: is there twice"),
        (
            r#"{"fChild":{"x":1}}"#,
            "fChild.x: kinds.Child has no such field",
        ),
        (
            r#"{"cInt32":1,"cString":"x"}"#,
            "cString: another member of the oneof `choice` is there as well",
        ),
        (
            r#"{"fChild":{"value":[{"a":1e999}]}}"#,
            "fChild.value[0][\"a\"]: out of the range of a double",
        ),
        (
            r#"{"wTimestamp":"yesterday"}"#,
            "wTimestamp: expected a time as 2026-01-31T09:30:00Z, in the years 1 to 9999",
        ),
        (
            r#"{"wDuration":"1"}"#,
            "wDuration: expected seconds as 1.5s, of at most ten thousand years",
        ),
        (
            r#"{"wMask":"a_b"}"#,
            "wMask: expected paths as `title,authorName`",
        ),
        (
            r#"{"wAny":{"@type":"x/no.Such"}}"#,
            "wAny.@type: the type `x/no.Such` is not known",
        ),
        (r#"{"wAny":{"name":"x"}}"#, "wAny: an Any without @type"),
        ("[]", "expected an object, found a list"),
        ("null", "expected an object, found null"),
    ] {
        assert_eq!(refused(ALL, json), told);
    }
}

/// Must-have: lone surrogates, invalid UTF-8, trailing text and raw control characters are refused.
#[test]
fn what_is_no_json_is_refused_with_its_place() {
    for (json, told) in [
        ("", "no valid JSON at byte 0: the text ends here"),
        ("{", "no valid JSON at byte 1: expected a name in quotes"),
        (
            r#"{"fInt32":1}{"#,
            "no valid JSON at byte 12: something follows the value",
        ),
        (
            r#"{"fInt32":1,}"#,
            "no valid JSON at byte 12: nothing follows the comma",
        ),
        (
            r#"{"fInt32":01}"#,
            "fInt32: no valid JSON at byte 10: no valid number",
        ),
        (
            r#"{"fString":"\ud800"}"#,
            "fString: no valid JSON at byte 18: half of a surrogate pair",
        ),
        (
            "{\"fString\":\"a\nb\"}",
            "fString: no valid JSON at byte 13: a control character in a text",
        ),
    ] {
        assert_eq!(refused(ALL, json), told);
    }
    let mut writer = Writer::new(schema(), message(ALL), &Profile::default());
    let error = writer.body(b"{\"fString\":\"\xff\"}").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no valid JSON at byte 12: no valid UTF-8"
    );
}

#[test]
fn many_keys_are_compared_as_well_as_few() {
    let keys = |count: usize, extra: &str| {
        let entries: Vec<String> = (0..count).map(|key| format!("\"{key}\":1")).collect();
        format!("{{\"mInt32\":{{{}{extra}}}}}", entries.join(","))
    };
    for count in [3, 16, 17, 18, 500] {
        assert!(read(ALL, &Profile::default(), &keys(count, "")).is_ok());
        assert!(
            refused(ALL, &keys(count, ",\"2\":1")).contains("twice"),
            "{count}"
        );
    }
    let escaped = format!(
        r#"{{"mString":{{"{0}":"","\u0061{1}":""}}}}"#,
        "a".repeat(200),
        "a".repeat(199)
    );
    assert!(refused(ALL, &escaped).ends_with("is there twice"));
}

/// Must-have: depth 100, also inside Value, Any and what is unknown.
#[test]
fn a_hundred_levels_are_read_and_no_more() {
    let nested = |levels: usize| {
        format!(
            "{}{}{}",
            "{\"child\":".repeat(levels),
            "{}",
            "}".repeat(levels)
        )
    };
    assert!(read("kinds.Child", &Profile::default(), &nested(99)).is_ok());
    assert!(refused("kinds.Child", &nested(100)).ends_with("nested too deep"));
    let lists = |levels: usize| {
        format!(
            "{{\"wValue\":{}{}}}",
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    assert!(read(ALL, &Profile::default(), &lists(99)).is_ok());
    assert!(refused(ALL, &lists(100)).ends_with("nested too deep"));
    let any = |levels: usize| {
        let open = r#"{"@type":"x/google.protobuf.Any","value":"#.repeat(levels);
        format!("{{\"wAny\":{open}{{}}{}}}", "}".repeat(levels))
    };
    assert!(read(ALL, &Profile::default(), &any(98)).is_ok());
    assert!(refused(ALL, &any(99)).ends_with("nested too deep"));
    let ignoring = Profile {
        unknown: Unknown::Ignore,
        ..Profile::default()
    };
    let unknown = |levels: usize| format!("{{\"?\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    assert!(read(ALL, &ignoring, &unknown(99)).is_ok());
    assert!(read(ALL, &ignoring, &unknown(100)).is_err());
    assert!(read(ALL, &ignoring, &"[".repeat(5_000_000)).is_err());
}

/// Must-have: unknown fields are refused, or ignored as an option.
#[test]
fn unknown_members_are_passed_over_where_the_profile_says_so() {
    let profile = Profile {
        unknown: Unknown::Ignore,
        ..Profile::default()
    };
    let json = r#"{"x":[{"y":null}],"fInt32":1,"fColor":"COLOR_GREEN",
        "rColor":["COLOR_RED","COLOR_GREEN"],"mColor":{"a":"COLOR_GREEN","b":"COLOR_RED"},
        "wAny":{"@type":"x/kinds.Child","z":1}}"#;
    let printed = print(ALL, &profile, &read(ALL, &profile, json).unwrap()).unwrap();
    assert_eq!(
        printed,
        r#"{"fInt32":1,"rColor":["COLOR_RED"],"mColor":{"b":"COLOR_RED"},"wAny":{"@type":"x/kinds.Child"}}"#
    );
    assert!(read(ALL, &profile, r#"{"x":[1,]}"#).is_err());
    assert!(read(ALL, &profile, r#"{"x":"\ud800"}"#).is_err());
}

/// Must-have: enum names in any case, and without their prefix, as an option.
#[test]
fn enum_names_are_read_as_the_profile_says() {
    let reads = |profile: &Profile, name: &str| {
        read(ALL, profile, &format!("{{\"fColor\":\"{name}\"}}")).is_ok()
    };
    let strict = Profile::default();
    let any_case = Profile {
        any_case_enums: true,
        ..strict
    };
    let stripped = Profile {
        strip_enum_prefix: true,
        ..strict
    };
    let both = Profile {
        any_case_enums: true,
        strip_enum_prefix: true,
        ..strict
    };
    for (name, expected) in [
        ("COLOR_RED", [true, true, true, true]),
        ("color_Red", [false, true, false, true]),
        ("RED", [false, false, true, true]),
        ("red", [false, false, false, true]),
        ("OLOR_RED", [false; 4]),
    ] {
        let found = [strict, any_case, stripped, both].map(|profile| reads(&profile, name));
        assert_eq!(found, expected, "{name}");
    }
    // How values are written does not change what is read.
    let numbers = Profile {
        enums: Enums::Number,
        names: Names::Proto,
        ..strict
    };
    assert!(reads(&numbers, "COLOR_RED"));
}

/// Must-have: Any with `@type` anywhere, its fields or `value`.
#[test]
fn an_any_is_read_wherever_its_type_stands() {
    let first =
        wire(r#"{"wAny":{"@type":"type.googleapis.com/kinds.Child","name":"x","number":7}}"#);
    let last =
        wire(r#"{"wAny":{"name":"x","number":7,"@type":"type.googleapis.com/kinds.Child"}}"#);
    let between =
        wire(r#"{"wAny":{"name":"x","@type":"type.googleapis.com/kinds.Child","number":7}}"#);
    assert_eq!(first, last);
    assert_eq!(first, between);
    for json in [
        r#"{"wAny":{"@type":"a/kinds.Child","@type":"a/kinds.Child"}}"#,
        r#"{"wAny":{"name":"","@type":"a/kinds.Child","@type":"a/kinds.Child"}}"#,
        r#"{"wAny":{"@type":"kinds.Child"}}"#,
        r#"{"wAny":{"@type":1}}"#,
        r#"{"wAny":{"@type":"a/google.protobuf.Duration"}}"#,
        r#"{"wAny":{"@type":"a/google.protobuf.Duration","value":"1s","value":"1s"}}"#,
        r#"{"wAny":{"@type":"a/google.protobuf.Duration","value":"1s","other":1}}"#,
        r#"{"wAny":{"@type":"a/google.protobuf.Duration","value":null}}"#,
    ] {
        assert!(read(ALL, &Profile::default(), json).is_err(), "{json}");
    }
    for json in [
        r#"{"wAny":{"@type":"a/google.protobuf.Duration","value":"1s"}}"#,
        r#"{"wAny":{"@type":"a/google.protobuf.Value","value":null}}"#,
        r#"{"wAny":{"@type":"a/google.protobuf.Int64Value","value":"7"}}"#,
        r#"{"wAny":{"@type":"a/google.protobuf.Empty"}}"#,
        r#"{"wAny":{"@type":"a/google.protobuf.Any","value":{"@type":"a/kinds.Child","number":1}}}"#,
        r#"{"wAny":{}}"#,
    ] {
        assert_eq!(both_ways(ALL, json).unwrap(), json);
    }
    let empty = r#"{"wAny":{"value":{},"@type":"a/google.protobuf.Empty"}}"#;
    assert_eq!(
        both_ways(ALL, empty).unwrap(),
        r#"{"wAny":{"@type":"a/google.protobuf.Empty"}}"#
    );
}

#[test]
fn types_that_come_last_do_not_multiply_the_work() {
    let nested = |levels: usize| {
        let open = r#"{"any":"#.repeat(levels);
        let close = r#","@type":"a/kinds.Child"}"#.repeat(levels);
        format!(r#"{{"any":{open}{{}}{close}}}"#)
    };
    assert!(read("kinds.Child", &Profile::default(), &nested(5)).is_ok());
    let told = refused("kinds.Child", &nested(90));
    assert!(
        told.ends_with("too many Any whose @type comes last"),
        "{told}"
    );
}

#[test]
fn groups_extensions_and_message_sets_are_written_in_their_old_forms() {
    for (json, bytes) in [
        (r#"{"pair":{"left":"a"}}"#, &b"\x43\x0a\x01a\x44"[..]),
        (r#"{"many":[{"one":1},{}]}"#, b"\x4b\x08\x01\x4c\x4b\x4c"),
        (r#"{"[kinds2.nickname]":"x"}"#, b"\xa2\x06\x01x"),
        (r#"{"[kinds2.scores]":[1,2]}"#, b"\xaa\x06\x02\x01\x02"),
        (
            r#"{"may":0,"plain":[0],"packed":[0]}"#,
            b"\x10\x00\x18\x00\x22\x01\x00",
        ),
        (
            r#"{"closed":"SIX","closes":[5,6]}"#,
            b"\x28\x06\x30\x05\x30\x06",
        ),
    ] {
        assert_eq!(
            read("kinds2.Old", &Profile::default(), json).unwrap(),
            bytes,
            "{json}"
        );
    }
    assert_eq!(
        refused("kinds2.Old", r#"{"closed":7}"#),
        "closed: kinds2.Closed has no value `7`"
    );
    let told = refused("kinds2.Old", r#"{"[kinds2.nobody]":1}"#);
    assert_eq!(told, "[kinds2.nobody]: kinds2.Old has no such field");
    let set = read(
        "kinds2.Set",
        &Profile::default(),
        r#"{"[kinds2.InSet.member]":{"text":"x"}}"#,
    );
    assert_eq!(set.unwrap(), b"\x0b\x10\xe8\x07\x1a\x03\x0a\x01x\x0c");
}

/// A message made of a body and bound values, as JSON.
fn bound(body: Option<&str>, values: &[(&str, &str, Bound)]) -> Result<String, String> {
    let profile = Profile::default();
    let mut writer = Writer::new(schema(), message(ALL), &profile);
    if let Some(body) = body {
        writer
            .body(body.as_bytes())
            .map_err(|error| error.to_string())?;
    }
    for (path, text, by) in values {
        let path = schema().path(message(ALL), path).unwrap();
        writer
            .bind(&path, text, *by)
            .map_err(|error| error.to_string())?;
    }
    let wire = writer.finish().map_err(|error| error.to_string())?;
    Ok(print(ALL, &profile, &wire).unwrap())
}

use Bound::{Path, Query};

#[test]
fn bound_values_are_read_as_their_fields_want() {
    let printed = bound(
        None,
        &[
            ("f_int32", "-5", Query),
            ("fString", "a b", Path),
            ("f_bool", "true", Query),
            ("f_color", "COLOR_RED", Query),
            ("o_color", "2", Query),
            ("f_bytes", "AQI", Query),
            ("f_double", "1e3", Query),
            ("f_float", "-Infinity", Query),
            ("o_int32", "0", Query),
            ("r_int32", "1", Query),
            ("r_int32", "2", Query),
            ("r_string", "x", Query),
            ("r_string", "", Query),
            ("w_timestamp", "2026-11-21T09:30:00Z", Query),
            ("w_duration", "1.5s", Query),
            ("w_mask", "f_child.name,fInt32", Query),
            ("w_int64", "7", Query),
            ("rw_int64", "8", Query),
            ("f_child.child.number", "1", Query),
            ("f_child.child.name", "x", Path),
            ("f_child.name", "y", Query),
        ],
    );
    assert_eq!(
        printed.unwrap(),
        concat!(
            r#"{"fDouble":1000,"fFloat":"-Infinity","fInt32":-5,"fBool":true,"fString":"a b","#,
            r#""fChild":{"name":"y","child":{"name":"x","number":1}},"fBytes":"AQI=","fColor":"COLOR_RED","#,
            r#""oInt32":0,"oColor":"COLOR_BLUE","rInt32":[1,2],"rString":["x",""],"#,
            r#""wTimestamp":"2026-11-21T09:30:00Z","wDuration":"1.500s","wMask":"fChild.name,fInt32","#,
            r#""wInt64":"7","rwInt64":["8"]}"#
        )
    );
}

#[test]
fn bound_values_go_inside_what_the_body_has_written() {
    let body =
        r#"{"fInt32":1,"fChild":{"number":2,"child":{"number":3,"children":[{}]}},"fBool":true}"#;
    let long = "x".repeat(300);
    let mut writer = Writer::new(schema(), message(ALL), &Profile::default());
    writer.body(body.as_bytes()).unwrap();
    for path in ["f_child.name", "f_child.child.name"] {
        let path = schema().path(message(ALL), path).unwrap();
        writer.bind(&path, &long, Path).unwrap();
    }
    let wire = writer.finish().unwrap();
    let whole = format!(
        r#"{{"fInt32":1,"fChild":{{"number":2,"child":{{"number":3,"children":[{{}}],"name":"{long}"}},"name":"{long}"}},"fBool":true}}"#
    );
    // Byte for byte as if the body had said it: each message stands there once.
    assert_eq!(wire, read(ALL, &Profile::default(), &whole).unwrap());
}

/// Must-have: path beats body and query, field by field.
#[test]
fn contradictions_are_refused_wherever_they_come_from() {
    let body = r#"{"fString":"body","fChild":{"name":"body"},"rInt32":[1],"cInt32":1}"#;
    let differs = |field: &str| format!("{field}: differs between the body and the path or query");
    for (values, told) in [
        (&[("f_string", "path", Path)][..], differs("f_string")),
        (&[("f_string", "", Query)], differs("f_string")),
        (&[("f_child.name", "path", Path)], differs("f_child.name")),
        (&[("r_int32", "1", Query)], differs("r_int32")),
        (
            &[("c_string", "x", Query)],
            "c_string: another member of its oneof is in the body".to_owned(),
        ),
        (
            &[("f_int32", "1", Query), ("f_int32", "1", Query)],
            "f_int32: is given twice".to_owned(),
        ),
        (
            &[("f_int32", "1", Path), ("f_int32", "2", Query)],
            "f_int32: differs between path and query".to_owned(),
        ),
        (
            &[("c_int32", "1", Query), ("c_child.name", "x", Query)],
            "c_child.name: another member of its oneof is given as well".to_owned(),
        ),
        (
            &[
                ("w_timestamp", "2026-11-21T09:30:00Z", Query),
                ("w_timestamp.seconds", "1", Query),
            ],
            "w_timestamp.seconds: is given as a whole and in parts".to_owned(),
        ),
        (
            &[("f_int32", "x", Query)],
            "f_int32: expected a number".to_owned(),
        ),
        (
            &[("f_child", "x", Query)],
            "f_child: a message takes no parameter".to_owned(),
        ),
        (
            &[("w_struct", "x", Query)],
            "w_struct: a message takes no parameter".to_owned(),
        ),
        (
            &[("m_int32", "x", Query)],
            "m_int32: a map takes no parameter".to_owned(),
        ),
    ] {
        assert_eq!(bound(Some(body), values), Err(told));
    }
}

#[test]
fn equal_values_are_no_contradiction() {
    let body = r#"{"fString":"same","fChild":{"name":"same"}}"#;
    let values = [
        ("f_string", "same", Path),
        ("f_string", "same", Query),
        ("f_child.name", "same", Path),
    ];
    assert_eq!(bound(Some(body), &values).unwrap(), body);
    // Nothing is no contradiction either.
    assert_eq!(
        bound(Some(r#"{"fString":null}"#), &[("f_string", "x", Path)]).unwrap(),
        r#"{"fString":"x"}"#
    );
}

#[test]
fn a_body_can_be_one_field_of_any_kind() {
    let with = |field: &str, json: &str| {
        let mut writer = Writer::new(schema(), message(ALL), &Profile::default());
        let path = schema().path(message(ALL), field).unwrap();
        writer
            .body_field(&path, json.as_bytes())
            .map_err(|error| error.to_string())?;
        let path = schema().path(message(ALL), "f_child.name").unwrap();
        writer.bind(&path, "bound", Path).unwrap();
        let wire = writer.finish().map_err(|error| error.to_string())?;
        print(ALL, &Profile::default(), &wire).map_err(|error| error.to_string())
    };
    for (field, json, printed) in [
        (
            "f_child",
            r#"{"number":1}"#,
            r#"{"fChild":{"name":"bound","number":1}}"#,
        ),
        ("f_int32", "7", r#"{"fInt32":7,"fChild":{"name":"bound"}}"#),
        (
            "r_string",
            r#"["a"]"#,
            r#"{"fChild":{"name":"bound"},"rString":["a"]}"#,
        ),
        (
            "m_bool",
            r#"{"true":false}"#,
            r#"{"fChild":{"name":"bound"},"mBool":{"true":false}}"#,
        ),
        (
            "w_value",
            "null",
            r#"{"fChild":{"name":"bound"},"wValue":null}"#,
        ),
        ("f_string", "null", r#"{"fChild":{"name":"bound"}}"#),
    ] {
        assert_eq!(with(field, json).as_deref(), Ok(printed));
    }
    assert_eq!(
        with("r_string", "[1]").unwrap_err(),
        "r_string[0]: expected a text, found a number"
    );
    assert_eq!(
        with("f_int32", "7 8").unwrap_err(),
        "no valid JSON at byte 2: something follows the value"
    );
    let mut writer = Writer::new(schema(), message(ALL), &Profile::default());
    writer.body(b"{}").unwrap();
    assert!(writer.body(b"{}").is_err());
}

/// Must-have: lists of messages, messages and maps are no query parameters.
#[test]
fn what_can_be_bound_is_known_before() {
    let bindable = |name: &str| {
        is_bindable(
            schema(),
            schema().field_by_name(message(ALL), name).unwrap(),
        )
    };
    for name in [
        "f_int32",
        "r_string",
        "w_timestamp",
        "w_int64",
        "rw_timestamp",
        "f_color",
        "w_mask",
    ] {
        assert!(bindable(name), "{name}");
    }
    for name in [
        "f_child", "m_int32", "w_struct", "w_any", "w_value", "w_empty", "r_child",
    ] {
        assert!(!bindable(name), "{name}");
    }
}
