//! What a gRPC service looks like from outside: which HTTP calls its methods are, and how such a call becomes a message.
//!
//! Made once, when an API is loaded: from descriptors (`descriptors`), HTTP rules (`rule`, `service_config`) and, where there is one, the
//! OpenAPI file (`join`). Immutable, shared by all calls. One gRPC method is one operation, whichever way a call comes. Not here:
//! calling the service, and the codec.

mod binding;
mod compile;
mod describe;
pub mod descriptors;
pub mod http_body;
mod join;
mod mask;
mod query;
mod rule;
mod service_config;
mod template;

use std::sync::Arc;

use http::uri::PathAndQuery;
use tollgate_policy::settings::{ErrorShape, StreamShape};

pub use binding::{BindError, BindRules, Binding, Body};
pub use describe::{Described, describe, describe_now};
pub use descriptors::Reflected;
pub use template::{PathPlace, Template, TemplateRoute};

use super::{MessageId, Schema};

/// The methods of one API's gRPC service.
#[derive(Debug)]
pub struct Face {
    /// Their messages.
    pub schema: Arc<Schema>,
    /// By operation of the API; `None` for operations that are no gRPC method.
    pub methods: Vec<Option<FaceMethod>>,
    /// Shape of the JSON error of a call that was not found to be of one method.
    pub errors: ErrorShape,
}

impl Face {
    /// The method an operation is.
    pub fn method(&self, operation: usize) -> Option<&FaceMethod> {
        self.methods.get(operation)?.as_ref()
    }
}

/// One method.
#[derive(Debug)]
pub struct FaceMethod {
    /// `/package.Service/Method`.
    pub path: PathAndQuery,
    /// What a call sends.
    pub input: MessageId,
    /// What is answered.
    pub output: MessageId,
    /// A call may send many messages.
    pub client_streaming: bool,
    /// Many may be answered.
    pub server_streaming: bool,
    /// It changes nothing: Connect may call it by GET.
    pub no_side_effects: bool,
    /// How calls are read, and JSON is written: `reading.profile` is for both.
    pub reading: BindRules,
    /// Shape of a stream whose caller did not say one.
    pub streams: StreamShape,
    /// Shape of a JSON error.
    pub errors: ErrorShape,
    /// What each route of the operation stands for, by `Matched::route`.
    pub ways: Vec<Way>,
    /// Its HTTP rules. A method without a rule has one: `POST /package.Service/Method` with the whole message as body.
    pub bindings: Vec<Binding>,
}

/// What a route stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The HTTP rule of this index.
    Rule(usize),
    /// `/package.Service/Method` itself, by POST or GET: gRPC, gRPC-Web and Connect, and the rule of a method that has no other.
    Rpc,
}

impl FaceMethod {
    /// What the call came by; [`Way::Rpc`] where the route is not known.
    pub fn way(&self, route: usize) -> Way {
        self.ways.get(route).copied().unwrap_or(Way::Rpc)
    }

    /// How a REST call that came by `route` becomes a message. `None` for [`Way::Rpc`] of a method that has HTTP rules: such calls are
    /// Connect.
    pub fn binding(&self, route: usize) -> Option<&Binding> {
        match self.way(route) {
            Way::Rule(index) => self.bindings.get(index),
            Way::Rpc => self.bindings.iter().find(|binding| binding.is_default),
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]
mod tests;
