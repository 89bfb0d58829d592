//! Access records: written as JSON lines by a thread of their own.
//!
//! Promises: handing over never waits for the disk, the pipe or the terminal; what is queued is bounded in bytes; lost
//! records are counted. A sink that fails is tried again for as long as the process lives. Not here: rotating files;
//! whoever rotates calls [`AccessLog::reopen`].

use std::borrow::Cow;
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tollgate_policy::settings::AccessLogTarget;
use tollgate_policy::workload::WorkloadId;

use super::Metrics;
use super::json::write_line;

/// One request, told once when it is over. Borrowed where it can be: submitting allocates nothing but the line.
#[derive(Debug, Clone, Default)]
pub struct AccessRecord<'r> {
    /// `x-request-id`.
    pub request_id: &'r str,
    /// Trace id, 32 hex digits.
    pub trace_id: &'r str,
    /// Client address, after PROXY protocol and trusted hops.
    pub client: Option<SocketAddr>,
    /// `HTTP/1.1`, `HTTP/2.0`, ...
    pub protocol: &'static str,
    /// TLS or not.
    pub tls: bool,
    /// Method as sent (cut at 16 bytes).
    pub method: &'r str,
    /// Host as sent (cut at 255 bytes).
    pub host: &'r str,
    /// Path without query (cut at 512 bytes): queries may carry keys.
    pub path: &'r str,
    /// API, empty where none was found.
    pub api: &'r str,
    /// Operation name, empty where none was found.
    pub operation: &'r str,
    /// Consumer that called, empty where none was identified.
    pub consumer: &'r str,
    /// Public identifier of its credential, never the credential.
    pub credential: &'r str,
    /// Its plan for the API, empty where it has none.
    pub plan: &'r str,
    /// The process of the installation that sent it; written only where one was verified.
    pub source_workload: Option<&'r WorkloadId>,
    /// Status sent; 0 where none was.
    pub status: u16,
    /// Denial code, empty where admitted.
    pub denial: &'static str,
    /// Inner reason for the log alone.
    pub reason: Cow<'r, str>,
    /// Address of the last endpoint asked.
    pub upstream: &'r str,
    /// `answered`, `connect_failed`, ... empty where none was asked.
    pub upstream_outcome: &'static str,
    /// How often an endpoint was asked.
    pub attempts: u32,
    /// Bytes of the request body read from the client.
    pub request_bytes: u64,
    /// Bytes of the answer's body written to the client.
    pub response_bytes: u64,
    /// The steps gone through and their time, in order: `("classify", 700ns)`.
    pub steps: &'r [(&'static str, Duration)],
    /// Whole time.
    pub total: Duration,
    /// The connection ended before the answer was complete.
    pub aborted: bool,
}

/// Bytes queued at most: some thousand lines, a second or two of a busy process while the disk stalls.
const QUEUE_BYTES: usize = 2 * 1024 * 1024;
/// From here on the writer does not wait for more lines.
const BATCH_BYTES: usize = 64 * 1024;
/// How long the writer gathers lines, so that a busy process wakes it two hundred times a second and not per request.
const GATHER: Duration = Duration::from_millis(5);
/// Pause after a sink failed or was full.
const PAUSE_FAILED: Duration = Duration::from_secs(1);
const PAUSE_FULL: Duration = Duration::from_millis(10);

/// Writes access records as JSON lines from a thread of its own; drops and counts instead of blocking.
#[derive(Debug, Clone)]
pub struct AccessLog {
    handle: Option<Arc<Handle>>,
}

impl AccessLog {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn start(target: &AccessLogTarget, metrics: Arc<Metrics>) -> io::Result<Self> {
        let (sink, path) = match target {
            AccessLogTarget::Off => return Ok(Self { handle: None }),
            AccessLogTarget::Stdout => {
                (File::from(io::stdout().as_fd().try_clone_to_owned()?), None)
            }
            AccessLogTarget::File(path) => (open(path)?, Some(path.clone())),
        };
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let theirs = Arc::clone(&queue);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                Writer {
                    queue: &theirs,
                    sink,
                    path: path.as_deref(),
                }
                .run();
            })?;
        Ok(Self {
            handle: Some(Arc::new(Handle { queue, metrics })),
        })
    }

    /// Hands a record over; never blocks.
    pub fn submit(&self, record: &AccessRecord<'_>) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let Some(handle) = &self.handle else { return };
        LINE.with_borrow_mut(|line| {
            line.clear();
            write_line(line, record, SystemTime::now());
            if !handle.queue.push(line) {
                handle.metrics.access_log_dropped(1);
            }
        });
    }

    /// Writes what is queued, waiting at most `limit`.
    pub fn flush(&self, limit: Duration) {
        let Some(handle) = &self.handle else { return };
        let until = Instant::now() + limit;
        let mut state = handle.queue.state.lock();
        while !state.lines.is_empty() || state.writing {
            state.hurry = true;
            handle.queue.changed.notify_all();
            if handle
                .queue
                .changed
                .wait_until(&mut state, until)
                .timed_out()
            {
                return;
            }
        }
    }

    /// Opens the file anew (after it was moved away); where that fails the old one stays in use.
    pub fn reopen(&self) {
        if let Some(handle) = &self.handle {
            handle.queue.state.lock().reopen = true;
            handle.queue.changed.notify_all();
        }
    }
}

/// What all clones share; the last one to go ends the writer.
#[derive(Debug)]
struct Handle {
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.state.lock().closed = true;
        self.queue.changed.notify_all();
    }
}

/// Lines between the request path and the writer. The lock is held to copy a line or swap the buffer, never over I/O.
#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// The writer waits for the first line.
    asleep: bool,
    /// The writer holds lines that are not written yet.
    writing: bool,
    /// Someone waits in `flush`.
    hurry: bool,
    reopen: bool,
    closed: bool,
}

impl Queue {
    /// Takes the line unless the queue is full.
    fn push(&self, line: &[u8]) -> bool {
        let mut state = self.state.lock();
        if state.lines.len() + line.len() > QUEUE_BYTES {
            return false;
        }
        let before = state.lines.len();
        state.lines.extend_from_slice(line);
        let full_batch = before < BATCH_BYTES && state.lines.len() >= BATCH_BYTES;
        let wake = state.asleep || full_batch;
        state.asleep = false;
        drop(state);
        if wake {
            self.changed.notify_all();
        }
        true
    }
}

struct Writer<'q> {
    queue: &'q Queue,
    sink: File,
    path: Option<&'q Path>,
}

impl Writer<'_> {
    fn run(mut self) {
        let mut batch = Vec::new();
        while self.next_batch(&mut batch) {
            self.write(&batch);
            batch.clear();
            // One stall must not keep its memory for ever.
            batch.shrink_to(BATCH_BYTES * 2);
            let mut state = self.queue.state.lock();
            state.writing = false;
            self.queue.changed.notify_all();
        }
    }

    /// Waits for lines; `false` when there will be none.
    fn next_batch(&mut self, batch: &mut Vec<u8>) -> bool {
        let queue = self.queue;
        let mut state = queue.state.lock();
        loop {
            if state.reopen {
                self.reopen(&mut state);
            } else if !state.lines.is_empty() {
                break;
            } else if state.closed {
                return false;
            } else {
                state.asleep = true;
                queue.changed.wait(&mut state);
            }
        }
        state.asleep = false;
        let until = Instant::now() + GATHER;
        while state.lines.len() < BATCH_BYTES && !state.hurry && !state.closed {
            if queue.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.hurry = false;
        state.writing = true;
        std::mem::swap(&mut state.lines, batch);
        true
    }

    /// Writes all of it, however often the sink refuses; gives up only when the log is closed.
    fn write(&mut self, batch: &[u8]) {
        let mut rest = batch;
        while !rest.is_empty() {
            let pause = match self.sink.write(rest) {
                Ok(0) => PAUSE_FAILED,
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => PAUSE_FULL,
                Err(_) => PAUSE_FAILED,
            };
            let queue = self.queue;
            let mut state = queue.state.lock();
            if state.closed {
                return;
            }
            if !state.reopen {
                queue.changed.wait_for(&mut state, pause);
            }
            if state.reopen && self.reopen(&mut state) {
                // A line begun in the old file does not go on in the new one.
                let begun = batch.len() - rest.len();
                let torn = begun > 0 && batch.get(begun - 1) != Some(&b'\n');
                let after = rest
                    .iter()
                    .position(|&b| b == b'\n')
                    .map_or(rest.len(), |at| at + 1);
                rest = if torn {
                    rest.get(after..).unwrap_or_default()
                } else {
                    rest
                };
            }
        }
    }

    /// Opens outside the lock; tells whether the sink is a new one.
    fn reopen(&mut self, state: &mut MutexGuard<'_, State>) -> bool {
        state.reopen = false;
        let Some(path) = self.path else { return false };
        match MutexGuard::unlocked(state, || open(path)) {
            Ok(sink) => {
                self.sink = sink;
                true
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "access log cannot be reopened");
                false
            }
        }
    }
}

/// Opens for appending without ever waiting: a FIFO nobody reads would hold `open` and `write` up for ever.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NONBLOCK);
    match options.open(path) {
        // A FIFO without a reader: with ourselves as one it can be opened, and whoever comes later reads.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => options.read(true).open(path),
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn record(path: &str) -> AccessRecord<'_> {
        AccessRecord {
            path,
            ..AccessRecord::default()
        }
    }

    fn dropped(metrics: &Metrics) -> u64 {
        let page = metrics.render();
        let name = "tollgate_access_log_dropped_total ";
        page.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .parse()
            .unwrap()
    }

    #[test]
    fn records_of_all_threads_arrive_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let metrics = Metrics::new();
        let log = AccessLog::start(&AccessLogTarget::File(path.clone()), metrics.clone()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| log.submit(&record("/x"))));
            }
        });
        log.flush(LIMIT);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2000);
        assert!(
            text.lines()
                .all(|l| serde_json::from_str::<serde_json::Value>(l).is_ok())
        );
        assert_eq!(dropped(&metrics), 0);
    }

    #[test]
    fn a_sink_nobody_reads_drops_instead_of_blocking() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        let metrics = Metrics::new();
        let log = AccessLog::start(&AccessLogTarget::File(path), metrics.clone()).unwrap();
        let long = "x".repeat(512);
        let started = Instant::now();
        (0..20_000).for_each(|_| log.submit(&record(&long)));
        log.flush(Duration::from_millis(20));
        assert!(started.elapsed() < LIMIT);
        assert!(dropped(&metrics) > 0);
    }

    #[test]
    fn a_full_disk_is_survived_and_counted() {
        let metrics = Metrics::new();
        let target = AccessLogTarget::File("/dev/full".into());
        let Ok(log) = AccessLog::start(&target, metrics.clone()) else {
            return println!("skipped: no /dev/full");
        };
        let long = "x".repeat(512);
        (0..20_000).for_each(|_| log.submit(&record(&long)));
        assert!(dropped(&metrics) > 0);
    }

    #[test]
    fn a_moved_file_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("a.log"), dir.path().join("a.log.1"));
        let log = AccessLog::start(&AccessLogTarget::File(path.clone()), Metrics::new()).unwrap();
        log.submit(&record("/first"));
        log.flush(LIMIT);
        std::fs::rename(&path, &moved).unwrap();
        log.reopen();
        log.submit(&record("/second"));
        log.flush(LIMIT);
        assert!(std::fs::read_to_string(&moved).unwrap().contains("/first"));
        let anew = std::fs::read_to_string(&path).unwrap();
        assert!(anew.contains("/second") && !anew.contains("/first"));
    }

    #[test]
    fn off_takes_records_and_writes_nothing() {
        let log = AccessLog::start(&AccessLogTarget::Off, Metrics::new()).unwrap();
        log.submit(&record("/x"));
        log.reopen();
        log.flush(LIMIT);
    }
}
