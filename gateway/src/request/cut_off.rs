//! A request that was cut off (a panic, a limit, a client that left) is reported all the same, by the name of what ended it.

use std::borrow::Cow;

use super::Exchange;
use crate::denial::Denial;
use crate::forward::watch::Watch;
use crate::report::Seen;

impl Drop for Exchange {
    /// A request that was cut off (a panic, a deadline, a client that left) is reported all the same.
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        if self.reported || (self.series.is_none() && !panicked) {
            return;
        }
        if panicked {
            if self.series.is_none() {
                self.shared.homeless.start();
                self.series = Some(self.shared.homeless.clone());
            }
            self.fail(Denial::Internal);
            self.reason = Cow::Borrowed("a panic");
        } else if let Some(cut) = Watch::current().and_then(|watch| watch.over()) {
            self.fail(cut.denial());
            self.reason = cut.reason();
        }
        // Whoever holds the client's side answers a panic, unless an answer was on its way.
        let answered = panicked && self.upstream.latency.is_none();
        if self.reason.is_empty() {
            self.reason = Cow::Borrowed("cut off before the answer was complete");
        }
        self.report(&Seen {
            head: None,
            client: None,
            tls: false,
            status: if answered {
                Denial::Internal.status()
            } else {
                0
            },
            response_bytes: 0,
            aborted: true,
        });
    }
}
