//! File descriptors: how many this process may open, what part of them clients and idle connections may take, and what a lack
//! of them looks like.
//!
//! Promises that a crowd of clients leaves descriptors for the connections their calls need and for files. Not here: counting
//! the open ones (`listener::permits`, `upstream::pool`).

use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tollgate_policy::settings::DoorLimits;

use crate::upstream::pool;

/// Kept out of the shares: listening sockets, the reactors of all threads, logs, files being read, the admin port's connections.
const RESERVE: u64 = 64;

/// Too few descriptors to speak of shares still serve somebody.
const FEWEST_CLIENTS: u64 = 16;

/// One message about a lack of descriptors for so long, whoever lacks them.
const QUIET: Duration = Duration::from_secs(1);

/// How the descriptors above the reserve are shared out.
#[derive(Debug, PartialEq, Eq)]
struct Shares {
    /// Two of three to connections of clients, most of which are idle at any moment: a third stays for what they cause.
    clients: u64,
    /// One of six to idle connections to services, in both pools of all workers together.
    idle: u64,
}

impl Shares {
    fn of(limit: u64) -> Self {
        let shared = limit.saturating_sub(RESERVE);
        Self {
            clients: (shared / 3 * 2).max(FEWEST_CLIENTS),
            idle: shared / 6,
        }
    }
}

/// Raises the limit of this process as far as it may go, and lowers what would not fit into it: the connections of each of
/// `listeners`, and the idle connections each of `workers` keeps.
pub(crate) fn share_out(limits: &mut DoorLimits, listeners: usize, workers: usize) {
    let limit = raise_limit();
    let shares = Shares::of(limit);
    let each = |share: u64, of: usize| usize::try_from(share).unwrap_or(usize::MAX) / of.max(1);
    let clients = each(shares.clients, listeners).max(1);
    if clients < limits.connections {
        let lowered = format!(
            "limits.connections is lowered from {} to {clients}: only {limit} files may be open (ulimit -n)",
            limits.connections
        );
        // Nobody may have asked for so many.
        if limits.connections == DoorLimits::default().connections {
            tracing::info!("{lowered}");
        } else {
            tracing::warn!("{lowered}");
        }
        limits.connections = clients;
    }
    // Two pools a worker: that of the direct path and that of the pump.
    pool::limit_idle(each(shares.idle, workers.saturating_mul(2)).max(1));
}

/// The soft limit, raised to the hard one. A limit that cannot be read is taken for none.
fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current.unwrap_or(u64::MAX);
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, "the number of open files stays limited as it is");
            current.unwrap_or(u64::MAX)
        }
    }
}

/// Whether an error says that no descriptor is left, for this process (EMFILE) or the machine (ENFILE).
pub(crate) fn lacking(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// As [`lacking`], of an error that was put into words.
pub(crate) fn tells_of_lack(text: &str) -> bool {
    [libc::EMFILE, libc::ENFILE]
        .iter()
        .any(|code| text.contains(&format!("(os error {code})")))
}

/// Whether a lack of descriptors may be told of now. Shared by all who meet it: each of them would tell many times a second.
pub(crate) fn may_tell() -> bool {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    /// Milliseconds, plus one: zero is never.
    static TOLD: AtomicU64 = AtomicU64::new(0);
    let now = BEGAN.elapsed();
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let told = TOLD.load(Ordering::Relaxed);
    let due = told == 0 || millis(now) + 1 >= told.saturating_add(millis(QUIET));
    due && TOLD
        .compare_exchange(told, millis(now) + 1, Ordering::Relaxed, Ordering::Relaxed)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_descriptors_stays_for_what_clients_cause() {
        let shares = |clients, idle| Shares { clients, idle };
        assert_eq!(Shares::of(256), shares(128, 32));
        assert_eq!(Shares::of(1024), shares(640, 160));
        assert_eq!(Shares::of(65_536), shares(43_648, 10_912));
        assert_eq!(Shares::of(64), shares(FEWEST_CLIENTS, 0));
        assert_eq!(Shares::of(3), shares(FEWEST_CLIENTS, 0));
        let endless = Shares::of(u64::MAX);
        assert!(endless.clients > 1 << 62 && endless.idle > 1 << 60);
    }

    #[test]
    fn a_lack_is_known_by_its_number_and_by_its_words() {
        for (code, lack) in [
            (libc::EMFILE, true),
            (libc::ENFILE, true),
            (libc::ENOENT, false),
        ] {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!(lacking(&error), lack);
            assert_eq!(tells_of_lack(&format!("cannot be read: {error}")), lack);
        }
    }

    #[test]
    fn it_is_told_of_once_a_second() {
        let told = (0..1000).filter(|_| may_tell()).count();
        assert!(told <= 1, "{told}");
    }
}
