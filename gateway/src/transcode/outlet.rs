//! From what a service answers to what the caller reads: heads, messages, and the end, in the form of the call.
//!
//! A single answer is complete before its head is made, so every error has its status. A stream has its head with its first message;
//! what goes wrong after that stands as the last element, `{"error":…}`, in every form, and an array is then left open: no reader of
//! the whole takes it for complete, and every reader of pieces sees why. The HTTP message itself ends in order, for one that is reset
//! may lose the element that says why. Raw bytes alone have no place for an error: they are torn off. Not here: who writes it, and when.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use pingora_http::ResponseHeader;
use tollgate_policy::settings::StreamShape;

use super::call::{End, Message};
use super::dialect::{Dialect, Encoding};
use super::frame::{self, COMPRESSED, CONNECT_END, WEB_TRAILERS};
use super::http_body::HttpBody;
use super::plan::{Form, Plan};
use super::status::{Code, Status};
use super::{gzip, metadata, problem, socket, write_json, write_json_field};

/// What goes to the caller next.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// First of all.
    pub(super) head: Option<Box<ResponseHeader>>,
    /// Then.
    pub(super) body: Vec<u8>,
    /// Then the caller has to see that the answer breaks off.
    pub(super) torn: bool,
}

/// The answer of a call, on its way to the caller.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    initial: HeaderMap,
    begun: bool,
    messages: usize,
    /// The one message of a single answer.
    held: Option<Message>,
}

type Made<T> = Result<T, Status>;

impl Outlet {
    /// Whether the head has gone out.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    /// The WebSocket was opened: there is no other head.
    pub(super) fn opened(&mut self) {
        self.begun = true;
    }

    /// The service's initial metadata. Some forms begin by it.
    ///
    /// # Errors
    /// A field that cannot be one.
    pub(super) fn head(&mut self, plan: &Plan, initial: HeaderMap) -> Made<Written> {
        self.initial = initial;
        let mut written = Written::default();
        match plan.form {
            // Who listens to events waits for the head before it listens.
            Form::Web | Form::ConnectStream | Form::Stream(StreamShape::Sse) => {
                self.begin(plan, None, &mut written)?;
            }
            Form::Single | Form::Connect | Form::Stream(_) | Form::Raw { .. } | Form::Socket => {}
        }
        Ok(written)
    }

    /// A message of the service.
    ///
    /// # Errors
    /// It is not what the descriptors say, or one too many: the service is at fault.
    pub(super) fn message(
        &mut self,
        plan: &Plan,
        message: Message,
        written: &mut Written,
    ) -> Made<()> {
        self.messages += 1;
        let out = &mut written.body;
        match plan.form {
            Form::Single | Form::Connect | Form::Raw { stream: false } => {
                if self.held.replace(message).is_some() {
                    let text = "the service answered a single call with several messages";
                    return Err(Status::new(Code::Internal, text));
                }
            }
            Form::Raw { stream: true } => {
                let body = self.http_body(plan, &message)?;
                self.begin(plan, Some(&body), written)?;
                written.body.extend_from_slice(&body.data);
            }
            Form::Stream(shape) => {
                let first = self.messages == 1;
                let prefix: &[u8] = match shape {
                    StreamShape::Array if first => b"[",
                    StreamShape::Array => b",",
                    StreamShape::Ndjson => b"",
                    StreamShape::Sse => b"data: ",
                };
                let suffix: &[u8] = match shape {
                    StreamShape::Array => b"",
                    StreamShape::Ndjson => b"\n",
                    StreamShape::Sse => b"\n\n",
                };
                let start = out.len();
                out.extend_from_slice(prefix);
                let json = json_of(plan, &message.bytes, out);
                if json.is_err() {
                    out.truncate(start);
                    // The array has begun only where something stands in it.
                    self.messages -= 1;
                }
                json?;
                out.extend_from_slice(suffix);
                self.begin(plan, None, written)?;
            }
            Form::Web => {
                let start = out.len();
                framed(0, &message.bytes, out)?;
                as_text(plan, start, out);
            }
            Form::ConnectStream => framed_for_connect(plan, &message, out)?,
            Form::Socket => {
                let mut json = Vec::new();
                json_of(plan, &message.bytes, &mut json)?;
                socket::text(&json, out);
            }
        }
        Ok(())
    }

    /// The service ended the call. With a head where none has gone out.
    ///
    /// # Errors
    /// What the service answered is not what the descriptors say.
    pub(super) fn end(&mut self, plan: &Plan, end: &End, written: &mut Written) -> Made<()> {
        if !end.status.is_ok() {
            self.fail(
                plan,
                end.status.code.http(),
                &end.status,
                &end.trailers,
                written,
            );
            return Ok(());
        }
        match plan.form {
            Form::Single | Form::Connect | Form::Raw { stream: false } => {
                self.single(plan, &end.trailers, written)?;
            }
            Form::Raw { stream: true } => self.begin(plan, None, written)?,
            Form::Stream(shape) => {
                self.begin(plan, None, written)?;
                written
                    .body
                    .extend_from_slice(match (shape, self.messages) {
                        (StreamShape::Array, 0) => b"[]",
                        (StreamShape::Array, _) => b"]",
                        (StreamShape::Ndjson | StreamShape::Sse, _) => b"",
                    });
            }
            Form::Web | Form::ConnectStream => {
                self.begin(plan, None, written)?;
                last_frame(plan, end, &mut written.body);
            }
            Form::Socket => socket::close(socket::NORMAL, "", &mut written.body),
        }
        Ok(())
    }

    /// The call failed, by the service's word or ours. `http`: the status where a head can still be made.
    pub(super) fn fail(
        &mut self,
        plan: &Plan,
        http: u16,
        status: &Status,
        trailers: &HeaderMap,
        written: &mut Written,
    ) {
        let out = &mut written.body;
        let schema = Some(&*plan.face().schema);
        let shape = plan.method().map(|it| it.errors).unwrap_or_default();
        let has_begun = std::mem::replace(&mut self.begun, true);
        match plan.form {
            Form::Web | Form::ConnectStream => {
                if !has_begun {
                    written.head = stream_head(plan, &self.initial).ok();
                }
                let end = End {
                    unsent: false,
                    status: status.clone(),
                    trailers: trailers.clone(),
                };
                last_frame(plan, &end, out);
            }
            Form::Socket => {
                socket::text(&problem::late(shape, status, schema), out);
                let code = socket::STATUS_CODES + u16::from(status.code.number());
                socket::close(code, &status.message, out);
            }
            Form::Stream(form) if has_begun => {
                let error = problem::late(shape, status, schema);
                let (before, after): (&[u8], &[u8]) = match (form, self.messages) {
                    (StreamShape::Array, 0) => (b"[", b""),
                    (StreamShape::Array, _) => (b",", b""),
                    (StreamShape::Ndjson, _) => (b"", b"\n"),
                    (StreamShape::Sse, _) => (b"event: error\ndata: ", b"\n\n"),
                };
                out.extend_from_slice(before);
                out.extend_from_slice(&error);
                out.extend_from_slice(after);
            }
            // Raw bytes have no place for an error.
            Form::Raw { .. } if has_begun => written.torn = true,
            Form::Connect => {
                *out = problem::connect(status, schema);
                written.head = self.error_head(http, "trailer-", trailers, out.len());
            }
            Form::Single | Form::Stream(_) | Form::Raw { .. } => {
                *out = problem::rest(shape, http, status, schema);
                written.head = self.error_head(http, "", trailers, out.len());
            }
        }
    }

    fn error_head(
        &self,
        http: u16,
        prefix: &str,
        trailers: &HeaderMap,
        length: usize,
    ) -> Option<Box<ResponseHeader>> {
        let make = || -> pingora_error::Result<ResponseHeader> {
            let mut head = ResponseHeader::build(http, Some(8))?;
            with_metadata(&mut head, &self.initial, "");
            with_metadata(&mut head, trailers, prefix);
            head.insert_header("content-type", "application/json")?;
            head.insert_header("content-length", length.to_string())?;
            Ok(head)
        };
        make().ok().map(Box::new)
    }

    /// The head of a stream, once.
    fn begin(&mut self, plan: &Plan, body: Option<&HttpBody>, written: &mut Written) -> Made<()> {
        if self.begun {
            return Ok(());
        }
        let mut head = stream_head(plan, &self.initial).map_err(|_| unmade())?;
        if let Some(body) = body {
            let kind = body.content_type();
            head.insert_header("content-type", kind)
                .map_err(|_| unmade())?;
        }
        self.begun = true;
        written.head = Some(head);
        Ok(())
    }

    fn single(&mut self, plan: &Plan, trailers: &HeaderMap, written: &mut Written) -> Made<()> {
        let Some(message) = self.held.take() else {
            let text = "the service ended a single call without a message";
            return Err(Status::new(Code::Internal, text));
        };
        let mut body = Vec::with_capacity(message.bytes.len() * 2);
        let mut kind = "application/json".to_owned();
        let mut prefix = "";
        match (plan.form, plan.dialect) {
            (Form::Connect, Dialect::Connect(encoding) | Dialect::ConnectGet(encoding)) => {
                prefix = "trailer-";
                kind = format!("application/{}", encoding.name());
                encoded(plan, encoding, &message.bytes, &mut body)?;
            }
            (Form::Raw { .. }, _) => {
                let raw = self.http_body(plan, &message)?;
                kind = raw.content_type().to_owned();
                body = raw.data;
            }
            _ => json_of(plan, &message.bytes, &mut body)?,
        }
        // The service found it worth compressing.
        let gzip = message.compressed && plan.accepts_gzip && body.len() >= gzip::WORTH_IT;
        if gzip && let Ok(smaller) = gzip::compress(&body) {
            body = smaller;
        }
        let make = || -> pingora_error::Result<ResponseHeader> {
            let mut head = ResponseHeader::build(200, Some(8))?;
            with_metadata(&mut head, &self.initial, "");
            with_metadata(&mut head, trailers, prefix);
            head.insert_header("content-type", kind)?;
            head.insert_header("content-length", body.len().to_string())?;
            if gzip {
                head.insert_header("content-encoding", "gzip")?;
                head.append_header("vary", "accept-encoding")?;
            }
            Ok(head)
        };
        written.head = Some(Box::new(make().map_err(|_| unmade())?));
        written.body = body;
        self.begun = true;
        Ok(())
    }

    fn http_body(&self, plan: &Plan, message: &Message) -> Made<HttpBody> {
        let field = plan
            .binding()
            .ok()
            .and_then(|binding| binding.response_body);
        let number = field.map(|field| plan.face().schema.field(field).number);
        HttpBody::read(&message.bytes, number)
            .map_err(|what| Status::new(Code::Internal, format!("the service's answer: {what}")))
    }
}

fn unmade() -> Status {
    Status::new(
        Code::Internal,
        "the service's metadata cannot be header fields",
    )
}

/// An answer that cannot be told: the service does not keep to its own descriptors.
fn untold(error: &super::CodecError) -> Status {
    Status::new(
        Code::Internal,
        format!("the service's answer is not what its definition says: {error}"),
    )
}

fn with_metadata(head: &mut ResponseHeader, fields: &HeaderMap, prefix: &str) {
    metadata::copy_to_caller(fields, prefix, |name, value| {
        // A name the caller's side cannot carry is left out.
        let _ = head.append_header(name, value);
    });
}

fn json_of(plan: &Plan, wire: &[u8], out: &mut Vec<u8>) -> Made<()> {
    let method = plan.method().map_err(|_| unmade())?;
    let (schema, profile) = (&plan.face().schema, &method.reading.profile);
    let field = match plan.dialect {
        Dialect::Rest | Dialect::Socket => plan.binding().ok().and_then(|it| it.response_body),
        _ => None,
    };
    let written = match field {
        Some(field) => write_json_field(schema, method.output, field, profile, wire, out),
        None => write_json(schema, method.output, profile, wire, out),
    };
    written.map_err(|error| untold(&error))
}

fn encoded(plan: &Plan, encoding: Encoding, wire: &[u8], out: &mut Vec<u8>) -> Made<()> {
    match encoding {
        Encoding::Proto => {
            out.extend_from_slice(wire);
            Ok(())
        }
        Encoding::Json | Encoding::Unknown => json_of(plan, wire, out),
    }
}

fn framed(flags: u8, payload: &[u8], out: &mut Vec<u8>) -> Made<()> {
    frame::write(flags, payload, out)
        .map_err(|error| Status::new(Code::Internal, error.to_string()))
}

fn framed_for_connect(plan: &Plan, message: &Message, out: &mut Vec<u8>) -> Made<()> {
    let Dialect::ConnectStream(encoding) = plan.dialect else {
        return Err(unmade());
    };
    let mut payload = Vec::new();
    encoded(plan, encoding, &message.bytes, &mut payload)?;
    let gzip = message.compressed && plan.accepts_gzip && payload.len() >= gzip::WORTH_IT;
    match gzip.then(|| gzip::compress(&payload)) {
        Some(Ok(smaller)) => framed(COMPRESSED, &smaller, out),
        Some(Err(_)) | None => framed(0, &payload, out),
    }
}

/// What gRPC-Web and Connect have in place of trailers.
fn last_frame(plan: &Plan, end: &End, out: &mut Vec<u8>) {
    let start = out.len();
    let payload = match plan.form {
        Form::Web => web_trailers(end),
        _ => connect_end(plan, end),
    };
    let flags = if plan.form == Form::Web {
        WEB_TRAILERS
    } else {
        CONNECT_END
    };
    // Trailers are bounded by what a head may be: they fit.
    let _fits = frame::write(flags, &payload, out);
    if plan.form == Form::Web {
        as_text(plan, start, out);
    }
}

/// As lines of an HTTP/1 head (gRPC-Web, "Trailers").
fn web_trailers(end: &End) -> Vec<u8> {
    let mut lines = format!("grpc-status: {}\r\n", end.status.code.number()).into_bytes();
    if !end.status.message.is_empty() {
        lines.extend_from_slice(
            format!("grpc-message: {}\r\n", end.status.message_field()).as_bytes(),
        );
    }
    if let Some(details) = end.status.details_field() {
        lines.extend_from_slice(format!("grpc-status-details-bin: {details}\r\n").as_bytes());
    }
    metadata::copy_to_caller(&end.trailers, "", |name, value| {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    });
    lines
}

/// The end of a stream of Connect: an error, and trailing metadata.
fn connect_end(plan: &Plan, end: &End) -> Vec<u8> {
    let mut fields = serde_json::Map::new();
    metadata::copy_to_caller(&end.trailers, "", |name, value| {
        let values = fields
            .entry(name.as_str())
            .or_insert_with(|| serde_json::json!([]));
        if let (Some(values), Ok(value)) = (values.as_array_mut(), value.to_str()) {
            values.push(value.into());
        }
    });
    let mut payload = b"{".to_vec();
    if !end.status.is_ok() {
        payload.extend_from_slice(b"\"error\":");
        payload.extend_from_slice(&problem::connect(&end.status, Some(&plan.face().schema)));
    }
    if !fields.is_empty() {
        if payload.len() > 1 {
            payload.push(b',');
        }
        let fields = serde_json::Value::Object(fields);
        payload.extend_from_slice(format!("\"metadata\":{fields}").as_bytes());
    }
    payload.push(b'}');
    payload
}

/// Turns what was written since `start` into base64 where the caller reads that.
fn as_text(plan: &Plan, start: usize, out: &mut Vec<u8>) {
    if plan.dialect == (Dialect::Web { text: true }) {
        let text = STANDARD.encode(out.get(start..).unwrap_or_default());
        out.truncate(start);
        out.extend_from_slice(text.as_bytes());
    }
}

fn stream_head(plan: &Plan, initial: &HeaderMap) -> pingora_error::Result<Box<ResponseHeader>> {
    let mut head = ResponseHeader::build(200, Some(8))?;
    with_metadata(&mut head, initial, "");
    let kind = match (plan.form, plan.dialect) {
        (Form::Web, Dialect::Web { text: true }) => "application/grpc-web-text+proto",
        (Form::Web, _) => "application/grpc-web+proto",
        (Form::ConnectStream, Dialect::ConnectStream(Encoding::Proto)) => {
            "application/connect+proto"
        }
        (Form::ConnectStream, _) => "application/connect+json",
        (Form::Stream(StreamShape::Ndjson), _) => "application/x-ndjson",
        (Form::Stream(StreamShape::Sse), _) => "text/event-stream",
        (Form::Raw { .. }, _) => "application/octet-stream",
        _ => "application/json",
    };
    head.insert_header("content-type", kind)?;
    if plan.form == Form::ConnectStream && plan.accepts_gzip {
        head.insert_header("connect-content-encoding", "gzip")?;
    }
    if matches!(plan.form, Form::Stream(_)) {
        // What is flushed here shall not be gathered on the way.
        head.insert_header("x-accel-buffering", "no")?;
        head.insert_header("cache-control", "no-cache")?;
    }
    Ok(Box::new(head))
}
