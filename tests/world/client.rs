//! A client that sends the bytes it is given and tells a clean ending from a torn one.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::{HOST, PATIENCE};

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// Asserts that this is the problem called `code`, told as problem+json.
    pub fn is_problem(&self, status: u16, code: &str) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        assert!(self.header("x-request-id").is_some(), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        let kind = problem["type"].as_str().unwrap_or_default();
        assert!(kind.ends_with(code), "{kind} is not {code}");
        self
    }

    /// What `RateLimit` says is left of the limit that `RateLimit-Policy` tells of as `policy`.
    pub fn left_of(&self, policy: &str) -> u64 {
        assert_eq!(self.header("ratelimit-policy"), Some(policy), "{self:?}");
        let name = policy.split(';').next().unwrap_or_default();
        let state = self.header("ratelimit").unwrap_or_default();
        let told = state
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(";r="));
        let left = told.and_then(|rest| rest.split(';').next()?.parse().ok());
        left.unwrap_or_else(|| panic!("{state:?} is not about {name}"))
    }

    /// The same of a call that passed; `None` of one that the limit refused.
    pub fn passed_leaving(&self, policy: &str) -> Option<u64> {
        let left = self.left_of(policy);
        if self.status == 200 {
            return Some(left);
        }
        self.is_problem(429, "quota_exceeded");
        None
    }
}

/// An answer that did not end as it should.
#[derive(Clone, Debug)]
pub enum Broken {
    /// The connection ended before the head did.
    NoHead(Vec<u8>),
    /// The head came, the body did not to its end.
    Torn(Answer),
}

/// A connection to the gateway.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("the gateway accepts connections")
    }

    pub fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// Sends bytes. Whoever was refused half-way is told so by the answer, not by the write.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {HOST}\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("content-length: {}\r\n", body.len());
        }
        head += "\r\n";
        self.send(head.as_bytes());
        self.send(body);
    }

    pub fn answer(&mut self) -> Result<Answer, Broken> {
        self.answer_to("GET")
    }

    /// Reads one answer to a request by this method; interim answers (1xx but 101) are passed over.
    pub fn answer_to(&mut self, method: &str) -> Result<Answer, Broken> {
        loop {
            let mut answer = self.head()?;
            if (100..200).contains(&answer.status) && answer.status != 101 {
                continue;
            }
            let bodiless = method == "HEAD" || matches!(answer.status, 101 | 204 | 304);
            if bodiless || self.body(&mut answer) {
                return Ok(answer);
            }
            return Err(Broken::Torn(answer));
        }
    }

    pub fn head(&mut self) -> Result<Answer, Broken> {
        let end = loop {
            match self
                .buffer
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                Some(end) => break end,
                None if self.more() => (),
                None => return Err(Broken::NoHead(std::mem::take(&mut self.buffer))),
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).take(end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        Ok(Answer {
            status: status.unwrap_or_default(),
            headers,
            body: Vec::new(),
        })
    }

    /// Whether the body came to its proper end.
    fn body(&mut self, answer: &mut Answer) -> bool {
        if answer.header("transfer-encoding").is_some() {
            loop {
                let Some(chunk) = self.chunk() else {
                    return false;
                };
                if chunk.is_empty() {
                    return true;
                }
                answer.body.extend(chunk);
            }
        }
        let length: Option<usize> = answer.header("content-length").and_then(|l| l.parse().ok());
        match length {
            Some(length) => {
                while self.buffer.len() < length && self.more() {}
                let whole = self.buffer.len() >= length;
                answer.body = self.buffer.drain(..length.min(self.buffer.len())).collect();
                whole
            }
            // Ended by the end of the connection: a reset is no clean end.
            None => {
                let clean = self.ended_cleanly();
                answer.body = std::mem::take(&mut self.buffer);
                clean
            }
        }
    }

    /// One chunk of a chunked body, empty for the last; `None` where it does not come whole.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line()?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            while !self.line()?.is_empty() {}
            return Some(Vec::new());
        }
        let data = self.exactly(size)?;
        self.line()?;
        Some(data)
    }

    pub fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.more() {
                return None;
            }
        }
        Some(self.buffer.drain(..length).collect())
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).ok();
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.buffer);
        let _reset_or_end = self.stream.read_to_end(&mut bytes);
        bytes
    }

    /// Whether the gateway closes this connection (cleanly or not) without saying more.
    pub fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more_or_timeout()
    }

    fn ended_cleanly(&mut self) -> bool {
        loop {
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return true,
                Ok(read) => self.buffer.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(_) => return false,
            }
        }
    }

    fn more(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(read) => {
                self.buffer.extend_from_slice(&bytes[..read]);
                read > 0
            }
            Err(_) => false,
        }
    }

    /// As `more`, but running out of patience is no end.
    fn more_or_timeout(&mut self) -> bool {
        let mut bytes = [0; 1024];
        match self.stream.read(&mut bytes) {
            Ok(read) => {
                self.buffer.extend_from_slice(&bytes[..read]);
                read > 0
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}
