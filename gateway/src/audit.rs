//! Decisions on their way to the audit log: every denial of policy, and a sample of the calls that passed.
//!
//! A request hands its record to a bounded queue and goes on; what does not fit is dropped and counted. Requests that no policy judged
//! (malformed, unknown path) are in the access log alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tollgate_proto::{Answer, AuditRecord, ControlClient, Question};

/// Records that may wait.
const QUEUE: usize = 8192;

/// Records per message.
const BATCH: usize = 256;

/// One call in so many that passed is recorded.
const SAMPLE: u64 = 1000;

/// How long the control plane may take for a batch.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause before a batch is offered again.
const AGAIN: Duration = Duration::from_secs(1);

/// The queue's near end.
#[derive(Debug)]
pub struct Auditor {
    queue: mpsc::Sender<AuditRecord>,
    waiting: Arc<Waiting>,
    passed: AtomicU64,
    dropped: AtomicU64,
}

/// The queue's far end, to be driven by [`deliver`].
#[derive(Debug)]
pub struct Delivery {
    queue: mpsc::Receiver<AuditRecord>,
    waiting: Arc<Waiting>,
}

/// Records handed over and not yet recorded.
#[derive(Debug, Default)]
struct Waiting {
    records: AtomicUsize,
    recorded: Notify,
}

impl Auditor {
    /// A queue.
    pub fn new() -> (Arc<Self>, Delivery) {
        let (near, far) = mpsc::channel(QUEUE);
        let waiting = Arc::<Waiting>::default();
        let auditor = Self {
            queue: near,
            waiting: waiting.clone(),
            passed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        };
        let delivery = Delivery {
            queue: far,
            waiting,
        };
        (Arc::new(auditor), delivery)
    }

    /// Whether this call, which passed, belongs to the sample.
    pub fn sampled(&self) -> bool {
        self.passed
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(SAMPLE)
    }

    /// Hands over a record, or drops and counts it.
    pub fn note(&self, record: AuditRecord) {
        self.waiting.records.fetch_add(1, Ordering::AcqRel);
        if self.queue.try_send(record).is_err() {
            self.waiting.records.fetch_sub(1, Ordering::AcqRel);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything handed over is recorded, for at most `limit`; says how much is not.
    pub async fn settled(&self, limit: Duration) -> usize {
        let settled = async {
            loop {
                let recorded = self.waiting.recorded.notified();
                if self.waiting.records.load(Ordering::Acquire) == 0 {
                    return;
                }
                recorded.await;
            }
        };
        let _in_time = tokio::time::timeout(limit, settled).await;
        self.waiting.records.load(Ordering::Acquire)
    }

    /// Records dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Carries records to the control plane until the queue is closed. A batch is offered until it is taken.
pub async fn deliver(mut delivery: Delivery, control: ControlClient) {
    let mut batch = Vec::with_capacity(BATCH);
    while delivery.queue.recv_many(&mut batch, BATCH).await > 0 {
        loop {
            let question = Question::Audit(batch.clone());
            if let Ok(Answer::Noted) = control.ask(question, PATIENCE).await {
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        let waiting = &delivery.waiting;
        waiting.records.fetch_sub(batch.len(), Ordering::AcqRel);
        waiting.recorded.notify_waiters();
        batch.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tollgate_policy::time::Timestamp;

    use super::*;

    fn record() -> AuditRecord {
        AuditRecord {
            at: Timestamp::from_seconds(1),
            request_id: "1".to_owned(),
            api: "shop".into(),
            generation: 1,
            operation: "list".into(),
            consumer: "".into(),
            credential: "".into(),
            client: None,
            verdict: "credential_required".into(),
            rule: String::new(),
        }
    }

    #[tokio::test]
    async fn what_was_handed_over_is_waited_for_and_what_is_not_recorded_is_counted() {
        let (auditor, delivery) = Auditor::new();
        let (client, mut server) = tollgate_proto::channel([0; 32]);
        auditor.note(record());
        auditor.note(record());
        assert_eq!(auditor.settled(Duration::ZERO).await, 2);
        let delivering = tokio::spawn(deliver(delivery, client));
        let (question, back) = server.questions.recv().await.unwrap();
        assert!(matches!(question, Question::Audit(records) if records.len() == 2));
        back.send(Answer::Noted).unwrap();
        assert_eq!(auditor.settled(PATIENCE).await, 0);
        delivering.abort();
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (auditor, _delivery) = Auditor::new();
        for _ in 0..QUEUE + 3 {
            auditor.note(record());
        }
        assert_eq!(auditor.dropped(), 3);
    }
}
