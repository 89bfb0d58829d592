//! Answers that break gRPC's protocol, each in its way.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Bytes, Frame, Incoming};
use hyper::{HeaderMap, Response};
use prost::Message as _;
use tonic::body::Body;

use super::{Book, Named, whole};

/// What happens after the head.
enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Time for what went before to arrive.
    Pause,
    /// The stream is reset.
    Reset,
}

struct Parts {
    parts: std::vec::IntoIter<Part>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl hyper::body::Body for Parts {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            return Poll::Ready(match self.parts.next() {
                None => None,
                Some(Part::Data(data)) => Some(Ok(Frame::data(data))),
                Some(Part::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Some(Part::Reset) => Some(Err(std::io::Error::other("reset"))),
                Some(Part::Pause) => {
                    self.pause = Some(Box::pin(tokio::time::sleep(Duration::from_millis(50))));
                    continue;
                }
            });
        }
    }
}

fn framed(flags: u8, payload: &[u8]) -> Part {
    let mut frame = vec![flags];
    frame.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(payload);
    Part::Data(Bytes::from(frame))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn trailers(fields: &[(&'static str, &str)]) -> Part {
    let mut trailers = HeaderMap::new();
    for (name, value) in fields {
        trailers.insert(*name, value.parse().unwrap());
    }
    Part::Trailers(trailers)
}

/// `google.rpc.Status` with an `ErrorInfo` and a detail of a type nobody knows, in base64 without padding.
const DETAILS: &str = "CAkSBGhlcmUaQQoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLkVycm9ySW5mbxIVCgZCVVJOVFMSC2xpYnJhcnkub3JnGiMKHXR5cGUuZ29vZ2xlYXBpcy5jb20veC5Vbmtub3duEgIIAQ";

pub(super) async fn answer(request: hyper::Request<Incoming>) -> Response<Body> {
    let stream = request.uri().path().ends_with("/Stream");
    let body = whole(request).await;
    let kind = Named::decode(body.get(5..).unwrap_or_default())
        .unwrap()
        .name;
    let book = Book {
        title: "x".repeat(2000),
        ..Book::default()
    }
    .encode_to_vec();
    let ok = || trailers(&[("grpc-status", "0")]);
    let mut head = Response::builder().header("content-type", "application/grpc");
    let failed = |fields: &[(&'static str, &str)]| vec![trailers(fields)];
    let parts = match kind.as_str() {
        "garbage" => vec![Part::Data(Bytes::from_static(b"HTTP/1.1 200 OK\r\n")), ok()],
        "html" => {
            head = Response::builder().header("content-type", "text/html");
            vec![Part::Data(Bytes::from_static(b"<html>"))]
        }
        "503" => {
            head = Response::builder()
                .status(503)
                .header("content-type", "text/plain");
            Vec::new()
        }
        "no-trailers" => vec![framed(0, &book)],
        "large" => vec![
            Part::Data(Bytes::from_static(&[0, 0x10, 0, 0, 0])),
            Part::Pause,
        ],
        "gzip" => {
            head = head.header("grpc-encoding", "gzip");
            vec![framed(1, &gzip(&book)), ok()]
        }
        "gzip-unsaid" => vec![framed(1, &gzip(&book)), ok()],
        "bomb" => vec![framed(1, &gzip(&vec![0; 8 << 20])), ok()],
        "snappy" => {
            head = head.header("grpc-encoding", "snappy");
            vec![framed(1, b"????"), ok()]
        }
        "reset" if stream => vec![framed(0, &book), Part::Pause, Part::Reset],
        "reset" => vec![Part::Pause, Part::Reset],
        "cut" => vec![
            Part::Data(Bytes::from_static(&[0, 0, 0, 0, 9, 1])),
            Part::Pause,
        ],
        "status-99" => failed(&[("grpc-status", "99"), ("grpc-message", "odd")]),
        "bad-message" => failed(&[("grpc-status", "5"), ("grpc-message", "100% %zz %E2%82%AC")]),
        "bad-details" => failed(&[
            ("grpc-status", "5"),
            ("grpc-message", "here"),
            ("grpc-status-details-bin", "!!!!"),
        ]),
        "details" => failed(&[
            ("grpc-status", "9"),
            ("grpc-message", "here"),
            ("grpc-status-details-bin", DETAILS),
        ]),
        "two" => vec![framed(0, &book), framed(0, &book), ok()],
        "none" => vec![ok()],
        "no-message" => vec![framed(0, b"\xff\xff\xff"), ok()],
        other => panic!("no such fault: {other}"),
    };
    let parts = Parts {
        parts: parts.into_iter(),
        pause: None,
    };
    head.body(Body::new(parts)).unwrap()
}
