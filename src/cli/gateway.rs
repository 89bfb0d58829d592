//! `tollgate gateway`: its arguments, turned into the process and where its APIs come from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use clap::ValueEnum;
use tollgate_gateway::live::{Origin, state_dir};
use tollgate_gateway::node::ControlAddress;
use tollgate_policy::Finding;
use tollgate_policy::settings::{
    AccessLogTarget, ApiConfig, ListenAddress, ListenerConfig, ProcessConfig, SecurityMode,
    parse_access_log, parse_duration, parse_listen_address, read_process,
};

use crate::roles::{Membering, Token};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate gateway --spec openapi.yaml --upstream http://127.0.0.1:3000
  tollgate gateway --config /etc/tollgate --workers 4
  tollgate gateway --config /etc/tollgate --take-over
  tollgate gateway --control https://control.example.com:9910 --join-token-file token";

/// What to serve, and how. A flag wins over tollgate.yaml.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// OpenAPI file to serve without a configuration directory
    #[arg(
        long,
        value_name = "FILE",
        requires = "upstream",
        conflicts_with = "config"
    )]
    spec: Option<PathBuf>,
    /// Where its calls go: http://, https://, h2c://, grpc://, h2://, grpcs:// or unix:/path
    #[arg(long, value_name = "URL", requires = "spec")]
    upstream: Option<String>,
    /// Configuration directory: tollgate.yaml and apis/*.yaml
    #[arg(long, value_name = "DIR", required_unless_present_any = ["spec", "control"])]
    config: Option<PathBuf>,
    #[command(flatten)]
    control: ControlArgs,
    /// Address to listen on in cleartext, instead of the configured ones (repeatable)
    #[arg(long, value_name = "ADDR", value_parser = parse_listen_address)]
    listen: Vec<ListenAddress>,
    /// Address of the admin listener [default: 127.0.0.1:9900]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Address of the control API, or off [default: 127.0.0.1:9911]
    #[arg(long, value_name = "ADDR", value_parser = control_api)]
    control_api: Option<ControlApi>,
    /// Enforce what the spec's `security` demands, or leave it to the service [default: enforce]
    #[arg(long, value_enum, requires = "spec")]
    security: Option<Security>,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Directory of the lock and of the last known good configuration
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Take the sockets over from the gateway that runs with the same state directory
    #[arg(long)]
    take_over: bool,
    /// Where access records go: stdout, off, or a file
    #[arg(long, value_name = "TARGET", value_parser = parse_access_log)]
    access_log: Option<AccessLogTarget>,
    /// Send every request through the general pump, also those the short way could take; for comparing the two.
    #[arg(long, hide = true)]
    no_fast_path: bool,
    /// How long a drain may last, such as 30s
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    drain_timeout: Option<std::time::Duration>,
}

/// The control plane of an installation, and how to join it.
#[derive(Debug, Default, clap::Args)]
pub(super) struct ControlArgs {
    /// Take the policy from this control plane, instead of holding it in this process
    #[arg(long, value_name = "URL", conflicts_with = "spec")]
    control: Option<ControlAddress>,
    /// One-time token of `tollgate join-tokens create`, for the first start
    #[arg(long, value_name = "TOKEN", requires = "control")]
    join_token: Option<String>,
    /// The same, from a file: command lines are seen by everybody on the machine
    #[arg(
        long,
        value_name = "FILE",
        requires = "control",
        conflicts_with = "join_token"
    )]
    join_token_file: Option<PathBuf>,
    /// Name of this node [default: that of the machine, and something random]
    #[arg(long, value_name = "NAME", requires = "control")]
    node: Option<String>,
}

impl ControlArgs {
    /// How to join; `None`: the policy is in this process.
    ///
    /// # Errors
    /// The file of the token cannot be read.
    pub(super) fn membering(self) -> anyhow::Result<Option<Membering>> {
        let Some(control) = self.control else {
            return Ok(None);
        };
        let token = match &self.join_token_file {
            // Used up once this node has joined: then it may be gone.
            Some(file) if !file.exists() => Token::Missing(file.clone()),
            Some(file) => {
                let text = std::fs::read_to_string(file);
                let text = text.with_context(|| format!("cannot read {}", file.display()))?;
                Token::Given(text.trim().to_owned())
            }
            None => self.join_token.map_or(Token::None, Token::Given),
        };
        Ok(Some(Membering {
            control,
            token,
            node: self.node,
        }))
    }
}

/// Where the control API listens, if it does.
#[derive(Clone, Copy, Debug)]
pub(super) struct ControlApi(pub(super) Option<SocketAddr>);

pub(super) fn control_api(text: &str) -> Result<ControlApi, String> {
    if text == "off" {
        return Ok(ControlApi(None));
    }
    let address = text.parse().map(Some).map(ControlApi);
    address.map_err(|_| format!("`{text}` is no address with port; write 127.0.0.1:9911, or off"))
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Security {
    Enforce,
    Off,
}

/// Runs the gateway until it is told to stop.
pub(super) fn run(mut args: Args) -> anyhow::Result<ExitCode> {
    let take_over = args.take_over;
    let membering = std::mem::take(&mut args.control).membering()?;
    let (process, origin) = resolve(args)?;
    match (membering, origin) {
        (Some(how), _) => crate::roles::gateway_of(process, &how, take_over),
        (None, Some(origin)) => crate::roles::gateway(process, origin, take_over),
        (None, None) => bail!("name --config, --control, or --spec with --upstream"),
    }
}

fn resolve(args: Args) -> anyhow::Result<(ProcessConfig, Option<Origin>)> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    // An empty path stands for "not said": the default is looked for only once nobody else named a directory.
    let mut process = ProcessConfig::default_for(workers, PathBuf::new());
    let origin = match (&args.config, &args.spec, &args.upstream) {
        (Some(directory), _, _) => {
            let file = directory.join("tollgate.yaml");
            if file.exists() {
                process =
                    read_process(&file, process, &super::environment).map_err(|f| told(&f))?;
            }
            Some(Origin::Directory(directory.clone()))
        }
        (None, Some(spec), Some(upstream)) => {
            let security = match args.security {
                Some(Security::Off) => SecurityMode::Off,
                Some(Security::Enforce) | None => SecurityMode::Enforce,
            };
            let api = ApiConfig::for_spec(spec, upstream, security).map_err(|f| told(&[f]))?;
            Some(Origin::Single(Box::new(api)))
        }
        _ => None,
    };
    Ok((overridden(process, args)?, origin))
}

fn overridden(mut process: ProcessConfig, args: Args) -> anyhow::Result<ProcessConfig> {
    if !args.listen.is_empty() {
        let cleartext = args.listen.into_iter().map(ListenerConfig::cleartext);
        process.listeners = cleartext.collect();
    }
    process.admin = args.admin.unwrap_or(process.admin);
    if let Some(ControlApi(address)) = args.control_api {
        process.control_api = address;
    }
    process.workers = args.workers.map_or(process.workers, usize::from);
    process.state_dir = args.state_dir.unwrap_or(process.state_dir);
    // A directory that exists keeps its mode: somebody may have named one that is not ours alone.
    let asked = Some(process.state_dir.as_path()).filter(|it| !it.as_os_str().is_empty());
    if asked.is_none_or(|it| !it.exists()) {
        let home = std::env::home_dir();
        process.state_dir =
            state_dir::prepare(asked, home.as_deref()).map_err(anyhow::Error::msg)?;
    }
    process.fast_path &= !args.no_fast_path;
    process.access_log = args.access_log.unwrap_or(process.access_log);
    process.drain_timeout = args.drain_timeout.unwrap_or(process.drain_timeout);
    Ok(process)
}

pub(super) fn told(findings: &[Finding]) -> anyhow::Error {
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    anyhow!(lines.join("\n"))
}
