//! How a consumer stands to the terms it is asked to accept.

use crate::directory::TermsDuty;
use crate::time::Timestamp;

/// How a consumer stands to terms.
pub(super) enum Standing {
    Accepted,
    Grace { version: u32, until: Timestamp },
    Due { version: u32 },
}

/// The highest version in force is required; it is due as soon as the grace of any version that was not accepted is over, so that
/// a new version never reopens the way to those who let an older one pass.
pub(super) fn standing(duty: &TermsDuty, now: Timestamp) -> Standing {
    let required = duty
        .versions
        .iter()
        .filter(|of| of.effective <= now && of.version > duty.accepted);
    let (mut version, mut until) = (0, None);
    for one in required {
        let end = one.effective.plus(one.grace);
        version = version.max(one.version);
        until = Some(until.map_or(end, |earlier: Timestamp| earlier.min(end)));
    }
    match until {
        None => Standing::Accepted,
        Some(until) if now < until => Standing::Grace { version, until },
        Some(_) => Standing::Due { version },
    }
}
