//! Errors as JSON: `google.rpc.Status`, AIP-193, and Connect's own.
//!
//! Details are shown as messages where their type is known, by the service's descriptors or by `rpc`, and as base64 where not: a type
//! that nobody knows never hides the error.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tollgate_policy::settings::ErrorShape;

use super::rpc::ERROR_DETAILS;
use super::status::{BASE64, Detail, Status};
use super::{Profile, Schema, write_json};

/// Messages whose JSON is not an object of their fields: within an Any it stands under `value`.
const SPECIAL: [&str; 14] = [
    "Any",
    "BoolValue",
    "BytesValue",
    "DoubleValue",
    "Duration",
    "FieldMask",
    "FloatValue",
    "Int32Value",
    "ListValue",
    "StringValue",
    "Struct",
    "Timestamp",
    "UInt32Value",
    "Value",
];

/// The body of an error to a caller of REST. `http`: the status it is sent with.
pub fn rest(shape: ErrorShape, http: u16, status: &Status, schema: Option<&Schema>) -> Vec<u8> {
    let message = quoted(&status.message);
    let details: Vec<String> = status.details.iter().map(|it| any(it, schema)).collect();
    let details = details.join(",");
    let number = status.code.number();
    let body = match shape {
        ErrorShape::Status => {
            format!("{{\"code\":{number},\"message\":{message},\"details\":[{details}]}}")
        }
        ErrorShape::Aip193 => format!(
            "{{\"error\":{{\"code\":{http},\"status\":\"{}\",\"message\":{message},\"details\":[{details}]}}}}",
            status.code.name()
        ),
    };
    body.into_bytes()
}

/// The last element of a stream that did not end well: `{"error":…}`, whatever the shape.
pub fn late(shape: ErrorShape, status: &Status, schema: Option<&Schema>) -> Vec<u8> {
    let body = rest(shape, status.code.http(), status, schema);
    match shape {
        ErrorShape::Aip193 => body,
        ErrorShape::Status => [b"{\"error\":", &*body, b"}"].concat(),
    }
}

/// The error object of Connect.
pub fn connect(status: &Status, schema: Option<&Schema>) -> Vec<u8> {
    let code = status.code.connect_name();
    let mut body = format!("{{\"code\":\"{code}\"");
    if !status.message.is_empty() {
        body.push_str(",\"message\":");
        body.push_str(&quoted(&status.message));
    }
    if !status.details.is_empty() {
        let details: Vec<String> = status
            .details
            .iter()
            .map(|it| connect_detail(it, schema))
            .collect();
        body.push_str(&format!(",\"details\":[{}]", details.join(",")));
    }
    body.push('}');
    body.into_bytes()
}

fn connect_detail(detail: &Detail, schema: Option<&Schema>) -> String {
    let kind = quoted(detail.type_name());
    let value = BASE64.encode(&detail.value);
    match shown(detail, schema) {
        Some(debug) => format!("{{\"type\":{kind},\"value\":\"{value}\",\"debug\":{debug}}}"),
        None => format!("{{\"type\":{kind},\"value\":\"{value}\"}}"),
    }
}

/// A detail as ProtoJSON has it for Any.
fn any(detail: &Detail, schema: Option<&Schema>) -> String {
    let kind = quoted(&detail.type_url);
    let special = detail
        .type_name()
        .strip_prefix("google.protobuf.")
        .is_some_and(|name| SPECIAL.contains(&name) || name.ends_with("64Value"));
    match shown(detail, schema) {
        Some(json) if special => format!("{{\"@type\":{kind},\"value\":{json}}}"),
        Some(json) => match json.strip_prefix('{').map(str::trim_start) {
            Some("}") => format!("{{\"@type\":{kind}}}"),
            Some(members) => format!("{{\"@type\":{kind},{members}"),
            None => format!("{{\"@type\":{kind},\"value\":{json}}}"),
        },
        None => {
            let value = STANDARD.encode(&detail.value);
            format!("{{\"@type\":{kind},\"value\":\"{value}\"}}")
        }
    }
}

/// A detail's message as JSON, by the service's descriptors or ours.
fn shown(detail: &Detail, schema: Option<&Schema>) -> Option<String> {
    let known = [schema, ERROR_DETAILS.as_ref()];
    known.into_iter().flatten().find_map(|schema| {
        let message = schema.message(detail.type_name())?;
        let mut out = Vec::new();
        write_json(
            schema,
            message,
            &Profile::default(),
            &detail.value,
            &mut out,
        )
        .ok()?;
        String::from_utf8(out).ok()
    })
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::super::rpc;
    use super::super::status::Code;
    use super::*;
    use crate::denial::Denial;
    use crate::transcode::unfit::{Fault, Unfit};

    fn json(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    fn refused() -> Status {
        let unfit = Unfit {
            field: "book.items[3].price".to_owned(),
            what: "expected a number".into(),
            fault: Fault::Content,
        };
        rpc::status_of(&Denial::Unfit(Box::new(unfit)), "id")
    }

    /// Must-have: JSON errors in one shape with the path of the field, as google.rpc.Status or AIP-193.
    #[test]
    fn an_error_has_one_shape_in_each_protocol_and_names_the_field() {
        let status = refused();
        let body = json(&rest(ErrorShape::Status, 400, &status, None));
        assert_eq!(body["code"], 3);
        assert_eq!(body["message"], "book.items[3].price: expected a number");
        assert_eq!(body["details"][0]["reason"], "INVALID_MESSAGE");
        assert_eq!(body["details"][0]["metadata"]["requestId"], "id");
        assert_eq!(
            body["details"][1]["@type"],
            "type.googleapis.com/google.rpc.BadRequest"
        );
        assert_eq!(
            body["details"][1]["fieldViolations"][0]["field"],
            "book.items[3].price"
        );
        let aip = json(&rest(ErrorShape::Aip193, 400, &status, None));
        assert_eq!(
            (&aip["error"]["code"], &aip["error"]["status"]),
            (&400.into(), &"INVALID_ARGUMENT".into())
        );
        let own = json(&connect(&status, None));
        assert_eq!(own["code"], "invalid_argument");
        assert_eq!(own["details"][1]["type"], "google.rpc.BadRequest");
        assert!(own["details"][1]["debug"]["fieldViolations"].is_array());
        for shape in [ErrorShape::Status, ErrorShape::Aip193] {
            assert!(json(&late(shape, &status, None))["error"].is_object());
        }
    }

    /// Must-have: details of unknown types do not hide the error.
    #[test]
    fn a_detail_of_an_unknown_type_or_that_is_garbage_does_not_hide_the_error() {
        let mut status = Status::new(Code::NotFound, "no \"such\" book");
        for (kind, value) in [
            ("x.Unknown", &b"\x08\x01"[..]),
            ("google.rpc.ErrorInfo", b"\xff\xff"),
            ("", b""),
        ] {
            status.details.push(Detail {
                type_url: format!("type.googleapis.com/{kind}"),
                value: value.to_vec(),
            });
        }
        let body = json(&rest(ErrorShape::Status, 404, &status, None));
        assert_eq!(body["message"], "no \"such\" book");
        assert_eq!(body["details"][0]["value"], "CAE=");
        assert_eq!(body["details"][1]["value"], "//8=");
        assert_eq!(json(&connect(&status, None))["details"][0]["value"], "CAE");
    }
}
