//! Refusals of Tollgate's own, in the words of the protocol that the caller speaks.
//!
//! For what is refused before a call is planned; later, `outlet` does it. Callers of REST get the one shape of the API's errors where
//! a gRPC service stands behind it, so that they need one parser, and problem+json where not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::dialect::{Dialect, Encoding};
use super::face::Face;
use super::frame::{self, CONNECT_END, WEB_TRAILERS};
use super::status::Status;
use super::{problem, rpc};
use crate::denial::Denial;

/// A refusal, ready to be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Of the body.
    pub content_type: &'static str,
    /// Whole.
    pub body: Vec<u8>,
}

/// What the caller is told; `None` where it is told in HTTP's own words, or in gRPC's. `operation`: as far as it was found.
pub fn refusal(
    dialect: Dialect,
    denial: &Denial,
    face: Option<(&Face, Option<usize>)>,
    request_id: &str,
) -> Option<Refusal> {
    if denial.status() == 204 {
        return None;
    }
    let schema = face.map(|(face, _)| &*face.schema);
    let status = rpc::status_of(denial, request_id);
    let http = http_status(dialect, denial, &status);
    Some(match dialect {
        Dialect::Grpc => return None,
        Dialect::Web { text } => web(&status, text),
        Dialect::Connect(_) | Dialect::ConnectGet(_) => Refusal {
            status: http,
            content_type: "application/json",
            body: problem::connect(&status, schema),
        },
        Dialect::ConnectStream(encoding) => {
            let error = problem::connect(&status, schema);
            let end = [b"{\"error\":", &*error, b"}"].concat();
            let mut body = Vec::new();
            // Its length is that of a few words.
            let _fits = frame::write(CONNECT_END, &end, &mut body);
            Refusal {
                status: 200,
                content_type: match encoding {
                    Encoding::Proto => "application/connect+proto",
                    Encoding::Json | Encoding::Unknown => "application/connect+json",
                },
                body,
            }
        }
        Dialect::Rest | Dialect::Socket => {
            let (face, operation) = face?;
            let method = operation.and_then(|operation| face.method(operation));
            let shape = method.map_or(face.errors, |method| method.errors);
            Refusal {
                status: http,
                content_type: "application/json",
                body: problem::rest(shape, http, &status, schema),
            }
        }
    })
}

/// The HTTP status of a refusal: a client of Connect knows the code by it.
pub fn http_status(dialect: Dialect, denial: &Denial, status: &Status) -> u16 {
    match dialect {
        // Neither is about the call itself: HTTP's own word says more.
        Dialect::Connect(_) | Dialect::ConnectGet(_) if matches!(denial.status(), 405 | 415) => {
            denial.status()
        }
        Dialect::Connect(_) | Dialect::ConnectGet(_) => status.code.http(),
        Dialect::Grpc
        | Dialect::Web { .. }
        | Dialect::ConnectStream(_)
        | Dialect::Rest
        | Dialect::Socket => denial.status(),
    }
}

/// Nothing but trailers, in the body: every client looks there.
fn web(status: &Status, text: bool) -> Refusal {
    let mut lines = format!(
        "grpc-status: {}\r\ngrpc-message: {}\r\n",
        status.code.number(),
        status.message_field()
    );
    if let Some(details) = status.details_field() {
        lines.push_str(&format!("grpc-status-details-bin: {details}\r\n"));
    }
    let mut body = Vec::new();
    // Its length is that of a few words.
    let _fits = frame::write(WEB_TRAILERS, lines.as_bytes(), &mut body);
    Refusal {
        status: 200,
        content_type: match text {
            true => "application/grpc-web-text+proto",
            false => "application/grpc-web+proto",
        },
        body: match text {
            true => STANDARD.encode(&body).into_bytes(),
            false => body,
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn each_caller_is_refused_in_its_own_words() {
        let denial = Denial::CredentialRequired(Vec::new());
        let told = |dialect| refusal(dialect, &denial, None, "id");
        let web = told(Dialect::Web { text: false }).unwrap();
        assert_eq!((web.status, web.body.first()), (200, Some(&0x80)));
        assert!(String::from_utf8_lossy(&web.body).contains("grpc-status: 16\r\n"));
        let text = told(Dialect::Web { text: true }).unwrap();
        assert_eq!(STANDARD.decode(text.body).unwrap(), web.body);
        let connect = told(Dialect::Connect(Encoding::Json)).unwrap();
        assert_eq!(connect.status, 401);
        assert!(connect.body.starts_with(b"{\"code\":\"unauthenticated\""));
        let stream = told(Dialect::ConnectStream(Encoding::Proto)).unwrap();
        assert_eq!((stream.status, stream.body.first()), (200, Some(&2)));
        assert_eq!(told(Dialect::Rest), None);
        assert_eq!(told(Dialect::Grpc), None);
        assert_eq!(
            refusal(
                Dialect::Connect(Encoding::Json),
                &Denial::MethodsAsked(Vec::new()),
                None,
                ""
            ),
            None
        );
    }
}
