//! The step `report`: what happened, told once for every request, refused ones included: series, access record, audit log, and the ring
//! of recent calls that explanations are made from.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pingora_http::RequestHeader;
use smallvec::SmallVec;
use tollgate_proto::AuditRecord;

use crate::denial::Denial;
use crate::door::asked::{path_of, raw_host};
use crate::explain;
use crate::identity::clock;
use crate::journey::Journey;
use crate::request::Exchange;
use crate::telemetry::{AccessRecord, Finished};

/// What happened upstream, for the report.
#[derive(Debug, Default)]
pub struct UpstreamStory {
    /// How often an endpoint was asked.
    pub attempts: u32,
    /// Whether anything of the request went to the service.
    pub sent: bool,
    /// Whether anything had gone before the current attempt.
    pub sent_before: bool,
    /// Status of the service's answer; 0 where there was none.
    pub status: u16,
    /// The last one, as records name it.
    pub endpoint: SmallVec<[u8; 48]>,
    /// How the last attempt ended.
    pub outcome: &'static str,
    /// From sending the request to the head of the answer.
    pub latency: Option<Duration>,
}

/// What only the connection knows, for the report.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'s> {
    /// The request as it came.
    pub head: Option<&'s RequestHeader>,
    /// Client address after PROXY protocol and trusted hops.
    pub client: Option<SocketAddr>,
    /// TLS or not.
    pub tls: bool,
    /// Status sent; 0 where none was.
    pub status: u16,
    /// Bytes of the answer's body written.
    pub response_bytes: u64,
    /// The connection ended before the answer was complete.
    pub aborted: bool,
}

impl Exchange {
    /// What happened, told once, for every request.
    pub fn report(&mut self, seen: &Seen<'_>) {
        if std::mem::replace(&mut self.reported, true) {
            return;
        }
        self.settle(!seen.aborted);
        let total = self.started.elapsed();
        let ended = self.started + total;
        let guard = &self.shared.overload;
        guard.judge(&self.held, &self.journey, seen.status, ended);
        self.measure(seen, total);
        self.note_decision(seen, self.journey.outcome().0);
        self.log(seen, total);
    }

    /// Counts it, for the series of its operation and for `/apis`.
    fn measure(&self, seen: &Seen<'_>, total: Duration) {
        let (denial, api, _) = self.journey.outcome();
        if let Some(series) = &self.series {
            series.finish(&Finished {
                status: seen.status,
                total,
                upstream: self.upstream.latency,
                upstream_outcome: self.upstream.outcome,
                denial,
                request_bytes: self.body_received,
                response_bytes: seen.response_bytes,
            });
        }
        if let Some(workloads) = &self.shared.workloads {
            let api = api.map_or("", |api| &*api.config.name);
            workloads.count(self.workload.as_ref(), api, seen.status);
        }
        if let Some(api) = api {
            api.traffic.requests.fetch_add(1, Ordering::Relaxed);
            match (denial, seen.status) {
                ("", _) => 0,
                (_, 502..=504) => api.traffic.failed.fetch_add(1, Ordering::Relaxed),
                _ => api.traffic.refused.fetch_add(1, Ordering::Relaxed),
            };
        }
    }

    /// Its access record.
    fn log(&self, seen: &Seen<'_>, total: Duration) {
        let (denial, api, operation) = self.journey.outcome();
        let identity = self.journey.identified().map(|known| &known.identity);
        let caller = identity.and_then(|identity| identity.caller.as_ref());
        let held = identity
            .zip(api)
            .and_then(|(identity, api)| identity.subscription(&api.config.name));
        let operation = api
            .zip(operation)
            .and_then(|(api, index)| api.operations.get(index));
        self.shared.access_log.submit(&AccessRecord {
            request_id: self.request_id.as_str(),
            trace_id: self.trace.trace_id(),
            client: seen.client,
            protocol: seen.head.map_or("", |head| protocol_name(head.version)),
            tls: seen.tls,
            method: seen.head.map_or("", |head| head.method.as_str()),
            host: seen.head.and_then(raw_host).unwrap_or_default(),
            path: seen.head.map_or("", path_of),
            api: api.map_or("", |api| &*api.config.name),
            operation: operation.map_or("", |operation| &*operation.name),
            consumer: caller.map_or("", |caller| &*caller.consumer.name),
            credential: caller.map_or("", |caller| &*caller.credential.id),
            plan: held.map_or("", |held| &*held.plan.name),
            source_workload: self.workload.as_ref(),
            status: seen.status,
            denial,
            reason: Cow::Borrowed(&self.reason),
            upstream: std::str::from_utf8(&self.upstream.endpoint).unwrap_or_default(),
            upstream_outcome: self.upstream.outcome,
            attempts: self.upstream.attempts,
            request_bytes: self.body_received,
            response_bytes: seen.response_bytes,
            steps: &self.steps,
            total,
            aborted: seen.aborted,
        });
    }

    /// For the audit log and for explanations: whatever policy decided.
    fn note_decision(&self, seen: &Seen<'_>, code: &'static str) {
        let (api, operation, identified, denial) = match &self.journey {
            Journey::Admitted(admitted) => {
                let identified = Some(&admitted.identified);
                (&admitted.api, Some(admitted.operation), identified, None)
            }
            Journey::Refused {
                denial,
                api: Some(api),
                operation,
                identified,
            } => (api, *operation, identified.as_ref(), Some(denial)),
            Journey::Arrived | Journey::Own(_) | Journey::Refused { .. } => return,
        };
        let client = seen.client.map(|address| address.ip());
        let verdict = denial.map_or("allow", |_| code);
        if let Some(head) = seen.head {
            self.shared.recent.keep(&explain::Told {
                request_id: self.request_id.as_str(),
                api,
                operation,
                head,
                client,
                identified,
                verdict,
                status: denial.map_or(0, Denial::status),
                reason: &self.reason,
            });
        }
        let auditor = &self.shared.auditor;
        let caller = identified.and_then(|identified| identified.identity.caller.as_ref());
        let audited = match denial {
            Some(denial) => denial.is_policy(),
            None => caller.is_some() && auditor.sampled(),
        };
        if !audited {
            return;
        }
        let name = operation.and_then(|index| api.operations.get(index));
        auditor.note(AuditRecord {
            at: clock::now(),
            request_id: self.request_id.as_str().to_owned(),
            api: api.config.name.clone(),
            generation: api.generation,
            operation: name.map_or_else(|| "".into(), |operation| operation.name.clone()),
            consumer: caller.map_or_else(|| "".into(), |it| it.consumer.name.clone()),
            credential: caller.map_or_else(|| "".into(), |it| it.credential.id.clone()),
            client,
            verdict: verdict.into(),
            rule: self.reason.to_string(),
        });
    }
}

fn protocol_name(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_11 => "HTTP/1.1",
        http::Version::HTTP_2 => "HTTP/2.0",
        _ => "",
    }
}
