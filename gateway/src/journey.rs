//! The state between the steps of a request, so that no later step can ask for what an earlier one did not establish; and what all
//! requests share.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use tollgate_policy::access::Grant;
use tollgate_policy::credentials::certificate::CertificateIdentity;
use tollgate_policy::settings::{
    Direction, DoorLimits, Durability, FailureMode, OverloadConfig, Priority,
};
use tollgate_policy::workload::{Kind, WorkloadId};
use tollgate_proto::ControlClient;

use crate::api::{Api, Operation};
use crate::apis::Apis;
use crate::audit::{Auditor, Delivery};
use crate::cost::Costs;
use crate::denial::Denial;
use crate::explain::Recent;
use crate::forward::watch::Watch;
use crate::identity::standing::{self, Listed};
use crate::identity::{self, Identified, Identities};
use crate::listener::ServedName;
use crate::metering::Metering;
use crate::node::NodeIdentity;
use crate::node::line::Contact;
use crate::outbound::Outbound;
use crate::overload::Overload;
use crate::probe::Probes;
use crate::quota::{Quotas, Reservation};
use crate::shadow::Shadows;
use crate::telemetry::{AccessLog, Metrics, OperationMetrics, Workloads};

/// What all workers share. Read by every request, changed by none.
#[derive(Debug)]
pub struct Shared {
    /// The APIs served now.
    pub apis: Arc<ArcSwap<Apis>>,
    /// The ways to other services, where the app beside us may take them.
    pub outbound: Option<Arc<Outbound>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where access records go.
    pub access_log: AccessLog,
    /// Series of requests that no API serves.
    pub homeless: Arc<OperationMetrics>,
    /// How many proxies in front of us are believed in `X-Forwarded-For`.
    pub trusted_hops: u8,
    /// Bytes of a request body where nothing closer says otherwise.
    pub max_body: u64,
    /// Fields of a request head.
    pub max_fields: usize,
    /// Set when the drain begins: answers then close their connection.
    pub draining: Arc<AtomicBool>,
    /// Who calls.
    pub identities: Arc<Identities>,
    /// The last calls, for explanations.
    pub recent: Arc<Recent>,
    /// Who would have been refused.
    pub shadows: Arc<Shadows>,
    /// What calls are charged.
    pub quotas: Arc<Quotas>,
    /// `X-RateLimit-*` are sent as well.
    pub legacy_quota_fields: bool,
    /// What was served, written down.
    pub metering: Metering,
    /// Who used the CPU time.
    pub costs: Arc<Costs>,
    /// Decisions on their way to the audit log.
    pub auditor: Arc<Auditor>,
    /// Who this process is to others of the installation.
    pub identity: Option<Arc<NodeIdentity>>,
    /// Whether a control plane elsewhere is heard; `None`: it is in this process.
    pub contact: Option<Arc<Contact>>,
    /// What holds when strangers, or everybody, ask for too much.
    pub overload: Arc<Overload>,
    /// Whether the fast path may be taken; off only in tests that compare both ways.
    pub fast_path: bool,
    /// Health probes that go to the service unjudged; `None`: there are none.
    pub probes: Option<Probes>,
    /// Which processes of the installation call; `None`: this one has no identity itself.
    pub workloads: Option<Workloads>,
}

impl Shared {
    /// With default limits, and the far end of the audit queue.
    pub fn new(
        apis: Arc<ArcSwap<Apis>>,
        metrics: Arc<Metrics>,
        access_log: AccessLog,
        control: ControlClient,
    ) -> (Self, Delivery) {
        let (auditor, delivery) = Auditor::new();
        let limits = DoorLimits::default();
        let shared = Self {
            apis,
            outbound: None,
            homeless: metrics.operation("", "", ""),
            metrics,
            access_log,
            trusted_hops: 0,
            max_body: limits.body_bytes,
            max_fields: limits.head_fields,
            draining: Arc::default(),
            identities: Identities::new(control.clone()),
            recent: Arc::default(),
            shadows: Arc::default(),
            quotas: Quotas::new(control),
            legacy_quota_fields: false,
            costs: Arc::default(),
            metering: Metering::default(),
            auditor,
            identity: None,
            contact: None,
            overload: Overload::new(&OverloadConfig::default()),
            fast_path: true,
            probes: None,
            workloads: None,
        };
        (shared, delivery)
    }
}

/// How far a request came.
#[derive(Debug)]
pub enum Journey {
    /// Its head is here; nothing is known about it.
    Arrived,
    /// It may go to the service.
    Admitted(Box<Admitted>),
    /// It is about the caller itself and answered here, under `/.tollgate/`.
    Own(Box<Own>),
    /// It is answered here.
    Refused {
        /// Why.
        denial: Denial,
        /// Whose it was, as far as that was found out.
        api: Option<Arc<Api>>,
        /// Index of the operation, where one was found.
        operation: Option<usize>,
        /// Who called, where that was found out.
        identified: Option<Identified>,
    },
}

impl Journey {
    /// How it stands: the code of the refusal (empty for none), the API, and the index of the operation.
    pub(crate) fn outcome(&self) -> (&'static str, Option<&Arc<Api>>, Option<usize>) {
        match self {
            Self::Arrived => ("", None, None),
            Self::Admitted(admitted) => ("", Some(&admitted.api), Some(admitted.operation)),
            Self::Own(own) => ("", Some(&own.api), None),
            Self::Refused {
                denial,
                api,
                operation,
                ..
            } => (denial.code(), api.as_ref(), *operation),
        }
    }

    /// Who called, as far as that was found out.
    pub fn identified(&self) -> Option<&Identified> {
        match self {
            Self::Arrived => None,
            Self::Admitted(admitted) => Some(&admitted.identified),
            Self::Own(own) => Some(&own.identified),
            Self::Refused { identified, .. } => identified.as_ref(),
        }
    }

    /// The same request, refused after all.
    pub fn refused(self, denial: Denial) -> Self {
        let (api, operation, identified) = match self {
            Self::Arrived => (None, None, None),
            Self::Admitted(admitted) => {
                let admitted = *admitted;
                let (api, operation) = (admitted.api, admitted.operation);
                (Some(api), Some(operation), Some(admitted.identified))
            }
            Self::Own(own) => (Some(own.api), None, Some(own.identified)),
            Self::Refused {
                api,
                operation,
                identified,
                ..
            } => (api, operation, identified),
        };
        Self::Refused {
            denial,
            api,
            operation,
            identified,
        }
    }
}

/// What is known of a request that may go to the service.
#[derive(Debug)]
pub struct Admitted {
    /// The snapshot it was judged by, to its end.
    pub api: Arc<Api>,
    /// Index of its operation.
    pub operation: usize,
    /// By which of the operation's routes it came: `Matched::route`.
    pub route: usize,
    /// Length of the base path it came under.
    pub base_length: usize,
    /// Who calls.
    pub identified: Identified,
    /// What was decided.
    pub grant: Grant,
    /// What it holds of its quota; `None`: no limit is about it.
    pub reservation: Option<Reservation>,
    /// Its place among the calls that end when policy says so.
    pub(crate) listed: Option<Listed>,
}

/// A call to what Tollgate itself answers to the consumers of an API.
#[derive(Debug)]
pub struct Own {
    /// The API it was asked at.
    pub api: Arc<Api>,
    /// Length of the base path it came under.
    pub base_length: usize,
    /// Who asks: always a consumer.
    pub identified: Identified,
    /// From where, after PROXY protocol and trusted hops.
    pub client: Option<IpAddr>,
}

/// What the connection tells about a caller.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Client address after PROXY protocol and trusted hops.
    pub client: Option<IpAddr>,
    /// The client certificate, verified against the listener's roots.
    pub certificate: Option<Arc<CertificateIdentity>>,
    /// What the connection's TLS handshake was about, where there was one.
    pub served_name: Option<Arc<ServedName>>,
    /// Which way it calls: to what is served here, or from here to others.
    pub direction: Direction,
    /// The process of this installation that calls, where its certificate was verified by the installation's roots and is valid.
    pub workload: Option<WorkloadId>,
}

impl Peer {
    /// How many addresses before the peer's own are believed: a gateway of the installation says whom it serves.
    pub(crate) fn believed_hops(workload: Option<&WorkloadId>, trusted: u8) -> u8 {
        match workload.map(WorkloadId::kind) {
            Some(Kind::Gateway) => trusted.max(1),
            _ => trusted,
        }
    }
}

impl Admitted {
    /// The operation.
    pub fn operation(&self) -> Option<&Operation> {
        self.api.operations.get(self.operation)
    }

    /// Bytes of a request body this operation takes.
    pub fn max_body(&self, shared: &Shared) -> u64 {
        let settled = self
            .operation()
            .and_then(|operation| operation.settings.max_body);
        settled.unwrap_or(shared.max_body)
    }
}

/// The operation a call is, before it is known whether it may.
#[derive(Debug)]
pub struct Called {
    /// The snapshot it is judged by.
    pub api: Arc<Api>,
    /// Index of the operation.
    pub operation: usize,
    /// By which of its routes it came: `Matched::route`.
    pub route: usize,
    /// Length of the base path it came under.
    pub base_length: usize,
}

impl Called {
    /// Bytes of a request body this operation takes.
    pub(crate) fn max_body(&self, shared: &Shared) -> u64 {
        let operation = self.api.operations.get(self.operation);
        let settled = operation.and_then(|operation| operation.settings.max_body);
        settled.unwrap_or(shared.max_body)
    }

    /// How well the record of a call is kept.
    pub(crate) fn durability(&self) -> Durability {
        let operation = self.api.operations.get(self.operation);
        operation.map_or_else(Durability::default, |operation| {
            operation.settings.durability
        })
    }

    /// How long a caller is served of whom nobody can say whether it was revoked.
    pub(crate) fn stale_ok(&self) -> Duration {
        let operation = self.api.operations.get(self.operation);
        operation.map_or(Duration::ZERO, |operation| operation.settings.stale_ok)
    }

    /// Whether a gateway's word counts for as long as the control plane is away, or a sidecar's own knowledge alone.
    pub(crate) fn on_unavailable(&self) -> FailureMode {
        let operation = self.api.operations.get(self.operation);
        operation.map_or_else(FailureMode::default, |it| it.settings.on_unavailable)
    }

    /// What the operation is worth when not every call can be served.
    pub(crate) fn priority(&self) -> Priority {
        let operation = self.api.operations.get(self.operation);
        operation.map_or_else(Priority::default, |operation| operation.settings.priority)
    }

    /// From here on the call ends when what it stands on is withdrawn.
    pub(crate) fn admitted(
        self,
        identified: Identified,
        grant: Grant,
        reservation: Option<Reservation>,
    ) -> Result<Admitted, Denial> {
        let mut listed = None;
        if let Some(watch) = Watch::current() {
            listed = Some(standing::list(identified.standings.clone(), watch));
            // A revocation between identification and the line above found nothing to end.
            if identified
                .standings
                .iter()
                .any(|standing| standing.withdrawn())
            {
                return Err(Denial::CredentialRevoked);
            }
        }
        Ok(Admitted {
            api: self.api,
            operation: self.operation,
            route: self.route,
            base_length: self.base_length,
            identified,
            grant,
            reservation,
            listed,
        })
    }
}

/// What is asked, as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'r> {
    /// Head, query, address, time.
    pub request: identity::Request<'r>,
    /// Host asked for, lower case.
    pub host: &'r str,
    /// Canonical path, still encoded.
    pub path: &'r str,
}
