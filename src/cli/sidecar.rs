//! `tollgate sidecar`: its arguments, turned into the process, the app it stands beside and where its policy comes from.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::ValueEnum;
use tollgate_gateway::listener::Mutual;
use tollgate_gateway::live::state_dir;
use tollgate_policy::settings::{
    AccessLogTarget, ApiConfig, ListenAddress, ListenerConfig, ProcessConfig, SecurityMode,
    parse_access_log, parse_duration, parse_listen_address,
};
use tollgate_policy::workload::{Kind, WorkloadId};
use tollgate_sidecar::{App, AppEnd, Farewell};

use super::admin;
use super::gateway::ControlArgs;
use crate::roles::{Joining, Membering, Policy, Sidecar};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate sidecar --spec openapi.yaml --app http://127.0.0.1:8080
  tollgate sidecar --spec openapi.yaml --app http://127.0.0.1:8080 --probe /healthz --app-health /healthz
  tollgate sidecar --service orders --app http://127.0.0.1:8080 --control https://control:9910 \\
    --join-token-file /run/secrets/join";

/// Port the app calls others at.
const OUTBOUND: u16 = 9081;

/// What to stand beside, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// OpenAPI file of the app, served without a control plane
    #[arg(long, value_name = "FILE", required_unless_present = "service")]
    spec: Option<PathBuf>,
    /// The app: http://, https://, h2c://, grpc://, h2://, grpcs:// or unix:/path
    #[arg(long, value_name = "URL")]
    app: String,
    /// Name of the service that the app is an instance of
    #[arg(
        long,
        value_name = "NAME",
        requires = "control",
        conflicts_with = "spec"
    )]
    service: Option<String>,
    /// Address that the app calls other services at, by their names [default: 127.0.0.1:9081 with a control plane]
    #[arg(long, value_name = "ADDR", requires = "control", conflicts_with = "spec", value_parser = parse_listen_address)]
    outbound: Option<ListenAddress>,
    /// Address that others reach this instance at [default: the inbound port on the address that leads to the control plane]
    #[arg(
        long,
        value_name = "ADDR",
        requires = "control",
        conflicts_with = "spec"
    )]
    advertise: Option<SocketAddr>,
    #[command(flatten)]
    control: ControlArgs,
    /// Address that calls to the app come in at
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:9080", value_parser = parse_listen_address)]
    inbound: ListenAddress,
    /// Who may connect there: `permissive` takes TLS of the installation and cleartext, `strict` only the former
    /// [default: permissive with a control plane, else off]
    #[arg(long, value_enum, requires = "control", conflicts_with = "spec")]
    mtls: Option<Mtls>,
    /// Address of the admin listener
    #[arg(long, value_name = "ADDR", default_value = admin::DEFAULT)]
    admin: SocketAddr,
    /// Path of a health probe that goes to the app without policy (repeatable)
    #[arg(long, value_name = "PATH", value_parser = path)]
    probe: Vec<String>,
    /// Path that the app answers 2xx when it is well; else a connection is enough
    #[arg(long, value_name = "PATH", value_parser = path)]
    app_health: Option<String>,
    /// Once told to end, how long to go on accepting while the app runs, such as 5s
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    drain_grace: Duration,
    /// Once told to end, go on accepting until nobody listens on the app's port
    #[arg(long)]
    wait_for_app: bool,
    /// The same, until the process whose id is in this file has ended
    #[arg(long, value_name = "FILE")]
    app_pid_file: Option<PathBuf>,
    /// The longest to wait for the app
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    drain_max: Duration,
    /// How long calls in flight have after that, such as 30s
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    drain_timeout: Option<Duration>,
    /// Enforce what the spec's `security` demands, or leave it to the app [default: enforce]
    #[arg(long, value_enum, requires = "spec")]
    security: Option<Security>,
    /// Worker threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Directory of the lock and of the last known good configuration
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where access records go: stdout, off, or a file
    #[arg(long, value_name = "TARGET", value_parser = parse_access_log)]
    access_log: Option<AccessLogTarget>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Security {
    Enforce,
    Off,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mtls {
    Off,
    Permissive,
    Strict,
}

fn path(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\');
    if text.starts_with('/') && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is no path; write it as /healthz"))
}

/// Runs the sidecar until it is told to stop.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    crate::roles::sidecar(resolve(args)?)
}

fn resolve(mut args: Args) -> anyhow::Result<Sidecar> {
    let how = std::mem::take(&mut args.control).membering()?;
    let security = match args.security {
        Some(Security::Off) => SecurityMode::Off,
        Some(Security::Enforce) | None => SecurityMode::Enforce,
    };
    let name = args.service.as_ref().map(PathBuf::from);
    let named = args.spec.as_ref().or(name.as_ref());
    let named = named.context("name --spec, or --service with --control")?;
    // Said of the app once, whatever APIs it serves.
    let calls = ApiConfig::for_spec(named, &args.app, security)
        .map_err(|wrong| anyhow!("--app: {}; {}", wrong.what, wrong.remedy))?;
    let app = App::new(&calls.upstream, args.app_health.as_deref())?;
    let is_joined = how.is_some();
    let policy = match (&args.spec, &args.service, how) {
        (Some(_), _, _) => Policy::Spec,
        (None, Some(service), Some(how)) => Policy::Control(joining(&args, service, how)?),
        (None, _, _) => bail!("name --spec, or --service with --control"),
    };
    let (end, limit) = match (&args.app_pid_file, args.wait_for_app) {
        (Some(file), _) => (AppEnd::Process(file.clone()), args.drain_max),
        (None, true) => (AppEnd::Port, args.drain_max),
        (None, false) => (AppEnd::Port, args.drain_grace),
    };
    let farewell = Farewell {
        app: app.clone(),
        end,
        limit,
    };
    Ok(Sidecar {
        policy,
        app,
        probes: args.probe.iter().map(|path| path.as_str().into()).collect(),
        calls,
        farewell,
        process: process(args, is_joined)?,
    })
}

fn joining(args: &Args, service: &str, how: Membering) -> anyhow::Result<Joining> {
    // The domain is the control plane's to say; here it only stands in for one.
    WorkloadId::new("installation", Kind::Service, service)
        .map_err(|_| anyhow!("`{service}` is no name for a service: write a-z, 0-9 and -"))?;
    Ok(Joining {
        service: service.into(),
        how,
        advertise: args.advertise,
        mutual: match args.mtls {
            Some(Mtls::Off) => None,
            Some(Mtls::Permissive) | None => Some(Mutual::Permissive),
            Some(Mtls::Strict) => Some(Mutual::Strict),
        },
    })
}

fn process(args: Args, is_joined: bool) -> anyhow::Result<ProcessConfig> {
    let state_dir = match args.state_dir {
        Some(asked) => asked,
        None => {
            let home = std::env::home_dir();
            let all = state_dir::prepare(None, home.as_deref()).map_err(anyhow::Error::msg)?;
            // Several may run on one machine, beside a gateway as well.
            all.join(own_name(&args.inbound))
        }
    };
    let mut process = ProcessConfig::default_for(args.workers.into(), state_dir);
    process.listeners = vec![ListenerConfig::cleartext(args.inbound)];
    if is_joined {
        let beside = ListenAddress::Tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), OUTBOUND));
        let outbound = args.outbound.unwrap_or(beside);
        process.listeners.push(ListenerConfig::outbound(outbound));
    }
    process.admin = args.admin;
    process.control_api = None;
    process.access_log = args.access_log.unwrap_or(process.access_log);
    process.drain_timeout = args.drain_timeout.unwrap_or(process.drain_timeout);
    Ok(process)
}

fn own_name(inbound: &ListenAddress) -> String {
    match inbound {
        ListenAddress::Tcp(address) => format!("sidecar-{}", address.port()),
        ListenAddress::Unix(path) => {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            format!("sidecar-{name}")
        }
    }
}
