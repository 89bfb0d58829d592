//! What another process changed in the store, heard of here.
//!
//! During a hand-over two processes are at work on one store until the older has drained: a key that is revoked at one of them counts
//! no more at both, within a second.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::Control;
use crate::store::generation;

/// How often it is asked whether another process changed the store.
const FOLLOW: Duration = Duration::from_millis(500);

/// Reads the store again when another process changed it, as long as this one lives.
pub(crate) async fn follow(control: Control) {
    loop {
        tokio::time::sleep(FOLLOW).await;
        let Ok(store) = control.store() else {
            continue;
        };
        let counted = match store.read().await {
            Ok(mut connection) => generation(&mut connection).await,
            Err(error) => Err(error),
        };
        let changed = counted.is_ok_and(|it| it != control.inner.seen.load(Ordering::Acquire));
        if changed && let Err(error) = control.reload().await {
            tracing::error!("another process changed the store, and it cannot be read: {error}");
        }
    }
}
