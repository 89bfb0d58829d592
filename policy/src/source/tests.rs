//! Tests of the tree reader.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]

use super::*;
use serde_json::json;

fn read(text: &str) -> serde_json::Value {
    Document::parse("f", text).unwrap().root.to_json()
}

fn refused(text: &str) -> Finding {
    Document::parse("f", text).unwrap_err()
}

#[test]
fn scalars_follow_the_core_schema_but_for_leading_zeros() {
    let cases = [
        ("1", json!(1)),
        ("-7", json!(-7)),
        ("+7", json!(7)),
        ("0", json!(0)),
        ("08", json!("08")),
        ("02894", json!("02894")),
        ("0o17", json!(15)),
        ("0xfF", json!(255)),
        ("0x", json!("0x")),
        ("0x+1", json!("0x+1")),
        ("1.5e3", json!(1500.0)),
        (".5", json!(0.5)),
        ("1.", json!(1.0)),
        (".", json!(".")),
        ("1e", json!("1e")),
        (".inf", json!(".inf")),
        ("Y", json!("Y")),
        ("yes", json!("yes")),
        ("off", json!("off")),
        ("True", json!(true)),
        ("~", json!(null)),
        ("", json!(null)),
        ("1_000", json!("1_000")),
        ("2024-01-01", json!("2024-01-01")),
        ("'1'", json!("1")),
        ("!!str 1", json!("1")),
        ("! 1", json!("1")),
        ("!!int '1'", json!(1)),
        ("!own 1", json!(1)),
        ("18446744073709551615", json!(u64::MAX)),
        ("-9223372036854776000", json!(-9223372036854776000.0)),
        ("1e999", json!(f64::MAX)),
    ];
    for (text, expected) in cases {
        let found = read(&format!("a: {text}\n"));
        assert_eq!(found["a"], expected, "{text}");
    }
}

#[test]
fn json_numbers_beyond_64_bits_become_floats() {
    let expected = json!([1180591620717411303424.0, u64::MAX, i64::MIN]);
    assert_eq!(
        read("[1180591620717411303424, 18446744073709551615, -9223372036854775808]"),
        expected
    );
}

#[test]
fn keys_are_text_whatever_they_look_like() {
    assert_eq!(
        read("200: a\ntrue: b\n1.0: c\n"),
        json!({"200": "a", "true": "b", "1.0": "c"})
    );
}

#[test]
fn a_key_that_stands_twice_is_refused_with_both_lines() {
    for text in [
        "a: 1\nb: 2\na: 3\n",
        "{\"a\": 1,\n \"b\": 2,\n\"a\": 3}",
        "200: 1\nb: 2\n'200': 3",
    ] {
        let finding = refused(text);
        assert_eq!(
            (finding.code, finding.place.line),
            ("duplicate-key", 3),
            "{text}"
        );
        assert_eq!(finding.place.column, 1);
        assert!(finding.what.contains("first in line 1"), "{finding}");
    }
    let many: String = (0..100).map(|n| format!("k{n}: 1\n")).collect();
    assert_eq!(refused(&format!("{many}k70: 2\n")).place.line, 101);
}

#[test]
fn positions_count_lines_and_characters_from_one() {
    for text in [
        "{\"é\": 1, \"b\":\n  {\"c\" : [true]}}",
        "{é: 1, b:\n  {c: [true]}}",
    ] {
        let document = Document::parse("f", text).unwrap();
        let b = document.root.as_map().unwrap().entry("b").unwrap();
        assert_eq!(b.line, 1);
        assert_eq!(b.node.line, 2);
        assert_eq!(b.node.column, 3);
    }
    let document = Document::parse("f", "{\"é\": 1, \"b\": 2}").unwrap();
    let b = document.root.as_map().unwrap().entry("b").unwrap();
    assert_eq!((b.column, b.node.column), (10, 15));
}

#[test]
fn anchors_aliases_and_merges_are_resolved() {
    let text =
        "base: &b {x: 1, y: 2}\none: *b\ntwo:\n  <<: *b\n  y: 3\nthree:\n  <<: [{y: 9}, *b]\n";
    let read = read(text);
    assert_eq!(read["one"], json!({"x": 1, "y": 2}));
    assert_eq!(read["two"], json!({"x": 1, "y": 3}));
    assert_eq!(read["three"], json!({"x": 1, "y": 9}));
    assert_eq!(refused("a: &a [*a]").code, "yaml-syntax");
    assert_eq!(refused("a: *nowhere").code, "yaml-syntax");
    assert_eq!(refused("a: {<<: 1}").code, "yaml-syntax");
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let before = format!("*a{}", level - 1);
        let list = [before.as_str(); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    assert_eq!(refused(&text).code, "alias-expansion");
}

#[test]
fn nesting_is_limited_in_both_syntaxes() {
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    assert!(Document::parse("f", &nested(MAX_DEPTH)).is_ok());
    assert_eq!(refused(&nested(MAX_DEPTH + 1)).code, "too-deep");
    assert_eq!(
        Document::parse_yaml("f", &nested(MAX_DEPTH + 1))
            .unwrap_err()
            .code,
        "too-deep"
    );
    assert!(Document::parse_yaml("f", &"- ".repeat(100_000)).is_err());
    assert!(Document::parse("f", &"[".repeat(100_000)).is_err());
    let aliased = format!(
        "a: &a {}\nb: {}*a{}",
        nested(150),
        "[".repeat(100),
        "]".repeat(100)
    );
    assert_eq!(refused(&aliased).code, "too-deep");
}

/// Asserts that the first text is read within small limits and the second is not: where, what and remedy.
fn met(fits: &str, too_much: &str, line: u32, what: &str, remedy: &str) {
    let limits = Limits {
        bytes: 60,
        depth: 3,
        nodes: 10,
        aliased_nodes: 5,
    };
    let bounded = |text: &str| Document::parse_within("big.yaml", text, &limits);
    assert!(bounded(fits).is_ok(), "{fits}: {:?}", bounded(fits));
    let finding = bounded(too_much).expect_err(too_much);
    assert!(finding.what.contains(what), "{finding}");
    let place = (&*finding.place.file, finding.place.line);
    assert_eq!((place, &*finding.remedy), (("big.yaml", line), remedy));
}

#[test]
fn size_depth_and_number_of_values_are_limited_in_both_syntaxes() {
    let remedy = "split the file, or flatten it";
    let bytes = (" ".repeat(60), " ".repeat(61));
    met(&bytes.0, &bytes.1, 1, "more than 60 bytes", remedy);
    let levels = "more than 3 levels";
    met("[[[1]]]", "\n[[[[1]]]]", 2, levels, remedy);
    met("- - - 1", "\n- - - - 1", 2, levels, remedy);
    // The list itself is a value too.
    let values = "more than 10 values";
    met(
        "[1,1,1,1,1,1,1,1,1]",
        "[1,1,1,1,1,1,1,1,1,1]",
        1,
        values,
        remedy,
    );
    met(&"- 1\n".repeat(9), &"- 1\n".repeat(10), 10, values, remedy);
}

#[test]
fn what_aliases_add_is_limited_before_it_is_copied() {
    let (what, remedy) = (
        "add more than 5 values",
        "write the repeated part once and refer to it by `$ref`",
    );
    let scalar = ("a: &a 1\nb: [*a,*a,*a,*a]", "a: &a 1\nb: [*a,*a,*a,*a,*a]");
    met(scalar.0, scalar.1, 2, what, remedy);
    let map = ("a: &a {x: 1}\nb: *a", "a: &a {x: 1}\nb: *a\nc: *a");
    met(map.0, map.1, 3, what, remedy);
}

#[test]
fn a_text_that_is_too_large_is_not_even_looked_at() {
    let large = " ".repeat(MAX_BYTES + 1);
    for read in [Document::parse, Document::parse_json, Document::parse_yaml] {
        assert_eq!(read("f", &large).unwrap_err().code, "too-large");
    }
}

#[test]
fn one_document_is_read_with_or_without_marks() {
    assert_eq!(read("\u{feff}{\"a\": 1}"), json!({"a": 1}));
    assert_eq!(read("\u{feff}a: 1"), json!({"a": 1}));
    assert_eq!(read("---\na: 1\n...\n"), json!({"a": 1}));
    assert_eq!(read(""), json!(null));
    assert_eq!(read("# nothing\n"), json!(null));
    let finding = refused("a: 1\n---\nb: 2\n");
    assert_eq!((finding.code, finding.place.line), ("yaml-syntax", 3));
}

#[test]
fn flow_style_yaml_is_read_and_broken_json_is_reported_as_json() {
    assert_eq!(read("{a: 1, b: [2, 3,],}"), json!({"a": 1, "b": [2, 3]}));
    let finding = refused("{\"a\": 1,\n\"b\" 2]");
    assert_eq!((finding.code, finding.place.line), ("json-syntax", 2));
}

#[test]
fn a_closing_brace_at_the_left_is_read_as_authors_write_it() {
    assert_eq!(
        read("a:\n  b: {\n    c: 1\n  }\n"),
        json!({"a": {"b": {"c": 1}}})
    );
}

#[test]
fn large_maps_find_every_key() {
    let mut map = Map::default();
    for number in 0..1_000_u32 {
        let node = Node {
            line: number,
            column: 1,
            value: Value::Null,
        };
        let key = format!("k{number}").into();
        map.push(Entry {
            key,
            line: number,
            column: 1,
            node,
        })
        .unwrap();
    }
    assert!((0..1_000).all(|number| map.get(&format!("k{number}")).unwrap().line == number));
    assert!(map.get("k1000").is_none());
}
