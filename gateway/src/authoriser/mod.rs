//! The external judge of an API, asked over Envoy's `ext_authz` (gRPC or HTTP), so that OPA and its like plug in.
//!
//! It is asked last, about callers who passed everything else, and can only refuse. Each question has a deadline; what happens without an
//! answer is the policy's word: `fail_open`, `degraded` (an old answer within `stale_ok`) or `fail_closed`. A call that cannot be put to it
//! at all is refused whatever the policy says, or a caller could choose not to be judged. Answers are kept under the attributes the policy
//! says they depend on. Header fields it wants to add are not taken over.

mod grpc;
mod http;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pingora_http::RequestHeader;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tollgate_policy::access::{Refusal, RuleRef, WhyNot};
use tollgate_policy::settings::{AuthoriserConfig, AuthoriserTransport, FailureMode};

use crate::identity::Identified;
use crate::journey::{Asked, Called};
use crate::remote::Trust;

/// Answers kept.
const CAPACITY: usize = 50_000;

/// Longest key of an answer that is kept; the rest is asked every time.
const LONGEST_KEY: usize = 1024;

/// Questions on their way at once.
const AT_ONCE: usize = 512;

/// One API's external judge.
#[derive(Debug)]
pub struct Authoriser {
    config: AuthoriserConfig,
    trust: Trust,
    rule: Arc<RuleRef>,
    answers: Cache<String, (bool, Instant)>,
    places: Semaphore,
    grpc: Option<grpc::Client>,
    /// How it went.
    pub counts: Counts,
}

/// How the questions ended.
#[derive(Debug, Default)]
pub struct Counts {
    /// Asked and answered.
    pub answered: AtomicU64,
    /// Answered from what was kept.
    pub kept: AtomicU64,
    /// No answer in time.
    pub unanswered: AtomicU64,
    /// Let pass without an answer (`fail_open`).
    pub opened: AtomicU64,
    /// Would have been refused (`shadow`).
    pub shadowed: AtomicU64,
}

/// What is shown to it.
#[derive(Debug)]
struct Question<'q> {
    request_id: &'q str,
    method: &'q str,
    path: &'q str,
    query: &'q str,
    host: &'q str,
    operation: &'q str,
    consumer: &'q str,
    principal: &'q str,
    client: Option<std::net::IpAddr>,
    /// With all values of a field, as the service will see them.
    fields: Vec<(&'q str, String)>,
}

/// What it came to, where the call passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It has nothing against the call, or the policy lets calls pass without its word.
    Passes,
    /// It would refuse, were it not a shadow.
    Shadowed,
}

/// Why it did not judge.
#[derive(Debug)]
enum Unjudged {
    /// There is no answer; the policy says what then.
    Unanswered(String),
    /// The call cannot be put as a question.
    Unaskable(&'static str),
}

impl Authoriser {
    /// Compiles it; connects to nothing yet.
    ///
    /// # Errors
    /// The URL or the root certificates cannot be used.
    pub fn new(config: &AuthoriserConfig) -> Result<Arc<Self>, String> {
        let trust = Trust::of(config.ca.as_deref())?;
        let grpc = match config.transport {
            AuthoriserTransport::Grpc => Some(grpc::Client::new(
                &config.url,
                config.deadline,
                trust.clone(),
            )?),
            AuthoriserTransport::Http => None,
        };
        Ok(Arc::new(Self {
            rule: Arc::new(RuleRef {
                kind: "authoriser",
                name: config.url.clone(),
                place: Some(config.place.clone()),
            }),
            config: config.clone(),
            trust,
            answers: Cache::new(CAPACITY),
            places: Semaphore::new(AT_ONCE),
            grpc,
            counts: Counts::default(),
        }))
    }

    /// The rule, for explanations.
    pub fn rule(&self) -> &Arc<RuleRef> {
        &self.rule
    }

    /// May this call pass?
    ///
    /// # Errors
    /// It said no, or said nothing and the policy does not let the call pass without.
    pub async fn judge(
        &self,
        called: &Called,
        identified: &Identified,
        asked: &Asked<'_>,
    ) -> Result<Judged, Refusal> {
        let question = self.question(called, identified, asked);
        let key = self.key_of(&question);
        let kept = key.as_ref().and_then(|key| self.answers.get(key));
        if let Some((answer, _)) = kept.filter(|(_, at)| at.elapsed() < self.config.cache) {
            self.counts.kept.fetch_add(1, Ordering::Relaxed);
            return self.verdict(answer);
        }
        let answer = match self.ask(&question).await {
            Ok(answer) => answer,
            Err(Unjudged::Unanswered(error)) => return self.without_answer(kept, &error),
            Err(Unjudged::Unaskable(why)) => {
                tracing::debug!(authoriser = %self.config.url, "refused unasked: {why}");
                return self.verdict(false);
            }
        };
        self.counts.answered.fetch_add(1, Ordering::Relaxed);
        if let Some(key) = key {
            self.answers.insert(key, (answer, Instant::now()));
        }
        self.verdict(answer)
    }

    /// May a call that it let pass go on? Where it does not answer now, its word of then counts, unless the policy is `fail_closed`.
    ///
    /// # Errors
    /// It says no, or has to say yes and says nothing.
    pub async fn judge_again(
        &self,
        called: &Called,
        identified: &Identified,
        asked: &Asked<'_>,
    ) -> Result<Judged, Refusal> {
        let judged = self.judge(called, identified, asked).await;
        let counts = self.config.failure == FailureMode::Degraded;
        match judged {
            Err(refusal) if counts && refusal.why == WhyNot::Undecidable => Ok(Judged::Passes),
            judged => judged,
        }
    }

    fn without_answer(
        &self,
        kept: Option<(bool, Instant)>,
        error: &str,
    ) -> Result<Judged, Refusal> {
        self.counts.unanswered.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(authoriser = %self.config.url, "no answer: {error}");
        match (self.config.failure, kept) {
            (FailureMode::FailOpen, _) => {
                self.counts.opened.fetch_add(1, Ordering::Relaxed);
                Ok(Judged::Passes)
            }
            (FailureMode::Degraded, Some((answer, at)))
                if at.elapsed() < self.config.cache + self.config.stale_ok =>
            {
                self.verdict(answer)
            }
            (FailureMode::Degraded | FailureMode::FailClosed, _) => {
                self.against(WhyNot::Undecidable)
            }
        }
    }

    fn verdict(&self, answer: bool) -> Result<Judged, Refusal> {
        match answer {
            true => Ok(Judged::Passes),
            false => self.against(WhyNot::Authoriser),
        }
    }

    fn against(&self, why: WhyNot) -> Result<Judged, Refusal> {
        if self.config.shadow {
            self.counts.shadowed.fetch_add(1, Ordering::Relaxed);
            return Ok(Judged::Shadowed);
        }
        Err(Refusal {
            rule: self.rule.clone(),
            why,
        })
    }

    async fn ask(&self, question: &Question<'_>) -> Result<bool, Unjudged> {
        let unanswered = |why: String| Err(Unjudged::Unanswered(why));
        let Ok(_place) = self.places.try_acquire() else {
            return unanswered("too many questions on their way".to_owned());
        };
        let asking = async {
            match &self.grpc {
                Some(client) => client.check(question).await.or_else(unanswered),
                None => http::check(&self.config, &self.trust, question).await,
            }
        };
        tokio::time::timeout(self.config.deadline, asking)
            .await
            .unwrap_or_else(|_| unanswered(format!("nothing within {:?}", self.config.deadline)))
    }

    fn question<'q>(
        &'q self,
        called: &'q Called,
        identified: &'q Identified,
        asked: &Asked<'q>,
    ) -> Question<'q> {
        let head = asked.request.head;
        let operation = called.api.operations.get(called.operation);
        let identity = &identified.identity;
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let fields = self.config.headers.iter();
        Question {
            request_id: text("x-request-id").unwrap_or_default(),
            method: head.method.as_str(),
            path: asked.path,
            query: asked.request.query.unwrap_or_default(),
            host: asked.host,
            operation: operation.map_or("", |operation| &operation.name),
            consumer: identity
                .caller
                .as_ref()
                .map_or("", |caller| &caller.consumer.name),
            principal: match (&identity.certificate, &identity.claims) {
                (Some(name), _) => name,
                (None, Some(claims)) => &claims.subject,
                (None, None) => "",
            },
            client: asked.request.client,
            fields: fields
                .filter_map(|name| Some((&**name, values_of(head, name)?)))
                .collect(),
        }
    }

    /// What the answer depends on, as the policy says; `None` where nothing is kept.
    fn key_of(&self, question: &Question<'_>) -> Option<String> {
        let kept = !self.config.cache.is_zero() || !self.config.stale_ok.is_zero();
        if self.config.vary.is_empty() || !kept {
            return None;
        }
        let mut key = String::with_capacity(128);
        for attribute in &self.config.vary {
            let value = match &**attribute {
                // Where a token's client is no consumer of ours, who called is its subject.
                "consumer" => format!("{}/{}", question.consumer, question.principal),
                "operation" => question.operation.into(),
                "method" => question.method.into(),
                "path" => format!("{}?{}", question.path, question.query),
                "client" => question.client.map(|ip| ip.to_string()).unwrap_or_default(),
                other => {
                    let name = other.strip_prefix("header:").unwrap_or(other);
                    let mut fields = question.fields.iter();
                    let found = fields.find(|(known, _)| *known == name);
                    found.map_or_else(String::new, |(_, value)| value.clone())
                }
            };
            // Lengths keep two values from running into each other.
            let _infallible = write!(key, "{}:{value};", value.len());
        }
        (key.len() <= LONGEST_KEY).then_some(key)
    }
}

/// All values of a field in one line (RFC 9110 section 5.3): a judge that saw the first alone could be shown another than the service.
/// What is no text is shown as such.
fn values_of(head: &RequestHeader, name: &str) -> Option<String> {
    let mut values = head.headers.get_all(name).iter();
    let mut all = String::from_utf8_lossy(values.next()?.as_bytes()).into_owned();
    for value in values {
        all.push_str(", ");
        all.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    Some(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
