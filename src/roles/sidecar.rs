//! The sidecar: the engine before one instance of a service.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tollgate_gateway::engine::{Engine, Opened, ProbedApp, Role};
use tollgate_gateway::listener::Mutual;
use tollgate_gateway::live::Origin;
use tollgate_policy::settings::{ApiConfig, ListenAddress, ProcessConfig};
use tollgate_proto::{Answer, ControlServer, Question, Resolved};
use tollgate_sidecar::{App, Farewell, Gate, release_program};

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
pub(crate) enum Policy {
    /// From the spec alone: nobody is known, nothing is billed.
    Spec,
    /// From a control plane.
    Control(Joining),
}

/// How to become a node of an installation.
pub(crate) struct Joining {
    /// Name of the service.
    pub(crate) service: Arc<str>,
    /// URL of the control plane.
    pub(crate) control: String,
    /// Token to join with; not needed by a node that joined before.
    pub(crate) token: Option<String>,
    /// Who may connect; `None`: anybody, in cleartext.
    pub(crate) mutual: Option<Mutual>,
}

/// Runs the sidecar role until a signal ends it.
///
/// # Errors
/// One line: what could not be opened, read or locked.
pub(crate) fn sidecar(sidecar: Sidecar) -> anyhow::Result<ExitCode> {
    super::log_to_stderr();
    match &sidecar.policy {
        Policy::Spec => alone(sidecar),
        Policy::Control(joining) => joined(joining),
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
    serve(engine, sidecar)
}

fn joined(joining: &Joining) -> anyhow::Result<ExitCode> {
    let _ = (&joining.service, &joining.token, joining.mutual);
    bail!("no control plane can be reached at {} yet", joining.control)
}

fn probed(sidecar: &Sidecar) -> Option<ProbedApp> {
    let paths = sidecar.probes.clone();
    (!paths.is_empty()).then(|| ProbedApp {
        paths,
        app: sidecar.calls.clone(),
    })
}

/// The same for all sidecars: the gate at the start, the farewell at the end.
fn serve(mut engine: Engine, sidecar: Sidecar) -> anyhow::Result<ExitCode> {
    for address in engine.addresses() {
        match address {
            ListenAddress::Tcp(tcp) => eprintln!("inbound on {tcp}"),
            ListenAddress::Unix(path) => eprintln!("inbound on unix:{}", path.display()),
        }
    }
    if let Some(admin) = engine.admin_address() {
        eprintln!("admin on {admin}");
    }
    let gate = Gate::default();
    engine.ready_when(gate.ready_when());
    engine.also_run(gate.clone().follow(sidecar.app));
    engine.also_run(async move {
        gate.opened().await;
        tokio::time::sleep(SETTLED).await;
        release_program();
    });
    engine.drain_after(sidecar.farewell.over());
    engine.run().context("the sidecar ended")?;
    Ok(ExitCode::SUCCESS)
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
