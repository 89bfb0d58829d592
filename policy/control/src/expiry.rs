//! Overrides that expire: forgotten when their time comes, and whom it concerns is told.

use std::time::Duration;

use crate::Control;
use crate::change::announce;
use crate::control::now;
use crate::index::Effects;

/// Longest sleep: the clock may be set meanwhile.
const LONGEST: Duration = Duration::from_secs(60);

/// Forgets overrides as they expire, as long as the control plane lives.
pub(crate) async fn expire(control: Control) {
    loop {
        let next = control.inner.index.read().next_expiry();
        let wait = next.map_or(LONGEST, |at| at.since(now()).min(LONGEST));
        tokio::select! {
            () = tokio::time::sleep(wait) => forget(&control).await,
            // Another may be the next now.
            () = control.inner.overrides_changed.notified() => {}
        }
    }
}

/// Forgets the overrides that have expired, and tells whom it concerns.
async fn forget(control: &Control) {
    // As every change: one at a time, so that announcements come in the order of what happened.
    let _head = control.inner.writer.lock().await;
    let mut effects = Effects::default();
    let generation = {
        let mut index = control.inner.index.write();
        index.expire(now(), &mut effects);
        if effects.consumers.is_empty() {
            return;
        }
        index.generation += 1;
        index.generation
    };
    announce(&control.inner.announcements, generation, effects);
}
