//! Limits that come to a share of theirs: counted in the metrics, and told to a webhook as CloudEvents 1.0 (structured mode).
//!
//! Beside the request path. A webhook that does not answer is tried a few times and given up; the control plane logs every alert anyway.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Uri};
use serde_json::json;
use tokio::sync::{broadcast, mpsc};
use tollgate_policy::quota::CounterKey;
use tollgate_policy::settings::QuotaConfig;
use tollgate_policy::time::Timestamp;
use tollgate_proto::{Announcement, ControlClient};

use crate::identity::clock;
use crate::remote::{self, Bounds, Inquiry, Trust};
use crate::telemetry::Metrics;

/// Events that wait for the webhook; more are dropped and said so.
const QUEUE: usize = 256;
/// How often an event is tried.
const ATTEMPTS: u32 = 4;
/// Pause before the second attempt; doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// What the webhook may take.
const BOUNDS: Bounds = Bounds {
    deadline: Duration::from_secs(5),
    bytes: 64 * 1024,
    allow_private: true,
};

/// One alert, as it is told.
struct Alert {
    key: CounterKey,
    percent: u8,
    begins: Timestamp,
    ends: Option<Timestamp>,
}

/// Tells until the control plane is gone.
pub async fn tell(control: ControlClient, config: QuotaConfig, metrics: Arc<Metrics>) {
    let mut announcements = control.announcements();
    let (queue, waiting) = mpsc::channel(QUEUE);
    let webhook = config.webhook.and_then(|url| url.parse::<Uri>().ok());
    if let Some(url) = webhook.clone() {
        tokio::spawn(send(url, waiting));
    }
    loop {
        let (key, percent, begins, ends) = match announcements.recv().await {
            Ok(Announcement::Quota {
                key,
                percent,
                begins,
                ends,
            }) => (key, percent, begins, ends),
            Ok(_) => continue,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(
                    missed,
                    "alerts of limits may be missing here; the log has them"
                );
                continue;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        metrics.quota_alert(percent);
        let alert = Alert {
            key,
            percent,
            begins,
            ends,
        };
        if webhook.is_some() && queue.try_send(alert).is_err() {
            tracing::warn!("the webhook for limits is behind; an alert is in the log alone");
        }
    }
}

async fn send(url: Uri, mut waiting: mpsc::Receiver<Alert>) {
    while let Some(alert) = waiting.recv().await {
        let event = event(&alert, clock::now());
        let mut pause = PAUSE;
        for attempt in 1..=ATTEMPTS {
            let Err(why) = deliver(&url, event.clone()).await else {
                break;
            };
            if attempt == ATTEMPTS {
                tracing::error!("the webhook for limits was not told: {why}");
                break;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
}

async fn deliver(url: &Uri, event: Bytes) -> Result<(), String> {
    let media_type = HeaderValue::from_static("application/cloudevents+json");
    let inquiry = Inquiry {
        method: Method::POST,
        url: url.clone(),
        fields: vec![(CONTENT_TYPE, media_type)],
        body: event,
    };
    let told = remote::ask(inquiry, &Trust::default(), BOUNDS).await?;
    match told.status.is_success() {
        true => Ok(()),
        false => Err(format!("it answered {}", told.status)),
    }
}

/// The event. Its id is the counter, the window and the share: whoever gets it twice can tell.
fn event(alert: &Alert, now: Timestamp) -> Bytes {
    let CounterKey {
        limit,
        api,
        operation,
        subject,
    } = &alert.key;
    let id = format!(
        "{limit}/{subject}/{api}/{operation}/{}/{}",
        alert.begins.millis(),
        alert.percent
    );
    let event = json!({
        "specversion": "1.0",
        "type": "tollgate.quota.threshold",
        "source": "/tollgate/quota",
        "id": id,
        "time": now.to_string(),
        "subject": &**subject,
        "datacontenttype": "application/json",
        "data": {
            "limit": &**limit,
            "subject": &**subject,
            "api": &**api,
            "operation": &**operation,
            "percent": alert.percent,
            "window_begins": alert.begins.to_string(),
            "window_ends": alert.ends.map(|at| at.to_string()),
        },
    });
    Bytes::from(event.to_string())
}
