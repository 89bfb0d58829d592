//! Who may ask at all: the right Host, no foreign page, the admin credential; for reports of usage that of reporters.
//!
//! Promises: a credential is compared in constant time and kept as a hash; failed tries are answered late, and told to the
//! audit log at a bounded rate, so that neither guessing nor noise pays.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Request, StatusCode, Version};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Semaphore;

use super::problem::Problem;
use crate::Control;
use crate::audit::Entry;
use crate::control::now;

/// The one path that needs no credential.
const OPEN: &str = "/v1/health";
/// Where usage is reported; these open to reporters, too.
const REPORTS: [&str; 2] = [
    "/v1/usage/records",
    "/tollgate.usage.v1.UsageReports/Report",
];
/// How late a failed try is answered.
const PAUSE: Duration = Duration::from_millis(300);
/// Failed tries that wait at once; more are turned away, so that they do not hold every place.
const WAITING: usize = 8;
/// Failed tries are told to the audit log no more often.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Stands before every operation.
pub(super) struct Door {
    control: Control,
    hosts: Vec<String>,
    credential: Digest,
    reporting: Digest,
    waiting: Semaphore,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    untold: u64,
    told: Option<Instant>,
}

impl Door {
    /// A door that opens to the control plane's credentials.
    pub(super) fn new(control: Control, hosts: Vec<String>) -> Self {
        Self {
            credential: digest(&SHA256, control.inner.admin_credential.as_bytes()),
            reporting: digest(&SHA256, control.inner.report_credential.as_bytes()),
            control,
            hosts,
            waiting: Semaphore::new(WAITING),
            failures: Mutex::default(),
        }
    }

    /// Everything that can refuse a request before its operation is known.
    pub(super) async fn admit<B>(
        &self,
        request: &Request<B>,
        local: IpAddr,
        peer: IpAddr,
    ) -> Result<(), Problem> {
        let forbidden = |why| Problem::new(StatusCode::FORBIDDEN, "forbidden", why);
        if !self.is_for_us(request, local) {
            return Err(forbidden("this Host is not served here"));
        }
        if !same_origin(request.headers()) {
            return Err(forbidden("not for other origins"));
        }
        let path = request.uri().path();
        if path == OPEN || self.knows(request.headers(), path) {
            return Ok(());
        }
        self.turn_away(peer).await
    }

    /// The Host must be a loopback name, one of ours, or the address the connection came to. A web page that rebinds its own
    /// name to us sends that name.
    fn is_for_us<B>(&self, request: &Request<B>, local: IpAddr) -> bool {
        let target = request.uri().authority();
        let mut hosts = request.headers().get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().ok().and_then(|text| text.parse().ok()),
            // HTTP/2 has its `:authority` instead (RFC 9113, section 8.3.1).
            (None, None) if request.version() == Version::HTTP_2 => target.cloned(),
            _ => None,
        };
        host.is_some_and(|host: Authority| self.is_own_name(&host, local))
            && target.is_none_or(|target| self.is_own_name(target, local))
    }

    fn is_own_name(&self, authority: &Authority, local: IpAddr) -> bool {
        let name = authority.host();
        if authority.as_str().contains('@') {
            return false;
        }
        let literal = name
            .strip_prefix('[')
            .and_then(|n| n.strip_suffix(']'))
            .unwrap_or(name);
        match literal.parse::<IpAddr>() {
            Ok(address) => {
                let address = address.to_canonical();
                address.is_loopback() || address == local.to_canonical()
            }
            Err(_) => {
                let mut own = self.hosts.iter().map(String::as_str).chain(["localhost"]);
                own.any(|host| name.eq_ignore_ascii_case(host))
            }
        }
    }

    fn knows(&self, headers: &HeaderMap, path: &str) -> bool {
        let mut shown = headers.get_all(AUTHORIZATION).iter();
        let (Some(shown), None) = (shown.next(), shown.next()) else {
            return false;
        };
        let Some((scheme, token)) = shown.to_str().ok().and_then(|text| text.split_once(' '))
        else {
            return false;
        };
        let shown = digest(&SHA256, token.trim().as_bytes());
        let is = |known: &Digest| verify_slices_are_equal(shown.as_ref(), known.as_ref()).is_ok();
        scheme.eq_ignore_ascii_case("bearer")
            && (is(&self.credential) || REPORTS.contains(&path) && is(&self.reporting))
    }

    async fn turn_away(&self, peer: IpAddr) -> Result<(), Problem> {
        if let Some(tries) = self.to_tell() {
            self.tell(peer, tries).await;
        }
        let Ok(_place) = self.waiting.try_acquire() else {
            let (status, why) = (StatusCode::TOO_MANY_REQUESTS, "too many failed tries");
            return Err(Problem::new(status, "slow_down", why));
        };
        tokio::time::sleep(PAUSE).await;
        let why = "send the admin credential (or, to report usage, the report credential) as a bearer token; both stand in the state directory";
        Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "credential_required",
            why,
        ))
    }

    /// How many failed tries the audit log should be told of now.
    fn to_tell(&self) -> Option<u64> {
        let mut failures = self.failures.lock();
        failures.untold += 1;
        let due = failures
            .told
            .is_none_or(|told| told.elapsed() >= TOLD_EVERY);
        if !due {
            return None;
        }
        failures.told = Some(Instant::now());
        Some(std::mem::take(&mut failures.untold))
    }

    async fn tell(&self, peer: IpAddr, tries: u64) {
        tracing::warn!(%peer, tries, "administration was tried without the credential");
        let entry = Entry {
            at: now(),
            actor: "unknown".to_owned(),
            action: "admin.refused",
            subject: String::new(),
            detail: json!({ "tries": tries }),
            from: Some(peer.to_canonical()),
        };
        if let Err(error) = self.control.note(entry).await {
            tracing::warn!(%error, "that could not be noted in the audit log");
        }
    }
}

/// A browser names the origin of a cross-site request; ours is `http://` and the Host.
fn same_origin(headers: &HeaderMap) -> bool {
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    headers.get_all(ORIGIN).iter().all(|origin| {
        let origin = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.strip_prefix("http://"));
        origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host))
    })
}
