//! The built-in certification authority: certificates that say who a node of the installation is.
//!
//! Promises: a leaf is for the name it was asked for by whoever calls, never for what its request says, and lives an hour; root keys stand
//! in `state_dir/ca`, for their owner only, written durably before the first leaf is signed; while roots are exchanged every node believes
//! both before the new one signs. Not here: who may have which certificate (`nodes`).

mod leaf;
mod roots;
mod tls;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tollgate_policy::time::Timestamp;
use tollgate_policy::workload::{Kind, WorkloadId};

use roots::Roots;
use tls::Shown;

/// How long a certificate of a node counts: as long as nodes live through an absence of the authority, at least half of it.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(3600);

/// Where the time comes from.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How an authority works.
#[derive(Clone)]
pub struct CaOptions {
    /// Names and addresses the control plane is reached by, beside its own name in the domain.
    pub hosts: Vec<String>,
    /// How long leaves count. Each step of an exchange of roots takes as long.
    pub leaf_lifetime: Duration,
    /// The time.
    pub clock: Clock,
}

impl Default for CaOptions {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            leaf_lifetime: LEAF_LIFETIME,
            clock: Arc::new(SystemTime::now),
        }
    }
}

impl fmt::Debug for CaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaOptions")
            .field("hosts", &self.hosts)
            .field("leaf_lifetime", &self.leaf_lifetime)
            .finish_non_exhaustive()
    }
}

/// What is wrong with an authority, or with what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Its file can be neither read nor written.
    #[error("the certification authority in {} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its file holds something else.
    #[error(
        "{} is damaged ({why}); restore it from a backup. Removing it makes a new authority: every node has to join again then",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It is the authority of another domain.
    #[error(
        "{} is the authority of `{held}`, and the settings say `{wanted}`; put the old domain back, or remove the file and let every node join again",
        path.display()
    )]
    OtherDomain {
        /// The file.
        path: PathBuf,
        /// What it is of.
        held: String,
        /// What the settings say.
        wanted: String,
    },
    /// The domain cannot stand in names.
    #[error("`{0}` is no trust domain: write a name of DNS, of a-z, 0-9, - and dots")]
    Domain(String),
    /// The request is none, its signature is wrong, or it asks for what is not given.
    #[error("the request for a certificate cannot be used: {0}")]
    Request(String),
    /// Roots are being exchanged already.
    #[error("roots are being exchanged until {until}")]
    Exchanging {
        /// The end of it.
        until: Timestamp,
    },
    /// Signing failed.
    #[error("a certificate cannot be made")]
    Making(#[from] rcgen::Error),
    /// TLS does not take what was made.
    #[error("TLS does not take the certificate")]
    Tls(#[from] rustls::Error),
}

/// A certificate, and what to believe beside it.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The leaf.
    pub chain: Vec<CertificateDer<'static>>,
    /// Two while they are exchanged.
    pub roots: Vec<CertificateDer<'static>>,
}

/// A root as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootView {
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// It signs from then on, until the next one does.
    pub signs_from: Timestamp,
    /// It is believed until then; `None`: until it is exchanged.
    pub dropped_at: Option<Timestamp>,
}

/// The authority of one installation.
pub struct Ca {
    domain: Arc<str>,
    options: CaOptions,
    path: PathBuf,
    roots: Mutex<Roots>,
    shown: ArcSwapOption<Shown>,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca")
            .field("domain", &self.domain)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Ca {
    /// The authority in `state_dir/ca`, made where there was none.
    ///
    /// # Errors
    /// It can be neither read nor made, is damaged, or is that of another domain.
    pub fn load_or_make(state_dir: &Path, domain: &str) -> Result<Arc<Self>, CaError> {
        Self::open(state_dir, domain, CaOptions::default())
    }

    /// The same, with other options than usual.
    ///
    /// # Errors
    /// As [`Ca::load_or_make`].
    pub fn open(state_dir: &Path, domain: &str, options: CaOptions) -> Result<Arc<Self>, CaError> {
        if WorkloadId::new(domain, Kind::Control, "").is_err() {
            return Err(CaError::Domain(domain.to_owned()));
        }
        let path = roots::path(state_dir);
        let now = Timestamp::from((options.clock)());
        let roots = Roots::load_or_make(&path, domain, now)?;
        Ok(Arc::new(Self {
            domain: domain.into(),
            options,
            path,
            roots: Mutex::new(roots),
            shown: ArcSwapOption::empty(),
        }))
    }

    /// The domain of trust.
    pub fn domain(&self) -> &Arc<str> {
        &self.domain
    }

    /// Names and addresses the control plane is reached by.
    pub fn hosts(&self) -> &[String] {
        &self.options.hosts
    }

    /// SHA-256 of the root that signs now: what a node that joins is told.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.roots.lock().signer(self.now()).fingerprint
    }

    /// The roots that are believed now.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.roots.lock().certificates(self.now())
    }

    /// The same, for operators.
    pub fn view(&self) -> Vec<RootView> {
        self.roots.lock().view(self.now())
    }

    /// A certificate of this identity for the key of `request` (PKCS #10, DER), whose names are not heeded.
    ///
    /// # Errors
    /// The request is not signed by its key, its key is not of P-256, or the identity is of another domain or the control plane's.
    pub fn issue(&self, id: &WorkloadId, request: &[u8]) -> Result<Issued, CaError> {
        if id.kind() == Kind::Control || **id.domain() != *self.domain {
            return Err(CaError::Request(format!("{id} is not given out here")));
        }
        let key = leaf::key_of(request)?;
        let now = self.now();
        let roots = self.roots.lock();
        let leaf = leaf::sign(
            roots.signer(now),
            id,
            &[],
            &key,
            (now, self.options.leaf_lifetime),
        )?;
        Ok(Issued {
            chain: vec![leaf],
            roots: roots.certificates(now),
        })
    }

    /// Begins to exchange the root. From now on two are given out; the new one signs after one lifetime of a leaf, when every node that
    /// still counts has heard of it, and the old one is dropped after another, when nothing it signed counts any more.
    ///
    /// # Errors
    /// An exchange is under way, or the new root cannot be kept: nothing has changed then.
    pub fn rotate(&self) -> Result<Vec<RootView>, CaError> {
        let now = self.now();
        let mut roots = self.roots.lock();
        let next = roots.rotated(&self.domain, now, self.options.leaf_lifetime)?;
        next.keep(&self.path, &self.domain)?;
        *roots = next;
        Ok(roots.view(now))
    }

    /// How the control plane speaks TLS now. Its certificate is exchanged at half its life and its key is never written.
    ///
    /// # Errors
    /// No certificate can be made.
    pub fn tls(&self) -> Result<Arc<ServerConfig>, CaError> {
        let now = self.now();
        let roots = self.roots.lock();
        if let Some(shown) = &*self.shown.load()
            && shown.counts(&roots, now)
        {
            return Ok(Arc::clone(&shown.config));
        }
        let shown = Shown::make(
            &roots,
            (&self.domain, &self.options.hosts),
            (now, self.options.leaf_lifetime),
        )?;
        let config = Arc::clone(&shown.config);
        self.shown.store(Some(Arc::new(shown)));
        Ok(config)
    }

    /// The time, as this authority sees it.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from((self.options.clock)())
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]
mod tests;
