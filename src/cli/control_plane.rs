//! `tollgate control`: its arguments, turned into the process of a control plane.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use tollgate_gateway::live::state_dir;
use tollgate_policy::settings::{ProcessConfig, read_process};

use super::gateway::{ControlApi, control_api, told};

pub(super) const EXAMPLES: &str = "Examples:
  tollgate control --config /etc/tollgate
  tollgate control --config /etc/tollgate --host control.example.com
  tollgate join-tokens create --service orders";

/// Port for nodes, where nothing else is said.
const NODES: u16 = 9910;

/// The policy of an installation, and where its nodes connect. A flag wins over tollgate.yaml.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration directory: apis/*.yaml, plans.yaml, consumers.yaml, terms.yaml and tollgate.yaml
    #[arg(long, value_name = "DIR")]
    config: PathBuf,
    /// Address for gateways and sidecars, by mutual TLS [default: 0.0.0.0:9910]
    #[arg(long, value_name = "ADDR")]
    nodes: Option<SocketAddr>,
    /// Name or address that port is reached at, for its certificate (repeatable)
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Address of the control API, or off [default: 127.0.0.1:9911]
    #[arg(long, value_name = "ADDR", value_parser = control_api)]
    control_api: Option<ControlApi>,
    /// Directory of the store, the certification authority and the admin credential
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Runs the control plane until it is told to stop.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut process = ProcessConfig::default_for(1, PathBuf::new());
    process.nodes.listen = Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), NODES));
    let file = args.config.join("tollgate.yaml");
    if file.exists() {
        process = read_process(&file, process, &super::environment).map_err(|f| told(&f))?;
    }
    process.nodes.listen = args.nodes.or(process.nodes.listen);
    let hosts = args.host.iter().map(|host| host.as_str().into());
    process.nodes.hosts.extend(hosts);
    if let Some(ControlApi(address)) = args.control_api {
        process.control_api = address;
    }
    process.state_dir = args.state_dir.unwrap_or(process.state_dir);
    let asked = Some(process.state_dir.as_path()).filter(|it| !it.as_os_str().is_empty());
    let home = std::env::home_dir();
    process.state_dir = state_dir::prepare(asked, home.as_deref()).map_err(anyhow::Error::msg)?;
    crate::roles::control_plane(&process, &args.config)
}
