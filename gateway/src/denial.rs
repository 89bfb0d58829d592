//! Refusals: one enum, one public face for HTTP and one for gRPC. What the caller may read is apart from what the log keeps.

use std::borrow::Cow;

/// A request that will not be served, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The request is not well-formed HTTP, or its target is not acceptable. Text for the caller.
    Malformed(Cow<'static, str>),
    /// The head did not arrive in time.
    HeadTimeout,
    /// The head is larger than allowed.
    HeadTooLarge,
    /// The method is never served (CONNECT, TRACE).
    MethodNotServed,
    /// No API serves this host and base path.
    UnknownApi,
    /// No operation of the API matches.
    UnknownOperation,
    /// The path matches, the method does not; these do (for `Allow`).
    MethodNotAllowed(Vec<std::sync::Arc<str>>),
    /// The operation demands a credential. Challenges for `WWW-Authenticate`.
    CredentialRequired(Vec<Cow<'static, str>>),
    /// The request body is larger than allowed.
    BodyTooLarge,
    /// The request body arrives too slowly.
    BodyTooSlow,
    /// `Expect` with something else than `100-continue`.
    ExpectationFailed,
    /// gRPC cannot be answered on HTTP/1.x: its trailers would be lost.
    GrpcNeedsHttp2,
    /// The gateway is saturated or draining.
    Overloaded,
    /// No endpoint of the upstream can be used.
    NoEndpoint,
    /// The upstream could not be reached, reset, or answered garbage.
    UpstreamFailed,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// A fault of ours (a panic): this request alone is lost.
    Internal,
}
