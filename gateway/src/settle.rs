//! The step `settle`: what a call came to, once, before the last byte of its answer is released.

use pingora_core::protocols::http::HttpTask;

use crate::journey::Journey;
use crate::quota::{Bill, Settled};
use crate::request::Exchange;

impl Exchange {
    /// These go to the client now; after them nothing where `end` is true.
    pub(crate) fn releases(&mut self, tasks: &[HttpTask], end: bool) {
        for task in tasks {
            if let HttpTask::Body(Some(bytes), _) = task {
                self.sends(bytes);
            }
        }
        if end {
            self.settle(true);
        }
    }

    /// Settles the call's reservation. Called again, it does nothing: whoever ends a call says so, and the report makes sure.
    ///
    /// `complete`: the answer was, or is about to be, written whole.
    pub(crate) fn settle(&mut self, complete: bool) {
        if self.is_settled {
            return;
        }
        let Journey::Admitted(admitted) = &mut self.journey else {
            return;
        };
        self.is_settled = true;
        let streamed = self.stream.as_ref().map(|it| it.streamed());
        let streamed = streamed.unwrap_or_default();
        self.streamed = streamed;
        let settled = Settled {
            reached: self.upstream.sent,
            request_bytes: self.body_received,
            response_bytes: self.body_sent,
            messages: streamed.request_messages + streamed.response_messages,
            seconds: streamed.seconds,
            said: &self.said,
        };
        self.bill = match &mut admitted.reservation {
            Some(reservation) => reservation.settle(&settled),
            None => Bill::default(),
        };
        if let Journey::Admitted(admitted) = &self.journey {
            self.record(admitted, complete);
        }
    }
}
