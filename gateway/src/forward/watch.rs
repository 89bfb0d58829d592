//! What ends a request before its time, and limits no single read timeout can hold: a request body that trickles, the head of an answer that does not come, and the total
//! time of an exchange.
//!
//! A body that sends one byte a second never lets a read time out. The watch counts instead, beside the request. When a limit is
//! over, the request is *cut*: the client's side stops giving bytes (the connection asks [`is_cut`] before it reads), so that the
//! pump comes back with an error and answers as long as it still can. Nothing ticks for a request without limits.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tollgate_policy::settings::Direction;

use super::hold::Hold;
use crate::denial::Denial;
use crate::telemetry::RequestId;

/// How often a body on its way is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A body may be slower than its rate for so long: connections start slowly.
const GRACE: Duration = Duration::from_secs(5);

tokio::task_local! {
    /// The watch of the request this task serves.
    pub static WATCH: Arc<Watch>;
}

/// Whether the request this task serves has been cut; never outside a request.
pub fn is_cut() -> bool {
    WATCH
        .try_with(|watch| watch.cut.load(Ordering::Relaxed))
        .unwrap_or(false)
}

/// Which way the call goes that this task serves.
pub fn direction() -> Direction {
    WATCH.try_with(|watch| watch.direction).unwrap_or_default()
}

/// Whether the request this task serves has been under way for longer than most.
pub fn is_long() -> bool {
    WATCH
        .try_with(|watch| watch.long.load(Ordering::Relaxed))
        .unwrap_or(false)
}

/// Why a call that was admitted may not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What the client is told.
    pub denial: Denial,
    /// For the log.
    pub reason: Cow<'static, str>,
}

/// Which limit was over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The whole exchange took too long.
    Total,
    /// The head of the answer did not come.
    AnswerLate,
    /// The request body came too slowly, or not at all.
    BodySlow,
    /// The request body is not what its head announced.
    BodyMalformed,
    /// What the call stands on was revoked.
    Revoked,
    /// It was judged again while it went on, and may not.
    Ended(Arc<Ending>),
}

impl Cut {
    /// What the client is told.
    pub fn denial(&self) -> Denial {
        match self {
            Self::Total | Self::AnswerLate => Denial::UpstreamTimeout,
            Self::BodySlow => Denial::BodyTooSlow,
            Self::BodyMalformed => Denial::Malformed("the chunked body is not well-formed".into()),
            Self::Revoked => Denial::CredentialRevoked,
            Self::Ended(ending) => ending.denial.clone(),
        }
    }

    /// For the log.
    pub fn reason(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Total => "the total time of the exchange is over",
            Self::AnswerLate => "the head of the answer did not come in time",
            Self::BodySlow => "the request body came too slowly",
            Self::BodyMalformed => "the chunked body is not well-formed",
            Self::Revoked => "the credential was revoked while the call was under way",
            Self::Ended(ending) => return ending.reason.clone(),
        })
    }

    /// Whether policy ended the call, and no limit on time or form.
    pub fn is_policy(&self) -> bool {
        match self {
            Self::Revoked | Self::Ended(_) => true,
            Self::Total | Self::AnswerLate | Self::BodySlow | Self::BodyMalformed => false,
        }
    }
}

/// What is watched of one request.
#[derive(Debug, Default)]
pub struct Watch {
    armed: Notify,
    cut: AtomicBool,
    long: AtomicBool,
    limits: Mutex<Limits>,
    request_id: OnceLock<RequestId>,
    /// Which way the calls of its listener go.
    pub direction: Direction,
    /// What the answer waits for.
    pub hold: Hold,
}

#[derive(Debug, Default)]
struct Limits {
    total: Option<Instant>,
    answer: Option<(Duration, Instant)>,
    body: Option<Body>,
    over: Option<Cut>,
}

#[derive(Debug)]
struct Body {
    began: Instant,
    bytes: u64,
}

impl Watch {
    /// For a call of a listener of this direction.
    pub fn towards(direction: Direction) -> Self {
        Self {
            direction,
            ..Self::default()
        }
    }

    /// The watch of the current request; none outside a worker.
    pub fn current() -> Option<Arc<Self>> {
        WATCH.try_with(Arc::clone).ok()
    }

    /// By which the request is known, for an answer that is written when nothing else is left of it.
    pub fn names(&self, id: RequestId) {
        let _named_already = self.request_id.set(id);
    }

    /// Whether the request came as far as having a name.
    pub fn is_named(&self) -> bool {
        self.request_id.get().is_some()
    }

    /// The id of the current request; a new one where none is known yet.
    pub fn current_id() -> RequestId {
        Self::current()
            .and_then(|watch| watch.request_id.get().copied())
            .unwrap_or_else(|| RequestId::accept_or_new(None))
    }

    /// The whole exchange has to be over by then.
    pub fn ends_at(&self, deadline: Instant) {
        self.limits.lock().total = Some(deadline);
        self.armed.notify_one();
    }

    /// A request body begins; it has to keep its rate.
    pub fn body_begins(&self) {
        let began = Instant::now();
        self.limits.lock().body = Some(Body { began, bytes: 0 });
        self.armed.notify_one();
    }

    /// More of the body came. The service has its time again: it cannot answer what it does not have.
    pub fn body_came(&self, bytes: usize, end: bool) {
        let limits = &mut *self.limits.lock();
        if let Some(body) = &mut limits.body {
            body.bytes = body
                .bytes
                .saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
        if end {
            limits.body = None;
        }
        if let Some((limit, due)) = &mut limits.answer {
            *due = Instant::now() + *limit;
        }
    }

    /// The service was asked; the head of its answer is due.
    pub fn answer_within(&self, limit: Duration) {
        self.limits.lock().answer = Some((limit, Instant::now() + limit));
        self.armed.notify_one();
    }

    /// The attempt is over, with an answer or without.
    pub fn answer_came(&self) {
        self.limits.lock().answer = None;
    }

    /// Which limit ended the request, if one did.
    pub fn over(&self) -> Option<Cut> {
        self.limits.lock().over.clone()
    }

    /// It has been under way for longer than most.
    pub fn is_long_now(&self) {
        self.long.store(true, Ordering::Relaxed);
    }

    /// It was judged again, and may not go on: it ends now.
    pub fn end(&self, ending: Ending) {
        let cut = Cut::Ended(Arc::new(ending));
        self.limits.lock().over.get_or_insert(cut);
        self.armed.notify_one();
    }

    /// What the call stands on was revoked: it ends now.
    pub fn revoke(&self) {
        self.limits.lock().over.get_or_insert(Cut::Revoked);
        self.armed.notify_one();
    }

    /// Nothing more is read of this request.
    pub fn cut_off(&self, cut: Cut) {
        self.limits.lock().over.get_or_insert(cut);
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Returns when the request has to be cut off; from then on [`is_cut`] says so. `rate` is in bytes per second.
    pub async fn expired(&self, rate: u64) -> Cut {
        loop {
            match self.look(Instant::now(), rate) {
                Look::Over(cut) => {
                    self.cut_off(cut.clone());
                    return cut;
                }
                Look::Nothing => self.armed.notified().await,
                Look::Later(pause) => {
                    tokio::select! {
                        () = self.armed.notified() => {}
                        () = pingora_timeout::sleep(pause) => {}
                    }
                }
            }
        }
    }

    fn look(&self, now: Instant, rate: u64) -> Look {
        let limits = self.limits.lock();
        if let Some(cut) = limits.over.as_ref().filter(|cut| cut.is_policy()) {
            return Look::Over(cut.clone());
        }
        if limits.total.is_some_and(|end| now >= end) {
            return Look::Over(Cut::Total);
        }
        if limits
            .body
            .as_ref()
            .is_some_and(|it| it.trickles(now, rate))
        {
            return Look::Over(Cut::BodySlow);
        }
        let answer = limits.answer.map(|(_, due)| due);
        if answer.is_some_and(|due| now >= due) {
            // The service cannot answer what the client has not finished saying.
            return Look::Over(match limits.body {
                Some(_) => Cut::BodySlow,
                None => Cut::AnswerLate,
            });
        }
        let body = limits.body.as_ref().map(|_| now + LOOK);
        match [limits.total, answer, body].into_iter().flatten().min() {
            Some(next) => Look::Later(next.saturating_duration_since(now)),
            None => Look::Nothing,
        }
    }
}

enum Look {
    Over(Cut),
    Later(Duration),
    Nothing,
}

impl Body {
    fn trickles(&self, now: Instant, rate: u64) -> bool {
        let late = now.duration_since(self.began).saturating_sub(GRACE);
        self.bytes < rate.saturating_mul(late.as_secs())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_body_may_start_slowly_but_not_trickle() {
        for (seconds, bytes, cut) in [
            (5, 0, false),
            (7, 0, true),
            (7, 2048, false),
            (15, 2048, true),
            (15, 10 * 1024, false),
        ] {
            let began = Instant::now();
            let now = began + Duration::from_secs(seconds);
            let body = Body { began, bytes };
            assert_eq!(body.trickles(now, 1024), cut, "{seconds} s, {bytes} bytes");
        }
    }

    #[test]
    fn a_limit_is_over_at_its_time_and_by_its_name() {
        let second = Duration::from_secs(1);
        let (watch, now) = (Watch::default(), Instant::now());
        assert!(matches!(watch.look(now, 1024), Look::Nothing));
        watch.body_begins();
        watch.body_came(1 << 20, false);
        watch.answer_within(9 * second);
        watch.ends_at(now + 30 * second);
        let over = |after: Duration| match watch.look(now + after, 1024) {
            Look::Over(cut) => Some(cut),
            Look::Later(_) | Look::Nothing => None,
        };
        assert_eq!(over(8 * second), None);
        assert_eq!(over(10 * second), Some(Cut::BodySlow), "it fell silent");
        watch.body_came(0, true);
        assert_eq!(over(10 * second), Some(Cut::AnswerLate));
        watch.answer_came();
        assert_eq!(over(29 * second), None);
        assert_eq!(over(31 * second), Some(Cut::Total));
    }
}
