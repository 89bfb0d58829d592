//! What happened: metrics, access records, trace context, request ids.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tollgate_policy::settings::AccessLogTarget;

/// One request, told once when it is over. Borrowed where it can be: submitting allocates nothing but the line.
#[derive(Debug, Clone)]
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

/// Handles of one operation's series, resolved when a snapshot is compiled, so that the path only adds.
#[derive(Debug)]
pub struct OperationMetrics {
    _private: (),
}

/// What [`OperationMetrics::finish`] counts.
#[derive(Debug, Clone, Copy)]
pub struct Finished {
    /// Status sent; 0 where none was.
    pub status: u16,
    /// Whole time.
    pub total: Duration,
    /// Time the upstream took to the head of its answer.
    pub upstream: Option<Duration>,
    /// `answered`, `connect_failed`, ... empty where none was asked.
    pub upstream_outcome: &'static str,
    /// Denial code, empty where admitted.
    pub denial: &'static str,
    /// Bytes of the request body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
}

impl OperationMetrics {
    /// A request began.
    pub fn start(&self) {}

    /// It is over.
    pub fn finish(&self, finished: &Finished) {
        let _ = finished;
    }
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    _private: (),
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { _private: () })
    }

    /// Handles of one operation. `operation` is `""` for what is no operation of the API; `api` is `""` for what no API serves.
    /// Asking again for the same labels returns the same series.
    pub fn operation(&self, api: &str, operation: &str, method: &str) -> Arc<OperationMetrics> {
        let _ = (api, operation, method);
        Arc::new(OperationMetrics { _private: () })
    }

    /// Forgets the series of an API that is no longer served.
    pub fn forget_api(&self, api: &str) {
        let _ = api;
    }

    /// A connection was accepted (`tollgate_connections_total`, `tollgate_connections`).
    pub fn connection_opened(&self, listener: &str) {
        let _ = listener;
    }

    /// A connection ended.
    pub fn connection_closed(&self, listener: &str) {
        let _ = listener;
    }

    /// A connection was cut or refused: `permits`, `per_address`, `handshake`, `handshake_timeout`, `proxy_protocol`, `h2_flood`, ...
    pub fn connection_refused(&self, listener: &str, cause: &'static str) {
        let _ = (listener, cause);
    }

    /// A reload of an API ended: `ok` or not; sets `tollgate_api_generation` and `tollgate_api_reload_failed`.
    pub fn reloaded(&self, api: &str, ok: bool, generation: u64) {
        let _ = (api, ok, generation);
    }

    /// A request on the parser level was refused before any API was known.
    pub fn malformed(&self, denial: &'static str) {
        let _ = denial;
    }

    /// The Prometheus text page.
    pub fn render(&self) -> String {
        String::new()
    }
}

/// Writes access records as JSON lines from a thread of its own; drops and counts instead of blocking.
#[derive(Debug, Clone)]
pub struct AccessLog {
    _private: (),
}

impl AccessLog {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn start(target: &AccessLogTarget, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let _ = (target, metrics);
        Ok(Self { _private: () })
    }

    /// Hands a record over; never blocks.
    pub fn submit(&self, record: &AccessRecord<'_>) {
        let _ = record;
    }

    /// Writes what is queued, waiting at most `limit`.
    pub fn flush(&self, limit: Duration) {
        let _ = limit;
    }
}

/// A request id: 128 random bits as 32 hex digits (or the client's, where it is `[A-Za-z0-9._-]{8,64}`).
#[derive(Clone, Copy, Debug)]
pub struct RequestId {
    bytes: [u8; 64],
    length: u8,
}

impl RequestId {
    /// Takes the client's id where it is fit, else makes one.
    pub fn accept_or_new(client: Option<&[u8]>) -> Self {
        let _ = client;
        Self {
            bytes: [b'0'; 64],
            length: 32,
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        self.bytes
            .get(..usize::from(self.length))
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }
}

/// W3C trace context (https://www.w3.org/TR/trace-context/): accepted or started, passed on with a new span id.
#[derive(Clone, Copy, Debug)]
pub struct TraceContext {
    text: [u8; 55],
}

impl TraceContext {
    /// Continues a valid `traceparent` with a new parent id; starts a new trace otherwise (then `tracestate` is dropped).
    /// The flag tells whether the client's was continued.
    pub fn accept_or_new(client: Option<&[u8]>) -> (Self, bool) {
        let _ = client;
        (
            Self {
                text: *b"00-00000000000000000000000000000001-0000000000000001-00",
            },
            false,
        )
    }

    /// The `traceparent` to send on.
    pub fn header(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    /// Trace id, 32 hex digits.
    pub fn trace_id(&self) -> &str {
        self.header().get(3..35).unwrap_or_default()
    }
}
