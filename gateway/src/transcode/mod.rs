//! JSON for services that speak protobuf: what a gRPC service looks like to callers that do not.
//!
//! The codec: [`Schema`] is a descriptor set compiled to flat tables, [`Writer`] turns JSON into wire bytes, [`write_json`] wire bytes
//! into JSON. Both stream: no message is ever built in memory. Both promise ProtoJSON as its specification has it, strict unless a
//! [`Profile`] says otherwise, errors that name the field, and time and memory in proportion to the input, whoever wrote it.
//!
//! The calls: [`call`] is one gRPC call to a service over a connection of [`link`], in frames of [`frame`], ended by a [`status`].

pub mod call;
mod codec_error;
pub mod deadline;
pub mod dialect;
pub mod elements;
pub mod face;
pub mod frame;
pub mod gzip;
pub mod link;
pub mod metadata;
mod profile;
pub mod schema;
pub mod status;
pub mod unfit;
mod wire;

pub use codec_error::CodecError;
pub use profile::{Enums, Names, Profile, Unknown, Unset, Wide};
pub use schema::{
    Cardinality, EnumId, Field, FieldId, FieldPath, Kind, MessageId, Method, PathError, Schema,
    SchemaError, Service,
};

/// Objects and lists within each other that are read or written: what protobuf's own libraries allow.
const DEEPEST: u32 = 100;
