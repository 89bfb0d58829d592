//! A service under the test's control: it records every request as it came and answers with the bytes it is told to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{PATIENCE, eventually};

/// A request as it arrived at the service.
#[derive(Clone, Debug)]
pub struct Call {
    /// Request line and fields, without the empty line.
    pub head: String,
    /// The body, chunks put together.
    pub body: Vec<u8>,
    /// Which connection of the service it came on, from 1.
    pub connection: usize,
}

impl Call {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub fn method(&self) -> &str {
        self.line().split(' ').next().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or_default()
    }

    /// Values of a field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let fields = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'));
        fields
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }
}

/// What the service does after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Waits for the next request.
    Continue,
    /// Closes the connection.
    Close,
    /// Says nothing more and keeps the connection open.
    Hold,
}

type Behaviour = dyn Fn(&Call, &mut TcpStream) -> Then + Send + Sync;

#[derive(Clone)]
enum Manner {
    Answers(Arc<Behaviour>),
    Resets,
    Stalls,
}

/// A service on a port of its own.
pub struct Service {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    manner: Mutex<Manner>,
    calls: Mutex<Vec<Call>>,
    connections: AtomicUsize,
    ended: AtomicBool,
}

impl Service {
    /// Answers everything with 200 and `ok`.
    pub fn new() -> Self {
        Self::answering(|_, stream| ok(stream, "ok"))
    }

    pub fn answering(
        behaviour: impl Fn(&Call, &mut TcpStream) -> Then + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            manner: Mutex::new(Manner::Answers(Arc::new(behaviour))),
            calls: Mutex::default(),
            connections: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let served = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if served.ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = served.connections.fetch_add(1, Ordering::SeqCst) + 1;
                let shared = Arc::clone(&served);
                thread::spawn(move || serve(stream, number, &shared));
            }
        });
        Self { address, shared }
    }

    /// Answers everything with these bytes, then does as told.
    pub fn saying(bytes: &'static [u8], then: Then) -> Self {
        Self::answering(move |_, stream| {
            let _ = stream.write_all(bytes);
            then
        })
    }

    /// Resets every connection once something arrives.
    pub fn resetting() -> Self {
        Self::new().with(Manner::Resets)
    }

    /// Accepts and never says anything.
    pub fn stalling() -> Self {
        Self::new().with(Manner::Stalls)
    }

    /// A URL nothing listens on.
    pub fn nowhere() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    fn with(self, manner: Manner) -> Self {
        *self.shared.manner.lock().unwrap() = manner;
        self
    }

    pub fn now(&self, behaviour: impl Fn(&Call, &mut TcpStream) -> Then + Send + Sync + 'static) {
        *self.shared.manner.lock().unwrap() = Manner::Answers(Arc::new(behaviour));
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// Forgets what came so far.
    pub fn forget(&self) {
        self.shared.calls.lock().unwrap().clear();
    }

    /// The request that came last.
    pub fn last(&self) -> Call {
        self.calls().pop().expect("a request reached the service")
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits until so many requests have come.
    pub fn has_calls(&self, count: usize) {
        eventually("requests reach the service", || self.calls().len() >= count);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers 200 with a text.
pub fn ok(stream: &mut TcpStream, text: &str) -> Then {
    let length = text.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{text}"
    );
    let _ = stream.write_all(answer.as_bytes());
    Then::Continue
}

/// Writes one chunk of a chunked body; an empty one ends it.
pub fn chunk(stream: &mut TcpStream, data: &[u8]) {
    let _ = write!(stream, "{:x}\r\n", data.len());
    let _ = stream.write_all(data);
    let _ = stream.write_all(b"\r\n");
}

fn serve(mut stream: TcpStream, connection: usize, shared: &Shared) {
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(2 * PATIENCE));
    let _ = stream.set_write_timeout(Some(2 * PATIENCE));
    let manner = || shared.manner.lock().unwrap().clone();
    match manner() {
        Manner::Answers(_) => (),
        // Closing with unread bytes makes the kernel send a reset.
        Manner::Resets => return drop(stream.read(&mut [0; 1])),
        Manner::Stalls => return hold(&mut stream),
    }
    let mut reader = Reader {
        stream: stream.try_clone().unwrap(),
        buffer: Vec::new(),
    };
    while let Some(call) = reader.call(connection) {
        shared.calls.lock().unwrap().push(call.clone());
        let Manner::Answers(behaviour) = manner() else {
            return;
        };
        match behaviour(&call, &mut stream) {
            Then::Continue => (),
            Then::Close => return,
            Then::Hold => return hold(&mut stream),
        }
    }
}

fn hold(stream: &mut TcpStream) {
    while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
}

struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Reader {
    fn call(&mut self, connection: usize) -> Option<Call> {
        let head = self.until(b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut call = Call {
            head,
            body: Vec::new(),
            connection,
        };
        if call.header("expect").is_some() {
            self.stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .ok()?;
        }
        call.body = match (
            call.header("transfer-encoding"),
            call.header("content-length"),
        ) {
            (Some(_), _) => self.chunks()?,
            (None, Some(length)) => self.exactly(length.parse().ok()?)?,
            (None, None) => Vec::new(),
        };
        Some(call)
    }

    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8(self.until(b"\r\n")?).ok()?;
            let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
            if size == 0 {
                while !self.until(b"\r\n")?.is_empty() {}
                return Some(body);
            }
            body.extend(self.exactly(size)?);
            self.until(b"\r\n")?;
        }
    }

    /// What comes before `end`, which is taken off as well.
    fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self
                .buffer
                .windows(end.len())
                .position(|window| window == end)
            {
                let found = self.buffer.drain(..at + end.len()).take(at).collect();
                return Some(found);
            }
            self.more()?;
        }
    }

    fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            self.more()?;
        }
        Some(self.buffer.drain(..length).collect())
    }

    fn more(&mut self) -> Option<()> {
        let mut bytes = [0; 16 * 1024];
        let read = self.stream.read(&mut bytes).ok().filter(|read| *read > 0)?;
        self.buffer.extend_from_slice(&bytes[..read]);
        Some(())
    }
}
