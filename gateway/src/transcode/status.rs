//! How a gRPC call ended: code, message, details; read from what a service sent, and told in other protocols' words.
//!
//! Promises that a call without a proper status still has one (the gRPC specification says which), that a message or details that
//! are malformed never hide the code, and that a number outside the enumeration is `UNKNOWN`. Not here: JSON (`problem`).

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use h2::Reason;
use http::HeaderMap;

/// Reads standard base64 with or without padding, as `-bin` values come.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Longest `grpc-message` that is shown, in bytes: it is a service's text, not a document.
const LONGEST_MESSAGE: usize = 8 * 1024;

/// `google.rpc.Code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub enum Code {
    Ok,
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

/// Number, name, name in Connect, HTTP status (google/rpc/code.proto).
const CODES: [(Code, &str, &str, u16); 17] = [
    (Code::Ok, "OK", "ok", 200),
    (Code::Cancelled, "CANCELLED", "canceled", 499),
    (Code::Unknown, "UNKNOWN", "unknown", 500),
    (
        Code::InvalidArgument,
        "INVALID_ARGUMENT",
        "invalid_argument",
        400,
    ),
    (
        Code::DeadlineExceeded,
        "DEADLINE_EXCEEDED",
        "deadline_exceeded",
        504,
    ),
    (Code::NotFound, "NOT_FOUND", "not_found", 404),
    (Code::AlreadyExists, "ALREADY_EXISTS", "already_exists", 409),
    (
        Code::PermissionDenied,
        "PERMISSION_DENIED",
        "permission_denied",
        403,
    ),
    (
        Code::ResourceExhausted,
        "RESOURCE_EXHAUSTED",
        "resource_exhausted",
        429,
    ),
    (
        Code::FailedPrecondition,
        "FAILED_PRECONDITION",
        "failed_precondition",
        400,
    ),
    (Code::Aborted, "ABORTED", "aborted", 409),
    (Code::OutOfRange, "OUT_OF_RANGE", "out_of_range", 400),
    (Code::Unimplemented, "UNIMPLEMENTED", "unimplemented", 501),
    (Code::Internal, "INTERNAL", "internal", 500),
    (Code::Unavailable, "UNAVAILABLE", "unavailable", 503),
    (Code::DataLoss, "DATA_LOSS", "data_loss", 500),
    (
        Code::Unauthenticated,
        "UNAUTHENTICATED",
        "unauthenticated",
        401,
    ),
];

impl Code {
    /// Of a number; outside the enumeration it is [`Code::Unknown`].
    pub fn of(number: u64) -> Self {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        CODES.get(index).map_or(Self::Unknown, |row| row.0)
    }

    /// As in `grpc-status`.
    pub fn number(self) -> u8 {
        let index = CODES.iter().position(|row| row.0 == self);
        index.and_then(|it| u8::try_from(it).ok()).unwrap_or(2)
    }

    /// As in `google.rpc.Code`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// As in errors of Connect.
    pub fn connect_name(self) -> &'static str {
        self.row().2
    }

    /// The HTTP status it is told by.
    pub fn http(self) -> u16 {
        self.row().3
    }

    /// What an answer that is not gRPC's means (gRPC, "HTTP to gRPC Status Code Mapping").
    pub fn of_http(status: u16) -> Self {
        match status {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502..=504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }

    /// What the reset of a stream means (gRPC over HTTP/2, "Errors").
    pub fn of_reset(reason: Reason) -> Self {
        match reason {
            Reason::REFUSED_STREAM => Self::Unavailable,
            Reason::CANCEL => Self::Cancelled,
            Reason::ENHANCE_YOUR_CALM => Self::ResourceExhausted,
            Reason::INADEQUATE_SECURITY => Self::PermissionDenied,
            _ => Self::Internal,
        }
    }

    /// Whether the service, and not the call, is at fault: such answers count against the endpoint.
    pub fn blames_service(self) -> bool {
        matches!(
            self,
            Self::Unknown | Self::Internal | Self::Unavailable | Self::DataLoss
        )
    }

    fn row(self) -> &'static (Self, &'static str, &'static str, u16) {
        const UNKNOWN: &(Code, &str, &str, u16) = &(Code::Unknown, "UNKNOWN", "unknown", 500);
        CODES.iter().find(|row| row.0 == self).unwrap_or(UNKNOWN)
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Why.
    pub code: Code,
    /// For people.
    pub message: Cow<'static, str>,
    /// Serialized `google.protobuf.Any`, as in `google.rpc.Status.details`.
    pub details: Vec<Detail>,
}

/// One `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Detail {
    /// `type.googleapis.com/google.rpc.RetryInfo`.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// Serialized message of that type.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

impl Detail {
    /// A detail of the type `name`.
    pub fn new(name: &str, message: &impl prost::Message) -> Self {
        Self {
            type_url: format!("type.googleapis.com/{name}"),
            value: message.encode_to_vec(),
        }
    }

    /// The name of its type, without what stands before the last slash.
    pub fn type_name(&self) -> &str {
        self.type_url.rsplit('/').next().unwrap_or_default()
    }
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

impl Status {
    /// Without details.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Vec::new(),
        }
    }

    /// From trailers, or the head of an answer that is nothing but trailers; `None` where there is no `grpc-status`.
    pub fn read(fields: &HeaderMap) -> Option<Self> {
        let code = fields.get("grpc-status")?.to_str().unwrap_or("2");
        let code = Code::of(code.parse().unwrap_or(2));
        let message = fields.get("grpc-message").map(|it| it.as_bytes());
        let details = fields.get("grpc-status-details-bin");
        Some(Self {
            code,
            message: Cow::Owned(percent_decoded(message.unwrap_or_default())),
            details: details.map_or_else(Vec::new, |it| details_of(it.as_bytes())),
        })
    }

    /// `grpc-status-details-bin`; `None` without details.
    pub fn details_field(&self) -> Option<String> {
        if self.details.is_empty() {
            return None;
        }
        let status = RpcStatus {
            code: i32::from(self.code.number()),
            message: self.message.to_string(),
            details: self.details.clone(),
        };
        Some(BASE64.encode(prost::Message::encode_to_vec(&status)))
    }

    /// `grpc-message`, percent-encoded.
    pub fn message_field(&self) -> String {
        percent_encoded(&self.message)
    }

    /// Whether the call succeeded.
    pub fn is_ok(&self) -> bool {
        self.code == Code::Ok
    }
}

/// Details that cannot be read are none: they must not hide the error.
fn details_of(value: &[u8]) -> Vec<Detail> {
    let decoded = BASE64.decode(value).ok();
    let status = decoded.and_then(|bytes| <RpcStatus as prost::Message>::decode(&*bytes).ok());
    status.map_or_else(Vec::new, |status| status.details)
}

/// What was percent-encoded; a `%` without two hex digits stands for itself, and bytes that are no UTF-8 are replaced.
fn percent_decoded(value: &[u8]) -> String {
    let value = value.get(..LONGEST_MESSAGE).unwrap_or(value);
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let decoded = match (first, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match decoded {
            Some((high, low)) => {
                out.push(high << 4 | low);
                rest = after.get(2..).unwrap_or_default();
            }
            None => out.push(*first),
        }
    }
    String::from_utf8(out)
        .unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned())
}

/// As gRPC over HTTP/2 demands for `grpc-message`.
pub fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in pairs {
            fields.insert(*name, value.parse().unwrap());
        }
        fields
    }

    /// Must-have: gRPC status to HTTP as tabled: 9 and 11 are 400.
    #[test]
    fn each_code_has_its_number_and_http_status() {
        let expected = [
            200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
        ];
        for (number, http) in expected.into_iter().enumerate() {
            let code = Code::of(u64::try_from(number).unwrap());
            assert_eq!(usize::from(code.number()), number);
            assert_eq!(code.http(), http, "{}", code.name());
        }
        for number in [17, 99, u64::MAX] {
            assert_eq!(Code::of(number), Code::Unknown);
        }
    }

    /// Must-have: a status outside of the enumeration is UNKNOWN, 500.
    #[test]
    fn a_status_outside_the_enumeration_or_malformed_is_unknown() {
        for text in ["17", "-1", "abc", "", "99999999999999999999999"] {
            let status = Status::read(&fields(&[("grpc-status", text)])).unwrap();
            assert_eq!(status.code, Code::Unknown, "{text}");
        }
        assert_eq!(Status::read(&HeaderMap::new()), None);
    }

    /// Must-have: grpc-message is percent-decoded.
    #[test]
    fn a_message_is_percent_decoded_and_what_is_malformed_stays() {
        let table = [
            ("a%20b%0Ac", "a b\nc"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("%E2%82%AC", "€"),
            ("%ff", "\u{fffd}"),
            ("%2525", "%25"),
        ];
        for (written, read) in table {
            let fields = fields(&[("grpc-status", "5"), ("grpc-message", written)]);
            assert_eq!(Status::read(&fields).unwrap().message, read);
        }
        for text in ["plain", "100% \n€", ""] {
            assert_eq!(percent_decoded(percent_encoded(text).as_bytes()), text);
        }
    }

    /// Must-have: details with and without padding.
    #[test]
    fn details_are_read_with_and_without_padding_and_never_hide_the_error() {
        let mut status = Status::new(Code::NotFound, "gone");
        status.details.push(Detail {
            type_url: "type.googleapis.com/a.B".to_owned(),
            value: vec![8, 1, 2, 3],
        });
        let unpadded = status.details_field().unwrap();
        let padded = format!("{unpadded}{}", "=".repeat((4 - unpadded.len() % 4) % 4));
        for field in [&unpadded, &padded] {
            let fields = fields(&[
                ("grpc-status", "5"),
                ("grpc-message", "gone"),
                ("grpc-status-details-bin", field),
            ]);
            assert_eq!(Status::read(&fields).unwrap(), status);
        }
        for field in ["!!!", "AAAA", "/////"] {
            let fields = fields(&[("grpc-status", "5"), ("grpc-status-details-bin", field)]);
            let read = Status::read(&fields).unwrap();
            assert_eq!((read.code, read.details.len()), (Code::NotFound, 0));
        }
    }
}
