//! `ext_authz` over HTTP: the original's method, path and chosen fields; 2xx means yes.

use ::http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use ::http::{Method, Uri};
use bytes::Bytes;
use tollgate_policy::settings::AuthoriserConfig;

use super::{Question, Unjudged};
use crate::remote::{Bounds, Inquiry, Trust, ask};

/// Bytes of an answer that are read; only its status counts.
const LARGEST: usize = 64 * 1024;

/// Fields of the conversation with the judge, which are not the caller's to say.
const OURS: [HeaderName; 8] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

pub(super) async fn check(
    config: &AuthoriserConfig,
    trust: &Trust,
    question: &Question<'_>,
) -> Result<bool, Unjudged> {
    let inquiry = inquiry(config, question).map_err(Unjudged::Unaskable)?;
    let bounds = Bounds {
        deadline: config.deadline,
        bytes: LARGEST,
        // The operator named it; it usually stands beside the gateway.
        allow_private: true,
    };
    let told = ask(inquiry, trust, bounds).await;
    let told = told.map_err(Unjudged::Unanswered)?;
    match told.status {
        status if status.is_success() => Ok(true),
        // A judge in trouble has not judged.
        status if status.is_server_error() => {
            Err(Unjudged::Unanswered(format!("answered {status}")))
        }
        _ => Ok(false),
    }
}

/// The question; what of it cannot be written must not be left out, or another one would be judged.
pub(super) fn inquiry(
    config: &AuthoriserConfig,
    question: &Question<'_>,
) -> Result<Inquiry, &'static str> {
    let url: Uri = target(config, question)
        .parse()
        .map_err(|_| "its path and query are no URL")?;
    let mut inquiry = Inquiry {
        method: Method::from_bytes(question.method.as_bytes())
            .map_err(|_| "its method is no method")?,
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
    let shown = question.fields.iter();
    let shown = shown.map(|(name, value)| (*name, &**value));
    for (name, value) in told.into_iter().chain(shown) {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "a field has no name")?;
        // What we say ourselves comes first: a caller's own field of that name is not shown beside it.
        if OURS.contains(&name) || inquiry.fields.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| "a value is no field")?;
        inquiry.fields.push((name, value));
    }
    Ok(inquiry)
}

fn target(config: &AuthoriserConfig, question: &Question<'_>) -> String {
    let base = config.url.trim_end_matches('/');
    match question.query {
        "" => format!("{base}{}", question.path),
        query => format!("{base}{}?{query}", question.path),
    }
}
