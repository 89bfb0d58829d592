//! Who this process is: the certificate it shows and the roots it believes, exchanged while it runs.
//!
//! Whoever makes TLS of it takes [`NodeIdentity::current`] for each connection, or follows [`NodeIdentity::changed`]. Not here: where
//! certificates come from.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tollgate_policy::workload::WorkloadId;

use crate::upstream::Credentials;

/// A certificate with its key, and the roots that came with it.
#[derive(Debug)]
pub struct Held {
    /// Who it says this is.
    pub id: WorkloadId,
    /// The certificate, the leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key, as TLS that wants its bytes takes it. Never shown.
    pub key: PrivateKeyDer<'static>,
    /// Both, as rustls uses them.
    pub certified: Arc<CertifiedKey>,
    /// Certificates whose holders are believed, DER.
    pub root_certificates: Vec<CertificateDer<'static>>,
    /// The same, as rustls uses them.
    pub roots: Arc<RootCertStore>,
}

/// The identity of this process, if it has one.
#[derive(Debug)]
pub struct NodeIdentity {
    held: ArcSwapOption<Held>,
    /// What was made of it for connections to others, and of which.
    shown: Mutex<Option<(Arc<Held>, Arc<Credentials>)>>,
    changed: watch::Sender<u64>,
}

impl NodeIdentity {
    /// None yet.
    pub fn none() -> Arc<Self> {
        Arc::new(Self {
            held: ArcSwapOption::empty(),
            shown: Mutex::default(),
            changed: watch::Sender::new(0),
        })
    }

    /// What it has now.
    pub fn current(&self) -> Option<Arc<Held>> {
        self.held.load_full()
    }

    /// What it has now, for connections to others: the same for all who ask, until it is exchanged.
    pub(crate) fn credentials(&self) -> Result<Option<Arc<Credentials>>, String> {
        let Some(held) = self.current() else {
            return Ok(None);
        };
        let mut shown = self.shown.lock();
        if let Some((of, credentials)) = &*shown
            && Arc::ptr_eq(of, &held)
        {
            return Ok(Some(Arc::clone(credentials)));
        }
        let credentials = Arc::new(Credentials::of(&held)?);
        *shown = Some((held, Arc::clone(&credentials)));
        Ok(Some(credentials))
    }

    /// Moves whenever certificate or roots were exchanged.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Exchanges them.
    pub fn replace(&self, held: Held) {
        self.held.store(Some(Arc::new(held)));
        self.changed.send_modify(|count| *count += 1);
    }
}
