//! JSON for services that speak protobuf: what a gRPC service looks like to callers that do not.
//!
//! The codec: [`Schema`] is a descriptor set compiled to flat tables, [`Writer`] turns JSON into wire bytes, [`write_json`] wire bytes
//! into JSON. Both stream: no message is ever built in memory. Both promise ProtoJSON as its specification has it, strict unless a
//! [`Profile`] says otherwise, errors that name the field, and time and memory in proportion to the input, whoever wrote it.
//!
//! The calls: [`call`] is one gRPC call to a service over a connection of [`link`], in frames of [`frame`], ended by a [`status`].

mod attempt;
mod base64;
pub mod call;
mod caller;
mod codec_error;
mod conversation;
pub mod deadline;
mod decimal;
pub mod dialect;
pub mod elements;
pub mod face;
#[cfg(test)]
mod fixture;
pub mod frame;
pub mod gzip;
mod http_body;
mod inlet;
mod json;
mod json_to_wire;
pub mod link;
pub mod metadata;
pub mod openapi;
mod outlet;
mod plan;
pub mod problem;
mod profile;
pub mod refusal;
pub mod rpc;
pub mod schema;
pub mod socket;
pub mod status;
mod talk;
mod time;
pub mod unfit;
mod wire;
mod wire_to_json;

pub use codec_error::CodecError;
pub use json_to_wire::{Bound, Writer, is_bindable};
pub use profile::{Enums, Names, Profile, Unknown, Unset, Wide};
pub use schema::{
    Cardinality, EnumId, Field, FieldId, FieldPath, Kind, MessageId, Method, PathError, Schema,
    SchemaError, Service,
};
pub use wire_to_json::{write_json, write_json_field};

/// Objects and lists within each other that are read or written: what protobuf's own libraries allow.
const DEEPEST: u32 = 100;

#[cfg(test)]
mod tests;
