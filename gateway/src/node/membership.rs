//! What makes this process a node of an installation: its certificate and key, the roots it believes, the installation's pepper, and
//! where the control plane is. Kept in `state_dir/node/membership.json`, for the owner alone.
//!
//! The key never leaves the machine, and it does lie on the disk: a node has to start and serve while the control plane is away, and
//! nobody else could give it another. It counts for an hour at most unless it is renewed. Promises: after a crash the file holds the old
//! state or the new one; a damaged file is an error that says what to do, never a node without identity. Not here: getting certificates.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use super::channel::ControlAddress;
use super::identity::Held;
use super::tls::peer_of;

/// Longest file read; usual ones have some three thousand bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// All of it.
pub struct Membership {
    /// Where the control plane is.
    pub control: ControlAddress,
    /// The node's own name.
    pub node: String,
    /// The certificate, the leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Roots that are believed.
    pub roots: Vec<CertificateDer<'static>>,
    /// The key of the certificate. Never shown.
    pub key: PrivatePkcs8KeyDer<'static>,
    /// The installation's pepper. Never shown.
    pub pepper: [u8; 32],
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("control", &self.control)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Why there is no membership although there was one.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The file can be neither read nor written.
    #[error("{} cannot be used: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others may have read the key.
    #[error(
        "{} is open to others, and holds a key; remove it and join again with a new token (`tollgate join-tokens create`)",
        .0.display()
    )]
    Open(PathBuf),
    /// It holds something else.
    #[error(
        "{} is damaged ({why}); remove it and join again with a new token (`tollgate join-tokens create`)",
        path.display()
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Written {
    control: String,
    node: String,
    chain: Vec<String>,
    roots: Vec<String>,
    key: String,
    pepper: String,
}

/// Where it is kept.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("node").join("membership.json")
}

impl Membership {
    /// What is kept; `None`: this process never joined.
    ///
    /// # Errors
    /// The file cannot be read, is open to others, or is damaged. An expired certificate is no error.
    pub fn load(state_dir: &Path) -> Result<Option<Self>, MembershipError> {
        let path = path(state_dir);
        let failed = |source| MembershipError::File {
            path: path.clone(),
            source,
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(MembershipError::Open(path));
        }
        let mut text = Vec::new();
        let read = file.take(MAX_BYTES).read_to_end(&mut text);
        read.map_err(failed)?;
        match read_text(&text) {
            Ok(found) => Ok(Some(found)),
            Err(why) => Err(MembershipError::Damaged { path, why }),
        }
    }

    /// Keeps it, durably.
    ///
    /// # Errors
    /// The file cannot be written: the one before is still there.
    pub fn save(&self, state_dir: &Path) -> Result<(), MembershipError> {
        let path = path(state_dir);
        let text = self.text();
        write(&path, &text).map_err(|source| MembershipError::File { path, source })
    }

    /// As TLS uses it.
    ///
    /// # Errors
    /// In words: certificates and key do not go together, or name no workload.
    pub fn held(&self) -> Result<Held, String> {
        let id = peer_of(&self.chain).ok_or("the certificate names no workload")?;
        let mut roots = RootCertStore::empty();
        for root in &self.roots {
            let added = roots.add(root.clone());
            added.map_err(|error| format!("a root cannot be read: {error}"))?;
        }
        if roots.is_empty() {
            return Err("there is no root".to_owned());
        }
        let key = PrivateKeyDer::from(self.key.clone_key());
        let certified =
            CertifiedKey::from_der(self.chain.clone(), key.clone_key(), &default_provider())
                .map_err(|error| format!("certificate and key do not go together: {error}"))?;
        Ok(Held {
            id,
            chain: self.chain.clone(),
            key,
            certified: Arc::new(certified),
            root_certificates: self.roots.clone(),
            roots: Arc::new(roots),
        })
    }

    /// A line with the SHA-256 of the rest, then JSON.
    fn text(&self) -> String {
        let many = |all: &[CertificateDer<'_>]| all.iter().map(|it| STANDARD.encode(it)).collect();
        let written = Written {
            control: self.control.to_string(),
            node: self.node.clone(),
            chain: many(&self.chain),
            roots: many(&self.roots),
            key: STANDARD.encode(self.key.secret_pkcs8_der()),
            pepper: STANDARD.encode(self.pepper),
        };
        // Texts alone: this cannot fail.
        let json = serde_json::to_string_pretty(&written).unwrap_or_default();
        format!("{}\n{json}\n", sum(json.as_bytes()))
    }
}

fn sum(bytes: &[u8]) -> String {
    STANDARD.encode(digest(&SHA256, bytes))
}

fn read_text(text: &[u8]) -> Result<Membership, String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is no text")?;
    let (first, rest) = text.split_once('\n').ok_or("it was cut off")?;
    let json = rest.trim_end();
    if sum(json.as_bytes()) != first {
        return Err("its checksum does not fit".to_owned());
    }
    let written: Written = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let bytes = |text: &String| STANDARD.decode(text).map_err(|error| error.to_string());
    let certificates = |all: &[String]| -> Result<Vec<_>, String> {
        let read = |text| bytes(text).map(CertificateDer::from);
        all.iter().map(read).collect()
    };
    let found = Membership {
        control: written.control.parse()?,
        node: written.node,
        chain: certificates(&written.chain)?,
        roots: certificates(&written.roots)?,
        key: PrivatePkcs8KeyDer::from(bytes(&written.key)?),
        pepper: bytes(&written.pepper)?
            .try_into()
            .map_err(|_| "the pepper is not of 32 bytes")?,
    };
    found.held().map(|_| found)
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let Some(folder) = path.parent() else {
        return Err(std::io::Error::other("no folder"));
    };
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let next = path.with_extension("next");
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&next, path)?;
    File::open(folder)?.sync_all()?;
    folder
        .parent()
        .map_or(Ok(()), |above| File::open(above)?.sync_all())
}
