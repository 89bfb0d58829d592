//! Answers the official conformance suite of protobuf with Tollgate's codec: `make conformance`.
//!
//! The runner writes requests to our standard input, each after its length, and reads answers from our standard output. A request
//! names a message and carries it as JSON or wire bytes, to be given back as the one or the other. The gateway only ever turns the one
//! into the other, so:
//!
//! - JSON to wire and wire to JSON are what callers get, with nothing in between;
//! - JSON to JSON goes by way of the wire, wire to wire by way of JSON;
//! - skipped are the text format, and wire to wire with fields that the message does not have: JSON has no place for them. (Calls that
//!   are gRPC on both sides pass the gateway without the codec, and keep them.)
//!
//! Argument: the descriptor set of the test messages.

#![allow(
    missing_docs,
    clippy::expect_used,
    reason = "a program for the test suite"
)]

use std::io::{Read, Write};

use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tollgate_gateway::transcode::{MessageId, Profile, Schema, Unknown, Writer, write_json};

const PROTOBUF: i32 = 1;
const JSON: i32 = 2;
const IGNORE_UNKNOWN: i32 = 3;

/// `conformance.ConformanceRequest`. JSON as bytes: some tests send what is no text.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(bytes = "vec", optional, tag = "1")]
    protobuf: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    json: Option<Vec<u8>>,
    #[prost(int32, tag = "3")]
    output: i32,
    #[prost(string, tag = "4")]
    message_type: String,
    #[prost(int32, tag = "5")]
    category: i32,
}

/// `conformance.ConformanceResponse`; one of the fields is set.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(string, optional, tag = "1")]
    parse_error: Option<String>,
    #[prost(string, optional, tag = "2")]
    runtime_error: Option<String>,
    #[prost(bytes = "vec", optional, tag = "3")]
    protobuf: Option<Vec<u8>>,
    #[prost(string, optional, tag = "4")]
    json: Option<String>,
    #[prost(string, optional, tag = "5")]
    skipped: Option<String>,
    #[prost(string, optional, tag = "6")]
    serialize_error: Option<String>,
}

fn main() {
    let path = std::env::args()
        .nth(1)
        .expect("the path of a descriptor set");
    let set = std::fs::read(path).expect("the descriptor set is read");
    let schema = Schema::read(&set).expect("the descriptor set is valid");
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    loop {
        let mut length = [0; 4];
        if input.read_exact(&mut length).is_err() {
            return;
        }
        let mut request = vec![0; u32::from_le_bytes(length) as usize];
        input.read_exact(&mut request).expect("a whole request");
        let response = answer(&schema, &request).encode_to_vec();
        let length = u32::try_from(response.len()).expect("a short answer");
        output
            .write_all(&length.to_le_bytes())
            .expect("the runner listens");
        output.write_all(&response).expect("the runner listens");
        output.flush().expect("the runner listens");
    }
}

fn answer(schema: &Schema, request: &[u8]) -> Response {
    let mut response = Response::default();
    let request = match Request::decode(request) {
        Ok(request) => request,
        Err(error) => {
            response.runtime_error = Some(error.to_string());
            return response;
        }
    };
    if request.message_type == "conformance.FailureSet" {
        response.protobuf = Some(Vec::new());
        return response;
    }
    let Some(message) = schema.message(&request.message_type) else {
        response.runtime_error = Some(format!("no message {}", request.message_type));
        return response;
    };
    let profile = Profile {
        unknown: match request.category {
            IGNORE_UNKNOWN => Unknown::Ignore,
            _ => Unknown::Refuse,
        },
        ..Profile::default()
    };
    convert(schema, message, &profile, &request, &mut response);
    response
}

fn convert(
    schema: &Schema,
    message: MessageId,
    profile: &Profile,
    request: &Request,
    response: &mut Response,
) {
    let printed = |wire: &[u8]| {
        let mut out = Vec::new();
        let written = write_json(schema, message, profile, wire, &mut out);
        written.map(|()| String::from_utf8_lossy(&out).into_owned())
    };
    let read = |json: &[u8]| {
        let mut writer = Writer::new(schema, message, profile);
        writer.body(json)?;
        writer.finish()
    };
    match (&request.json, &request.protobuf, request.output) {
        (Some(json), _, PROTOBUF) => match read(json) {
            Ok(wire) => response.protobuf = Some(wire),
            Err(error) => response.parse_error = Some(error.to_string()),
        },
        (Some(json), _, JSON) => match read(json).map(|wire| printed(&wire)) {
            Ok(Ok(json)) => response.json = Some(json),
            Ok(Err(error)) => response.serialize_error = Some(error.to_string()),
            Err(error) => response.parse_error = Some(error.to_string()),
        },
        // One step: whether the bytes are no message or the message has no JSON, the codec does not tell. Nor does the suite mind.
        (_, Some(wire), JSON) => match printed(wire) {
            Ok(json) => response.json = Some(json),
            Err(error) if is_malformed(&error.what) => {
                response.parse_error = Some(error.to_string());
            }
            Err(error) => response.serialize_error = Some(error.to_string()),
        },
        (_, Some(wire), PROTOBUF) if has_unknown(schema, message, wire) == Some(true) => {
            response.skipped = Some("JSON has no place for unknown fields".to_owned());
        }
        (_, Some(wire), PROTOBUF) => match printed(wire).map(|json| read(json.as_bytes())) {
            Ok(Ok(wire)) => response.protobuf = Some(wire),
            Ok(Err(error)) => response.serialize_error = Some(error.to_string()),
            Err(error) => response.parse_error = Some(error.to_string()),
        },
        _ => response.skipped = Some("neither JSON nor wire bytes".to_owned()),
    }
}

/// What has no JSON form is a message all the same.
fn is_malformed(what: &str) -> bool {
    !["JSON", "type"].iter().any(|word| what.contains(word))
}

/// Whether there are fields that the message does not have, at any depth; `None` for what is no message.
fn has_unknown(schema: &Schema, message: MessageId, mut wire: &[u8]) -> Option<bool> {
    while !wire.is_empty() {
        let (number, wire_type) = decode_key(&mut wire).ok()?;
        let before = wire;
        let Some(field) = schema.field_by_number(message, number) else {
            skip_field(wire_type, number, &mut wire, DecodeContext::default()).ok()?;
            return Some(true);
        };
        skip_field(wire_type, number, &mut wire, DecodeContext::default()).ok()?;
        let mut content = before.get(..before.len() - wire.len())?;
        if let (Some(child), WireType::LengthDelimited) = (field.child(), wire_type) {
            decode_varint(&mut content).ok()?;
            if has_unknown(schema, child, content)? {
                return Some(true);
            }
        }
    }
    Some(false)
}
