//! Decisions on their way to the audit log: every denial of policy, and a sample of the calls that passed.
//!
//! A request hands its record to a bounded queue and goes on; what does not fit is dropped and counted. Requests that no policy judged
//! (malformed, unknown path) are in the access log alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
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
    passed: AtomicU64,
    dropped: AtomicU64,
}

/// The queue's far end, to be driven by [`deliver`].
#[derive(Debug)]
pub struct Delivery {
    queue: mpsc::Receiver<AuditRecord>,
}

impl Auditor {
    /// A queue.
    pub fn new() -> (Arc<Self>, Delivery) {
        let (near, far) = mpsc::channel(QUEUE);
        let auditor = Self {
            queue: near,
            passed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        };
        (Arc::new(auditor), Delivery { queue: far })
    }

    /// Whether this call, which passed, belongs to the sample.
    pub fn sampled(&self) -> bool {
        self.passed
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(SAMPLE)
    }

    /// Hands over a record, or drops and counts it.
    pub fn note(&self, record: AuditRecord) {
        if self.queue.try_send(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
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
        batch.clear();
    }
}
