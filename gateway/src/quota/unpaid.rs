//! Why a call was not charged, and so not served: the faces of that refusal.

use std::borrow::Cow;
use std::sync::Arc;

use tollgate_policy::quota::{Limit, Metric};

use super::Exceeded;
use super::fields::Told;

/// Seconds after which who was refused for our own trouble is asked to come back, at most: not all at once.
const LONGEST_WAIT: u64 = 3;

/// Why a call could not be charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unpaid {
    /// A limit is reached.
    Exceeded(Exceeded),
    /// Whether a limit is reached cannot be known now, and its policy refuses then.
    Unknown(Arc<Limit>),
    /// There is no room to record what would be billed.
    Unrecordable,
}

impl Unpaid {
    /// The limit it was about.
    pub fn limit(&self) -> Option<&Arc<Limit>> {
        match self {
            Self::Exceeded(exceeded) => Some(&exceeded.limit),
            Self::Unknown(limit) => Some(limit),
            Self::Unrecordable => None,
        }
    }

    fn is_spend_cap(&self) -> bool {
        matches!(self, Self::Exceeded(exceeded) if exceeded.limit.metric == Metric::Money)
    }

    /// Stable code, see [`crate::denial::Denial::code`].
    pub fn code(&self) -> &'static str {
        match self {
            Self::Exceeded(_) if self.is_spend_cap() => "spend_cap_reached",
            Self::Exceeded(_) => "quota_exceeded",
            Self::Unknown(_) => "quota_unavailable",
            Self::Unrecordable => "usage_not_recordable",
        }
    }

    /// HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::Exceeded(_) if self.is_spend_cap() => 402,
            Self::Exceeded(_) => 429,
            Self::Unknown(_) | Self::Unrecordable => 503,
        }
    }

    /// gRPC status code.
    pub fn grpc_status(&self) -> u8 {
        match self {
            Self::Exceeded(_) => 8,
            Self::Unknown(_) | Self::Unrecordable => 14,
        }
    }

    /// Short human title.
    pub fn title(&self) -> &'static str {
        match self {
            Self::Exceeded(_) if self.is_spend_cap() => "Spend cap reached",
            Self::Exceeded(_) => "Quota exceeded",
            Self::Unknown(_) => "Quota not known at the moment",
            Self::Unrecordable => "Usage cannot be recorded",
        }
    }

    /// What the caller may read about this occurrence.
    pub fn detail(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Exceeded(exceeded) => return Cow::Owned(exceeded.to_string()),
            Self::Unknown(_) => "how much quota is left cannot be known now; try again in a moment",
            Self::Unrecordable => "there is no room to record what is used; try again in a moment",
        })
    }

    /// Header fields.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Exceeded(exceeded) => exceeded.fields(),
            Self::Unknown(_) | Self::Unrecordable => {
                let wait = 1 + super::random() % LONGEST_WAIT;
                vec![("retry-after", wait.to_string())]
            }
        }
    }

    /// `X-RateLimit-*`, as many clients know them.
    pub fn legacy_fields(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Exceeded(exceeded) => Told::exceeded(exceeded).legacy().into(),
            Self::Unknown(_) | Self::Unrecordable => Vec::new(),
        }
    }

    /// Members of the problem besides the common ones: one that the draft of the `RateLimit` fields defines.
    pub fn members(&self) -> String {
        match self {
            Self::Exceeded(exceeded) => {
                let name = serde_json::Value::from(&*exceeded.limit.name);
                format!(",\"violated-policies\":[{name}]")
            }
            Self::Unknown(_) | Self::Unrecordable => String::new(),
        }
    }
}
