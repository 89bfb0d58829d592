//! Calls of the app beside us to other services of the installation: which service a call names, and the way there.
//!
//! Each service gets an API of one operation that takes every method and path, made when it is first called and dropped when nobody has
//! called it for a while: memory grows with what is used. What is no name of a service is refused: nothing leaves the installation by
//! this door. Not here: where instances are (`node::services`), and which is asked (`upstream`).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tollgate_policy::openapi;
use tollgate_policy::settings::{ApiConfig, OperationSettings, SecurityMode};
use tollgate_policy::workload::is_label;

use crate::api::Api;
use crate::denial::Denial;
use crate::node::Mesh;
use crate::telemetry::Metrics;

/// The API under which calls are counted and recorded; the operation is the service.
pub const NAME: &str = "outbound";

/// Ways kept at once. As many services as are followed; an app that makes up names costs no more.
const MOST: usize = 1000;

/// How long a first call waits to hear where its service lives.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a way is kept that nobody takes.
const KEPT: Duration = Duration::from_secs(600);

/// How often ways are looked through.
const SWEEP: Duration = Duration::from_secs(60);

/// The ways to other services.
#[derive(Debug)]
pub struct Outbound {
    mesh: Mesh,
    metrics: Arc<Metrics>,
    ways: ArcSwap<Ways>,
    /// One change of `ways` at a time.
    changing: Mutex<()>,
    born: Instant,
}

/// What a way is taken with. gRPC needs HTTP/2 to the end; what else there is may only speak HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// HTTP/1.1 to the service.
    Http,
    /// HTTP/2 to the service.
    Grpc,
}

#[derive(Clone, Debug, Default)]
struct Ways {
    http: HashMap<Arc<str>, Arc<Way>>,
    grpc: HashMap<Arc<str>, Arc<Way>>,
}

#[derive(Debug)]
struct Way {
    api: Arc<Api>,
    /// Seconds since `born`.
    taken: AtomicU64,
}

impl Outbound {
    /// None yet.
    pub fn new(mesh: Mesh, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            mesh,
            metrics,
            ways: ArcSwap::default(),
            changing: Mutex::new(()),
            born: Instant::now(),
        })
    }

    /// The service that a host stands for: its name alone, or `NAME.service.DOMAIN` with the installation's domain.
    ///
    /// # Errors
    /// It is neither.
    pub fn service_of<'h>(&self, host: &'h str) -> Result<&'h str, Denial> {
        let name = match host.split_once('.') {
            None => Some(host),
            Some((name, rest)) => {
                let held = self.mesh.identity.current();
                let domain = rest.strip_prefix("service.");
                let ours = held
                    .zip(domain)
                    .is_some_and(|(it, said)| **it.id.domain() == *said);
                ours.then_some(name)
            }
        };
        let name = name.filter(|name| is_label(name));
        name.ok_or_else(|| Denial::UnknownService(host.into()))
    }

    /// The way to a service that was taken before.
    pub fn known(&self, service: &str, speech: Speech) -> Option<Arc<Api>> {
        let ways = self.ways.load();
        let way = ways.of(speech).get(service)?;
        let now = self.now();
        // Written once a second at most: all workers read it.
        if way.taken.load(Ordering::Relaxed) != now {
            way.taken.store(now, Ordering::Relaxed);
        }
        Some(Arc::clone(&way.api))
    }

    /// The way to a service, made now. Waits a moment where nobody has said yet where it lives. Runs on a worker, which then looks after
    /// it.
    ///
    /// # Errors
    /// There is no such service, or it cannot be known now.
    pub async fn open(&self, service: &str, speech: Speech) -> Result<Arc<Api>, Denial> {
        let unknown = || Denial::UnknownService(service.into());
        let Some(mut followed) = self.mesh.services.follow(service) else {
            return Err(Denial::Overloaded);
        };
        let said = tokio::time::timeout(PATIENCE, followed.wait_for(Option::is_some)).await;
        let instances = match &said {
            Ok(Ok(endpoints)) => endpoints.as_ref().map_or(0, |it| it.len()),
            Ok(Err(_)) | Err(_) => return Err(Denial::NoEndpoint),
        };
        // No way is kept to what nobody knows, however often it is asked for.
        if instances == 0 {
            return Err(unknown());
        }
        drop(said);
        let _one_at_a_time = self.changing.lock();
        if let Some(api) = self.known(service, speech) {
            return Ok(api);
        }
        let api = self.make(service, speech).map_err(|error| {
            tracing::error!(service, error, "no way to a service");
            Denial::Internal
        })?;
        api.maintain(&self.mesh);
        let way = Arc::new(Way {
            api: Arc::clone(&api),
            taken: AtomicU64::new(self.now()),
        });
        let mut ways = Ways::clone(&self.ways.load());
        ways.make_room();
        ways.of_mut(speech).insert(service.into(), way);
        self.ways.store(Arc::new(ways));
        Ok(api)
    }

    /// Drops the ways that nobody takes, for as long as this runs.
    pub async fn sweep(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SWEEP);
        loop {
            ticks.tick().await;
            self.drop_idle(KEPT);
        }
    }

    fn drop_idle(&self, kept: Duration) {
        let _one_at_a_time = self.changing.lock();
        let oldest = self.now().saturating_sub(kept.as_secs());
        let mut ways = Ways::clone(&self.ways.load());
        let before = ways.len();
        for all in [&mut ways.http, &mut ways.grpc] {
            all.retain(|_, way| way.taken.load(Ordering::Relaxed) >= oldest);
        }
        if ways.len() < before {
            self.ways.store(Arc::new(ways));
        }
        self.metrics.forget_unheld_operations(NAME);
    }

    /// An API whose one operation takes everything. What may be asked is for the service's own sidecar to say.
    fn make(&self, service: &str, speech: Speech) -> Result<Arc<Api>, String> {
        let scheme = match speech {
            Speech::Http => "service",
            Speech::Grpc => "service+grpc",
        };
        let upstream = format!("{scheme}://{service}");
        let told = |finding: &tollgate_policy::Finding| finding.to_string();
        let all = |findings: Vec<_>| findings.iter().map(told).collect::<Vec<_>>().join("; ");
        let mut config = ApiConfig::for_spec(Path::new(NAME), &upstream, SecurityMode::Off)
            .map_err(|finding| told(&finding))?;
        config.defaults = OperationSettings {
            websocket: Some(true),
            // The app is trusted, and a stream has no length; the service's own door has its limit.
            max_body: Some(u64::MAX),
            ..OperationSettings::default()
        };
        let description = format!(
            "openapi: 3.1.0\ninfo: {{ title: {NAME}, version: '1' }}\n\
             paths: {{ /: {{ get: {{ operationId: '{service}' }} }} }}\n"
        );
        let description = openapi::load_text(NAME, &description).map_err(all)?;
        let (mut api, _) =
            Api::compile(config, description, None, 1, None, &self.metrics).map_err(all)?;
        for operation in &mut api.operations {
            operation.name = service.into();
            operation.metrics = self.metrics.operation(NAME, service, "");
        }
        Ok(Arc::new(api))
    }

    fn now(&self) -> u64 {
        self.born.elapsed().as_secs()
    }
}

impl Ways {
    fn of(&self, speech: Speech) -> &HashMap<Arc<str>, Arc<Way>> {
        match speech {
            Speech::Http => &self.http,
            Speech::Grpc => &self.grpc,
        }
    }

    fn of_mut(&mut self, speech: Speech) -> &mut HashMap<Arc<str>, Arc<Way>> {
        match speech {
            Speech::Http => &mut self.http,
            Speech::Grpc => &mut self.grpc,
        }
    }

    fn len(&self) -> usize {
        self.http.len() + self.grpc.len()
    }

    /// Drops the ways taken longest ago, until there is room for one more.
    fn make_room(&mut self) {
        while self.len() >= MOST {
            let oldest = |all: &HashMap<Arc<str>, Arc<Way>>| {
                let taken = |way: &Way| way.taken.load(Ordering::Relaxed);
                let least = all.iter().min_by_key(|(_, way)| taken(way))?;
                Some((taken(least.1), Arc::clone(least.0)))
            };
            match (oldest(&self.http), oldest(&self.grpc)) {
                (Some((http, name)), grpc) if grpc.as_ref().is_none_or(|it| http <= it.0) => {
                    self.http.remove(&name);
                }
                (_, Some((_, name))) => {
                    self.grpc.remove(&name);
                }
                (_, None) => return,
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::node::{NodeIdentity, ServiceEndpoint, Services};

    fn outbound(services: Services) -> Arc<Outbound> {
        let mesh = Mesh {
            identity: NodeIdentity::none(),
            services: Arc::new(services),
        };
        Outbound::new(mesh, Metrics::new())
    }

    fn endpoint() -> Arc<[ServiceEndpoint]> {
        let endpoint = ServiceEndpoint {
            address: ([127, 0, 0, 1], 9).into(),
            id: None,
        };
        [endpoint].into()
    }

    #[test]
    fn only_names_of_services_are_services() {
        let outbound = outbound(Services::alone());
        assert_eq!(outbound.service_of("orders"), Ok("orders"));
        for host in [
            "",
            "example.com",
            "127.0.0.1",
            "[::1]",
            "orders.service.shop.example",
            "a_b",
        ] {
            let refused = Denial::UnknownService(host.into());
            assert_eq!(outbound.service_of(host), Err(refused));
        }
    }

    #[tokio::test]
    async fn a_way_is_made_once_kept_while_it_is_taken_and_never_to_nowhere() {
        let services = Services::alone();
        services.fix("orders", endpoint());
        let outbound = outbound(services);
        let nowhere = Denial::UnknownService("nowhere".into());
        assert_eq!(
            outbound.open("nowhere", Speech::Http).await.err(),
            Some(nowhere)
        );
        assert!(outbound.known("orders", Speech::Http).is_none());
        let first = outbound.open("orders", Speech::Http).await.unwrap();
        let again = outbound.open("orders", Speech::Http).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert!(outbound.known("orders", Speech::Grpc).is_none());
        assert!(first.cluster.pick(None).is_ok());
        outbound.drop_idle(KEPT);
        assert!(outbound.known("orders", Speech::Http).is_some());
        assert!(outbound.known("nowhere", Speech::Http).is_none());
    }

    #[tokio::test]
    async fn ways_are_bounded_and_the_one_taken_longest_ago_gives_way() {
        let services = Services::alone();
        for number in 0..=MOST {
            services.fix(&format!("s{number}"), endpoint());
        }
        let outbound = outbound(services);
        for number in 0..MOST {
            let name = format!("s{number}");
            outbound.open(&name, Speech::Http).await.unwrap();
            let way = Arc::clone(&outbound.ways.load().http[&*name]);
            let age = if number == 7 { 0 } else { 5 };
            way.taken.store(age, Ordering::Relaxed);
        }
        outbound.open("s1000", Speech::Grpc).await.unwrap();
        let ways = outbound.ways.load();
        assert_eq!(ways.len(), MOST);
        assert!(!ways.http.contains_key("s7") && ways.grpc.contains_key("s1000"));
    }
}
