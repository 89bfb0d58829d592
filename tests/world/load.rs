//! Steady load while something happens, every failure kept.

use std::cell::RefCell;
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
    /// A connection for each request.
    pub fn on(address: SocketAddr, path: &'static str) -> Self {
        Self::by(move || ask(address, path))
    }

    /// Connections are kept while the gateway keeps them.
    pub fn kept(address: SocketAddr, path: &'static str) -> Self {
        thread_local! {
            static KEPT: RefCell<Option<Client>> = const { RefCell::new(None) };
        }
        Self::by(move || KEPT.with_borrow_mut(|client| ask_on(client, address, path)))
    }

    /// A connection for each request, with a key.
    pub fn keyed(address: SocketAddr, path: &'static str, key: &str) -> Self {
        let key: Arc<str> = key.into();
        Self::by(move || ask_with(address, path, &[("x-api-key", &key)]))
    }

    fn by(ask: impl Fn() -> Option<String> + Clone + Send + 'static) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let client = || {
            let (stopped, done) = (Arc::clone(&stopped), Arc::clone(&done));
            let ask = ask.clone();
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                while !stopped.load(Ordering::SeqCst) {
                    failures.extend(ask());
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
    ask_with(address, path, &[])
}

fn ask_with(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Option<String> {
    let Some(mut client) = Client::try_connect(address) else {
        return Some("connection refused".to_owned());
    };
    let headers: Vec<_> = headers
        .iter()
        .copied()
        .chain([("connection", "close")])
        .collect();
    client.request("GET", path, &headers, b"");
    match client.answer() {
        Ok(answer) if answer.status == 200 => None,
        Ok(answer) => Some(format!("{}: {}", answer.status, answer.text())),
        Err(broken) => Some(format!("{broken:?}")),
    }
}

fn ask_on(client: &mut Option<Client>, address: SocketAddr, path: &str) -> Option<String> {
    let Some(kept) = client
        .take()
        .or_else(|| Client::try_connect(address))
        .map(|kept| client.insert(kept))
    else {
        return Some("connection refused".to_owned());
    };
    kept.request("GET", path, &[], b"");
    let answer = kept.answer();
    let closes = answer.as_ref().map_or(true, |answer| {
        answer
            .header("connection")
            .is_some_and(|it| it.eq_ignore_ascii_case("close"))
    });
    if closes {
        *client = None;
    }
    match answer {
        Ok(answer) if answer.status == 200 => None,
        Ok(answer) => Some(format!("{}: {}", answer.status, answer.text())),
        Err(broken) => Some(format!("{broken:?}")),
    }
}
