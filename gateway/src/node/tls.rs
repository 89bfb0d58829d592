//! TLS between workloads: the certificate of this process, the roots it believes, and who the other end is.
//!
//! Promises: TLS 1.3 alone; certificate and roots are those of the moment of each handshake, so that nothing has to be made anew when they
//! are exchanged; a peer is verified by the name that follows from its SPIFFE ID, and one of another domain is none; sessions are not
//! resumed, because a resumed one would go on with the certificates of its beginning. Not here: what was revoked, and what a verified
//! peer may do.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tollgate_policy::credentials::certificate;
use tollgate_policy::workload::WorkloadId;

use super::identity::{Held, NodeIdentity};
use crate::identity::clock::Judged;

/// Whom a verified chain names: its leaf has exactly one URI among its names, and that is a workload's.
pub fn peer_of(chain: &[CertificateDer<'_>]) -> Option<WorkloadId> {
    let read = certificate::identity(chain.first()?).ok()?;
    read.spiffe_id?.parse().ok()
}

/// How this process reaches other workloads: HTTP/2, showing its certificate. Connect to the `ServerName` of
/// [`WorkloadId::dns_name`]: whoever answers with another certificate is refused. Good for the life of the process.
///
/// # Errors
/// TLS 1.3 is not there.
pub fn client_config(identity: &Arc<NodeIdentity>) -> Result<Arc<ClientConfig>, Error> {
    let own = Arc::new(Own::new(identity));
    let provider = Arc::clone(&own.provider);
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(Judged))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&own) as _)
        .with_client_cert_resolver(own);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// How this process is reached by other workloads: HTTP/2, or HTTP/1.1. Where a certificate is not `required`, one that is shown is
/// verified all the same. Who it was: [`peer_of`] of the connection's `peer_certificates`. Good for the life of the process.
///
/// # Errors
/// TLS 1.3 is not there.
pub fn server_config(
    identity: &Arc<NodeIdentity>,
    required: bool,
) -> Result<Arc<ServerConfig>, Error> {
    let own = Own {
        required,
        ..Own::new(identity)
    };
    let own = Arc::new(own);
    let provider = Arc::clone(&own.provider);
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(Judged))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::clone(&own) as _)
        .with_cert_resolver(own);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The identity as rustls asks for it.
struct Own {
    identity: Arc<NodeIdentity>,
    provider: Arc<CryptoProvider>,
    required: bool,
    verifiers: ArcSwapOption<Verifiers>,
}

/// Made of one state of the identity, until there is another.
struct Verifiers {
    of: Arc<Held>,
    server: Arc<WebPkiServerVerifier>,
    client: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own").finish_non_exhaustive()
    }
}

impl Own {
    fn new(identity: &Arc<NodeIdentity>) -> Self {
        Self {
            identity: Arc::clone(identity),
            provider: Arc::new(default_provider()),
            required: true,
            verifiers: ArcSwapOption::empty(),
        }
    }

    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        let held = self.identity.current()?;
        Some(Arc::clone(&held.certified))
    }

    fn verifiers(&self) -> Result<Arc<Verifiers>, Error> {
        let Some(held) = self.identity.current() else {
            return Err(Error::General("this process has no identity".to_owned()));
        };
        if let Some(made) = self.verifiers.load_full()
            && Arc::ptr_eq(&made.of, &held)
        {
            return Ok(made);
        }
        let failed = |error: &dyn fmt::Display| Error::General(error.to_string());
        let provider = || Arc::clone(&self.provider);
        let roots = || Arc::clone(&held.roots);
        let server = WebPkiServerVerifier::builder_with_provider(roots(), provider()).build();
        let client = WebPkiClientVerifier::builder_with_provider(roots(), provider()).build();
        let made = Arc::new(Verifiers {
            server: server.map_err(|error| failed(&error))?,
            client: client.map_err(|error| failed(&error))?,
            of: held,
        });
        self.verifiers.store(Some(Arc::clone(&made)));
        Ok(made)
    }
}

/// A workload of the domain, or an error.
fn workload(leaf: &CertificateDer<'_>, of: &Held) -> Result<WorkloadId, Error> {
    let named = peer_of(std::slice::from_ref(leaf));
    let wrong = CertificateError::ApplicationVerificationFailure;
    named
        .filter(|id| id.domain() == of.id.domain())
        .ok_or(Error::InvalidCertificate(wrong))
}

impl ServerCertVerifier for Own {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verifiers = self.verifiers()?;
        let verified = verifiers.server.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        let peer = workload(end_entity, &verifiers.of)?;
        if server_name.to_str() != peer.dns_name() {
            return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Own {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    /// None: they change, and nodes have one certificate to show.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verifiers = self.verifiers()?;
        let client = &verifiers.client;
        let verified = client.verify_client_cert(end_entity, intermediates, now)?;
        workload(end_entity, &verifiers.of)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }

    fn has_certs(&self) -> bool {
        self.identity.current().is_some()
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}
