//! The conversation between data planes and the control plane: what is asked, what is answered, what is announced.
//!
//! In one process it travels over the channel below; the messages are the same wherever the other side runs. Every question has a
//! deadline and the queue is bounded: a control plane that does not answer is [`Unavailable`], never a wait without end.

pub mod bundles;
pub mod convert;
pub mod meters;
pub mod reports;
pub mod stream;
pub mod usage;
pub mod wire;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};
use tollgate_policy::directory::{Caller, CredentialRef, Revoked};
use tollgate_policy::quota::CounterKey;
use tollgate_policy::time::Timestamp;

pub use meters::Meters;
pub use tollgate_policy::quota::{Counter, HolderId, LeaseAsk, LeaseGrant};
pub use usage::{RunId, UsageBatch, UsageOutcome, UsageReceipt, UsageRecord};

/// Questions that may wait for the control plane; more are refused at once.
const QUEUE: usize = 4096;

/// Announcements a data plane may be behind; further behind, it forgets what it holds and asks again.
const ANNOUNCEMENTS: usize = 1024;

/// A question, with the way back.
pub type Asked = (Question, oneshot::Sender<Answer>);

/// What a data plane asks.
#[derive(Debug)]
pub enum Question {
    /// Who is this?
    Resolve(CredentialRef),
    /// The terms an API and its plans require of a consumer, with their texts.
    Terms {
        /// The consumer.
        consumer: Arc<str>,
        /// The API it asks at.
        api: Arc<str>,
    },
    /// A consumer accepts.
    Accept(Acceptance),
    /// What a consumer may see of itself.
    Overview {
        /// The consumer.
        consumer: Arc<str>,
    },
    /// Everything that is revoked and has not expired anyway; asked at start and after announcements were missed.
    Revocations,
    /// Decisions for the audit log.
    Audit(Vec<AuditRecord>),
    /// Quota, for several cells of one holder.
    Lease(HolderId, Vec<LeaseAsk>),
    /// What was served.
    Usage(UsageBatch),
    /// What a consumer has used and has left, at one API.
    OwnUsage {
        /// The consumer.
        consumer: Arc<str>,
        /// The API it asks at.
        api: Arc<str>,
        /// The counters of which it is told, with the limits that hold now. One that counts each operation apart has no operation
        /// here: all of them are meant.
        limits: Vec<Counter>,
    },
}

/// What the control plane answers.
#[derive(Debug)]
pub enum Answer {
    /// To [`Question::Resolve`].
    Resolved(Resolved),
    /// To [`Question::Terms`].
    Terms(Vec<TermsText>),
    /// To [`Question::Accept`]: it is recorded, and announced before this answer was sent.
    Accepted,
    /// To [`Question::Overview`].
    Overview(serde_json::Value),
    /// To [`Question::Revocations`].
    Revocations(Vec<Revoked>),
    /// To [`Question::Audit`].
    Noted,
    /// To [`Question::Lease`]: one grant per ask, in the same order.
    Leased(Vec<LeaseGrant>),
    /// To [`Question::Usage`].
    Received(UsageReceipt),
    /// To [`Question::OwnUsage`].
    OwnUsage(serde_json::Value),
    /// The question cannot be granted: why, for the caller.
    Refused(String),
}

/// Who a credential leads to.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The caller; `None`: nobody has this credential.
    pub caller: Option<Arc<Caller>>,
    /// State of the directory the answer was taken from. An answer older than the last announcement is not kept.
    pub generation: u64,
}

/// A consumer's acceptance of terms: who, when, from where, what.
#[derive(Clone, Debug, PartialEq)]
pub struct Acceptance {
    /// The consumer.
    pub consumer: Arc<str>,
    /// Credential it showed, by public identifier.
    pub credential: Arc<str>,
    /// Name of the terms.
    pub terms: Arc<str>,
    /// Version accepted.
    pub version: u32,
    /// SHA-256 of the text that was shown, lower-case hexadecimal; must be that of the version.
    pub text_hash: Option<Arc<str>>,
    /// What the consumer says it uses the API for.
    pub purpose: String,
    /// When.
    pub at: Timestamp,
    /// From where.
    pub from: Option<IpAddr>,
}

/// A document a consumer may read and accept.
#[derive(Clone, Debug, PartialEq)]
pub struct TermsText {
    /// Name.
    pub terms: Arc<str>,
    /// Version in force, or to come.
    pub version: u32,
    /// From then on it has to be accepted.
    pub effective: Timestamp,
    /// From then on calls are refused without.
    pub enforced: Timestamp,
    /// SHA-256 of the text.
    pub text_hash: Arc<str>,
    /// Markdown.
    pub text: Arc<str>,
    /// Accepting needs a declared purpose.
    pub purpose_required: bool,
    /// Highest version this consumer accepted; 0 for none.
    pub accepted: u32,
}

/// A decision, for the audit log.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRecord {
    /// When.
    pub at: Timestamp,
    /// `x-request-id`.
    pub request_id: String,
    /// The API, with the generation that decided.
    pub api: Arc<str>,
    /// Generation of the API's policy.
    pub generation: u64,
    /// The operation.
    pub operation: Arc<str>,
    /// The consumer; empty for none.
    pub consumer: Arc<str>,
    /// The credential's public identifier; empty for none.
    pub credential: Arc<str>,
    /// Client address.
    pub client: Option<IpAddr>,
    /// `allow`, or the denial's code.
    pub verdict: Cow<'static, str>,
    /// The rule that decided, with file and line; empty for none.
    pub rule: String,
}

/// What the control plane announces.
#[derive(Clone, Debug, PartialEq)]
pub enum Announcement {
    /// These credentials count no more.
    Revoked {
        /// State of the directory after it.
        generation: u64,
        /// What was revoked.
        what: Arc<[Revoked]>,
    },
    /// These consumers changed: what is held about them is asked for again.
    Changed {
        /// State of the directory after it.
        generation: u64,
        /// Names.
        consumers: Arc<[Arc<str>]>,
    },
    /// Plans, terms or files changed: everything held is asked for again.
    Everything {
        /// State of the directory after it.
        generation: u64,
    },
    /// A limit is used up to a share that operators want to hear of.
    Quota {
        /// The counter.
        key: CounterKey,
        /// 50, 80 or 100.
        percent: u8,
        /// Begin of the window it happened in.
        begins: Timestamp,
        /// Its end; `None` for never.
        ends: Option<Timestamp>,
    },
}

/// The control plane did not answer: it is away, busy, or slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the control plane does not answer")]
pub struct Unavailable;

/// A data plane's end.
#[derive(Clone, Debug)]
pub struct ControlClient {
    questions: mpsc::Sender<Asked>,
    announcements: broadcast::Sender<Announcement>,
    /// The installation's pepper: API keys are known by their keyed hash alone.
    pepper: Arc<[u8; 32]>,
}

impl ControlClient {
    /// Asks, and waits for at most `deadline`.
    ///
    /// # Errors
    /// The queue is full, the other end is gone, or no answer came in time.
    pub async fn ask(&self, question: Question, deadline: Duration) -> Result<Answer, Unavailable> {
        let (answer, answered) = oneshot::channel();
        self.questions
            .try_send((question, answer))
            .map_err(|_| Unavailable)?;
        match tokio::time::timeout(deadline, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(Unavailable),
        }
    }

    /// Announcements from now on. A receiver that lags has missed some and must forget all it holds.
    pub fn announcements(&self) -> broadcast::Receiver<Announcement> {
        self.announcements.subscribe()
    }

    /// The key of [`tollgate_policy::credentials::Digest`].
    pub fn pepper(&self) -> &[u8; 32] {
        &self.pepper
    }
}

/// The control plane's end.
#[derive(Debug)]
pub struct ControlServer {
    /// Questions, in the order they came.
    pub questions: mpsc::Receiver<Asked>,
    /// Where announcements go. Sending fails only when nobody listens, which is fine.
    pub announcements: broadcast::Sender<Announcement>,
}

/// Both ends of a conversation within one process.
pub fn channel(pepper: [u8; 32]) -> (ControlClient, ControlServer) {
    let (ask, questions) = mpsc::channel(QUEUE);
    let (announcements, _) = broadcast::channel(ANNOUNCEMENTS);
    let client = ControlClient {
        questions: ask,
        announcements: announcements.clone(),
        pepper: Arc::new(pepper),
    };
    let server = ControlServer {
        questions,
        announcements,
    };
    (client, server)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_question_is_answered_or_given_up() {
        let (client, mut server) = channel([0; 32]);
        let answering = tokio::spawn(async move {
            let (_, answer) = server.questions.recv().await.unwrap();
            answer.send(Answer::Noted).unwrap();
            // The second question is dropped with the server.
            server.questions.recv().await.unwrap();
        });
        let ask = || client.ask(Question::Audit(Vec::new()), Duration::from_secs(5));
        assert!(matches!(ask().await, Ok(Answer::Noted)));
        assert!(ask().await.is_err());
        answering.await.unwrap();
        assert!(ask().await.is_err());
    }
}
