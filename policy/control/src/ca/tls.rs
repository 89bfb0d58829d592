//! The control plane's own certificate, and how it speaks TLS with it.
//!
//! Promises: TLS 1.3 alone; a client certificate is verified where one is shown, by the roots that count now; sessions are not resumed,
//! because a resumed one would go on with the certificate of its beginning. Not here: what a verified name may do.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tollgate_policy::time::Timestamp;
use tollgate_policy::workload::{Kind, WorkloadId};

use super::roots::Roots;
use super::{CaError, leaf};

/// What is shown until it is half over, or roots change.
pub(super) struct Shown {
    pub(super) config: Arc<ServerConfig>,
    renewed_at: Timestamp,
    /// Fingerprints: of the root that signed, then of those that were believed.
    made_of: Vec<[u8; 32]>,
}

impl Shown {
    pub(super) fn counts(&self, roots: &Roots, now: Timestamp) -> bool {
        now < self.renewed_at && self.made_of == made_of(roots, now)
    }

    pub(super) fn make(
        roots: &Roots,
        (domain, hosts): (&str, &[String]),
        (now, lifetime): (Timestamp, Duration),
    ) -> Result<Self, CaError> {
        let id = WorkloadId::new(domain, Kind::Control, "");
        let id = id.map_err(|_| CaError::Domain(domain.to_owned()))?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let signer = roots.signer(now);
        let leaf = leaf::sign(signer, &id, hosts, &key, (now, lifetime))?;
        // The root goes with it: who joins knows its fingerprint and nothing more.
        let chain = vec![leaf, signer.certificate.clone()];
        let mut believed = RootCertStore::empty();
        for certificate in roots.certificates(now) {
            believed.add(certificate)?;
        }
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(believed), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| CaError::Request(error.to_string()))?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key.into())?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            renewed_at: now.plus(lifetime / 2),
            made_of: made_of(roots, now),
        })
    }
}

fn made_of(roots: &Roots, now: Timestamp) -> Vec<[u8; 32]> {
    let believed = roots.believed(now).map(|root| root.fingerprint);
    [roots.signer(now).fingerprint]
        .into_iter()
        .chain(believed)
        .collect()
}
