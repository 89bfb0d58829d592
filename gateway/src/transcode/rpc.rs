//! `google.rpc` error details: those that refusals of ours carry, and the definitions by which a service's are shown as JSON even
//! where its own descriptors lack them.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message as _;

use super::Schema;
use super::status::{Code, Detail, Status};
use crate::denial::Denial;
use crate::quota::Unpaid;

/// Whose reasons ours are (`ErrorInfo.domain`).
const DOMAIN: &str = "tollgate";

/// The definitions in `google/rpc/error_details.proto`.
pub static ERROR_DETAILS: LazyLock<Option<Schema>> = LazyLock::new(|| {
    let set = FileSet {
        file: vec![duration_file(), details_file()],
    };
    Schema::read(&set.encode_to_vec()).ok()
});

/// The status that tells of a refusal, with the details that programs act on.
pub fn status_of(denial: &Denial, request_id: &str) -> Status {
    let mut status = Status::new(
        Code::of(u64::from(denial.grpc_status())),
        denial.detail().into_owned(),
    );
    let reason = denial.code().to_ascii_uppercase();
    status.details.push(Detail::new(
        "google.rpc.ErrorInfo",
        &ErrorInfo {
            reason,
            domain: DOMAIN.to_owned(),
            metadata: HashMap::from([("requestId".to_owned(), request_id.to_owned())]),
        },
    ));
    match denial {
        Denial::Unfit(unfit) if !unfit.field.is_empty() => {
            let violation = FieldViolation {
                field: unfit.field.clone(),
                description: unfit.what.clone().into_owned(),
            };
            let field_violations = vec![violation];
            let bad = BadRequest { field_violations };
            status
                .details
                .push(Detail::new("google.rpc.BadRequest", &bad));
        }
        Denial::Unpaid(why) => {
            if let Unpaid::Exceeded(exceeded) = &**why {
                let violation = QuotaViolation {
                    subject: exceeded.limit.name.to_string(),
                    description: exceeded.to_string(),
                };
                let violations = vec![violation];
                let failure = QuotaFailure { violations };
                status
                    .details
                    .push(Detail::new("google.rpc.QuotaFailure", &failure));
            }
        }
        Denial::TermsNotAccepted { terms, link, .. } => {
            let link = Link {
                description: format!("the terms `{terms}`"),
                url: link.clone(),
            };
            let help = Help { links: vec![link] };
            status.details.push(Detail::new("google.rpc.Help", &help));
        }
        _ => {}
    }
    status.details.extend(retry_info(denial));
    status
}

/// What `Retry-After` says.
fn retry_info(denial: &Denial) -> Option<Detail> {
    let fields = denial.fields();
    let (_, seconds) = fields.iter().find(|(name, _)| *name == "retry-after")?;
    let retry_delay = Some(Duration {
        seconds: seconds.parse().ok()?,
        nanos: 0,
    });
    Some(Detail::new(
        "google.rpc.RetryInfo",
        &RetryInfo { retry_delay },
    ))
}

#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(map = "string, string", tag = "3")]
    metadata: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Duration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Duration>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<FieldViolation>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FieldViolation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct QuotaFailure {
    #[prost(message, repeated, tag = "1")]
    violations: Vec<QuotaViolation>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct QuotaViolation {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, tag = "2")]
    description: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Help {
    #[prost(message, repeated, tag = "1")]
    links: Vec<Link>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Link {
    #[prost(string, tag = "1")]
    description: String,
    #[prost(string, tag = "2")]
    url: String,
}

/// `google.protobuf.FileDescriptorSet`, as far as the definitions need it.
#[derive(Clone, PartialEq, prost::Message)]
struct FileSet {
    #[prost(message, repeated, tag = "1")]
    file: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    package: String,
    #[prost(string, repeated, tag = "3")]
    dependency: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    message_type: Vec<Definition>,
    #[prost(string, tag = "12")]
    syntax: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Definition {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    field: Vec<FieldDefinition>,
    #[prost(message, repeated, tag = "3")]
    nested_type: Vec<Definition>,
    #[prost(message, optional, tag = "7")]
    options: Option<Options>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Options {
    #[prost(bool, tag = "7")]
    map_entry: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FieldDefinition {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    number: i32,
    #[prost(int32, tag = "4")]
    label: i32,
    #[prost(int32, tag = "5")]
    kind: i32,
    #[prost(string, optional, tag = "6")]
    type_name: Option<String>,
}

fn duration_file() -> File {
    let number = |name: &str, number, kind| FieldDefinition {
        name: name.to_owned(),
        number,
        label: 1,
        kind,
        type_name: None,
    };
    File {
        name: "google/protobuf/duration.proto".to_owned(),
        package: "google.protobuf".to_owned(),
        dependency: Vec::new(),
        message_type: vec![Definition {
            name: "Duration".to_owned(),
            // int64 and int32.
            field: vec![number("seconds", 1, 3), number("nanos", 2, 5)],
            ..Definition::default()
        }],
        syntax: "proto3".to_owned(),
    }
}

/// Message by message: name, fields (`*` before a repeated one, `name:Type` for messages), messages within in the same form.
fn details_file() -> File {
    let message = |name: &str, fields: &[&str], nested: Vec<Definition>| Definition {
        name: name.to_owned(),
        field: (1..)
            .zip(fields)
            .map(|(number, field)| field_of(number, field))
            .collect(),
        nested_type: nested,
        options: None,
    };
    let rpc = |name: &str| format!(".google.rpc.{name}");
    let several = |name: &str, field: &str, inner: &str, fields: &[&str]| {
        let repeated = format!("*{field}:{}", rpc(&format!("{name}.{inner}")));
        message(name, &[&repeated], vec![message(inner, fields, Vec::new())])
    };
    let mut entry = message("MetadataEntry", &["key", "value"], Vec::new());
    entry.options = Some(Options { map_entry: true });
    let metadata = format!("*metadata:{}", rpc("ErrorInfo.MetadataEntry"));
    File {
        name: "google/rpc/error_details.proto".to_owned(),
        package: "google.rpc".to_owned(),
        dependency: vec!["google/protobuf/duration.proto".to_owned()],
        message_type: vec![
            message("ErrorInfo", &["reason", "domain", &metadata], vec![entry]),
            message(
                "RetryInfo",
                &["retry_delay:.google.protobuf.Duration"],
                Vec::new(),
            ),
            message("DebugInfo", &["*stack_entries", "detail"], Vec::new()),
            several(
                "QuotaFailure",
                "violations",
                "Violation",
                &["subject", "description"],
            ),
            several(
                "PreconditionFailure",
                "violations",
                "Violation",
                &["type", "subject", "description"],
            ),
            several(
                "BadRequest",
                "field_violations",
                "FieldViolation",
                &[
                    "field",
                    "description",
                    "reason",
                    "localized_message:.google.rpc.LocalizedMessage",
                ],
            ),
            message("RequestInfo", &["request_id", "serving_data"], Vec::new()),
            message(
                "ResourceInfo",
                &["resource_type", "resource_name", "owner", "description"],
                Vec::new(),
            ),
            several("Help", "links", "Link", &["description", "url"]),
            message("LocalizedMessage", &["locale", "message"], Vec::new()),
        ],
        syntax: "proto3".to_owned(),
    }
}

fn field_of(number: i32, written: &str) -> FieldDefinition {
    let (label, written) = match written.strip_prefix('*') {
        Some(rest) => (3, rest),
        None => (1, written),
    };
    let (name, type_name) = match written.split_once(':') {
        Some((name, type_name)) => (name, Some(type_name.to_owned())),
        None => (written, None),
    };
    FieldDefinition {
        name: name.to_owned(),
        number,
        label,
        // A message, or text.
        kind: if type_name.is_some() { 11 } else { 9 },
        type_name,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_a_schema() {
        let schema = ERROR_DETAILS.as_ref().unwrap();
        for name in [
            "ErrorInfo",
            "RetryInfo",
            "BadRequest",
            "Help",
            "QuotaFailure",
        ] {
            assert!(
                schema.message(&format!("google.rpc.{name}")).is_some(),
                "{name}"
            );
        }
    }

    #[test]
    fn a_refusal_says_why_and_when_to_come_back() {
        let status = status_of(&Denial::NoEndpoint, "id");
        assert_eq!(status.code, Code::Unavailable);
        let names: Vec<_> = status.details.iter().map(Detail::type_name).collect();
        assert_eq!(names, ["google.rpc.ErrorInfo", "google.rpc.RetryInfo"]);
        let info = ErrorInfo::decode(&*status.details.first().unwrap().value).unwrap();
        assert_eq!((&*info.reason, &*info.domain), ("NO_ENDPOINT", "tollgate"));
    }
}
