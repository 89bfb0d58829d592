//! `tollgate.yaml`: as written, and turned into [`ProcessConfig`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::decode::Text;
use super::overload_file::{WrittenOverload, overload};
use super::quota_file::{WrittenQuota, quota};
use super::reader::Reader;
use super::services_file::{WrittenInstance, services};
use super::upstream_file::WrittenPair;
use super::usage_file::{WrittenUsage, usage};
use super::value::{self, Wrong};
use super::{
    AccessLogTarget, ClientCertificates, Direction, DoorLimits, ListenAddress, ListenerConfig,
    ListenerTls, NodesConfig, OverloadConfig, ProcessConfig, QuotaConfig, UsageConfig,
};
use crate::finding::Finding;
use crate::workload::{Kind, WorkloadId};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    listeners: Option<Vec<WrittenListener>>,
    admin: Option<Text>,
    control: Option<WrittenControl>,
    workers: Option<Text>,
    state_dir: Option<Text>,
    drain_timeout: Option<Text>,
    trusted_hops: Option<Text>,
    limits: Option<WrittenLimits>,
    overload: Option<WrittenOverload>,
    quota: Option<WrittenQuota>,
    usage: Option<WrittenUsage>,
    access_log: Option<Text>,
    services: Option<BTreeMap<Text, Vec<WrittenInstance>>>,
    fast_path: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenListener {
    address: Text,
    tls: Option<WrittenTls>,
    proxy_protocol_from: Option<Vec<Text>>,
    direction: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTls {
    certificates: Vec<WrittenPair>,
    min_version: Option<Text>,
    client_ca: Option<Text>,
    client_certificates: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenControl {
    api: Option<Text>,
    nodes: Option<Text>,
    hosts: Option<Vec<Text>>,
    domain: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLimits {
    head_bytes: Option<Text>,
    head_fields: Option<Text>,
    body_bytes: Option<Text>,
    h2_streams: Option<Text>,
    head_timeout: Option<Text>,
    body_min_rate: Option<Text>,
    handshake_timeout: Option<Text>,
    handshakes: Option<Text>,
    connections: Option<Text>,
    connections_per_address: Option<Text>,
    keep_alive: Option<Text>,
    requests_per_connection: Option<Text>,
}

impl ProcessConfig {
    /// Zero configuration: `0.0.0.0:8080` in cleartext, admin on loopback, every limit at its default.
    pub fn default_for(workers: usize, state_dir: PathBuf) -> Self {
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);
        Self {
            listeners: vec![ListenerConfig::cleartext(ListenAddress::Tcp(any))],
            admin: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900),
            control_api: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9911)),
            nodes: NodesConfig::default(),
            workers,
            state_dir,
            drain_timeout: Duration::from_secs(30),
            trusted_hops: 0,
            limits: DoorLimits::default(),
            overload: OverloadConfig::default(),
            quota: QuotaConfig::default(),
            usage: UsageConfig::default(),
            access_log: AccessLogTarget::Stdout,
            services: BTreeMap::new(),
            fast_path: true,
        }
    }
}

/// Reads `tollgate.yaml`; what it leaves unsaid is taken from `unsaid`. `environment` answers `${NAME}`.
///
/// # Errors
/// Everything that is wrong with the file, in its order.
pub fn read_process(
    path: &Path,
    unsaid: ProcessConfig,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<ProcessConfig, Vec<Finding>> {
    let mut reader = Reader::open(path).map_err(|finding| vec![finding])?;
    let meaning = reader
        .decode::<Written>(environment)
        .map(|written| config(&mut reader, unsaid, &written));
    reader.finish(meaning)
}

fn config(reader: &mut Reader, unsaid: ProcessConfig, written: &Written) -> ProcessConfig {
    let listeners = match &written.listeners {
        Some(list) if list.is_empty() => {
            reader.empty("listeners", "name at least one, or remove the field");
            Vec::new()
        }
        Some(list) => listeners(reader, list),
        None => unsaid.listeners,
    };
    let workers = |text: &str| value::number(text, 1, 1_024);
    let state_dir = written.state_dir.as_ref().map(|path| reader.path(path));
    let access_log = reader.value("access_log", written.access_log.as_ref(), value::access_log);
    let access_log = match (access_log, &written.access_log) {
        (Some(AccessLogTarget::File(_)), Some(path)) => AccessLogTarget::File(reader.path(path)),
        (Some(target), _) => target,
        (None, _) => unsaid.access_log,
    };
    let control = written.control.as_ref().and_then(|it| it.api.as_ref());
    let drain = written.drain_timeout.as_ref();
    let hops = written.trusted_hops.as_ref();
    ProcessConfig {
        listeners,
        admin: reader
            .value("admin", written.admin.as_ref(), value::socket_address)
            .unwrap_or(unsaid.admin),
        control_api: reader
            .value("control.api", control, address_or_off)
            .unwrap_or(unsaid.control_api),
        nodes: section(reader, &written.control, unsaid.nodes, nodes),
        workers: reader
            .value("workers", written.workers.as_ref(), workers)
            .unwrap_or(unsaid.workers),
        state_dir: state_dir.unwrap_or(unsaid.state_dir),
        drain_timeout: reader
            .value("drain_timeout", drain, value::duration)
            .unwrap_or(unsaid.drain_timeout),
        trusted_hops: reader
            .value("trusted_hops", hops, |text| value::number(text, 0, 16))
            .unwrap_or(unsaid.trusted_hops),
        limits: section(reader, &written.limits, unsaid.limits, limits),
        overload: section(reader, &written.overload, unsaid.overload, overload),
        quota: section(reader, &written.quota, unsaid.quota, quota),
        usage: section(reader, &written.usage, unsaid.usage, usage),
        access_log,
        services: section(reader, &written.services, unsaid.services, services),
        fast_path: reader
            .value("fast_path", written.fast_path.as_ref(), value::switch)
            .unwrap_or(unsaid.fast_path),
    }
}

fn address_or_off(text: &str) -> Result<Option<SocketAddr>, Wrong> {
    match text {
        "off" => Ok(None),
        _ => value::socket_address(text).map(Some),
    }
}

fn nodes(reader: &mut Reader, unsaid: NodesConfig, written: &WrittenControl) -> NodesConfig {
    let hosts = written.hosts.as_ref().map(|hosts| {
        let hosts = hosts.iter();
        let hosts = hosts.filter_map(|host| reader.value("control.hosts", Some(host), host_name));
        hosts.collect()
    });
    NodesConfig {
        listen: reader
            .value("control.nodes", written.nodes.as_ref(), address_or_off)
            .unwrap_or(unsaid.listen),
        hosts: hosts.unwrap_or(unsaid.hosts),
        domain: reader
            .value("control.domain", written.domain.as_ref(), domain)
            .unwrap_or(unsaid.domain),
    }
}

fn host_name(text: &str) -> Result<Arc<str>, Wrong> {
    let named = text.parse::<IpAddr>().is_ok() || domain(&text.to_ascii_lowercase()).is_ok();
    named.then(|| text.into()).ok_or_else(|| {
        let what = format!("`{text}` is neither a name nor an address");
        Wrong::new(what, "write control.example.com or 192.0.2.7, without port")
    })
}

fn domain(text: &str) -> Result<Arc<str>, Wrong> {
    match WorkloadId::new(text, Kind::Control, "") {
        Ok(id) => Ok(Arc::clone(id.domain())),
        Err(_) => Err(Wrong::new(
            format!("`{text}` is no domain"),
            "write a name such as tollgate.internal, of a-z, 0-9, - and dots",
        )),
    }
}

/// What a section means; what it does not say, and a section that is not there, are as they would be.
fn section<W, C>(
    reader: &mut Reader,
    written: &Option<W>,
    unsaid: C,
    read: impl FnOnce(&mut Reader, C, &W) -> C,
) -> C {
    match written {
        Some(written) => read(reader, unsaid, written),
        None => unsaid,
    }
}

/// The listeners; an address written twice is a mistake that would otherwise show at start only.
fn listeners(reader: &mut Reader, written: &[WrittenListener]) -> Vec<ListenerConfig> {
    let mut found: Vec<ListenerConfig> = Vec::new();
    for it in written {
        let Some(config) = listener(reader, it) else {
            continue;
        };
        // Port 0 is another port each time.
        let any_port =
            matches!(&config.address, ListenAddress::Tcp(address) if address.port() == 0);
        if !any_port && found.iter().any(|other| other.address == config.address) {
            let wrong = Wrong::new(
                format!("`{}` stands twice", it.address.text),
                "give each listener an address of its own",
            );
            reader.refuse("listeners.address", &it.address, wrong);
        }
        found.push(config);
    }
    found
}

fn listener(reader: &mut Reader, written: &WrittenListener) -> Option<ListenerConfig> {
    let networks = written.proxy_protocol_from.as_ref();
    let proxy_protocol_from =
        reader.list("listeners.proxy_protocol_from", networks, value::network);
    let tls = written
        .tls
        .as_ref()
        .map(|tls| listener_tls(reader, &written.address, tls));
    let address = reader.value(
        "listeners.address",
        Some(&written.address),
        value::listen_address,
    )?;
    let direction = reader.value("listeners.direction", written.direction.as_ref(), direction);
    Some(ListenerConfig {
        address,
        tls,
        proxy_protocol_from,
        direction: direction.unwrap_or_default(),
    })
}

fn direction(text: &str) -> Result<Direction, Wrong> {
    match text {
        "inbound" => Ok(Direction::Inbound),
        "outbound" => Ok(Direction::Outbound),
        _ => Err(Wrong::new(
            format!("`{text}` is neither inbound nor outbound"),
            "write `outbound` where the app beside us reaches other services",
        )),
    }
}

fn listener_tls(reader: &mut Reader, at: &Text, written: &WrittenTls) -> ListenerTls {
    if written.certificates.is_empty() {
        let wrong = Wrong::new("is empty", "name at least one pair of `cert` and `key`");
        reader.refuse("listeners.tls.certificates", at, wrong);
    }
    let version = |text: &str| match text {
        "1.2" => Ok(true),
        "1.3" => Ok(false),
        _ => Err(Wrong::new(
            format!("`{text}` is no version we speak"),
            "write \"1.2\" or \"1.3\"",
        )),
    };
    let client = client_certificates(reader, written);
    let pairs = written.certificates.iter();
    ListenerTls {
        client,
        certificates: pairs
            .map(|it| (reader.path(&it.cert), reader.path(&it.key)))
            .collect(),
        tls12: reader
            .value(
                "listeners.tls.min_version",
                written.min_version.as_ref(),
                version,
            )
            .unwrap_or(true),
    }
}

/// Roots without a word about clients mean that they may show a certificate: the API's `mutualTLS` decides who must.
fn client_certificates(reader: &mut Reader, written: &WrittenTls) -> Option<ClientCertificates> {
    let field = "listeners.tls.client_certificates";
    let required = |text: &str| match text {
        "off" => Ok(None),
        "optional" => Ok(Some(false)),
        "required" => Ok(Some(true)),
        _ => Err(Wrong::new(
            format!("`{text}` is none of off, optional and required"),
            "write one of them",
        )),
    };
    let said = written.client_certificates.as_ref();
    let mode = reader.value(field, said, required);
    match (&written.client_ca, mode, said) {
        (Some(roots), mode, _) => mode
            .unwrap_or(Some(false))
            .map(|required| ClientCertificates {
                roots: reader.path(roots),
                required,
            }),
        (None, Some(Some(_)), Some(said)) => {
            let wrong = Wrong::new(
                "needs `client_ca`",
                "name the PEM file of the roots to trust",
            );
            reader.refuse(field, said, wrong);
            None
        }
        _ => None,
    }
}

fn limits(reader: &mut Reader, mut limits: DoorLimits, written: &WrittenLimits) -> DoorLimits {
    times(reader, &mut limits, written);
    sizes(reader, &mut limits, written);
    counts(reader, &mut limits, written);
    limits
}

fn times(reader: &mut Reader, limits: &mut DoorLimits, written: &WrittenLimits) {
    let mut read = |name: &str, text: &Option<Text>, target: &mut Duration| {
        let field = format!("limits.{name}");
        *target = reader
            .value(&field, text.as_ref(), value::duration)
            .unwrap_or(*target);
    };
    read(
        "head_timeout",
        &written.head_timeout,
        &mut limits.head_timeout,
    );
    read(
        "handshake_timeout",
        &written.handshake_timeout,
        &mut limits.handshake_timeout,
    );
    read("keep_alive", &written.keep_alive, &mut limits.keep_alive);
}

fn sizes(reader: &mut Reader, limits: &mut DoorLimits, written: &WrittenLimits) {
    let mut read = |name: &str, text: &Option<Text>, target: &mut u64| {
        let field = format!("limits.{name}");
        *target = reader
            .value(&field, text.as_ref(), value::size)
            .unwrap_or(*target);
    };
    read("body_bytes", &written.body_bytes, &mut limits.body_bytes);
    read(
        "body_min_rate",
        &written.body_min_rate,
        &mut limits.body_min_rate,
    );
    // A head below 1 KiB refuses ordinary browsers; above 1 MiB it is no limit.
    let head = |text: &str| {
        let bytes = value::size(text)?;
        value::number::<usize>(&bytes.to_string(), 1 << 10, 1 << 20)
    };
    limits.head_bytes = reader
        .value("limits.head_bytes", written.head_bytes.as_ref(), head)
        .unwrap_or(limits.head_bytes);
}

fn counts(reader: &mut Reader, limits: &mut DoorLimits, written: &WrittenLimits) {
    const MANY: u64 = 10_000_000;
    count(
        reader,
        ("head_fields", &written.head_fields, 10_000),
        &mut limits.head_fields,
    );
    count(
        reader,
        ("handshakes", &written.handshakes, 100_000),
        &mut limits.handshakes,
    );
    count(
        reader,
        ("connections", &written.connections, MANY),
        &mut limits.connections,
    );
    count(
        reader,
        (
            "connections_per_address",
            &written.connections_per_address,
            MANY,
        ),
        &mut limits.connections_per_address,
    );
    count(
        reader,
        ("h2_streams", &written.h2_streams, 10_000),
        &mut limits.h2_streams,
    );
    count(
        reader,
        (
            "requests_per_connection",
            &written.requests_per_connection,
            u32::MAX.into(),
        ),
        &mut limits.requests_per_connection,
    );
}

/// One number from 1 to a greatest one: its name, what was written, and that greatest one.
fn count<N: TryFrom<u64> + Copy>(
    reader: &mut Reader,
    (name, written, most): (&str, &Option<Text>, u64),
    target: &mut N,
) {
    let field = format!("limits.{name}");
    *target = reader
        .value(&field, written.as_ref(), |text| {
            value::number(text, 1, most)
        })
        .unwrap_or(*target);
}
