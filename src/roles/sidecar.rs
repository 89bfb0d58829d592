//! The sidecar: the engine before one instance of a service.

use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tollgate_gateway::engine::{Engine, MutualTls, Opened, ProbedApp, ReadyWhen, Role};
use tollgate_gateway::listener::Mutual;
use tollgate_gateway::live::Origin;
use tollgate_gateway::node::line::{Counts, Registration};
use tollgate_policy::settings::{ApiConfig, ListenAddress, ProcessConfig};
use tollgate_policy::workload::Kind;
use tollgate_proto::{Answer, ControlServer, Question, Resolved};
use tollgate_sidecar::{App, Farewell, Gate, release_program};

use super::remote::{Joined, Membering, Remote};

/// How long after the app's first answer the start is over: what it needed is given back then.
const SETTLED: Duration = Duration::from_secs(2);

/// What a sidecar is started with.
pub(crate) struct Sidecar {
    /// The process.
    pub(crate) process: ProcessConfig,
    /// Where policy comes from.
    pub(crate) policy: Policy,
    /// The app, as it is asked whether it is there.
    pub(crate) app: App,
    /// The app as calls go to it, under the name and spec that were given.
    pub(crate) calls: ApiConfig,
    /// Paths of health probes.
    pub(crate) probes: Vec<Box<str>>,
    /// How long to go on once told to end.
    pub(crate) farewell: Farewell,
}

/// Where policy comes from.
#[derive(Clone)]
pub(crate) enum Policy {
    /// From the spec alone: nobody is known, nothing is billed.
    Spec,
    /// From a control plane.
    Control(Joining),
}

/// How to become a node of an installation.
#[derive(Clone)]
pub(crate) struct Joining {
    /// Name of the service.
    pub(crate) service: Arc<str>,
    /// How to join it.
    pub(crate) how: Membering,
    /// Where others reach this instance; `None`: found out.
    pub(crate) advertise: Option<SocketAddr>,
    /// Who may connect; `None`: anybody, in cleartext.
    pub(crate) mutual: Option<Mutual>,
}

/// Runs the sidecar role until a signal ends it.
///
/// # Errors
/// One line: what could not be opened, read or locked.
pub(crate) fn sidecar(sidecar: Sidecar) -> anyhow::Result<ExitCode> {
    super::log_to_stderr();
    match sidecar.policy.clone() {
        Policy::Spec => alone(sidecar),
        Policy::Control(joining) => joined(sidecar, &joining),
    }
}

/// With a spec and nothing else: it classifies, forwards, counts and logs.
fn alone(sidecar: Sidecar) -> anyhow::Result<ExitCode> {
    let opened = Opened::open(sidecar.process.clone(), false)?.with(Role {
        probes: probed(&sidecar),
        mutual: None,
        unmetered: true,
    });
    // Nobody is known here, so nothing has to be kept secret from anybody.
    let (control, server) = tollgate_proto::channel([0; 32]);
    let origin = Origin::Single(Box::new(sidecar.calls.clone()));
    let mut engine = Engine::start(opened, origin, control)?;
    engine.also_run(nobody(server));
    serve(engine, sidecar, None)
}

/// With policy, identity and quota of a control plane, or what a former start held of them.
fn joined(sidecar: Sidecar, joining: &Joining) -> anyhow::Result<ExitCode> {
    joining.how.check(&sidecar.process.state_dir)?;
    let mut opened = Opened::open(sidecar.process.clone(), false)?;
    let joined = Joined::join(opened.process_mut(), &joining.how)?;
    joined.must_be(Kind::Service, &joining.service)?;
    eprintln!("{}", joined.introduction());
    let process = opened.process().clone();
    let identity = &joined.mesh.identity;
    let role = Role {
        probes: probed(&sidecar),
        mutual: joining.mutual.map(|mutual| MutualTls {
            identity: Arc::clone(identity),
            mutual,
            service: Arc::clone(&joining.service),
        }),
        unmetered: false,
    };
    let opened = opened.with(role).within(joined.mesh.clone());
    let opened = opened.hearing(Arc::clone(&joined.contact));
    let app = Some(Box::new(sidecar.calls.upstream.clone()));
    let mut engine = Engine::start(opened, Origin::Bundles { app }, joined.client.clone())?;
    let contact = Arc::clone(&joined.contact);
    engine.also_show(Arc::new(move |page| contact.write_page(page)));
    let registration = Registration {
        service: Arc::clone(&joining.service),
        address: reached_at(&engine, joining)?,
    };
    eprintln!("others reach it at {}", registration.address);
    let counts = Counts(engine.counts());
    let remote = joined.start(engine.live().clone(), Some(registration), counts, &process)?;
    serve(engine, sidecar, Some(remote))
}

/// Where others reach this instance: as said, else the inbound port on the address of this machine that leads to the control plane.
fn reached_at(engine: &Engine, joining: &Joining) -> anyhow::Result<SocketAddr> {
    if let Some(said) = joining.advertise {
        return Ok(said);
    }
    let inbound = engine
        .addresses()
        .into_iter()
        .find_map(|address| match address {
            ListenAddress::Tcp(address) => Some(address),
            ListenAddress::Unix(_) => None,
        });
    let inbound = inbound.context("others cannot reach a Unix socket: name --advertise")?;
    if !inbound.ip().is_unspecified() {
        return Ok(inbound);
    }
    let control = &joining.how.control;
    // Nothing is sent: the system is asked which of our addresses it would be sent from.
    let socket = UdpSocket::bind("0.0.0.0:0").context("cannot find the own address")?;
    let towards = socket.connect((control.host.as_str(), control.port));
    let own = towards.and_then(|()| socket.local_addr());
    let own = own.context("cannot find the own address: name --advertise")?;
    Ok(SocketAddr::new(own.ip(), inbound.port()))
}

fn probed(sidecar: &Sidecar) -> Option<ProbedApp> {
    let paths = sidecar.probes.clone();
    (!paths.is_empty()).then(|| ProbedApp {
        paths,
        app: sidecar.calls.clone(),
    })
}

/// The same for all sidecars: the gate at the start, the farewell at the end.
fn serve(mut engine: Engine, sidecar: Sidecar, remote: Option<Remote>) -> anyhow::Result<ExitCode> {
    let inbound = engine.addresses().into_iter().zip(["inbound", "outbound"]);
    for (address, what) in inbound {
        match address {
            ListenAddress::Tcp(tcp) => eprintln!("{what} on {tcp}"),
            ListenAddress::Unix(path) => eprintln!("{what} on unix:{}", path.display()),
        }
    }
    if let Some(admin) = engine.admin_address() {
        eprintln!("admin on {admin}");
    }
    let gate = Gate::default();
    engine.ready_when(with_policy(gate.ready_when(), &engine, remote.as_ref()));
    engine.also_run(gate.clone().follow(sidecar.app));
    engine.also_run(async move {
        gate.opened().await;
        tokio::time::sleep(SETTLED).await;
        release_program();
    });
    let leaving = remote.as_ref().map(|remote| remote.leaving.clone());
    let farewell = sidecar.farewell;
    engine.drain_after(async move {
        if let Some(leaving) = leaving {
            leaving.send_replace(true);
        }
        farewell.over().await;
    });
    let live = engine.live().clone();
    engine.run().context("the sidecar ended")?;
    live.leave();
    if let Some(remote) = remote {
        remote.stop();
    }
    Ok(ExitCode::SUCCESS)
}

/// Ready when the app is, and policy is there: from the control plane, or from a former start.
fn with_policy(app: ReadyWhen, engine: &Engine, remote: Option<&Remote>) -> ReadyWhen {
    let Some(complete) = remote.map(|remote| remote.complete.clone()) else {
        return app;
    };
    let apis = engine.live().apis().clone();
    ReadyWhen(Arc::new(move || {
        let missing = (app.0)();
        if missing.is_some() || *complete.borrow() || !apis.load().all().is_empty() {
            return missing;
        }
        Some("no policy: the control plane has not sent any, and none was kept".into())
    }))
}

/// Answers as a control plane would that knows of nobody: a credential is nobody's, and nothing was revoked. Quota is granted by
/// nobody: limits do what they say for a control plane that is away.
async fn nobody(mut server: ControlServer) {
    while let Some((question, answer)) = server.questions.recv().await {
        let said = match question {
            Question::Resolve(_) => Answer::Resolved(Resolved {
                caller: None,
                generation: 0,
            }),
            Question::Revocations => Answer::Revocations(Vec::new()),
            Question::Audit(_) => Answer::Noted,
            Question::Terms { .. }
            | Question::Accept(_)
            | Question::Overview { .. }
            | Question::Lease(..)
            | Question::Usage(_)
            | Question::OwnUsage { .. } => continue,
        };
        let _nobody_waits = answer.send(said);
    }
}
