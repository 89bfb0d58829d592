//! Reading descriptor sets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::transcode::fixture::{message, schema, set};
use crate::transcode::wire::{Fields, Value, WireType, put_bytes, put_tag, put_varint};

/// A set of one file made of these fields of `FileDescriptorProto`, after name `t.proto`.
fn file(fields: &[(u32, &[u8])]) -> Vec<u8> {
    let mut file = Vec::new();
    put_tag(&mut file, 1, WireType::Bytes);
    put_bytes(&mut file, b"t.proto");
    for (number, bytes) in fields {
        put_tag(&mut file, *number, WireType::Bytes);
        put_bytes(&mut file, bytes);
    }
    one(&file)
}

fn one(file: &[u8]) -> Vec<u8> {
    let mut set = Vec::new();
    put_tag(&mut set, 1, WireType::Bytes);
    put_bytes(&mut set, file);
    set
}

/// The files of the fixture as if they were of edition 2023, each with these file options added.
fn edition(options: &[u8]) -> Vec<u8> {
    let mut fields = Fields::of(set());
    let mut whole = Vec::new();
    while let Some((_, value)) = fields.next().unwrap() {
        let Value::Bytes(file) = value else { panic!() };
        let mut file = file.to_vec();
        if file.starts_with(b"\x0a\x0bkinds.proto") {
            put_tag(&mut file, 12, WireType::Bytes);
            put_bytes(&mut file, b"editions");
            put_tag(&mut file, 14, WireType::Varint);
            put_varint(&mut file, 1000);
            put_tag(&mut file, 8, WireType::Bytes);
            put_bytes(&mut file, options);
        }
        whole.extend(one(&file));
    }
    whole
}

fn field<'s>(schema: &'s Schema, name: &str, field: &str) -> &'s Field {
    let message = schema.message(name).unwrap();
    schema.field_by_name(message, field).unwrap()
}

#[test]
fn fields_are_found_by_either_name_and_by_number() {
    let all = message("kinds.All");
    for name in ["f_double", "fDouble"] {
        assert_eq!(schema().field_by_name(all, name).unwrap().number, 1);
    }
    assert_eq!(
        schema()
            .field_by_number(all, 536_870_911)
            .unwrap()
            .name
            .as_ref(),
        "far"
    );
    assert!(schema().field_by_number(all, 20).is_none());
    assert!(schema().field_by_name(all, "fdouble").is_none());
    let odd = field(schema(), "kinds.All", "__odd__name_");
    assert_eq!(&*odd.json_name, "OddName");
    let renamed = field(schema(), "kinds.All", "called \"so\"");
    assert_eq!(&*renamed.name, "renamed");
}

#[test]
fn presence_packing_and_oneofs_follow_the_syntax() {
    let of = |name: &str| field(schema(), "kinds.All", name);
    assert!(!of("f_int32").has_presence);
    assert!(of("o_int32").has_presence);
    assert!(of("f_child").has_presence);
    assert!(of("c_int32").has_presence);
    assert!(!of("r_int32").has_presence);
    assert!(of("r_int32").is_packed);
    assert!(!of("u_int32").is_packed);
    assert!(!of("r_string").is_packed);
    assert_eq!(of("m_child").cardinality, Cardinality::Map);
    assert_eq!(of("c_child").oneof, Some(0));
    assert_eq!(of("o_int32").oneof, None);
    let old = |name: &str| field(schema(), "kinds2.Old", name);
    assert!(old("must").is_required && old("must").has_presence);
    assert!(old("may").has_presence && !old("may").is_required);
    assert!(!old("plain").is_packed);
    assert!(old("packed").is_packed);
    assert!(matches!(old("pair").kind, Kind::Group(_)));
    let oneofs = |name: &str| schema().message_of(message(name)).oneofs.clone();
    assert_eq!(*oneofs("kinds.Optional"), ["first".into(), "second".into()]);
    assert!(oneofs("kinds.Child").is_empty());
}

#[test]
fn extensions_are_fields_of_what_they_extend() {
    let old = message("kinds2.Old");
    for (name, number) in [
        ("[kinds2.nickname]", 100),
        ("[kinds2.scores]", 101),
        ("[kinds2.Scope.inner]", 103),
    ] {
        let field = schema().field_by_name(old, name).unwrap();
        assert_eq!(field.number, number);
        assert!(field.is_extension && (field.has_presence || field.is_packed));
    }
}

#[test]
fn services_tell_where_they_stand_and_what_they_promise() {
    let services = schema().services();
    let service = services
        .iter()
        .find(|service| &*service.name == "kinds.Everything")
        .unwrap();
    assert_eq!(service.comment.as_deref(), Some("Takes everything."));
    let [echo, chat] = service.methods.as_slice() else {
        panic!("two methods");
    };
    assert!(echo.no_side_effects && !echo.client_streaming && !echo.server_streaming);
    assert_eq!(echo.comment.as_deref(), Some("Gives it back."));
    assert_eq!((&*echo.file, echo.line), ("kinds.proto", Some(17)));
    assert!(!echo.options.is_empty());
    assert!(!chat.no_side_effects && chat.client_streaming && chat.server_streaming);
    assert_eq!(chat.comment.as_deref(), Some("In both directions."));
    assert_eq!(chat.output, message("kinds.Child"));
}

#[test]
fn comments_stay_with_what_they_are_about() {
    let all = message("kinds.All");
    let comment = schema().message_of(all).comment.as_deref();
    assert_eq!(comment, Some("All kinds of fields."));
    let double = schema().field_by_name(all, "f_double").unwrap();
    assert_eq!(double.comment.as_deref(), Some("A double."));
    let color = schema().enum_of(schema().enumeration("kinds.Color").unwrap());
    assert_eq!(color.comment.as_deref(), Some("What a thing is like."));
    assert_eq!(color.values[1].comment.as_deref(), Some("Like fire."));
}

#[test]
fn editions_are_read_with_the_features_of_the_file() {
    let plain = Schema::read(&edition(b"")).unwrap();
    let of = |schema: &Schema, name: &str| {
        let field = field(schema, "kinds.All", name);
        (
            field.has_presence,
            field.is_packed,
            matches!(field.kind, Kind::Group(_)),
        )
    };
    assert_eq!(of(&plain, "f_int32"), (true, false, false));
    assert_eq!(of(&plain, "r_int32"), (false, true, false));
    // Implicit presence, closed enums, expanded lists, delimited messages.
    let changed = edition(b"\x92\x03\x08\x08\x02\x10\x02\x18\x02\x28\x02");
    let changed = Schema::read(&changed).unwrap();
    assert_eq!(of(&changed, "f_int32"), (false, false, false));
    assert_eq!(of(&changed, "r_int32"), (false, false, false));
    assert_eq!(of(&changed, "f_child"), (true, false, true));
    let map = field(&changed, "kinds.All", "m_child");
    let (_, value) = changed.map_entry(map).unwrap();
    assert!(matches!(map.kind, Kind::Message(_)) && matches!(value.kind, Kind::Message(_)));
    let color = changed.enumeration("kinds.Color").unwrap();
    assert!(!changed.enum_of(color).is_open);
    assert!(
        plain
            .enum_of(plain.enumeration("kinds.Color").unwrap())
            .is_open
    );
}

#[test]
fn paths_lead_through_messages_by_either_name() {
    let all = message("kinds.All");
    let path = schema().path(all, "fChild.child.name").unwrap();
    assert_eq!(path.dotted(schema()), "f_child.child.name");
    assert_eq!(path.last(schema()).kind, Kind::String);
    assert_eq!(path.steps().len(), 3);
    let refused = |dotted: &str| schema().path(all, dotted).unwrap_err().to_string();
    assert_eq!(refused("f_child.title"), "kinds.Child has no field `title`");
    assert_eq!(refused("f_int32.x"), "`f_int32` of kinds.All is no message");
    assert_eq!(refused("r_child.name"), "`r_child` of kinds.All holds many");
    assert_eq!(refused("m_child.name"), "`m_child` of kinds.All holds many");
    for empty in ["", ".", "f_child.", "f_child..name"] {
        assert!(
            matches!(schema().path(all, empty), Err(PathError::Empty { .. })),
            "{empty}"
        );
    }
    let long = format!("f_child{}", ".child".repeat(40));
    assert_eq!(schema().path(all, &long), Err(PathError::Long));
}

#[test]
fn sets_that_cannot_be_right_are_refused_with_the_reason() {
    let refused = |set: &[u8]| Schema::read(set).unwrap_err().to_string();
    assert_eq!(
        refused(&[0x0a]),
        ": not a descriptor set: the message ends in the middle of a field"
    );
    let cut = file(&[(4, b"\x0a\xff")]);
    assert!(
        refused(&cut).starts_with("t.proto: not a descriptor set"),
        "{}",
        refused(&cut)
    );
    let wrong = refused(&file(&[(12, b"proto4")]));
    assert_eq!(wrong, "t.proto: unknown syntax or edition `proto4`");
    let twice = file(&[(4, b"\x0a\x01M"), (4, b"\x0a\x01M")]);
    assert_eq!(refused(&twice), "t.proto: M is defined twice");
    // A field 1 `f` of message type `.N`.
    let dangling = file(&[(
        4,
        b"\x0a\x01M\x12\x0d\x0a\x01f\x18\x01\x20\x01\x28\x0b\x32\x02.N",
    )]);
    assert_eq!(
        refused(&dangling),
        "t.proto: M.f refers to N, which is not in the descriptor set"
    );
    let no_number = file(&[(4, b"\x0a\x01M\x12\x05\x0a\x01f\x28\x05")]);
    assert_eq!(refused(&no_number), "t.proto: M.f: has no valid number");
    let files = [file(&[]), file(&[(12, b"proto3")])].concat();
    assert_eq!(
        refused(&files),
        "t.proto: is there twice, with different content"
    );
    assert!(Schema::read(&[file(&[]), file(&[])].concat()).is_ok());
    let timestamp = file(&[(2, b"google.protobuf"), (4, b"\x0a\x09Timestamp")]);
    assert!(refused(&timestamp).contains("does not have the fields it is known for"));
}

#[test]
fn messages_within_messages_have_an_end() {
    let mut nested = b"\x0a\x01M".to_vec();
    for _ in 0..200 {
        let mut outer = b"\x0a\x01M".to_vec();
        put_tag(&mut outer, 3, WireType::Bytes);
        put_bytes(&mut outer, &nested);
        nested = outer;
    }
    let error = Schema::read(&file(&[(4, &nested)])).unwrap_err();
    assert!(error.to_string().contains("nested too deep"), "{error}");
}

#[test]
fn an_id_of_another_schema_does_no_harm() {
    let empty = Schema::read(&[]).unwrap();
    let all = message("kinds.All");
    assert!(empty.fields(all).is_empty());
    assert!(empty.path(all, "f_child").is_err());
    let field = field(schema(), "kinds.All", "far");
    assert_eq!(&*empty.field(field.id).name, "");
}

proptest! {
    #[test]
    fn damaged_sets_are_read_or_refused(at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
        let mut damaged = set().to_vec();
        let at = at.index(damaged.len());
        damaged[at] = byte;
        if cut {
            damaged.truncate(at);
        }
        drop(Schema::read(&damaged));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        drop(Schema::read(&bytes));
    }
}
