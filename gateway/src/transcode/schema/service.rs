//! Services and their methods.

use std::sync::Arc;

use bytes::Bytes;

use super::MessageId;

/// A gRPC service.
#[derive(Debug)]
pub struct Service {
    /// With its package, as `shop.v1.Orders`.
    pub name: Box<str>,
    /// The path of the `.proto` file.
    pub file: Arc<str>,
    /// What the definition says about it.
    pub comment: Option<Box<str>>,
    /// In the order of the definition.
    pub methods: Vec<Method>,
}

/// A method of a service.
#[derive(Debug)]
pub struct Method {
    /// Without that of the service.
    pub name: Box<str>,
    /// What a call sends.
    pub input: MessageId,
    /// What is answered.
    pub output: MessageId,
    /// A call may send many.
    pub client_streaming: bool,
    /// Many may be answered.
    pub server_streaming: bool,
    /// Promised by `idempotency_level = NO_SIDE_EFFECTS`.
    pub no_side_effects: bool,
    /// Marked as deprecated.
    pub is_deprecated: bool,
    /// `MethodOptions` as serialized: `google.api.http` is field 72295728 of it.
    pub options: Bytes,
    /// The path of the `.proto` file.
    pub file: Arc<str>,
    /// Where in that file, counted from 1, if the set has it.
    pub line: Option<u32>,
    /// What the definition says about it.
    pub comment: Option<Box<str>>,
}
