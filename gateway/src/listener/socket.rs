//! Listening sockets: bound, inherited, locked against a second instance; and the accepted ones.
//!
//! Promises: each worker has its own TCP queue (`SO_REUSEPORT`), a Unix socket has one queue for all; a socket file is only
//! removed when nobody listens on it. Not here: accepting (`accept`), handing over (`handover`).

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tollgate_policy::settings::ListenAddress;

/// Connections the kernel may hold for us before they are accepted. It cuts this to `net.core.somaxconn` (4,096 by default).
const BACKLOG: i32 = 4096;

/// A listening socket that is not yet served.
#[derive(Debug)]
pub struct Bound {
    socket: OwnedFd,
    address: ListenAddress,
}

/// A TCP listener for operators: a successor may bind the same address while its predecessor still answers there.
///
/// # Errors
/// The address is taken by somebody else, or not ours.
pub fn bind_shared(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Both generations have to ask for it, or the second cannot bind.
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Bound {
    /// Binds and listens. TCP sockets share their port with others of the same user (`SO_REUSEPORT`).
    ///
    /// # Errors
    /// The address is taken, not ours, or the path cannot be written.
    pub fn bind(address: &ListenAddress) -> io::Result<Self> {
        let socket = match address {
            ListenAddress::Tcp(tcp) => bind_tcp(*tcp)?,
            ListenAddress::Unix(path) => bind_unix(path)?,
        };
        socket.set_nonblocking(true)?;
        socket.listen(BACKLOG)?;
        Self::from_fd(socket.into(), address)
    }

    /// One listening socket for each of `workers`: TCP with a queue each (port 0 is chosen once), Unix with one for all.
    ///
    /// # Errors
    /// As [`Bound::bind`].
    pub fn bind_workers(address: &ListenAddress, workers: usize) -> io::Result<Vec<Self>> {
        let first = Self::bind(address)?;
        let mut all = vec![first];
        while all.len() < workers.max(1) {
            let Some(first) = all.first() else { break };
            let next = match &first.address {
                tcp @ ListenAddress::Tcp(_) => Self::bind(tcp)?,
                unix @ ListenAddress::Unix(_) => Self::from_fd(first.try_clone_fd()?, unix)?,
            };
            all.push(next);
        }
        Ok(all)
    }

    /// Takes over a socket that already listens; `address` is what it was configured as.
    ///
    /// # Errors
    /// It is no such socket.
    pub fn from_fd(socket: OwnedFd, address: &ListenAddress) -> io::Result<Self> {
        let socket = Socket::from(socket);
        let address = match address {
            ListenAddress::Tcp(_) => ListenAddress::Tcp(
                socket
                    .local_addr()?
                    .as_socket()
                    .ok_or(io::ErrorKind::InvalidInput)?,
            ),
            unix @ ListenAddress::Unix(_) => unix.clone(),
        };
        Ok(Self {
            socket: socket.into(),
            address,
        })
    }

    /// Where it listens; the port is the real one.
    pub fn local_address(&self) -> &ListenAddress {
        &self.address
    }

    /// Another descriptor of the same socket, for a hand-over.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone_fd(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Registers the socket with the current runtime.
    ///
    /// # Errors
    /// The runtime's poller refuses it.
    pub fn into_listener(self) -> io::Result<Listener> {
        let socket = Socket::from(self.socket);
        socket.set_nonblocking(true)?;
        Ok(match self.address {
            ListenAddress::Tcp(_) => Listener::Tcp(TcpListener::from_std(socket.into())?),
            ListenAddress::Unix(_) => Listener::Unix(UnixListener::from_std(socket.into())?),
        })
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        // `[::]` means every address of the machine, whatever the distribution's default says.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bind_unix(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = SockAddr::unix(path)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path)?;
            socket.bind(&address)?;
        }
        other => other?,
    }
    Ok(socket)
}

/// Removes a socket file that its process left behind. One that somebody listens on, or another kind of file, stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if is_socket && error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// A listening socket on the current runtime.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix.
    Unix(UnixListener),
}

impl Listener {
    /// The next connection, and its peer where it has an address.
    pub(super) async fn accept(&self) -> io::Result<(Accepted, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Answers are written whole; waiting for more to send only adds latency. A peer that is already gone
                // makes this fail, which the first read reports.
                let _gone = stream.set_nodelay(true);
                Ok((Accepted::Tcp(stream), Some(peer)))
            }
            Self::Unix(listener) => Ok((Accepted::Unix(listener.accept().await?.0), None)),
        }
    }

    /// The next connection that waits in the queue now. Asks the kernel, not the poller, which may not know of it yet.
    pub(super) fn accept_waiting(&self) -> io::Result<(Accepted, Option<SocketAddr>)> {
        let queue = match self {
            Self::Tcp(listener) => SockRef::from(listener),
            Self::Unix(listener) => SockRef::from(listener),
        };
        let (socket, peer) = queue.accept()?;
        socket.set_nonblocking(true)?;
        Ok(match self {
            Self::Tcp(_) => {
                let _gone = socket.set_tcp_nodelay(true);
                (
                    Accepted::Tcp(TcpStream::from_std(socket.into())?),
                    peer.as_socket(),
                )
            }
            Self::Unix(_) => (Accepted::Unix(UnixStream::from_std(socket.into())?), None),
        })
    }
}

/// An accepted socket.
#[derive(Debug)]
pub(super) enum Accepted {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

impl AsRawFd for Accepted {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

/// An address held by this process (and by whom it hands its sockets to) until dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    address: ListenAddress,
}

/// Takes the lock of an address, so that a second instance started by accident fails instead of sharing the port.
///
/// # Errors
/// One line that names the process holding it, or what failed.
pub fn lock(state_dir: &Path, address: &ListenAddress) -> Result<Lock, String> {
    let path = state_dir.join(format!("listen-{}.lock", file_name(address)));
    let open = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let mut file = open.map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    if flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        let read = Read::by_ref(&mut file).take(32).read_to_string(&mut holder);
        let holder = if read.is_ok() { holder.trim() } else { "" };
        let holder = if holder.is_empty() { "unknown" } else { holder };
        return Err(format!(
            "{} is already served by process {holder} (lock {})",
            describe(address),
            path.display()
        ));
    }
    let mut lock = Lock {
        file,
        address: address.clone(),
    };
    lock.sign();
    Ok(lock)
}

impl Lock {
    /// Takes over a lock that a predecessor holds.
    pub(super) fn from_fd(file: OwnedFd, address: ListenAddress) -> Self {
        Self {
            file: file.into(),
            address,
        }
    }

    /// Which address it is for.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// Another descriptor of the same lock, for a hand-over.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone_fd(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    /// Writes our process id into the file, for the message of who comes second. The lock holds without it, on a full disk for one.
    pub(super) fn sign(&mut self) {
        let Self { file, address } = self;
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = written {
            tracing::warn!(
                "cannot write our process id into the lock of {}: {error}",
                describe(address)
            );
        }
    }
}

fn describe(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(tcp) => tcp.to_string(),
        ListenAddress::Unix(path) => path.display().to_string(),
    }
}

/// A file name for an address. Different addresses get different names: what is not plain is written as hex.
fn file_name(address: &ListenAddress) -> String {
    let mut name = String::new();
    for byte in describe(address).bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' => name.push(char::from(byte)),
            _ => name.push_str(&format!("_{byte:02x}")),
        }
    }
    name
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn workers_share_the_port_chosen_first() {
        let address = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
        let bound = Bound::bind_workers(&address, 3).unwrap();
        assert_eq!(bound.len(), 3);
        assert!(
            bound
                .iter()
                .all(|one| one.local_address() == bound[0].local_address())
        );
        assert_ne!(bound[0].local_address(), &address);
    }

    #[test]
    fn a_second_instance_is_told_who_holds_the_address() {
        let state = tempfile::tempdir().unwrap();
        let address = ListenAddress::Tcp("127.0.0.1:8080".parse().unwrap());
        let held = lock(state.path(), &address).unwrap();
        let refused = lock(state.path(), &address).unwrap_err();
        let me = std::process::id();
        assert!(refused.starts_with(&format!(
            "127.0.0.1:8080 is already served by process {me} "
        )));
        assert!(!refused.contains('\n'));
        drop(held);
        lock(state.path(), &address).unwrap();
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_living_one_is_not() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("gateway.sock");
        let address = ListenAddress::Unix(path.clone());
        let living = Bound::bind(&address).unwrap();
        assert_eq!(
            Bound::bind(&address).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(living);
        drop(Bound::bind(&address).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "no socket").unwrap();
        assert!(Bound::bind(&address).is_err());
        assert!(path.exists());
    }
}
