//! Handing the listening sockets to a new process.
//!
//! The running process offers them over a Unix socket (`handover.sock` in the state directory, for its own user only); the new
//! one takes descriptors of the *same* sockets, starts accepting, and only then confirms, whereupon the old one stops. Connections
//! wait in a queue that both share, so none is refused or lost. The locks of the addresses travel with them. Not
//! here: draining the old process.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tollgate_policy::settings::ListenAddress;

use super::socket::Lock;

const SOCKET_NAME: &str = "handover.sock";

/// Descriptors in one message; the kernel allows 253.
const BATCH: usize = 64;

/// The longest manifest: thousands of sockets.
const MANIFEST_BYTES: usize = 1024 * 1024;

/// How long either side waits for a message of the other.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a new process may take from the sockets to its confirmation: it loads its configuration meanwhile.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(120);

const READY: &[u8; 6] = b"ready\n";

/// What the running process gives.
#[derive(Debug)]
pub struct Offer {
    /// Address, worker and a descriptor of each listening socket.
    pub sockets: Vec<(ListenAddress, usize, OwnedFd)>,
    /// Address and a descriptor of each lock.
    pub locks: Vec<(ListenAddress, OwnedFd)>,
}

/// What a new process got. Dropped without [`TakenOver::confirm`], the old process goes on as if nothing had happened.
#[derive(Debug)]
pub struct TakenOver {
    /// Address, worker and descriptor of each listening socket.
    pub sockets: Vec<(ListenAddress, usize, OwnedFd)>,
    /// The locks of the addresses.
    pub locks: Vec<Lock>,
    stream: UnixStream,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    kind: Kind,
    tcp: Option<std::net::SocketAddr>,
    unix: Option<PathBuf>,
    worker: usize,
}

#[derive(Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Listener,
    Lock,
}

impl Entry {
    fn new(kind: Kind, address: &ListenAddress, worker: usize) -> Self {
        let (tcp, unix) = match address {
            ListenAddress::Tcp(tcp) => (Some(*tcp), None),
            ListenAddress::Unix(path) => (None, Some(path.clone())),
        };
        Self {
            kind,
            tcp,
            unix,
            worker,
        }
    }

    fn address(&self) -> io::Result<ListenAddress> {
        match (self.tcp, &self.unix) {
            (Some(tcp), None) => Ok(ListenAddress::Tcp(tcp)),
            (None, Some(path)) => Ok(ListenAddress::Unix(path.clone())),
            _ => Err(invalid("manifest names no address")),
        }
    }
}

/// Offers the sockets until a successor has confirmed that it accepts on them. Then the caller stops accepting and drains.
///
/// # Errors
/// The offer cannot be made at all; a successor that fails is only logged.
pub async fn offer(state_dir: &Path, offer: Offer) -> io::Result<()> {
    let path = state_dir.join(SOCKET_NAME);
    let temporary = state_dir.join(format!("{SOCKET_NAME}.{}", std::process::id()));
    let _none_yet = std::fs::remove_file(&temporary);
    let listener = tokio::net::UnixListener::bind(&temporary)?;
    std::fs::set_permissions(&temporary, PermissionsExt::from_mode(0o600))?;
    // Replaces what a predecessor left in one step: whoever connects finds one of the two.
    std::fs::rename(&temporary, &path)?;
    let offer = Arc::new(offer);
    loop {
        let (stream, _) = listener.accept().await?;
        let ours = rustix::process::geteuid().as_raw();
        if stream.peer_cred().map_or(true, |peer| peer.uid() != ours) {
            continue;
        }
        let stream = stream.into_std()?;
        let offer = Arc::clone(&offer);
        match tokio::task::spawn_blocking(move || give(&stream, &offer)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => tracing::warn!(%error, "a successor did not take over"),
            Err(error) => tracing::error!(%error, "the hand-over failed"),
        }
    }
}

fn give(mut stream: &UnixStream, offer: &Offer) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(MESSAGE_TIMEOUT))?;
    let mut entries = Vec::new();
    let mut descriptors = Vec::new();
    for (address, worker, socket) in &offer.sockets {
        entries.push(Entry::new(Kind::Listener, address, *worker));
        descriptors.push(socket.as_fd());
    }
    for (address, lock) in &offer.locks {
        entries.push(Entry::new(Kind::Lock, address, 0));
        descriptors.push(lock.as_fd());
    }
    let manifest = serde_json::to_vec(&entries)?;
    let length = u32::try_from(manifest.len()).map_err(|_| invalid("manifest too long"))?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&manifest)?;
    for batch in descriptors.chunks(BATCH) {
        send_descriptors(stream, batch)?;
    }
    stream.set_read_timeout(Some(CONFIRM_TIMEOUT))?;
    let mut answer = [0; READY.len()];
    stream.read_exact(&mut answer)?;
    if answer == *READY {
        Ok(())
    } else {
        Err(invalid("not a confirmation"))
    }
}

fn send_descriptors(stream: &UnixStream, batch: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(batch)) {
        return Err(invalid("too many descriptors in a message"));
    }
    // Descriptors travel with at least one byte.
    sendmsg(
        stream,
        &[IoSlice::new(b"+")],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Takes the sockets of the running process; `None` when none is running.
///
/// # Errors
/// A process is there, but the hand-over failed.
pub fn take_over(state_dir: &Path) -> io::Result<Option<TakenOver>> {
    let mut stream = match UnixStream::connect(state_dir.join(SOCKET_NAME)) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(MESSAGE_TIMEOUT))?;
    stream.set_write_timeout(Some(MESSAGE_TIMEOUT))?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MANIFEST_BYTES {
        return Err(invalid("manifest too long"));
    }
    let mut manifest = vec![0; length];
    stream.read_exact(&mut manifest)?;
    let entries: Vec<Entry> = serde_json::from_slice(&manifest)?;
    let mut descriptors = Vec::with_capacity(entries.len());
    while descriptors.len() < entries.len() {
        receive_descriptors(&stream, &mut descriptors)?;
    }
    let (mut sockets, mut locks) = (Vec::new(), Vec::new());
    for (entry, descriptor) in entries.iter().zip(descriptors) {
        match entry.kind {
            Kind::Listener => sockets.push((entry.address()?, entry.worker, descriptor)),
            Kind::Lock => locks.push(Lock::from_fd(descriptor, entry.address()?)),
        }
    }
    Ok(Some(TakenOver {
        sockets,
        locks,
        stream,
    }))
}

fn receive_descriptors(stream: &UnixStream, descriptors: &mut Vec<OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut into = [IoSliceMut::new(&mut byte)];
    let received = recvmsg(stream, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let before = descriptors.len();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    // The kernel drops descriptors where ours have run out.
    if descriptors.len() == before {
        Err(invalid("descriptors are missing"))
    } else {
        Ok(())
    }
}

impl TakenOver {
    /// Tells the old process that we accept on its sockets, and signs the locks. The locks are now ours.
    ///
    /// # Errors
    /// The old process is gone.
    pub fn confirm(mut self) -> io::Result<Vec<Lock>> {
        self.stream.write_all(READY)?;
        for lock in &mut self.locks {
            lock.sign();
        }
        Ok(self.locks)
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
