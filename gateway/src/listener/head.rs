//! Reading a request head, or recognising HTTP/2, under a deadline and a cap.
//!
//! Promises: a silent connection costs a timer and nothing else; a head is complete, with CRLF throughout, before anybody
//! parses it. Not here: whether the head is acceptable (`door::head`).

use std::future::poll_fn;
use std::time::{Duration, Instant};

use pingora_core::server::ShutdownWatch;
use tollgate_policy::settings::DoorLimits;

use super::drain;
use super::stream::Connection;
use crate::denial::Denial;

/// The connection preface of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client that has just connected or just had its answer when the drain begins may have a request under way, which would be lost
/// with the connection: this long it is waited for. Its answer says that the connection ends.
pub(super) const REQUEST_GRACE: Duration = Duration::from_secs(1);

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A complete head of this many bytes.
    Head(usize),
    /// The preface of HTTP/2, still held by the connection.
    H2,
    /// Nothing that deserves an answer: closed, reset, silent, or draining.
    Silence,
    /// Something that is refused.
    Refused(Denial),
}

/// What is known about the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// Whether the preface of HTTP/2 is recognised.
    pub(super) h2: bool,
}

/// Waits for a request, for at most `keep_alive`, and then for its whole head, for at most `head_timeout`.
pub(super) async fn arrive(
    connection: &mut Connection,
    limits: &DoorLimits,
    expected: Expected,
    draining: &mut ShutdownWatch,
) -> Arrival {
    if connection.held().is_empty() && !first_bytes(connection, limits.keep_alive, draining).await {
        return Arrival::Silence;
    }
    let mut scan = Scan::default();
    let mut deadline = None;
    loop {
        if let Some(arrival) = scan.look(connection.held(), expected.h2, limits.head_bytes) {
            return arrival;
        }
        // Nearly every head comes in one piece and needs no clock.
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + limits.head_timeout);
        let left = deadline.saturating_duration_since(Instant::now());
        let receive = poll_fn(|cx| connection.poll_receive(cx));
        match pingora_timeout::timeout(left, receive).await {
            Err(_) => return Arrival::Refused(Denial::HeadTimeout),
            Ok(Ok(0) | Err(_)) => return Arrival::Silence,
            Ok(Ok(_)) => {}
        }
    }
}

/// Whether bytes came before the connection was closed, the time was over or the drain began.
async fn first_bytes(
    connection: &mut Connection,
    limit: Duration,
    draining: &mut ShutdownWatch,
) -> bool {
    let mut receive = poll_fn(|cx| connection.poll_receive(cx));
    let drained = async {
        drain::started(draining).await;
        pingora_timeout::sleep(REQUEST_GRACE).await;
    };
    let received = pingora_timeout::timeout(limit, async {
        tokio::select! {
            // What has already arrived is served, even in a drain.
            biased;
            received = &mut receive => matches!(received, Ok(1..)),
            () = drained => false,
        }
    });
    received.await.unwrap_or(false)
}

/// How far a head has been looked at, so that no byte is looked at twice.
#[derive(Debug, Default)]
pub struct Scan {
    at: usize,
    line_began: usize,
    /// Behind the empty line that some clients send before a request (RFC 9112, section 2.2).
    began: Option<usize>,
}

impl Scan {
    /// What `bytes`, all that was received so far, amount to; `None`: more is needed. `h2` recognises the preface of HTTP/2,
    /// `head_bytes` is the longest head accepted.
    pub fn look(&mut self, bytes: &[u8], h2: bool, head_bytes: usize) -> Option<Arrival> {
        if h2 && bytes.starts_with(PREFACE) {
            return Some(Arrival::H2);
        }
        if h2 && PREFACE.starts_with(bytes) {
            return None;
        }
        let unseen = bytes.get(self.at..).unwrap_or_default();
        for found in memchr::memchr_iter(b'\n', unseen) {
            let line_end = self.at + found;
            let line = bytes.get(self.line_began..line_end).unwrap_or_default();
            if line.last() != Some(&b'\r') {
                let text = "line ended by LF alone";
                return Some(Arrival::Refused(Denial::Malformed(text.into())));
            }
            self.line_began = line_end + 1;
            match (line, self.began) {
                (b"\r", None) => self.began = Some(line_end + 1),
                (b"\r", Some(_)) if self.line_began > head_bytes => {
                    return Some(Arrival::Refused(Denial::HeadTooLarge));
                }
                (b"\r", Some(_)) => return Some(Arrival::Head(line_end + 1)),
                _ => self.began = self.began.or(Some(0)),
            }
        }
        self.at = bytes.len();
        (bytes.len() > head_bytes).then_some(Arrival::Refused(Denial::HeadTooLarge))
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn look(bytes: &[u8], cut: usize) -> Option<Arrival> {
        let mut scan = Scan::default();
        (cut..=bytes.len())
            .step_by(cut)
            .find_map(|end| scan.look(&bytes[..end], true, 64))
    }

    #[test]
    fn a_head_is_found_at_its_end_however_it_is_cut() {
        let head = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let long = [b"GET / HTTP/1.1\r\nx: ".as_slice(), &[b'a'; 64]].concat();
        let bare = Denial::Malformed("line ended by LF alone".into());
        for cut in [1, 2, 3, 5] {
            let all = [head.as_slice(), b"rest of it"].concat();
            assert_eq!(
                look(&all, cut),
                Some(Arrival::Head(head.len())),
                "cut at {cut}"
            );
            let led = [b"\r\n".as_slice(), head, b"rest of it"].concat();
            assert_eq!(look(&led, cut), Some(Arrival::Head(head.len() + 2)));
            assert_eq!(
                look(&long, cut),
                Some(Arrival::Refused(Denial::HeadTooLarge))
            );
            let lf = b"GET / HTTP/1.1\nhost: a\n\n     ";
            assert_eq!(look(lf, cut), Some(Arrival::Refused(bare.clone())));
            assert_eq!(look(b"GET / HTTP/1.1\r\nhost", cut), None);
        }
        assert_eq!(look(PREFACE, 1), Some(Arrival::H2));
        assert_eq!(look(&PREFACE[..20], 1), None);
    }
}
