//! Services defined in proto2 and in an edition, called in JSON from end to end: what their messages are on the wire.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use prost_types::{MethodDescriptorProto, ServiceDescriptorProto};
use serde_json::Value;
use world::http2::GrpcService;
use world::{Answer, Plan, World};

/// A gateway before a service that sends back what it gets, which is called `Things`.
///
/// `Echo` has one message on both sides. `Show` takes it within a `Holder` and answers with a `Seen`, which is the same on the wire but
/// has bytes where the other has the message; `Tell` does the reverse.
struct Things {
    world: World,
    package: &'static str,
    _service: GrpcService,
    _home: tempfile::TempDir,
}

impl Things {
    /// `setting` names the file under `grpc` as `FILE`.
    fn new(package: &'static str, setting: &str, name: &str, definition: &[u8]) -> Self {
        let service = GrpcService::new();
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(name);
        std::fs::write(&file, definition).unwrap();
        let setting = setting.replace("FILE", &file.display().to_string());
        let file = format!(
            "upstream: {}\ngrpc:\n  {setting}\n  callers: anyone\n",
            service.url()
        );
        Self {
            world: Plan::before("").api("things", file).start(),
            package,
            _service: service,
            _home: home,
        }
    }

    fn ask(&self, method: &str, body: &str) -> Answer {
        let path = format!("/{}.Things/{method}", self.package);
        self.world.ask("POST", &path, &[], body.as_bytes())
    }

    fn call(&self, method: &str, body: &str) -> Value {
        let answer = self.ask(method, body);
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        answer.json()
    }

    /// Asserts that what comes back is what was sent.
    fn echoes(&self, json: &str) {
        let sent: Value = serde_json::from_str(json).unwrap();
        assert_eq!(self.call("Echo", json), sent);
    }

    /// What the service gets for this.
    fn wire(&self, json: &str) -> Vec<u8> {
        let seen = self.call("Show", &format!("{{\"thing\":{json}}}"));
        STANDARD.decode(seen["thing"].as_str().unwrap()).unwrap()
    }

    /// What the caller reads where the service answers with this.
    fn told(&self, wire: &[u8]) -> Value {
        let body = format!("{{\"thing\":\"{}\"}}", STANDARD.encode(wire));
        self.call("Tell", &body)["thing"].take()
    }
}

const OLD: &str = r#"
syntax = "proto2";
package old.v1;
import "google/api/annotations.proto";

enum Kind {
  NOVEL = 5;
  POEM = 6;
}

message Thing {
  required string name = 1;
  optional int32 pages = 2 [default = 7];
  repeated int32 plain = 3;
  repeated int32 tight = 4 [packed = true];
  optional Kind kind = 5 [default = POEM];
  optional group Owner = 6 {
    optional string called = 1;
  }
  extensions 100 to 199;
}

extend Thing {
  optional string nickname = 100;
}

message Holder { optional Thing thing = 1; }
message Seen { optional bytes thing = 1; }

service Things {
  rpc Echo(Thing) returns (Thing);
  rpc Show(Holder) returns (Seen);
  rpc Tell(Seen) returns (Holder);
  rpc Get(Thing) returns (Thing) {
    option (google.api.http) = { get: "/v1/things/{name}" };
  }
}
"#;

/// Must-have: proto2 with its groups, its extensions, its presence and its closed enums.
#[test]
fn a_service_in_proto2_is_called_in_json() {
    let things = Things::new("old.v1", "protos: [FILE]", "old.proto", OLD.as_bytes());
    let all = r#"{"name":"a","pages":0,"plain":[1,2],"tight":[1,2],"kind":"NOVEL","owner":{"called":"x"},"[old.v1.nickname]":"y"}"#;
    // A zero is written, `plain` stands number by number and `tight` in one go, the owner between two tags, the nickname at 100.
    let wire =
        b"\x0a\x01a\x10\x00\x18\x01\x18\x02\x22\x02\x01\x02\x28\x05\x33\x0a\x01x\x34\xa2\x06\x01y";
    things.echoes(all);
    assert_eq!(things.wire(all), wire);
    let sent: Value = serde_json::from_str(all).unwrap();
    assert_eq!(things.told(wire), sent);
    // Defaults are the reader's: what was not said stays unsaid.
    things.echoes(r#"{"name":"a"}"#);
    assert_eq!(things.wire(r#"{"name":"a"}"#), b"\x0a\x01a");
    // A closed enum has no number beside those it names, in either direction.
    let refused = things.ask("Echo", r#"{"name":"a","kind":7}"#);
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.text().contains("old.v1.Kind"), "{refused:?}");
    let told = things.told(b"\x0a\x01a\x28\x09");
    assert_eq!(told, serde_json::json!({"name": "a"}));
}

#[test]
fn path_and_query_reach_into_a_group() {
    let things = Things::new("old.v1", "protos: [FILE]", "old.proto", OLD.as_bytes());
    let path = "/v1/things/a?pages=0&plain=1&plain=2&kind=NOVEL&owner.called=x";
    let answer = things.world.get(path);
    assert_eq!(answer.status, 200, "{answer:?}");
    let expected = r#"{"name":"a","pages":0,"plain":[1,2],"kind":"NOVEL","owner":{"called":"x"}}"#;
    let expected: Value = serde_json::from_str(expected).unwrap();
    assert_eq!(answer.json(), expected);
}

/// `FileDescriptorSet` and its parts as editions have them, which `prost-types` has not.
#[derive(Clone, PartialEq, prost::Message)]
struct Set {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "4")]
    messages: Vec<Definition>,
    #[prost(message, repeated, tag = "6")]
    services: Vec<ServiceDescriptorProto>,
    #[prost(string, tag = "12")]
    syntax: String,
    #[prost(int32, tag = "14")]
    edition: i32,
}

/// `DescriptorProto`.
#[derive(Clone, PartialEq, prost::Message)]
struct Definition {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    fields: Vec<Field>,
}

/// `FieldDescriptorProto`.
#[derive(Clone, PartialEq, prost::Message)]
struct Field {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    number: i32,
    #[prost(int32, tag = "4")]
    label: i32,
    #[prost(int32, tag = "5")]
    kind: i32,
    #[prost(string, optional, tag = "6")]
    type_name: Option<String>,
    #[prost(message, optional, tag = "8")]
    options: Option<Options>,
}

/// `FieldOptions`.
#[derive(Clone, PartialEq, prost::Message)]
struct Options {
    #[prost(message, optional, tag = "21")]
    features: Option<Features>,
}

/// `FeatureSet`; 0 leaves the edition's default.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Features {
    #[prost(int32, tag = "1")]
    presence: i32,
    #[prost(int32, tag = "3")]
    lists: i32,
    #[prost(int32, tag = "5")]
    messages: i32,
}

const OPTIONAL: i32 = 1;
const REPEATED: i32 = 3;

const INT32: i32 = 5;
const STRING: i32 = 9;
const MESSAGE: i32 = 11;
const BYTES: i32 = 12;

const DEFAULT: Features = Features {
    presence: 0,
    lists: 0,
    messages: 0,
};
const IMPLICIT: Features = Features {
    presence: 2,
    ..DEFAULT
};
const LEGACY_REQUIRED: Features = Features {
    presence: 3,
    ..DEFAULT
};
const EXPANDED: Features = Features {
    lists: 2,
    ..DEFAULT
};
const DELIMITED: Features = Features {
    messages: 2,
    ..DEFAULT
};

/// Name, label, type, of which message type if it is one, features.
type Row = (&'static str, i32, i32, &'static str, Features);

/// Fields are numbered as they come.
fn define(name: &str, fields: &[Row]) -> Definition {
    let field = |(number, (name, label, kind, of, features)): (i32, &Row)| Field {
        name: (*name).to_owned(),
        number,
        label: *label,
        kind: *kind,
        type_name: (!of.is_empty()).then(|| format!(".new.v1.{of}")),
        options: Some(Options {
            features: Some(*features),
        }),
    };
    Definition {
        name: name.to_owned(),
        fields: (1..).zip(fields).map(field).collect(),
    }
}

fn method(name: &str, input: &str, output: &str) -> MethodDescriptorProto {
    MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(format!(".new.v1.{input}")),
        output_type: Some(format!(".new.v1.{output}")),
        ..MethodDescriptorProto::default()
    }
}

/// What protoc makes of a file of edition 2023.
fn edition_2023() -> Vec<u8> {
    let thing = [
        ("name", OPTIONAL, STRING, "", LEGACY_REQUIRED),
        ("pages", OPTIONAL, INT32, "", IMPLICIT),
        ("loose", REPEATED, INT32, "", EXPANDED),
        ("tight", REPEATED, INT32, "", DEFAULT),
        ("owner", OPTIONAL, MESSAGE, "Owner", DELIMITED),
        ("weight", OPTIONAL, INT32, "", DEFAULT),
    ];
    let service = ServiceDescriptorProto {
        name: Some("Things".to_owned()),
        method: vec![
            method("Echo", "Thing", "Thing"),
            method("Show", "Holder", "Seen"),
            method("Tell", "Seen", "Holder"),
        ],
        options: None,
    };
    let file = File {
        name: "new.proto".to_owned(),
        package: "new.v1".to_owned(),
        messages: vec![
            define("Thing", &thing),
            define("Owner", &[("called", OPTIONAL, STRING, "", DEFAULT)]),
            define("Holder", &[("thing", OPTIONAL, MESSAGE, "Thing", DEFAULT)]),
            define("Seen", &[("thing", OPTIONAL, BYTES, "", DEFAULT)]),
        ],
        services: vec![service],
        syntax: "editions".to_owned(),
        edition: 1000,
    };
    Set { files: vec![file] }.encode_to_vec()
}

/// Must-have: a compiled set of an edition, with the features that a field may have.
#[test]
fn a_service_in_an_edition_is_called_in_json_as_its_features_say() {
    let things = Things::new("new.v1", "descriptors: FILE", "new.binpb", &edition_2023());
    let all =
        r#"{"name":"","pages":3,"loose":[1,2],"tight":[1,2],"owner":{"called":"x"},"weight":0}"#;
    // `loose` stands number by number and `tight` in one go, and the owner between two tags.
    let wire = b"\x0a\x00\x10\x03\x18\x01\x18\x02\x22\x02\x01\x02\x2b\x0a\x01x\x2c\x30\x00";
    things.echoes(all);
    assert_eq!(things.wire(all), wire);
    let sent: Value = serde_json::from_str(all).unwrap();
    assert_eq!(things.told(wire), sent);
    // A zero is told from nothing only where the feature says so.
    assert_eq!(things.wire(r#"{"pages":0}"#), b"");
    assert_eq!(things.wire(r#"{"weight":0}"#), b"\x30\x00");
    assert_eq!(
        things.told(b"\x10\x00\x30\x00"),
        serde_json::json!({"weight": 0})
    );
    // Either form of a list is read, whichever is written.
    assert_eq!(
        things.told(b"\x1a\x02\x01\x02\x20\x01\x20\x02"),
        serde_json::json!({"loose": [1, 2], "tight": [1, 2]})
    );
}
