//! The end of an answer that waits: whatever is about to go to the client stays until something is safe.
//!
//! The connection asks before it writes, so that it makes no difference which way the answer came. Asked of a request that holds
//! nothing back, it costs one load.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;

use super::watch::WATCH;

type Until = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What one request holds back.
#[derive(Default)]
pub struct Hold {
    holds: AtomicBool,
    until: Mutex<Option<Until>>,
}

impl Hold {
    /// Nothing goes to the client before this is done.
    pub fn until(&self, done: impl Future<Output = ()> + Send + 'static) {
        *self.until.lock() = Some(Box::pin(done));
        self.holds.store(true, Ordering::Release);
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.holds.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let mut until = self.until.lock();
        if let Some(done) = until.as_mut() {
            ready!(done.as_mut().poll(cx));
        }
        *until = None;
        self.holds.store(false, Ordering::Release);
        Poll::Ready(())
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Hold")
            .field("holds", &self.holds)
            .finish_non_exhaustive()
    }
}

/// Ready when the request this task serves holds nothing back; always outside a request.
pub fn poll_released(cx: &mut Context<'_>) -> Poll<()> {
    WATCH
        .try_with(|watch| watch.hold.poll(cx))
        .unwrap_or(Poll::Ready(()))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;
    use crate::forward::watch::Watch;

    #[tokio::test]
    async fn what_is_held_goes_when_it_is_safe_and_what_is_not_goes_at_once() {
        poll_fn(poll_released).await;
        let watch = Arc::new(Watch::default());
        WATCH
            .scope(watch.clone(), async {
                poll_fn(poll_released).await;
                let (safe, told) = oneshot::channel::<()>();
                watch.hold.until(async {
                    let _ = told.await;
                });
                let early = tokio::time::timeout(Duration::from_millis(20), poll_fn(poll_released));
                assert!(early.await.is_err());
                assert!(safe.send(()).is_ok());
                poll_fn(poll_released).await;
                poll_fn(poll_released).await;
            })
            .await;
    }
}
