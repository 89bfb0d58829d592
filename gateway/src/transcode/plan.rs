//! How a call is served: by which method, in which dialect, and in which form its answer goes out. Settled from the head, before
//! anything of the body is read.

use std::sync::Arc;

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use pingora_http::RequestHeader;
use tollgate_policy::settings::StreamShape;

use super::dialect::{Dialect, Encoding};
use super::face::{Binding, Face, FaceMethod, Way};
use super::gzip;
use super::unfit::Unfit;
use crate::denial::Denial;
use crate::door::asked::target_of;
use crate::journey::Admitted;

/// In which form an answer goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One JSON value, once the call is over.
    Single,
    /// A JSON array, a line per message, or events.
    Stream(StreamShape),
    /// The bytes of `google.api.HttpBody`; in the latter case of many.
    Raw {
        /// Many messages are one body.
        stream: bool,
    },
    /// Frames of gRPC-Web.
    Web,
    /// One message of Connect, once the call is over.
    Connect,
    /// Frames of Connect.
    ConnectStream,
    /// Messages of a WebSocket.
    Socket,
}

/// A call, as far as its head says it.
#[derive(Debug)]
pub(super) struct Plan {
    face: Arc<Face>,
    operation: usize,
    route: usize,
    /// How the caller speaks.
    pub(super) dialect: Dialect,
    /// How it is answered.
    pub(super) form: Form,
    /// The canonical path, still encoded, without the base path.
    pub(super) path: String,
    /// What follows `?`.
    pub(super) query: String,
    /// Of the body.
    pub(super) content_type: Option<String>,
    /// The body is compressed.
    pub(super) gzip: bool,
    /// The caller reads compressed answers.
    pub(super) accepts_gzip: bool,
    /// The caller wants no body.
    pub(super) head_only: bool,
}

impl Plan {
    /// Of an admitted call; `None` where it goes to the service as it is.
    ///
    /// # Errors
    /// The method cannot be called in this way.
    pub(super) fn of(head: &RequestHeader, admitted: &Admitted) -> Result<Option<Self>, Denial> {
        let Some(face) = &admitted.api.face else {
            return Ok(None);
        };
        let Some(method) = face.method(admitted.operation) else {
            return Ok(None);
        };
        let dialect = match Dialect::of(head) {
            Dialect::Grpc => return Ok(None),
            other => meant(other, method, admitted.route, &head.method)?,
        };
        let target = target_of(head)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.get(admitted.base_length..).unwrap_or(path).to_owned();
        let field = |name| {
            head.headers
                .get(name)
                .and_then(|it: &http::HeaderValue| it.to_str().ok())
        };
        let form = form_of(
            dialect,
            method,
            admitted.route,
            field(ACCEPT).unwrap_or_default(),
        );
        let content_type = field(CONTENT_TYPE);
        if matches!(dialect, Dialect::Web { .. }) && !is_web_proto(content_type) {
            return Err(unfit_form("messages of gRPC-Web are `proto`"));
        }
        let gzip = is_gzip(head, dialect)?;
        let accepts = match dialect {
            Dialect::ConnectStream(_) => "connect-accept-encoding",
            Dialect::Web { .. } => "grpc-accept-encoding",
            _ => ACCEPT_ENCODING.as_str(),
        };
        if gzip && dialect == Dialect::Rest && method.client_streaming {
            return Err(unfit_form(
                "a stream of elements may not be compressed as a whole",
            ));
        }
        Ok(Some(Self {
            face: Arc::clone(face),
            operation: admitted.operation,
            route: admitted.route,
            dialect,
            form,
            path,
            query: query.to_owned(),
            content_type: content_type.map(str::to_owned),
            gzip,
            accepts_gzip: head
                .headers
                .get(accepts)
                .is_some_and(|it| gzip::accepted(it.as_bytes())),
            head_only: head.method == http::Method::HEAD,
        }))
    }

    /// Messages and methods.
    pub(super) fn face(&self) -> &Face {
        &self.face
    }

    /// The method called.
    ///
    /// # Errors
    /// Cannot happen: there was one when the plan was made, and a face does not change.
    pub(super) fn method(&self) -> Result<&FaceMethod, Denial> {
        self.face.method(self.operation).ok_or(Denial::Internal)
    }

    /// The HTTP rule it came by.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn binding(&self) -> Result<&Binding, Denial> {
        self.method()?.binding(self.route).ok_or(Denial::Internal)
    }

    /// Whether the answer goes out message by message.
    pub(super) fn form_streams(&self) -> bool {
        match self.form {
            Form::Single | Form::Connect | Form::Raw { stream: false } => false,
            Form::Web => self
                .method()
                .is_ok_and(|it| it.client_streaming || it.server_streaming),
            Form::Stream(_) | Form::Raw { stream: true } | Form::ConnectStream | Form::Socket => {
                true
            }
        }
    }

    /// Whether the caller's messages come one by one, while answers may go out.
    pub(super) fn hears_stream(&self) -> bool {
        self.method().is_ok_and(|it| it.client_streaming)
    }
}

/// Whether the type of a call of gRPC-Web says protobuf, or nothing of what its messages are.
fn is_web_proto(content_type: Option<&str>) -> bool {
    let kind = content_type.and_then(|it| it.split(';').next());
    let form = kind.and_then(|kind| kind.trim().split_once('+'));
    form.is_none_or(|(_, form)| form.eq_ignore_ascii_case("proto"))
}

/// Whether the caller compresses what it sends.
fn is_gzip(head: &RequestHeader, dialect: Dialect) -> Result<bool, Denial> {
    let coding = match dialect {
        Dialect::ConnectStream(_) => "connect-content-encoding",
        Dialect::Web { .. } => "grpc-encoding",
        _ => CONTENT_ENCODING.as_str(),
    };
    let coding = head.headers.get(coding);
    let coding = coding.map(|it| it.as_bytes().to_ascii_lowercase());
    match coding.as_deref() {
        None | Some(b"" | b"identity") => Ok(false),
        Some(b"gzip" | b"x-gzip") => Ok(true),
        Some(_) => Err(unfit_form(
            "the body is compressed by something else than gzip",
        )),
    }
}

/// Which of the dialects that a head may stand for is meant, and whether the method can be called in it.
fn meant(
    dialect: Dialect,
    method: &FaceMethod,
    route: usize,
    verb: &http::Method,
) -> Result<Dialect, Denial> {
    let by_rpc = method.way(route) == Way::Rpc;
    let streams = method.client_streaming || method.server_streaming;
    let known = |encoding| match encoding {
        Encoding::Unknown => Err(unfit_form("messages of Connect are `json` or `proto`")),
        Encoding::Json | Encoding::Proto => Ok(dialect),
    };
    match dialect {
        Dialect::Connect(_) | Dialect::ConnectGet(_) if streams => Err(unfit_form(
            "this method streams: call it with `application/connect+json` or `application/connect+proto`",
        )),
        Dialect::ConnectStream(_) if !streams => Err(unfit_form(
            "this method does not stream: call it with `application/json` or `application/proto`",
        )),
        Dialect::ConnectGet(encoding) if by_rpc => match method.no_side_effects {
            true => known(encoding),
            false => Err(Denial::MethodNotAllowed(vec!["POST".into()])),
        },
        // The rule of the method may have a query parameter of that name.
        Dialect::ConnectGet(_) => Ok(Dialect::Rest),
        Dialect::Connect(Encoding::Json) if !by_rpc => Ok(Dialect::Rest),
        Dialect::Web { .. } | Dialect::Connect(_) | Dialect::ConnectStream(_) if !by_rpc => Err(
            unfit_form("this is the path of an HTTP rule: its body is JSON"),
        ),
        Dialect::Connect(encoding) | Dialect::ConnectStream(encoding) => known(encoding),
        Dialect::Web { .. } => Ok(dialect),
        Dialect::Socket if !streams => Err(Denial::Malformed("this method does not stream".into())),
        Dialect::Socket => Ok(dialect),
        Dialect::Rest if by_rpc && *verb != http::Method::POST => {
            Err(Denial::MethodNotAllowed(vec!["POST".into()]))
        }
        Dialect::Rest if method.binding(route).is_some() => Ok(dialect),
        Dialect::Rest if !streams => Ok(Dialect::Connect(Encoding::Json)),
        Dialect::Rest | Dialect::Grpc => Err(unfit_form(
            "this method streams: call it with `application/connect+json` or `application/connect+proto`",
        )),
    }
}

fn form_of(dialect: Dialect, method: &FaceMethod, route: usize, accept: &str) -> Form {
    let raw = method
        .binding(route)
        .is_some_and(|binding| binding.raw_response);
    match dialect {
        Dialect::Web { .. } => Form::Web,
        Dialect::Connect(_) | Dialect::ConnectGet(_) => Form::Connect,
        Dialect::ConnectStream(_) => Form::ConnectStream,
        Dialect::Socket => Form::Socket,
        Dialect::Rest | Dialect::Grpc if raw => Form::Raw {
            stream: method.server_streaming,
        },
        Dialect::Rest | Dialect::Grpc if method.server_streaming => {
            Form::Stream(shape_of(accept).unwrap_or(method.streams))
        }
        Dialect::Rest | Dialect::Grpc => Form::Single,
    }
}

/// The shape that the caller prefers (RFC 9110, section 12.5.1), of several the first.
fn shape_of(accept: &str) -> Option<StreamShape> {
    let mut best = None;
    for entry in accept.split(',') {
        let mut parts = entry.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let shape = match kind.to_ascii_lowercase().as_str() {
            "text/event-stream" => StreamShape::Sse,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
                StreamShape::Ndjson
            }
            "application/json" => StreamShape::Array,
            _ => continue,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let weight: f32 = weight.and_then(|it| it.parse().ok()).unwrap_or(1.0);
        if weight > best.map_or(0.0, |(most, _)| most) {
            best = Some((weight, shape));
        }
    }
    best.map(|(_, shape)| shape)
}

/// The form of the body is not served.
pub(super) fn unfit_form(text: &'static str) -> Denial {
    Denial::Unfit(Box::new(Unfit::form(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_chooses_the_shape_of_a_stream() {
        for (accept, shape) in [
            ("", None),
            ("*/*", None),
            ("text/html, text/event-stream;q=0.9", Some(StreamShape::Sse)),
            ("application/x-ndjson", Some(StreamShape::Ndjson)),
            (
                "application/JSON, application/x-ndjson",
                Some(StreamShape::Array),
            ),
            (
                "application/json;q=0.5, application/x-ndjson; q=0.8",
                Some(StreamShape::Ndjson),
            ),
            (
                "application/json;q=0, text/event-stream",
                Some(StreamShape::Sse),
            ),
            ("application/json;q=0", None),
            ("text/event-stream;q=nan", None),
        ] {
            assert_eq!(shape_of(accept), shape, "{accept}");
        }
    }
}
