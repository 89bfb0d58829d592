//! What somebody is told whom the guard turned away.

/// A refusal of the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnedAway {
    /// Why.
    pub why: Why,
    /// Seconds for `Retry-After`.
    pub retry_after: u32,
}

/// Why the guard turned a request away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Too many requests came from this address.
    Requests,
    /// Too many failed attempts came from this address: paths that do not exist, credentials that are missing or bad.
    Failures,
    /// The gateway is saturated, and this API is asked for more than its share.
    Saturated,
}

impl TurnedAway {
    /// See [`crate::denial::Denial::code`].
    pub(crate) fn code(self) -> &'static str {
        match self.why {
            Why::Requests => "too_many_requests",
            Why::Failures => "too_many_failures",
            Why::Saturated => "saturated",
        }
    }

    /// HTTP status.
    pub(crate) fn status(self) -> u16 {
        match self.why {
            Why::Requests | Why::Failures => 429,
            Why::Saturated => 503,
        }
    }

    /// RESOURCE_EXHAUSTED or UNAVAILABLE.
    pub(crate) fn grpc_status(self) -> u8 {
        match self.why {
            Why::Requests | Why::Failures => 8,
            Why::Saturated => 14,
        }
    }

    /// Short human title.
    pub(crate) fn title(self) -> &'static str {
        match self.why {
            Why::Requests => "Too many requests",
            Why::Failures => "Too many failed attempts",
            Why::Saturated => "Gateway saturated",
        }
    }

    /// What the caller may read.
    pub(crate) fn detail(self) -> &'static str {
        match self.why {
            Why::Requests => "too many requests came from this address; wait",
            Why::Failures => {
                "too many requests from this address failed (no such path, no or a bad credential); wait"
            }
            Why::Saturated => "this API is asked for more than its share; try again later",
        }
    }
}
