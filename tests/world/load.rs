//! Steady load while something happens, every request on a connection of its own, every failure kept.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use super::{Client, eventually};

/// Clients at once.
const CLIENTS: usize = 3;

/// Clients that ask until they are stopped.
pub struct Load {
    stopped: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    pub fn on(address: SocketAddr, path: &'static str) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let client = || {
            let (stopped, done) = (Arc::clone(&stopped), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                while !stopped.load(Ordering::SeqCst) {
                    failures.extend(ask(address, path));
                    done.fetch_add(1, Ordering::SeqCst);
                }
                failures
            })
        };
        let clients = (0..CLIENTS).map(|_| client()).collect();
        let load = Self {
            stopped,
            done,
            clients,
        };
        load.goes_on();
        load
    }

    /// Waits until a few more requests are through.
    pub fn goes_on(&self) {
        let before = self.done.load(Ordering::SeqCst);
        eventually("load goes on", || {
            self.done.load(Ordering::SeqCst) > before + 10 * CLIENTS
        });
    }

    /// Stops; no request may have failed.
    pub fn lost_nothing(self) {
        self.stopped.store(true, Ordering::SeqCst);
        let done = self.done.load(Ordering::SeqCst);
        let failures: Vec<String> = self
            .clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect();
        assert!(
            failures.is_empty(),
            "{} of {done} failed: {:?}",
            failures.len(),
            failures.first()
        );
    }
}

fn ask(address: SocketAddr, path: &str) -> Option<String> {
    let Some(mut client) = Client::try_connect(address) else {
        return Some("connection refused".to_owned());
    };
    client.request("GET", path, &[("connection", "close")], b"");
    match client.answer() {
        Ok(answer) if answer.status == 200 => None,
        Ok(answer) => Some(format!("{}: {}", answer.status, answer.text())),
        Err(broken) => Some(format!("{broken:?}")),
    }
}
