//! Notices that files changed: notifications of the system, gathered for a moment, and a look every few seconds for file
//! systems that send none.
//!
//! Directories are watched, not files: editors replace files by renaming, Kubernetes by turning a symbolic link.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{Live, Origin};

/// A deploy writes several files; one reload shall see them all.
const QUIET: Duration = Duration::from_millis(300);

/// A directory that never becomes quiet is read all the same.
const MAX_QUIET_ROUNDS: u32 = 10;

/// How long a change goes unnoticed where the system notifies of nothing.
const POLL: Duration = Duration::from_secs(5);

/// Pause before another look where no descriptor was left to read the files with.
const RETRY: Duration = Duration::from_secs(1);

/// Entries looked at in one directory: an OpenAPI file may lie in a home directory.
const MAX_POLLED_ENTRIES: usize = 4_096;

/// Starts watching on the current runtime, until `live` is dropped.
pub(super) fn start(live: &Arc<Live>) -> Result<(), String> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|error| error.to_string())?;
    let changed = Arc::new(Notify::new());
    let mut watches = Watches::new(&changed);
    let directories = directories(live);
    watches.follow(&directories);
    let seen = signature(&directories);
    if !directories.is_empty() {
        // What changed since it was loaded told nobody.
        changed.notify_one();
    }
    runtime.spawn(run(Arc::downgrade(live), changed, watches, seen));
    Ok(())
}

async fn run(live: Weak<Live>, changed: Arc<Notify>, mut watches: Watches, mut seen: u64) {
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut again = false;
    loop {
        let notified = tokio::select! {
            () = changed.notified() => true,
            () = sleep(RETRY), if again => true,
            _ = poll.tick() => false,
        };
        if notified {
            let mut rounds = 0;
            while rounds < MAX_QUIET_ROUNDS && timeout(QUIET, changed.notified()).await.is_ok() {
                rounds += 1;
            }
        }
        let Some(live) = live.upgrade() else { return };
        let new_places = Arc::clone(&changed);
        let look = tokio::task::spawn_blocking(move || {
            let now = signature(&directories(&live));
            let lost = !notified && now != seen;
            if notified || lost || live.postponed() {
                live.reload();
            }
            if lost {
                // Nobody told us, so a watched directory itself was most likely replaced.
                watches.forget();
            }
            let directories = directories(&live);
            let same_places = directories == watches.followed;
            watches.follow(&directories);
            // Before a reload rather than after it: what changes meanwhile is noticed the next time.
            let now = if same_places {
                now
            } else {
                // Nor did what changed where nobody watched yet.
                new_places.notify_one();
                signature(&directories)
            };
            (watches, now, live.postponed())
        });
        match look.await {
            Ok(looked) => (watches, seen, again) = looked,
            Err(error) => {
                tracing::error!("watching for changes ended: {error}; SIGHUP still reloads");
                return;
            }
        }
    }
}

/// Directories watched by the system.
struct Watches {
    watcher: Option<RecommendedWatcher>,
    followed: BTreeSet<PathBuf>,
}

impl Watches {
    fn new(changed: &Arc<Notify>) -> Self {
        let changed = Arc::clone(changed);
        let handler = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| may_change_content(&event.kind)) {
                changed.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(handler)
            .inspect_err(|error| {
                tracing::warn!("no file notifications ({error}): looking every {POLL:?} instead");
            })
            .ok();
        Self {
            watcher,
            followed: BTreeSet::new(),
        }
    }

    /// Watches these and no others. One that cannot be watched is polled.
    fn follow(&mut self, directories: &BTreeSet<PathBuf>) {
        let followed = std::mem::replace(&mut self.followed, directories.clone());
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for gone in followed.difference(directories) {
            // It may not exist any more; then its watch ended by itself.
            let _ = watcher.unwatch(gone);
        }
        for new in directories.difference(&followed) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::debug!("{} is polled: {error}", new.display());
            }
        }
    }

    fn forget(&mut self) {
        self.follow(&BTreeSet::new());
    }
}

/// Our own reading must not look like a change.
fn may_change_content(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// The directories of all files that matter.
pub(super) fn directories(live: &Live) -> BTreeSet<PathBuf> {
    let mut directories: BTreeSet<PathBuf> = live
        .files()
        .iter()
        .filter_map(|file| file.parent())
        .map(|parent| {
            if parent.as_os_str().is_empty() {
                ".".into()
            } else {
                parent.to_owned()
            }
        })
        .collect();
    if let Origin::Directory(directory) = &live.origin {
        directories.insert(directory.join("apis"));
    }
    directories
}

/// What lies in the directories, by name, length and time; links are followed.
pub(super) fn signature(directories: &BTreeSet<PathBuf>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for directory in directories {
        directory.hash(&mut hasher);
        let Ok(entries) = fs::read_dir(directory) else {
            continue;
        };
        let mut files: Vec<_> = entries
            .flatten()
            .take(MAX_POLLED_ENTRIES)
            .map(|entry| {
                let metadata = fs::metadata(entry.path());
                let state = metadata.map(|it| (it.len(), it.modified().ok())).ok();
                (entry.file_name(), state)
            })
            .collect();
        files.sort();
        files.hash(&mut hasher);
    }
    hasher.finish()
}
