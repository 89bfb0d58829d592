//! Answers as JSON.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::transcode::fixture::{both_ways, message, print, read, schema};
use crate::transcode::wire::{WireType, put_bytes, put_tag, put_varint};
use crate::transcode::{Enums, Names, Unset, Wide};

const ALL: &str = "kinds.All";

fn json(wire: &[u8]) -> String {
    print(ALL, &Profile::default(), wire).unwrap_or_else(|error| panic!("{wire:02x?}: {error}"))
}

fn refused(wire: &[u8]) -> String {
    print(ALL, &Profile::default(), wire)
        .unwrap_err()
        .to_string()
}

/// A field with a length before its bytes.
fn part(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_tag(&mut out, number, WireType::Bytes);
    put_bytes(&mut out, bytes);
    out
}

/// Must-have: lowerCamelCase or json_name, enum names, 64 bits as text, base64, NaN and Infinity, -0, wrappers bare, Struct and Value
/// plain, keys of maps as text.
#[test]
fn every_kind_is_printed_as_protojson_has_it() {
    for text in [
        r#"{"fDouble":0.1,"fFloat":0.1,"fInt64":"-9223372036854775808","fUint64":"18446744073709551615"}"#,
        r#"{"fDouble":"NaN","fFloat":"Infinity","fInt32":-2147483648,"fFixed64":"1","fFixed32":4294967295}"#,
        r#"{"fDouble":-0,"fFloat":16777216,"fBool":true,"fString":"a\"\\\n\t\b\f\r\u0001ä😀/","fBytes":"+/8="}"#,
        r#"{"fUint32":1,"fColor":"COLOR_RED","fSfixed32":-1,"fSfixed64":"-1","fSint32":-7,"fSint64":"-7"}"#,
        r#"{"fColor":77,"fAlias":"ALIAS_ONE","oInt32":0,"oString":""}"#,
        r#"{"rDouble":[1,-0,"-Infinity"],"rBool":[false,true],"rBytes":["",""],"rColor":["COLOR_UNSPECIFIED",9]}"#,
        r#"{"rChild":[{},{"name":"x","byName":{"a":{},"":{"number":1}}}]}"#,
        r#"{"mInt32":{"-1":0},"mUint64":{"18446744073709551615":"0"},"mBool":{"true":false,"false":true}}"#,
        r#"{"mSint64":{"-5":"5"},"mSfixed32":{"1":"NaN"},"mBytes":{"":""},"mColor":{"x":"COLOR_BLUE"}}"#,
        r#"{"wStruct":{"a":{"b":[null,1.5,"x",true,{}]},"":null},"wValue":[],"wList":[[]]}"#,
        r#"{"wTimestamp":"0001-01-01T00:00:00.000000001Z","wDuration":"-0.500s","wMask":"aB.cD,e","wEmpty":{}}"#,
        r#"{"wDouble":0,"wFloat":1.5,"wInt64":"0","wUint64":"1","wInt32":0,"wBool":false,"wString":"","wBytes":""}"#,
        r#"{"cNull":null}"#,
        r#"{"cValue":null}"#,
        r#"{"rwValue":[null,0,[],{}],"mwValue":{"a":null},"mwList":{"b":[]},"mwDuration":{"c":"0s"}}"#,
        r#"{"called \"so\"":"x","OddName":"y","far":1}"#,
    ] {
        assert_eq!(both_ways(ALL, text).unwrap(), text);
    }
}

/// Must-have: exact doubles.
#[test]
fn doubles_are_exact() {
    for number in [
        "5e-324",
        "1.7976931348623157e308",
        "9007199254740993",
        "0.30000000000000004",
        "2.2250738585072011e-308",
        "123456789.12345678",
        "1e23",
        "8.41e21",
    ] {
        let double: f64 = number.parse().unwrap();
        let printed = both_ways(ALL, &format!("{{\"fDouble\":{number}}}")).unwrap();
        let value: serde_json::Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(
            value["fDouble"].as_f64().unwrap().to_bits(),
            double.to_bits(),
            "{number}"
        );
    }
    // Rounded by way of a double this would be the float below.
    let printed = both_ways(ALL, r#"{"fFloat":1.00000017881393432617187499}"#).unwrap();
    assert_eq!(printed, r#"{"fFloat":1.0000001}"#);
}

/// Must-have: the last value wins, and a message in several pieces is merged.
#[test]
fn the_last_value_of_a_field_wins_and_messages_merge() {
    assert_eq!(json(b"\x28\x01\x28\x02"), r#"{"fInt32":2}"#);
    assert_eq!(json(b"\x28\x01\x28\x00"), "{}");
    let split = [
        part(10, &part(1, b"first")),
        b"\x28\x07".to_vec(),
        part(10, b"\x10\x05"),
        part(10, &part(1, b"second")),
    ];
    assert_eq!(
        json(&split.concat()),
        r#"{"fInt32":7,"fChild":{"name":"second","number":5}}"#
    );
    // Two levels down as well.
    let deep = [
        part(10, &part(3, b"\x10\x01")),
        part(10, &part(3, &part(1, b"x"))),
    ];
    assert_eq!(
        json(&deep.concat()),
        r#"{"fChild":{"child":{"name":"x","number":1}}}"#
    );
}

/// Must-have: the last member of a oneof wins.
#[test]
fn the_last_member_of_a_oneof_wins() {
    assert_eq!(json(b"\xb8\x04\x01\xc2\x04\x01x"), r#"{"cString":"x"}"#);
    assert_eq!(json(b"\xc2\x04\x01x\xb8\x04\x01"), r#"{"cInt32":1}"#);
    // What was there before another member came does not come back.
    let again = [
        part(73, &part(1, b"old")),
        b"\xb8\x04\x01".to_vec(),
        part(73, b"\x10\x02"),
    ];
    assert_eq!(json(&again.concat()), r#"{"cChild":{"number":2}}"#);
    let twice = [part(73, &part(1, b"a")), part(73, b"\x10\x02")];
    assert_eq!(
        json(&twice.concat()),
        r#"{"cChild":{"name":"a","number":2}}"#
    );
}

/// Must-have: lists packed, unpacked, and among other fields.
#[test]
fn lists_are_read_packed_and_not() {
    assert_eq!(
        json(b"\x98\x02\x01\x9a\x02\x02\x02\x03\x98\x02\x04"),
        r#"{"rInt32":[1,2,3,4]}"#
    );
    assert_eq!(
        json(b"\x82\x03\x02\x01\x02\x80\x03\x03"),
        r#"{"uInt32":[1,2,3]}"#
    );
    assert_eq!(json(b"\x9a\x02\x00"), "{}");
    // Among other fields.
    assert_eq!(
        json(b"\x98\x02\x01\x28\x07\x98\x02\x02"),
        r#"{"fInt32":7,"rInt32":[1,2]}"#
    );
    assert!(refused(b"\x9a\x02\x01\x80").starts_with("r_int32: "));
    assert!(refused(b"\xfa\x01\x03\0\0\0").starts_with("r_double: "));
}

/// Must-have: entries of maps without key or value, or reversed.
#[test]
fn entries_of_maps_may_lack_a_half() {
    for (entry, printed) in [
        (&b""[..], r#"{"mInt32":{"0":0}}"#),
        (b"\x08\x01", r#"{"mInt32":{"1":0}}"#),
        (b"\x10\x02", r#"{"mInt32":{"0":2}}"#),
        (b"\x10\x02\x08\x01", r#"{"mInt32":{"1":2}}"#),
        (
            b"\x08\x01\x10\x02\x08\x03\x10\x04\x1a\x01x",
            r#"{"mInt32":{"3":4}}"#,
        ),
    ] {
        assert_eq!(json(&part(51, entry)), printed);
    }
    assert_eq!(json(&part(64, b"")), r#"{"mChild":{"":{}}}"#);
    assert_eq!(
        json(&part(65, b"\x0a\x01a")),
        r#"{"mColor":{"a":"COLOR_UNSPECIFIED"}}"#
    );
    let split = [part(2, &part(1, b"x")), part(1, b"k"), part(2, b"\x10\x07")].concat();
    assert_eq!(
        json(&part(64, &split)),
        r#"{"mChild":{"k":{"name":"x","number":7}}}"#
    );
}

#[test]
fn of_equal_keys_the_last_entry_wins() {
    let entry = |key: u8, value: u8| part(51, &[0x08, key, 0x10, value]);
    let two = [entry(1, 1), entry(2, 2), entry(1, 3)].concat();
    assert_eq!(json(&two), r#"{"mInt32":{"2":2,"1":3}}"#);
    for count in [10u8, 16, 17, 100] {
        let mut wire: Vec<u8> = (0..count).flat_map(|key| entry(key, 1)).collect();
        wire.extend((0..count).rev().flat_map(|key| entry(key, 2)));
        let printed: serde_json::Value = serde_json::from_str(&json(&wire)).unwrap();
        let map = printed["mInt32"].as_object().unwrap();
        assert_eq!(map.len(), usize::from(count));
        assert!(map.values().all(|value| value == 2));
    }
}

/// Must-have: unknown fields and groups, and a wrong wire type, are passed over.
#[test]
fn what_the_message_does_not_have_is_passed_over() {
    let unknown: [&[u8]; 5] = [
        b"\xa0\x06\x01",
        b"\xa1\x06\0\0\0\0\0\0\0\0",
        b"\xa2\x06\x02xx",
        b"\xa3\x06\x08\x01\xa3\x06\xa4\x06\xa4\x06",
        b"\xa5\x06\0\0\0\0",
    ];
    for wire in unknown {
        assert_eq!(json(&[wire, &b"\x28\x01"[..]].concat()), r#"{"fInt32":1}"#);
    }
    // A known number of another wire type.
    for wire in [
        &b"\x2d\0\0\0\0"[..],
        b"\x2a\x01\x01",
        b"\x2b\x2c",
        b"\x48\x01",
        b"\x50\x01",
        b"\x98\x03\x01",
    ] {
        let printed = json(wire);
        assert!(
            printed == "{}" || printed.starts_with("{\"m"),
            "{wire:02x?}: {printed}"
        );
    }
}

/// Must-have: over-long varints.
#[test]
fn numbers_may_be_longer_than_they_need() {
    assert_eq!(json(b"\x28\x81\x80\x80\x80\x00"), r#"{"fInt32":1}"#);
    assert_eq!(json(b"\xa8\x00\x01"), r#"{"fInt32":1}"#);
    assert_eq!(json(b"\xf8\xff\xff\xff\x8f\x00\x01"), r#"{"far":1}"#);
    assert_eq!(json(b"\x40\xff\x01"), r#"{"fBool":true}"#);
    // Of a narrow number the low half counts.
    assert_eq!(json(b"\x28\xff\xff\xff\xff\x0f"), r#"{"fInt32":-1}"#);
    assert_eq!(json(b"\x60\x80\x80\x80\x80\x10"), "{}");
    assert!(refused(b"\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").contains("ten bytes"));
}

#[test]
fn what_cannot_be_json_is_refused_with_its_field() {
    for (wire, told) in [
        (part(9, b"\xff"), "f_string: no valid UTF-8"),
        (
            part(40, &part(1, b"\xc3")),
            "r_child[0].name: no valid UTF-8",
        ),
        (
            part(62, b"\x0a\x01k\x12\x01\xff"),
            "m_string[\"k\"]: no valid UTF-8",
        ),
        (
            part(83, b"\x11\0\0\0\0\0\0\xf8\x7f"),
            "w_value: JSON has no such number",
        ),
        (
            part(86, b"\x08\xff\xff\xff\xff\xff\xff\x7f"),
            "w_timestamp: out of the range that JSON has a form for",
        ),
        (
            part(87, b"\x08\x01\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            "w_duration: out of the range that JSON has a form for",
        ),
        (
            part(88, &part(1, b"aB")),
            "w_mask: has a path that JSON has no form for",
        ),
        (
            part(88, &[part(1, b""), part(1, b"a")].concat()),
            "w_mask: has a path that JSON has no form for",
        ),
        (
            part(81, &part(1, b"x/no.Such")),
            "w_any.@type: the type `x/no.Such` is not known",
        ),
        (
            part(81, &part(2, b"x")),
            "w_any.@type: the type `` is not known",
        ),
        (
            vec![0x52, 0x05, 0x0a],
            "the message ends in the middle of a field",
        ),
        (
            part(10, b"\x0a\x05x"),
            "f_child: the message ends in the middle of a field",
        ),
        (part(10, b"\x00\x00"), "f_child: field number 0"),
    ] {
        assert_eq!(refused(&wire), told);
    }
}

/// Must-have: depth 100 in answers too.
#[test]
fn a_hundred_levels_are_printed_and_no_more() {
    let nested = |levels: usize| {
        let mut wire = Vec::new();
        for _ in 0..levels {
            wire = part(3, &wire);
        }
        print("kinds.Child", &Profile::default(), &wire)
    };
    assert!(nested(99).is_ok());
    assert_eq!(&*nested(100).unwrap_err().what, "nested too deep");
    let deepest = format!("{{\"wValue\":{}{}}}", "[".repeat(99), "]".repeat(99));
    assert_eq!(both_ways(ALL, &deepest).unwrap(), deepest);
    let groups = [[0x0b; 200], [0x0c; 200]].concat();
    assert_eq!(refused(&groups), "nested too deep");
}

#[test]
fn huge_lengths_take_no_memory() {
    for wire in [
        &b"\x4a\xff\xff\xff\xff\x07"[..],
        b"\x4a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x9a\x02\xff\xff\xff\xff\x0f",
    ] {
        assert_eq!(refused(wire), "the message ends in the middle of a field");
    }
}

/// Must-have: unset fields are left out, or printed: all, or primitives.
#[test]
fn unset_fields_are_printed_as_the_profile_says() {
    let of = |name: &str, unset: Unset, json: &str| {
        let profile = Profile {
            unset,
            ..Profile::default()
        };
        let wire = read(name, &profile, json).unwrap();
        print(name, &profile, &wire).unwrap()
    };
    let child = |unset| of("kinds.Child", unset, r#"{"name":"x"}"#);
    assert_eq!(child(Unset::Omit), r#"{"name":"x"}"#);
    assert_eq!(
        child(Unset::Primitives),
        r#"{"name":"x","number":0,"children":[],"byName":{}}"#
    );
    assert_eq!(
        child(Unset::All),
        r#"{"name":"x","number":0,"child":null,"children":[],"byName":{},"value":null,"any":null}"#
    );
    // Members of oneofs and extensions never.
    let optional = |unset| of("kinds.Optional", unset, r#"{"c":0}"#);
    assert_eq!(optional(Unset::Primitives), r#"{"c":0}"#);
    assert_eq!(optional(Unset::All), r#"{"a":null,"c":0,"f":null}"#);
    assert!(!of("kinds2.Old", Unset::All, "{}").contains("kinds2"));
    let all = of(ALL, Unset::Primitives, "{}");
    for part in [
        r#""fDouble":0,"#,
        r#""fInt64":"0","#,
        r#""fBytes":"","#,
        r#""fColor":"COLOR_UNSPECIFIED","#,
        r#""mBool":{},"#,
    ] {
        assert!(all.contains(part), "{part} in {all}");
    }
    for name in ["\"oInt32\"", "\"wInt64\"", "\"fChild\"", "\"cInt32\""] {
        assert!(!all.contains(name), "{name} in {all}");
    }
}

/// Must-have: names of the proto file, enums as numbers or without their prefix, 64 bits as numbers.
#[test]
fn names_enums_and_wide_numbers_follow_the_profile() {
    let text = r#"{"fInt64":"-5","fColor":"COLOR_RED","rUint64":["7"],"mInt64":{"1":"2"},"mColor":{"a":"COLOR_BLUE"},"wInt64":"3"}"#;
    let strict = Profile::default();
    let wire = read(ALL, &strict, text).unwrap();
    let printed = |profile: Profile| print(ALL, &profile, &wire).unwrap();
    assert_eq!(printed(strict), text);
    assert_eq!(
        printed(Profile {
            names: Names::Proto,
            wide: Wide::Number,
            ..strict
        }),
        r#"{"f_int64":-5,"f_color":"COLOR_RED","r_uint64":[7],"m_int64":{"1":2},"m_color":{"a":"COLOR_BLUE"},"w_int64":3}"#
    );
    assert_eq!(
        printed(Profile {
            enums: Enums::Number,
            ..strict
        }),
        r#"{"fInt64":"-5","fColor":1,"rUint64":["7"],"mInt64":{"1":"2"},"mColor":{"a":2},"wInt64":"3"}"#
    );
    assert_eq!(
        printed(Profile {
            strip_enum_prefix: true,
            ..strict
        }),
        r#"{"fInt64":"-5","fColor":"RED","rUint64":["7"],"mInt64":{"1":"2"},"mColor":{"a":"BLUE"},"wInt64":"3"}"#
    );
}

#[test]
fn closed_enums_do_not_have_other_numbers() {
    let old = |wire: &[u8]| print("kinds2.Old", &Profile::default(), wire).unwrap();
    assert_eq!(old(b"\x28\x05\x28\x09"), r#"{"closed":"FIVE"}"#);
    assert_eq!(
        old(b"\x30\x09\x30\x06\x32\x02\x09\x05"),
        r#"{"closes":["SIX","FIVE"]}"#
    );
    assert_eq!(old(&part(7, b"\x0a\x01a\x10\x09")), r#"{"closedMap":{}}"#);
    assert_eq!(old(&part(7, b"\x0a\x01a")), r#"{"closedMap":{"a":"FIVE"}}"#);
}

#[test]
fn groups_extensions_and_message_sets_are_printed() {
    for text in [
        r#"{"may":0,"pair":{"left":"a","right":{"pair":{}}},"many":[{"one":1},{}]}"#,
        r#"{"chosen":{"it":0}}"#,
        r#"{"[kinds2.Scope.inner]":false,"[kinds2.nickname]":"x","[kinds2.scores]":[1,2],"[kinds2.ward]":{"name":"y"}}"#,
    ] {
        assert_eq!(both_ways("kinds2.Old", text).unwrap(), text);
    }
    let set = r#"{"[kinds2.InSet.member]":{"text":"x"}}"#;
    assert_eq!(both_ways("kinds2.Set", set).unwrap(), set);
    // Split over two places, and with halves in the other order.
    let wire = b"\x43\x0a\x01a\x44\x43\x0a\x01b\x44";
    assert_eq!(
        print("kinds2.Old", &Profile::default(), wire).unwrap(),
        r#"{"pair":{"left":"b"}}"#
    );
    let wire = b"\x0b\x1a\x03\x0a\x01x\x10\xe8\x07\x0c";
    assert_eq!(print("kinds2.Set", &Profile::default(), wire).unwrap(), set);
}

#[test]
fn a_value_of_nothing_is_null() {
    assert_eq!(json(&part(83, b"")), r#"{"wValue":null}"#);
    assert_eq!(
        json(&part(82, &part(1, b"\x0a\x01a"))),
        r#"{"wStruct":{"a":null}}"#
    );
    assert_eq!(json(&part(84, &part(1, b""))), r#"{"wList":[null]}"#);
    // The last kind wins.
    assert_eq!(json(&part(83, b"\x20\x01\x1a\x01x")), r#"{"wValue":"x"}"#);
}

/// Must-have: `response_body` of any type: a text, a number, a list, a map, a message.
#[test]
fn one_field_is_printed_alone() {
    let wire = read(
        ALL,
        &Profile::default(),
        concat!(
            r#"{"fInt32":7,"fString":"x","fChild":{"name":"y"},"rInt32":[1],"mBool":{"true":true},"#,
            r#""wTimestamp":"2026-11-21T09:30:00Z"}"#
        ),
    );
    let wire = wire.unwrap();
    let of = |name: &str, wire: &[u8]| {
        let field = schema().field_by_name(message(ALL), name).unwrap().id;
        let mut out = Vec::new();
        write_json_field(
            schema(),
            message(ALL),
            field,
            &Profile::default(),
            wire,
            &mut out,
        )
        .unwrap();
        String::from_utf8(out).unwrap()
    };
    for (name, printed, unset) in [
        ("f_int32", "7", "0"),
        ("f_string", "\"x\"", "\"\""),
        ("f_child", "{\"name\":\"y\"}", "null"),
        ("r_int32", "[1]", "[]"),
        ("m_bool", "{\"true\":true}", "{}"),
        ("w_timestamp", "\"2026-11-21T09:30:00Z\"", "null"),
    ] {
        assert_eq!(of(name, &wire), printed);
        assert_eq!(of(name, b""), unset);
    }
    assert_eq!(of("o_int32", &wire), "null");
    let other = schema()
        .field_by_name(message("kinds.Child"), "name")
        .unwrap()
        .id;
    let profile = Profile::default();
    assert!(
        write_json_field(
            schema(),
            message(ALL),
            other,
            &profile,
            b"",
            &mut Vec::new()
        )
        .is_err()
    );
}

#[test]
fn every_prefix_of_a_message_is_printed_or_refused() {
    let text = r#"{"fDouble":1,"rChild":[{"name":"x","byName":{"a":{}}}],"mString":{"a":"b"},"wAny":{"@type":"a/kinds.Child"},"wValue":[1,{}]}"#;
    let wire = read(ALL, &Profile::default(), text).unwrap();
    for length in 0..wire.len() {
        drop(print(ALL, &Profile::default(), &wire[..length]));
    }
    let mut long = Vec::new();
    put_varint(&mut long, u64::MAX);
    assert!(print(ALL, &Profile::default(), &long).is_err());
}

#[test]
fn the_work_grows_with_the_message_and_not_faster() {
    // A hundred thousand messages in a list, in each of which a member of a oneof replaces another.
    let value = part(1, b"\x20\x01\x1a\x01x");
    let list = value.repeat(100_000);
    let started = std::time::Instant::now();
    let printed = json(&part(84, &list));
    assert_eq!(printed.matches("\"x\"").count(), 100_000);
    // Milliseconds as it should be, minutes if every message looked at all before it.
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
}
