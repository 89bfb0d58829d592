//! Callers, and what they call: each call can be told from the others in what is billed.
#![allow(unreachable_pub, missing_docs, reason = "for tests")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends by panicking"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use crate::world::fleet::Fleet;
use crate::world::{Call, Client, Service};

/// What callers do, each one of it: operation, method, path, body.
pub const OPERATIONS: [(&str, &str, &str, &[u8]); 3] = [
    ("listBooks", "GET", "/v1/books", b""),
    ("getBook", "GET", "/v1/books/moby", b""),
    ("createBook", "POST", "/v1/books", b"{}"),
];

/// A call costs what follows from its number, so that sums show which calls they are of.
pub fn units(number: u64) -> u64 {
    1 + (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44)
}

/// Callers of one life of a gateway.
pub struct Callers {
    /// Each gives how many of its calls were answered.
    pub threads: Vec<JoinHandle<u64>>,
    pub over: Arc<AtomicBool>,
    /// Of all.
    pub answered: Arc<AtomicU64>,
}

impl Callers {
    pub fn start(address: SocketAddr, key: &str, life: usize) -> Self {
        let (over, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let caller = |operation| {
            let (over, answered) = (Arc::clone(&over), Arc::clone(&answered));
            let key = key.to_owned();
            std::thread::spawn(move || {
                let mut caller = Caller {
                    address,
                    key,
                    life,
                    operation,
                    number: 0,
                };
                while !over.load(Ordering::SeqCst) && caller.call(&over, &answered) {
                    sleep(Duration::from_millis(2));
                }
                caller.number
            })
        };
        Self {
            threads: (0..OPERATIONS.len()).map(caller).collect(),
            over,
            answered,
        }
    }
}

struct Caller {
    address: SocketAddr,
    key: String,
    life: usize,
    operation: usize,
    /// Of the next call; so many were answered.
    number: u64,
}

impl Caller {
    /// Calls on one connection; whether to try another one. A call that was cut off may have been billed: none comes after it.
    fn call(&mut self, over: &AtomicBool, answered: &AtomicU64) -> bool {
        let Some(mut client) = Client::try_connect(self.address) else {
            return true;
        };
        let (_, method, path, body) = OPERATIONS[self.operation];
        while !over.load(Ordering::SeqCst) {
            let cost = units(self.number);
            let path = format!(
                "{path}?cost={cost}&life={}&caller={}",
                self.life, self.operation
            );
            client.request(method, &path, &[("x-api-key", &self.key)], body);
            match client.answer_to(method).map(|answer| answer.status) {
                Ok(200) => {
                    self.number += 1;
                    answered.fetch_add(1, Ordering::SeqCst);
                }
                // Who calls is not known here yet, or there is no room in the journal: it is not forwarded.
                Ok(429 | 503) => {
                    sleep(Duration::from_millis(20));
                    return true;
                }
                Ok(other) => panic!("{other}"),
                Err(_) => return false,
            }
        }
        false
    }
}

/// Life and operation of a call that reached the service.
pub fn of_target(call: &Call) -> (usize, usize) {
    let number = |name: &str| {
        let value = call
            .target()
            .split(['?', '&'])
            .find_map(|it| it.strip_prefix(name));
        value.unwrap().parse().unwrap()
    };
    (number("life="), number("caller="))
}

/// The API file: each operation costs what the call says.
pub fn shop(service: &Service) -> String {
    let cost = "{ cost: { rows: { from: query, name: cost, reserve: 1 } } }";
    let operations = OPERATIONS.map(|(name, ..)| format!("  {name}: {cost}\n"));
    format!(
        "spec: ../shop-spec.yaml\nupstream: {{ url: '{}' }}\noperations:\n{}",
        service.url(),
        operations.concat()
    )
}

pub fn consumers(lives: usize) -> String {
    let consumer = |life| format!("          life{life}: {{ subscriptions: {{ shop: free }} }}\n");
    let head = "organisations:\n  bookshop:\n    projects:\n      floor:\n        consumers:\n";
    let consumers: String = (0..lives).map(consumer).collect();
    format!("{head}{consumers}")
}

pub fn key(fleet: &Fleet, life: usize) -> String {
    let credential = std::fs::read_to_string(fleet.state("control").join("admin-credential"));
    let mut client = Client::connect(fleet.api);
    let request = format!(
        "POST /v1/consumers/life{life}/keys HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}",
        fleet.api,
        credential.unwrap().trim(),
    );
    client.send(request.as_bytes());
    let answer = client.answer_to("POST").unwrap();
    let secret = answer.json()["secret"].as_str().map(str::to_owned);
    secret.unwrap_or_else(|| panic!("{answer:?}"))
}
