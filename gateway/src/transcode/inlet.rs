//! From what a caller sends to messages for the service, piece by piece.
//!
//! Whole bodies are bounded by the operation's limit, messages of streams by the limit of messages; nothing more is held. Every
//! mistake of the caller comes back as a refusal that names the field, before or after the service was called.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;

use super::Writer;
use super::dialect::{Dialect, Encoding};
use super::elements::Elements;
use super::face::Body;
use super::frame::{COMPRESSED, CONNECT_END, FrameReader, WEB_TRAILERS, framed};
use super::gzip;
use super::plan::{Plan, unfit_form};
use super::socket::{self, Heard};
use super::unfit::{Fault, Unfit};
use crate::denial::Denial;
use crate::identity::shown::decoded;

/// Bytes of a raw body that go in one message.
const RAW_BYTES: usize = 64 * 1024;

/// What a caller sends, as messages.
#[derive(Debug)]
pub(super) struct Inlet {
    source: Source,
    /// The method takes one message.
    single: bool,
    limit: usize,
    /// Messages taken so far.
    taken: usize,
    /// The caller has said all.
    heard_all: bool,
    /// A WebSocket was closed by its caller.
    closed: bool,
    /// What has to be written to the caller at once: answers to pings.
    pub(super) replies: Vec<u8>,
}

#[derive(Debug)]
enum Source {
    /// The body, or nothing, is one message.
    Whole { body: Vec<u8>, most: usize },
    /// Each JSON value is one.
    Elements(Elements),
    /// The bytes of a `google.api.HttpBody`, as many in each as come together.
    Raw(Bytes),
    /// Each frame is one.
    Frames {
        reader: FrameReader,
        base64: Option<Vec<u8>>,
    },
    /// Each text is one.
    Socket(socket::Ear),
}

impl Inlet {
    /// For a call. `most` bytes of a body are taken, `limit` of a message.
    pub(super) fn new(plan: &Plan, most: u64, limit: usize) -> Self {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let streams = plan.hears_stream();
        let lines = plan
            .content_type
            .as_deref()
            .is_some_and(|it| it.contains("ndjson") || it.contains("jsonl"));
        let source = match plan.dialect {
            Dialect::Web { text } => Source::Frames {
                reader: FrameReader::new(limit, COMPRESSED | WEB_TRAILERS),
                base64: text.then(Vec::new),
            },
            Dialect::ConnectStream(_) => Source::Frames {
                reader: FrameReader::new(limit, COMPRESSED),
                base64: None,
            },
            Dialect::Socket => Source::Socket(socket::Ear::new(limit)),
            Dialect::Rest if streams && is_raw(plan) => Source::Raw(Bytes::new()),
            Dialect::Rest if streams => Source::Elements(Elements::new(limit, lines)),
            _ => Source::Whole {
                body: Vec::new(),
                most,
            },
        };
        Self {
            source,
            single: plan.method().is_ok_and(|it| !it.client_streaming),
            limit,
            taken: 0,
            heard_all: false,
            closed: false,
            replies: Vec::new(),
        }
    }

    /// Whether the body has to be there before the service is called: it then can be called once more.
    pub(super) fn is_whole(&self) -> bool {
        match self.source {
            Source::Whole { .. } => true,
            Source::Frames { .. } => self.single,
            Source::Elements(_) | Source::Raw(_) | Source::Socket(_) => false,
        }
    }

    /// The one message of a method that is called by WebSocket and hears no stream, where path and query say all of it. `None`: another
    /// call, or a text is to come.
    ///
    /// # Errors
    /// They are no message of the method.
    pub(super) fn of_target(&mut self, plan: &Plan) -> Result<Option<Bytes>, Denial> {
        let bodiless = plan.binding().is_ok_and(|binding| !binding.takes_body());
        if !self.single || !bodiless || !matches!(self.source, Source::Socket(_)) {
            return Ok(None);
        }
        let wire = bound(plan, b"", 0)?;
        self.taken += 1;
        self.framed(&wire).map(Some)
    }

    /// Whether all that was said has been taken, and nothing more will be.
    pub(super) fn is_over(&self) -> bool {
        self.heard_all
    }

    /// Whether the caller closed its WebSocket: it listens no more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The next bytes of the caller. Messages in former ones have to be taken out before.
    ///
    /// # Errors
    /// Its base64 is none.
    pub(super) fn feed(&mut self, bytes: Bytes) -> Result<(), Denial> {
        match &mut self.source {
            Source::Whole { body, .. } => body.extend_from_slice(&bytes),
            Source::Elements(elements) => elements.feed(bytes),
            Source::Raw(held) => *held = bytes,
            Source::Frames { reader, base64 } => match base64 {
                Some(held) => reader.feed(unquoted(held, &bytes)?),
                None => reader.feed(bytes),
            },
            Source::Socket(ear) => ear.feed(&bytes),
        }
        Ok(())
    }

    /// The next message, in its frame; `None`: feed more.
    ///
    /// # Errors
    /// It is no message of the method.
    pub(super) fn take(&mut self, plan: &Plan) -> Result<Option<Bytes>, Denial> {
        let wire = match &mut self.source {
            Source::Whole { .. } => return Ok(None),
            Source::Elements(elements) => match elements.take().map_err(unfit)? {
                Some(element) => bound(plan, &element, self.taken)?,
                None => return Ok(None),
            },
            Source::Raw(held) if held.is_empty() => return Ok(None),
            Source::Raw(held) => {
                let piece = held.split_to(held.len().min(RAW_BYTES).min(self.limit / 2 + 1));
                bound(plan, &piece, self.taken)?
            }
            Source::Frames { .. } => match self.frame(plan)? {
                Some(wire) => wire,
                None => return Ok(None),
            },
            Source::Socket(_) => match self.hear()? {
                Some(_) if self.single && self.taken > 0 => {
                    return Err(unfit(Unfit::whole("this method takes no further message")));
                }
                Some(text) => {
                    self.heard_all |= self.single;
                    bound(plan, &text, self.taken)?
                }
                None => return Ok(None),
            },
        };
        self.taken += 1;
        self.framed(&wire).map(Some)
    }

    /// The caller has said all: the last message, where its end was not known before.
    ///
    /// # Errors
    /// What was said is not whole, or no message.
    pub(super) fn finish(&mut self, plan: &Plan) -> Result<Option<Bytes>, Denial> {
        if std::mem::replace(&mut self.heard_all, true) {
            return Ok(None);
        }
        let wire = match &mut self.source {
            Source::Whole { body, most } => {
                let (body, most) = (std::mem::take(body), *most);
                whole(plan, body, most)?
            }
            Source::Elements(elements) => match elements.end().map_err(unfit)? {
                Some(element) => bound(plan, &element, self.taken)?,
                None => return Ok(None),
            },
            // What path and query say is a message, also without bytes.
            Source::Raw(_) if self.taken == 0 => bound(plan, b"", 0)?,
            Source::Raw(_) => return Ok(None),
            Source::Frames { reader, base64 } => {
                let cut = base64.as_ref().is_some_and(|held| !held.is_empty());
                reader.end().map_err(|error| unfit(error.into()))?;
                if cut {
                    return Err(unfit(Unfit::whole("the base64 of the body is cut off")));
                }
                return Ok(None);
            }
            Source::Socket(_) => return Ok(None),
        };
        self.taken += 1;
        self.framed(&wire).map(Some)
    }

    fn frame(&mut self, plan: &Plan) -> Result<Option<Vec<u8>>, Denial> {
        let Source::Frames { reader, .. } = &mut self.source else {
            return Ok(None);
        };
        loop {
            let frame = match reader.take().map_err(|error| unfit(error.into()))? {
                // A client's trailers, which gRPC does not have.
                Some(frame) if frame.flags & (WEB_TRAILERS | CONNECT_END) != 0 => continue,
                Some(frame) => frame,
                None => return Ok(None),
            };
            let bytes = frame
                .message(self.limit)
                .map_err(|error| unfit(error.into()))?;
            return match plan.dialect {
                Dialect::ConnectStream(Encoding::Json) => from_json(plan, &bytes).map(Some),
                _ => Ok(Some(bytes.to_vec())),
            };
        }
    }

    fn hear(&mut self) -> Result<Option<Vec<u8>>, Denial> {
        let Source::Socket(ear) = &mut self.source else {
            return Ok(None);
        };
        loop {
            match ear.take().map_err(|broken| unfit(broken.into()))? {
                // That was all; of a method that takes one message it is that message.
                Some(Heard::Text(text)) if text.is_empty() => {
                    match self.single && self.taken == 0 {
                        true => return Ok(Some(b"{}".to_vec())),
                        false => self.heard_all = true,
                    }
                }
                Some(Heard::Text(text)) => return Ok(Some(text)),
                Some(Heard::Ping(payload)) => socket::pong(&payload, &mut self.replies),
                Some(Heard::Close) => {
                    self.heard_all = true;
                    self.closed = true;
                    return Ok(None);
                }
                None => return Ok(None),
            }
        }
    }

    fn framed(&self, wire: &[u8]) -> Result<Bytes, Denial> {
        if wire.len() > self.limit {
            let text = format!("the message is larger than {} bytes", self.limit);
            return Err(unfit(Unfit::size(text)));
        }
        framed(wire).map_err(|error| unfit(error.into()))
    }
}

/// Whether the body of the call is bytes as they are.
fn is_raw(plan: &Plan) -> bool {
    let schema = &plan.face().schema;
    plan.binding()
        .is_ok_and(|binding| binding.raw_request(schema))
}

fn unfit(unfit: Unfit) -> Denial {
    Denial::Unfit(Box::new(unfit))
}

/// A message by the HTTP rule of the call: the first has what path and query say as well.
fn bound(plan: &Plan, body: &[u8], before: usize) -> Result<Vec<u8>, Denial> {
    let (schema, reading) = (&plan.face().schema, &plan.method()?.reading);
    // A WebSocket on the path of the method itself: its messages are whole.
    let Ok(binding) = plan.binding() else {
        return from_json(plan, body);
    };
    let body = Body {
        // Once for all: the later parts of a raw body belong to the first.
        content_type: plan.content_type.as_deref().filter(|_| before == 0),
        bytes: body,
    };
    let message = match before {
        0 => binding.request(schema, reading, &plan.path, &plan.query, body),
        _ => binding.further(schema, reading, body),
    };
    message.map_err(|error| unfit(error.into()))
}

/// The message that a whole body is.
fn whole(plan: &Plan, body: Vec<u8>, most: usize) -> Result<Vec<u8>, Denial> {
    let (body, gzip, encoding) = match plan.dialect {
        Dialect::ConnectGet(encoding) => {
            let (body, gzip) = in_query(&plan.query)?;
            (body, gzip, Some(encoding))
        }
        Dialect::Connect(encoding) => (body, plan.gzip, Some(encoding)),
        _ => (body, plan.gzip, None),
    };
    let body = match gzip && !body.is_empty() {
        true => gzip::decompress(&body, most).map_err(|error| unfit(error.into()))?,
        false => body,
    };
    match encoding {
        Some(Encoding::Proto) => Ok(body),
        Some(Encoding::Json | Encoding::Unknown) => from_json(plan, &body),
        None => bound(plan, &body, 0),
    }
}

fn from_json(plan: &Plan, json: &[u8]) -> Result<Vec<u8>, Denial> {
    let method = plan.method()?;
    let mut writer = Writer::new(&plan.face().schema, method.input, &method.reading.profile);
    let written = writer.body(json).and_then(|()| writer.finish());
    written.map_err(|error| unfit(error.into()))
}

/// The message of a GET of Connect, and whether it is compressed.
fn in_query(query: &str) -> Result<(Vec<u8>, bool), Denial> {
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let found = pairs.find(|(key, _)| *key == name);
        found.map(|(_, value)| value)
    };
    let gzip = match value("compression") {
        None | Some("" | "identity") => false,
        Some("gzip") => true,
        Some(_) => return Err(unfit_form("`compression` is something else than gzip")),
    };
    let parameter = |what: &'static str| {
        unfit(Unfit {
            field: "message".to_owned(),
            what: what.into(),
            fault: Fault::Content,
        })
    };
    let Some(text) = decoded(value("message").unwrap_or_default()) else {
        return Err(parameter("not valid percent-encoded UTF-8"));
    };
    let message = match value("base64") {
        Some("1") => {
            let text = text.trim_end_matches('=');
            let decoded = URL_SAFE_NO_PAD.decode(text);
            decoded.map_err(|_| parameter("not base64 of the URL-safe alphabet"))?
        }
        _ => text.into_owned().into_bytes(),
    };
    Ok((message, gzip))
}

/// Decodes base64 in which padding may stand anywhere between groups; `held` is what is left of the last group.
fn unquoted(held: &mut Vec<u8>, bytes: &[u8]) -> Result<Bytes, Denial> {
    held.extend(bytes.iter().filter(|byte| !byte.is_ascii_whitespace()));
    let whole = held.len() - held.len() % 4;
    let mut out = Vec::with_capacity(whole / 4 * 3);
    for group in held.get(..whole).unwrap_or_default().chunks(4) {
        let decoded = STANDARD.decode_vec(group, &mut out);
        decoded.map_err(|_| unfit(Unfit::whole("the body is not base64")))?;
    }
    held.drain(..whole);
    Ok(Bytes::from(out))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_however_it_is_cut_and_joined() {
        let text = b"AAAAAAU=aGVsbG8=d29y bGQ=";
        for cut in 1..text.len() {
            let mut held = Vec::new();
            let mut out = Vec::new();
            for piece in text.chunks(cut) {
                out.extend_from_slice(&unquoted(&mut held, piece).unwrap());
            }
            assert_eq!(out, b"\0\0\0\0\x05helloworld");
            assert!(held.is_empty());
        }
        assert!(unquoted(&mut Vec::new(), b"!!!!").is_err());
    }

    #[test]
    fn the_message_of_a_get_is_in_its_query() {
        type Found = Option<(&'static [u8], bool)>;
        let table: [(&str, Found); 6] = [
            ("message=%7B%7D&encoding=json", Some((b"{}", false))),
            (
                "encoding=proto&base64=1&message=CAE",
                Some((b"\x08\x01", false)),
            ),
            (
                "encoding=proto&base64=1&message=CAE%3D",
                Some((b"\x08\x01", false)),
            ),
            (
                "message=&encoding=proto&compression=gzip",
                Some((b"", true)),
            ),
            ("message=x&compression=br", None),
            ("message=%21%21&base64=1", None),
        ];
        for (query, expected) in table {
            let found = in_query(query).ok();
            let expected = expected.map(|(message, gzip)| (message.to_vec(), gzip));
            assert_eq!(found, expected, "{query}");
        }
    }
}
