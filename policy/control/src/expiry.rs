//! Overrides that expire: forgotten when their time comes, and whom it concerns is told.

use std::time::Duration;

use crate::Control;
use crate::control::now;

/// Longest sleep: the clock may be set meanwhile.
const LONGEST: Duration = Duration::from_secs(60);

/// Forgets overrides as they expire, as long as the control plane lives.
pub(crate) async fn expire(control: Control) {
    loop {
        let next = control.inner.index.read().next_expiry();
        let wait = next.map_or(LONGEST, |at| at.since(now()).min(LONGEST));
        tokio::select! {
            () = tokio::time::sleep(wait) => control.expire_overrides().await,
            // Another may be the next now.
            () = control.inner.overrides_changed.notified() => {}
        }
    }
}
