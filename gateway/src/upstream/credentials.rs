//! What a connection to a service of the installation shows and believes: the identity of this process, as pingora and rustls take it.
//!
//! Made once per certificate and shared by all clusters. Not here: where the identity comes from (`node::identity`).

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use pingora_core::utils::tls::{CertKey, WrappedX509};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use tollgate_policy::workload::WorkloadId;

use super::peer::{TlsPolicy, cert_key, check_chain, client_builder, explain, wrap};
use crate::node::Held;

/// How messages name it, where they would name a file.
const IDENTITY: &str = "the identity of this process";

/// One certificate with its key, and the roots that came with it.
pub(crate) struct Credentials {
    /// Differs wherever anything else here does: connections made by different ones are never shared.
    pub(super) key: u64,
    pub(super) certificate: Arc<CertKey>,
    pub(super) roots: Arc<[WrappedX509]>,
    client: Arc<ClientConfig>,
}

impl Credentials {
    /// The error is in words: the certificate cannot be used.
    pub(crate) fn of(held: &Held) -> Result<Self, String> {
        let at = Path::new(IDENTITY);
        // Pingora takes an empty list for the system's roots, or for a mistake of the moment.
        if held.root_certificates.is_empty() {
            return Err(explain(at, "it came without roots"));
        }
        check_chain(at, &held.chain)?;
        let key = held.key.secret_der().to_vec();
        let mut hasher = DefaultHasher::new();
        let ders = |all: &[CertificateDer<'_>], hasher: &mut DefaultHasher| {
            all.len().hash(hasher);
            all.iter().for_each(|one| one.as_ref().hash(hasher));
        };
        ders(&held.chain, &mut hasher);
        ders(&held.root_certificates, &mut hasher);
        key.hash(&mut hasher);
        let client = client_builder()?
            .with_root_certificates(Arc::clone(&held.roots))
            .with_client_auth_cert(held.chain.clone(), held.key.clone_key())
            .map_err(|error| explain(at, error))?;
        Ok(Self {
            key: hasher.finish(),
            certificate: Arc::new(cert_key(at, &held.chain, key)?),
            roots: wrap(at, &held.root_certificates)?.into(),
            client: Arc::new(client),
        })
    }

    /// For connections of our own to `peer`.
    pub(super) fn policy(&self, peer: &WorkloadId) -> Option<TlsPolicy> {
        let name = ServerName::try_from(peer.dns_name()).ok()?;
        Some((Arc::clone(&self.client), name))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .finish_non_exhaustive()
    }
}
