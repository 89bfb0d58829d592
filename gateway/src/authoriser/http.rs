//! `ext_authz` over HTTP: the original's method, path and chosen fields; 2xx means yes.

use ::http::header::{HeaderName, HeaderValue};
use ::http::{Method, Uri};
use bytes::Bytes;
use tollgate_policy::settings::AuthoriserConfig;

use super::Question;
use crate::remote::{Bounds, Inquiry, ask};

/// Bytes of an answer that are read; only its status counts.
const LARGEST: usize = 64 * 1024;

pub(super) async fn check(
    config: &AuthoriserConfig,
    question: &Question<'_>,
) -> Result<bool, String> {
    let url: Uri = target(config, question)
        .parse()
        .map_err(|_| "the authoriser's URL cannot be built".to_owned())?;
    let mut inquiry = Inquiry {
        method: Method::from_bytes(question.method.as_bytes()).unwrap_or(Method::GET),
        url,
        fields: Vec::new(),
        body: Bytes::new(),
    };
    let told = [
        ("x-tollgate-consumer", question.consumer),
        ("x-tollgate-operation", question.operation),
        ("x-forwarded-host", question.host),
        ("x-request-id", question.request_id),
    ];
    for (name, value) in told.iter().chain(&question.fields) {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            inquiry.fields.push((name, value));
        }
    }
    let bounds = Bounds {
        deadline: config.deadline,
        bytes: LARGEST,
        // The operator named it; it usually stands beside the gateway.
        allow_private: true,
    };
    let told = ask(inquiry, bounds).await?;
    match told.status {
        status if status.is_success() => Ok(true),
        // A judge in trouble has not judged.
        status if status.is_server_error() => Err(format!("answered {status}")),
        _ => Ok(false),
    }
}

fn target(config: &AuthoriserConfig, question: &Question<'_>) -> String {
    let base = config.url.trim_end_matches('/');
    match question.query {
        "" => format!("{base}{}", question.path),
        query => format!("{base}{}?{query}", question.path),
    }
}
