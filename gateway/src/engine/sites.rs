//! Listening sockets: opened, locked against an accidental second instance, or taken over from the running process.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use tollgate_policy::settings::{ListenAddress, ListenerConfig, ProcessConfig};

use super::StartError;
use crate::listener::handover::{self, TakenOver};
use crate::listener::{self, Bound, Lock, TlsKeys, bind_shared};

/// One listener with the sockets of all its workers.
pub(super) struct Site {
    /// Name in metrics and logs: the address as configured.
    pub(super) name: Arc<str>,
    /// As configured.
    pub(super) config: ListenerConfig,
    /// Certificates, where it has any.
    pub(super) tls: Option<Arc<TlsKeys>>,
    /// At least one.
    pub(super) sockets: Vec<Bound>,
}

/// One socket of a listener, for one worker.
pub(super) struct Share {
    /// Name in metrics and logs.
    pub(super) name: Arc<str>,
    /// As configured.
    pub(super) config: ListenerConfig,
    /// Certificates, where it has any.
    pub(super) tls: Option<Arc<TlsKeys>>,
    /// The socket.
    pub(super) socket: Bound,
}

impl Site {
    /// The sockets one of `workers` serves: every socket is served by somebody, and every worker has one.
    pub(super) fn share(&self, worker: usize, workers: usize) -> Vec<Share> {
        let count = self.sockets.len().max(1);
        let mut mine: Vec<usize> = (worker..count).step_by(workers).collect();
        if mine.is_empty() {
            mine.push(worker % count);
        }
        mine.into_iter()
            .filter_map(|index| self.sockets.get(index))
            .filter_map(|socket| {
                Bound::from_fd(socket.try_clone_fd().ok()?, socket.local_address()).ok()
            })
            .map(|socket| Share {
                name: self.name.clone(),
                config: self.config.clone(),
                tls: self.tls.clone(),
                socket,
            })
            .collect()
    }
}

/// The process to take over from, where one is asked for and runs.
pub(super) fn predecessor(
    state_dir: &Path,
    take_over: bool,
) -> Result<Option<TakenOver>, StartError> {
    if !take_over {
        return Ok(None);
    }
    let found = handover::take_over(state_dir)
        .map_err(|error| format!("the running gateway did not hand over: {error}"))?;
    if found.is_none() {
        tracing::info!("no running gateway to take over from; starting afresh");
    }
    Ok(found)
}

/// Opens every listener. Sockets that the predecessor had are used again, new ones are bound.
pub(super) fn open(
    process: &ProcessConfig,
    predecessor: Option<&TakenOver>,
) -> Result<(Vec<Site>, Vec<Lock>), StartError> {
    let mut sites = Vec::new();
    let mut locks = Vec::new();
    for config in &process.listeners {
        let tls = config.tls.as_ref().map(listener::load).transpose()?;
        let inherited = predecessor
            .map(|from| inherit(from, &config.address))
            .unwrap_or_default();
        let sockets = match inherited.is_empty() {
            false => inherited,
            true => {
                // Locked before it is bound, so that a second instance says who has the port instead of sharing it.
                if !port_is_free_to_choose(&config.address) {
                    locks.push(listener::lock(&process.state_dir, &config.address)?);
                }
                let sockets = Bound::bind_workers(&config.address, process.workers.max(1))
                    .map_err(|error| cannot_listen(&config.address, &error))?;
                if let (true, Some(socket)) =
                    (port_is_free_to_choose(&config.address), sockets.first())
                {
                    locks.push(listener::lock(&process.state_dir, socket.local_address())?);
                }
                sockets
            }
        };
        let name = display(&config.address).into();
        sites.push(Site {
            name,
            config: config.clone(),
            tls,
            sockets,
        });
    }
    Ok((sites, locks))
}

/// The sockets as a successor may have them.
pub(super) fn offered(sites: &[Site]) -> Result<handover::Offer, StartError> {
    let mut offer = handover::Offer {
        sockets: Vec::new(),
        locks: Vec::new(),
    };
    for site in sites {
        for (worker, socket) in site.sockets.iter().enumerate() {
            let fd = socket.try_clone_fd().map_err(cannot_clone)?;
            let address = socket.local_address().clone();
            offer.sockets.push((address, worker, fd));
        }
    }
    Ok(offer)
}

/// The locks as a successor may have them.
pub(super) fn offered_locks(locks: &[Lock]) -> Result<Vec<(ListenAddress, OwnedFd)>, StartError> {
    let offered = locks.iter().map(|lock| {
        let fd = lock.try_clone_fd().map_err(cannot_clone)?;
        Ok((lock.address().clone(), fd))
    });
    offered.collect()
}

fn cannot_clone(error: std::io::Error) -> StartError {
    StartError(format!("a listening socket cannot be cloned: {error}"))
}

fn inherit(from: &TakenOver, wanted: &ListenAddress) -> Vec<Bound> {
    from.sockets
        .iter()
        .filter(|(address, _, _)| same(address, wanted))
        .filter_map(|(address, _, fd)| Bound::from_fd(fd.try_clone().ok()?, address).ok())
        .collect()
}

fn same(had: &ListenAddress, wanted: &ListenAddress) -> bool {
    match (had, wanted) {
        (ListenAddress::Tcp(had), ListenAddress::Tcp(wanted)) => {
            had.ip() == wanted.ip() && (had.port() == wanted.port() || wanted.port() == 0)
        }
        _ => had == wanted,
    }
}

fn port_is_free_to_choose(address: &ListenAddress) -> bool {
    matches!(address, ListenAddress::Tcp(tcp) if tcp.port() == 0)
}

fn cannot_listen(address: &ListenAddress, error: &std::io::Error) -> String {
    let address = display(address);
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!(
                "{address} is in use by another program; stop it or listen elsewhere (--listen)"
            )
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("{address} may not be opened by this user; choose a port above 1023")
        }
        _ => format!("cannot listen on {address}: {error}"),
    }
}

/// An address as the operator writes it.
pub(super) fn display(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(tcp) => tcp.to_string(),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// The admin socket. It may be shared for the moment of a hand-over only.
pub(super) fn bind_admin(process: &ProcessConfig, take_over: bool) -> Result<TcpListener, String> {
    let address = process.admin;
    if !take_over && address.port() != 0 && std::net::TcpStream::connect(address).is_ok() {
        return Err(format!(
            "the admin address {address} is in use; choose another (--admin)"
        ));
    }
    bind_shared(address)
        .map_err(|error| format!("cannot open the admin address {address}: {error}"))
}
