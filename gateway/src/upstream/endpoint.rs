//! One endpoint: what is known about it (latency, calls in flight, ejection, health) and an attempt on it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use pingora_core::upstreams::peer::HttpPeer;
use serde::Serialize;
use tollgate_policy::workload::WorkloadId;

use super::cluster::Rules;
use super::ejection::{Ejection, Standing};
use super::peer::TlsPolicy;
use super::pool::PoolKey;
use super::{EndpointAddress, Outcome};

/// After this time an old latency weighs 1/e: long enough to remember, short enough to try a slow endpoint again.
const DECAY: Duration = Duration::from_secs(10);
/// What a call in flight costs (seconds) while no latency is known: a new endpoint gets one call, not the whole load.
const UNKNOWN: f64 = 1.0;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the first call of this function in the process, plus a day (0 stays free for "never", and
/// second 0 is out of every window).
pub(super) fn now() -> u64 {
    const DAY: Duration = Duration::from_secs(86_400);
    u64::try_from((START.elapsed() + DAY).as_nanos()).unwrap_or(u64::MAX)
}

/// What is known about an address. Outlives a change of configuration.
#[derive(Debug)]
pub(super) struct EndpointState {
    /// Bits of an `f64`: seconds. 0: unknown.
    latency: AtomicU64,
    measured: AtomicU64,
    in_flight: AtomicU32,
    ejection: Ejection,
    pub(super) healthy: AtomicBool,
    /// Checks in a row that disagree with `healthy`.
    pub(super) dissent: AtomicU32,
}

impl Default for EndpointState {
    fn default() -> Self {
        Self {
            latency: AtomicU64::new(0),
            measured: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            ejection: Ejection::default(),
            healthy: AtomicBool::new(true),
            dissent: AtomicU32::new(0),
        }
    }
}

impl EndpointState {
    /// The latency in seconds, decayed to `now`.
    fn latency(&self, now: u64) -> f64 {
        f64::from_bits(self.latency.load(Relaxed)) * self.decay(now)
    }

    fn decay(&self, now: u64) -> f64 {
        let age = Duration::from_nanos(now.saturating_sub(self.measured.load(Relaxed)));
        (-age.as_secs_f64() / DECAY.as_secs_f64()).exp()
    }

    /// Forgets the past of an endpoint that came back.
    fn measure_afresh(&self, sample: Duration, now: u64) {
        self.latency.store(sample.as_secs_f64().to_bits(), Relaxed);
        self.measured.store(now, Relaxed);
    }

    /// Peaks are believed at once, improvements by and by.
    fn measure(&self, sample: Duration, now: u64) {
        let sample = sample.as_secs_f64();
        let old = f64::from_bits(self.latency.load(Relaxed));
        let weight = self.decay(now);
        let new = if sample > old {
            sample
        } else {
            old * weight + sample * (1.0 - weight)
        };
        self.latency.store(new.to_bits(), Relaxed);
        self.measured.store(now, Relaxed);
    }
}

/// An address of the cluster with all that is needed to connect to it.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) address: EndpointAddress,
    /// Who it has to be, where that is known.
    pub(super) id: Option<WorkloadId>,
    pub(super) authority: Arc<str>,
    /// How records name it.
    pub(super) label: Arc<str>,
    /// For connections of our own; `None`: cleartext.
    pub(super) tls: Option<TlsPolicy>,
    pub(super) peer: Arc<HttpPeer>,
    pub(super) pool_key: PoolKey,
    pub(super) state: Arc<EndpointState>,
    pub(super) rules: Rules,
}

impl Endpoint {
    pub(super) fn healthy(&self) -> bool {
        !self.rules.checked || self.state.healthy.load(Relaxed)
    }

    pub(super) fn usable(&self, now: u64) -> bool {
        self.healthy() && self.state.ejection.standing(now) != Standing::Out
    }

    /// Expected seconds until an answer, for the picker.
    pub(super) fn cost(&self, now: u64) -> f64 {
        let in_flight = f64::from(self.state.in_flight.load(Relaxed));
        // The probe of a half-open endpoint is worth a call, whatever it took to answer before.
        if self.state.ejection.standing(now) == Standing::HalfOpen {
            return 0.0;
        }
        if self.state.latency.load(Relaxed) == 0 {
            return in_flight * UNKNOWN;
        }
        self.state.latency(now) * (in_flight + 1.0)
    }

    pub(super) fn status(&self, now: u64) -> EndpointStatus {
        EndpointStatus {
            address: self.address.to_string(),
            authority: self.authority.to_string(),
            in_flight: self.state.in_flight.load(Relaxed),
            ewma_ms: self.state.latency(now) * 1000.0,
            ejected: self.state.ejection.standing(now) != Standing::In,
            healthy: self.healthy(),
        }
    }
}

/// What status pages show of an endpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointStatus {
    /// `ip:port` or `unix:/path`.
    pub address: String,
    /// Host and port as configured.
    pub authority: String,
    /// Attempts under way.
    pub in_flight: u32,
    /// Decayed latency to the head of the answer, in milliseconds; 0 while unknown.
    pub ewma_ms: f64,
    /// Out after failures, or waiting for its probe.
    pub ejected: bool,
    /// What active checks say; `true` when there are none.
    pub healthy: bool,
}

/// An endpoint chosen for one attempt. It counts as in flight until dropped; see [`Picked::finish`] for what follows an answer.
#[derive(Debug)]
pub struct Picked {
    /// The one probe of a half-open endpoint, where this attempt is it.
    probe: Option<Probe>,
    /// It was ejected (or half-open) when chosen.
    tried: bool,
    in_flight: InFlight,
}

/// A call that an endpoint is still busy with: it counts until dropped.
#[derive(Debug)]
#[must_use = "the call counts as over once this is dropped"]
pub struct InFlight(Arc<Endpoint>);

/// The claim on the one probe of a half-open endpoint, given back when dropped.
#[derive(Debug)]
struct Probe(Arc<Endpoint>);

impl Picked {
    pub(super) fn new(endpoint: Arc<Endpoint>, now: u64) -> Self {
        let ejection = &endpoint.state.ejection;
        let standing = ejection.standing(now);
        let claimed = standing == Standing::HalfOpen && ejection.claim_probe();
        Self {
            probe: claimed.then(|| Probe(Arc::clone(&endpoint))),
            tried: standing != Standing::In,
            in_flight: InFlight::new(endpoint),
        }
    }

    /// Where it is.
    pub fn address(&self) -> &EndpointAddress {
        &self.in_flight.0.address
    }

    /// The peer to connect to: timeouts, TLS, protocol, `group_key`, `max_h2_streams`, `idle_timeout` all set.
    pub fn peer(&self) -> &Arc<HttpPeer> {
        &self.in_flight.0.peer
    }

    /// Who it has to be, and by its certificate is.
    pub fn id(&self) -> Option<&WorkloadId> {
        self.in_flight.0.id.as_ref()
    }

    /// Host and port as configured, for `Host` rewriting and logs; the port is left out where it is the scheme's own,
    /// and a Unix socket is `localhost`.
    pub fn authority(&self) -> &str {
        &self.in_flight.0.authority
    }

    /// How records name it: its authority; an instance of a service with its address, `orders@10.0.0.1:9080`.
    pub fn label(&self) -> &str {
        &self.in_flight.0.label
    }

    /// Stands for the cluster, its TLS policy and its protocol: connections of different keys are never shared.
    pub fn group_key(&self) -> u64 {
        self.in_flight.0.peer.group_key
    }

    /// Under which idle connections to this endpoint are kept in [`super::pool`].
    pub fn pool_key(&self) -> &PoolKey {
        &self.in_flight.0.pool_key
    }

    /// Reports how the attempt ended; `latency` is from sending the request to the head of the answer. The endpoint stays busy
    /// until the body is through as well: an answer keeps what is returned until its end, a failure drops it.
    pub fn finish(self, outcome: Outcome, latency: Duration) -> InFlight {
        let (state, now) = (&self.in_flight.0.state, now());
        match outcome {
            Outcome::Answered if self.tried => state.measure_afresh(latency, now),
            Outcome::Answered | Outcome::TimedOut => state.measure(latency, now),
            // A quick failure is no low latency: it must not draw more calls.
            Outcome::ServerError | Outcome::ConnectFailed | Outcome::Broken => {}
            Outcome::Abandoned => return self.in_flight,
        }
        if outcome == Outcome::Answered {
            state.ejection.succeeded(self.tried);
        } else {
            self.blame(outcome, now);
        }
        drop(self.probe);
        self.in_flight
    }

    fn blame(&self, outcome: Outcome, now: u64) {
        let endpoint = &self.in_flight.0;
        let (ejection, rules) = (&endpoint.state.ejection, endpoint.rules);
        if ejection.failed(now, self.tried, rules.eject_after, rules.eject_for) {
            tracing::warn!(endpoint = %endpoint.address, authority = %endpoint.authority,
                reason = ?outcome, "endpoint ejected");
        }
    }
}

impl InFlight {
    fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.state.in_flight.fetch_add(1, Relaxed);
        Self(endpoint)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.state.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.state.ejection.release_probe();
    }
}
