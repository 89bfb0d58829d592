//! `google.rpc` error details: those that refusals of ours carry, and the definitions by which a service's are shown as JSON even
//! where its own descriptors lack them.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MessageOptions,
};

use super::Schema;
use super::status::{Code, Detail, Status};
use crate::denial::Denial;
use crate::quota::Unpaid;

/// Whose reasons ours are (`ErrorInfo.domain`).
const DOMAIN: &str = "tollgate";

/// The definitions in `google/rpc/error_details.proto`.
pub static ERROR_DETAILS: LazyLock<Option<Schema>> = LazyLock::new(|| {
    let set = FileDescriptorSet {
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

fn duration_file() -> FileDescriptorProto {
    let number = |name: &str, number, kind: Type| FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(kind.into()),
        ..FieldDescriptorProto::default()
    };
    FileDescriptorProto {
        name: Some("google/protobuf/duration.proto".to_owned()),
        package: Some("google.protobuf".to_owned()),
        message_type: vec![DescriptorProto {
            name: Some("Duration".to_owned()),
            field: vec![
                number("seconds", 1, Type::Int64),
                number("nanos", 2, Type::Int32),
            ],
            ..DescriptorProto::default()
        }],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    }
}

/// Message by message: name, fields (`*` before a repeated one, `name:Type` for messages), messages within in the same form.
fn details_file() -> FileDescriptorProto {
    let message = |name: &str, fields: &[&str], nested: Vec<DescriptorProto>| DescriptorProto {
        name: Some(name.to_owned()),
        field: (1..)
            .zip(fields)
            .map(|(number, field)| field_of(number, field))
            .collect(),
        nested_type: nested,
        ..DescriptorProto::default()
    };
    let several = |name: &str, field: &str, inner: &str, fields: &[&str]| {
        let repeated = format!("*{field}:.google.rpc.{name}.{inner}");
        message(name, &[&repeated], vec![message(inner, fields, Vec::new())])
    };
    let mut entry = message("MetadataEntry", &["key", "value"], Vec::new());
    entry.options = Some(MessageOptions {
        map_entry: Some(true),
        ..MessageOptions::default()
    });
    let metadata = "*metadata:.google.rpc.ErrorInfo.MetadataEntry";
    let violation = ["type", "subject", "description"];
    let field_violation = [
        "field",
        "description",
        "reason",
        "localized_message:.google.rpc.LocalizedMessage",
    ];
    let resource = ["resource_type", "resource_name", "owner", "description"];
    let delay = "retry_delay:.google.protobuf.Duration";
    let quota = ["subject", "description"];
    FileDescriptorProto {
        name: Some("google/rpc/error_details.proto".to_owned()),
        package: Some("google.rpc".to_owned()),
        dependency: vec!["google/protobuf/duration.proto".to_owned()],
        message_type: vec![
            message("ErrorInfo", &["reason", "domain", metadata], vec![entry]),
            message("RetryInfo", &[delay], Vec::new()),
            message("DebugInfo", &["*stack_entries", "detail"], Vec::new()),
            several("QuotaFailure", "violations", "Violation", &quota),
            several("PreconditionFailure", "violations", "Violation", &violation),
            several(
                "BadRequest",
                "field_violations",
                "FieldViolation",
                &field_violation,
            ),
            message("RequestInfo", &["request_id", "serving_data"], Vec::new()),
            message("ResourceInfo", &resource, Vec::new()),
            several("Help", "links", "Link", &["description", "url"]),
            message("LocalizedMessage", &["locale", "message"], Vec::new()),
        ],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    }
}

fn field_of(number: i32, written: &str) -> FieldDescriptorProto {
    let (label, written) = match written.strip_prefix('*') {
        Some(rest) => (Label::Repeated, rest),
        None => (Label::Optional, written),
    };
    let (name, type_name) = match written.split_once(':') {
        Some((name, type_name)) => (name, Some(type_name.to_owned())),
        None => (written, None),
    };
    let kind = match type_name {
        Some(_) => Type::Message,
        None => Type::String,
    };
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(label.into()),
        r#type: Some(kind.into()),
        type_name,
        ..FieldDescriptorProto::default()
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
