//! `/.tollgate/` on each API: what consumers are told about themselves, and where they accept terms, with their own key.
//!
//! ```text
//! GET  <base>/.tollgate/                          who you are, your plan, what you have to accept
//! GET  <base>/.tollgate/usage                     what you used today and this month, by operation
//! GET  <base>/.tollgate/quota                     how much of your limits is left
//! GET  <base>/.tollgate/terms                     the documents, with what you accepted
//! GET  <base>/.tollgate/terms/<name>              one document, as Markdown
//! POST <base>/.tollgate/terms/<name>/acceptance   {"version": 2, "purpose": "…"}
//! ```
//!
//! Answered by the control plane's word; nothing here decides.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use memchr::memmem;
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_proto::{Acceptance, Answer, ControlClient, Question, TermsText};

use crate::api::Api;
use crate::denial::Denial;
use crate::door::asked::target_of;
use crate::forward::answer;
use crate::identity::clock;
use crate::journey::{Journey, Own};
use crate::quota;
use crate::request::Exchange;

/// What consumers ask under.
const PREFIX: &str = "/.tollgate";

/// How long the control plane may take, and the body of an acceptance.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest acceptance.
const LONGEST_BODY: usize = 4096;

/// Longest purpose kept.
const LONGEST_PURPOSE: usize = 1000;

/// Length of the base path where `path` is one of ours; `None` where it is the service's.
pub fn base_of(api: &Api, path: &str) -> Option<usize> {
    let at = memmem::find(path.as_bytes(), PREFIX.as_bytes())?;
    let (base, rest) = path.split_at_checked(at)?;
    let ends = rest.strip_prefix(PREFIX)?;
    let ours = ends.is_empty() || ends.starts_with('/');
    (ours && api.bases.iter().any(|known| **known == *base)).then_some(at)
}

/// Where the terms `name` are read and accepted.
pub fn terms_link(api: &Api, base_length: usize, name: &str) -> String {
    let mut bases = api.bases.iter();
    let base = bases.find(|base| base.len() == base_length);
    format!("{}{PREFIX}/terms/{name}", base.map_or("", |base| &**base))
}

/// What is answered.
struct Reply {
    status: u16,
    media_type: &'static str,
    body: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    version: u32,
    text_hash: Option<String>,
    #[serde(default)]
    purpose: String,
}

/// Answers the consumer.
///
/// # Errors
/// The client is gone.
pub async fn serve(session: &mut Session, exchange: &mut Exchange) -> Result<()> {
    let Journey::Own(own) = &exchange.journey else {
        return Ok(());
    };
    let control = exchange.shared.identities.directory.control().clone();
    let replied = reply(session, own, &control).await?;
    match replied {
        Ok(reply) => write(session, reply, exchange.request_id.as_str()).await,
        Err(denial) => {
            exchange.fail(denial.clone());
            answer::refuse(session, &denial, exchange).await
        }
    }
}

async fn reply(
    session: &mut Session,
    own: &Own,
    control: &ControlClient,
) -> Result<std::result::Result<Reply, Denial>> {
    let head = session.req_header();
    let target = target_of(head).unwrap_or_default();
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let rest = path.get(own.base_length + PREFIX.len()..).unwrap_or("");
    let rest = rest.trim_matches('/').to_owned();
    let parts: Vec<&str> = rest.split('/').collect();
    let method = head.method.clone();
    let replied = match (method.as_str(), parts.as_slice()) {
        ("GET", [""]) => overview(own, control).await,
        ("GET", ["usage"]) => usage(own, control, None).await,
        ("GET", ["quota"]) => usage(own, control, Some("quota")).await,
        ("GET", ["terms"]) => list(own, control).await,
        ("GET", ["terms", name]) => text(own, control, name).await,
        ("POST", ["terms", name, "acceptance"]) => {
            let Ok(body) = tokio::time::timeout(PATIENCE, body_of(session)).await else {
                return Ok(Err(Denial::BodyTooSlow));
            };
            let Some(body) = body? else {
                return Ok(Err(Denial::BodyTooLarge));
            };
            accept(own, control, name, &body).await
        }
        (_, ["" | "terms" | "usage" | "quota"] | ["terms", _]) => {
            Err(Denial::MethodNotAllowed(vec!["GET".into()]))
        }
        (_, ["terms", _, "acceptance"]) => Err(Denial::MethodNotAllowed(vec!["POST".into()])),
        _ => Err(Denial::UnknownOperation),
    };
    Ok(replied)
}

async fn body_of(session: &mut Session) -> Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(piece) = session.downstream_session.read_request_body().await? {
        if body.len() + piece.len() > LONGEST_BODY {
            return Ok(None);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Some(body))
}

fn consumer(own: &Own) -> std::result::Result<Arc<str>, Denial> {
    let caller = own.identified.identity.caller.as_ref();
    caller
        .map(|caller| caller.consumer.name.clone())
        .ok_or(Denial::Internal)
}

async fn overview(own: &Own, control: &ControlClient) -> std::result::Result<Reply, Denial> {
    let consumer = consumer(own)?;
    let asked = control.ask(Question::Overview { consumer }, PATIENCE).await;
    match asked {
        Ok(Answer::Overview(value)) => Ok(json_reply(200, &value)),
        _ => Err(Denial::PolicyUnavailable),
    }
}

/// What the consumer used at this API and what is left of its limits, or one part of that.
async fn usage(
    own: &Own,
    control: &ControlClient,
    part: Option<&str>,
) -> std::result::Result<Reply, Denial> {
    let question = Question::OwnUsage {
        consumer: consumer(own)?,
        api: own.api.config.name.clone(),
        limits: quota::own::counters(&own.api, &own.identified.identity, own.client),
    };
    match control.ask(question, PATIENCE).await {
        Ok(Answer::OwnUsage(mut value)) => Ok(match part {
            Some(part) => {
                let found = value.get_mut(part).map(Value::take);
                json_reply(200, &json!({ part: found.unwrap_or_else(|| json!([])) }))
            }
            None => json_reply(200, &value),
        }),
        _ => Err(Denial::PolicyUnavailable),
    }
}

async fn terms(own: &Own, control: &ControlClient) -> std::result::Result<Vec<TermsText>, Denial> {
    let question = Question::Terms {
        consumer: consumer(own)?,
        api: own.api.config.name.clone(),
    };
    match control.ask(question, PATIENCE).await {
        Ok(Answer::Terms(texts)) => Ok(texts),
        _ => Err(Denial::PolicyUnavailable),
    }
}

async fn list(own: &Own, control: &ControlClient) -> std::result::Result<Reply, Denial> {
    let texts = terms(own, control).await?;
    let listed: Vec<Value> = texts.iter().map(|text| entry(own, text)).collect();
    Ok(json_reply(200, &json!({ "terms": listed })))
}

fn entry(own: &Own, text: &TermsText) -> Value {
    json!({
        "name": &*text.terms,
        "version": text.version,
        "effective": text.effective.to_string(),
        "enforced": text.enforced.to_string(),
        "text_hash": &*text.text_hash,
        "purpose_required": text.purpose_required,
        "accepted": text.accepted >= text.version,
        "accepted_version": text.accepted,
        "link": terms_link(&own.api, own.base_length, &text.terms),
    })
}

/// The newest version of the terms `name`.
fn newest<'t>(texts: &'t [TermsText], name: &str) -> std::result::Result<&'t TermsText, Denial> {
    let named = texts.iter().filter(|text| *text.terms == *name);
    named
        .max_by_key(|text| text.version)
        .ok_or(Denial::UnknownOperation)
}

async fn text(
    own: &Own,
    control: &ControlClient,
    name: &str,
) -> std::result::Result<Reply, Denial> {
    let texts = terms(own, control).await?;
    let text = newest(&texts, name)?;
    Ok(Reply {
        status: 200,
        media_type: "text/markdown; charset=utf-8",
        body: text.text.to_string(),
    })
}

async fn accept(
    own: &Own,
    control: &ControlClient,
    name: &str,
    body: &[u8],
) -> std::result::Result<Reply, Denial> {
    let malformed = |text: String| Denial::Malformed(text.into());
    let accepted: Accepted = serde_json::from_slice(body).map_err(|error| {
        malformed(format!(
            "the body is not {{\"version\": 1, \"purpose\": \"…\"}}: {error}"
        ))
    })?;
    if accepted.purpose.len() > LONGEST_PURPOSE {
        return Err(malformed(format!(
            "`purpose` is longer than {LONGEST_PURPOSE} bytes"
        )));
    }
    let texts = terms(own, control).await?;
    let text = newest(&texts, name)?;
    let caller = own.identified.identity.caller.as_ref();
    let acceptance = Acceptance {
        consumer: consumer(own)?,
        credential: caller.map_or_else(|| "".into(), |caller| caller.credential.id.clone()),
        terms: text.terms.clone(),
        version: accepted.version,
        text_hash: accepted.text_hash.map(Into::into),
        purpose: accepted.purpose,
        at: clock::now(),
        from: own.client,
    };
    match control.ask(Question::Accept(acceptance), PATIENCE).await {
        Ok(Answer::Accepted) => Ok(json_reply(
            201,
            &json!({ "terms": name, "version": accepted.version, "accepted": true }),
        )),
        Ok(Answer::Refused(why)) => Err(malformed(why)),
        _ => Err(Denial::PolicyUnavailable),
    }
}

fn json_reply(status: u16, value: &Value) -> Reply {
    Reply {
        status,
        media_type: "application/json",
        body: format!("{value}\n"),
    }
}

async fn write(session: &mut Session, reply: Reply, request_id: &str) -> Result<()> {
    let mut head = ResponseHeader::build(reply.status, Some(5))?;
    head.insert_header("content-type", reply.media_type)?;
    head.insert_header("content-length", reply.body.len().to_string())?;
    head.insert_header("cache-control", "no-store")?;
    head.insert_header("x-request-id", request_id)?;
    session.write_response_header(Box::new(head), false).await?;
    let body = Bytes::from(reply.body);
    session.write_response_body(Some(body), true).await
}
