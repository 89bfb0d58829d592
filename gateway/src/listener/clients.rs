//! Certificates that clients show in the TLS handshake: who vouches for them, and whom they name.
//!
//! Promises: a chain that does not lead to the listener's roots ends the handshake, and so does a certificate that cannot be read.
//! Where a certificate is required it must name its owner beyond doubt; where it is optional, one that does not counts as none shown.
//! Not here: whether it is still valid when a request comes, and what its owner may do (`identity`).

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use tollgate_policy::credentials::certificate::{CertificateIdentity, identity};
use tollgate_policy::settings::ClientCertificates;
use tollgate_policy::workload::WorkloadId;
use x509_parser::prelude::parse_x509_certificate;

use crate::node::Held;

/// What asks clients for a certificate and judges it.
///
/// # Errors
/// One line naming the file of the roots and what is wrong with it.
pub(super) fn verifier(
    settings: &ClientCertificates,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let roots = Arc::new(roots(&settings.roots)?);
    let chain = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    let chain = if settings.required {
        chain
    } else {
        chain.allow_unauthenticated()
    };
    let chain = chain
        .build()
        .map_err(|error| format!("client CA {}: {error}", settings.roots.display()))?;
    let named = if settings.required {
        Named::Beyond
    } else {
        Named::Perhaps
    };
    Ok(Arc::new(Verifier { chain, named }))
}

/// What asks for a certificate of the installation that `held` belongs to, and demands one if `required`.
///
/// # Errors
/// There are no roots.
pub(super) fn of_installation(
    held: &Held,
    required: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let roots = Arc::clone(&held.roots);
    let chain = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    let chain = if required {
        chain
    } else {
        chain.allow_unauthenticated()
    };
    let chain = chain.build().map_err(|error| error.to_string())?;
    let named = Named::Workload(Arc::clone(held.id.domain()));
    Ok(Arc::new(Verifier { chain, named }))
}

/// The process of the domain of trust `domain` that a certificate names.
pub(super) fn workload(certificate: &CertificateIdentity, domain: &str) -> Option<WorkloadId> {
    let id: WorkloadId = certificate.spiffe_id.as_ref()?.parse().ok()?;
    (**id.domain() == *domain).then_some(id)
}

/// Whom the certificate of a finished handshake names; `None` where it names nobody, which is logged.
pub(super) fn named(certificate: &[u8]) -> Option<Arc<CertificateIdentity>> {
    match identity(certificate) {
        Ok(identity) => Some(Arc::new(identity)),
        Err(error) => {
            let parsed = parse_x509_certificate(certificate).ok();
            let serial = parsed.map(|(_, certificate)| certificate.raw_serial_as_string());
            tracing::warn!(
                serial = serial.unwrap_or_default(),
                %error,
                "a client certificate of our roots counts as none shown"
            );
            None
        }
    }
}

fn roots(file: &Path) -> Result<RootCertStore, String> {
    let wrong = |error: &dyn fmt::Display| format!("client CA {}: {error}", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"no certificate in it"));
    }
    Ok(roots)
}

/// The chain as everywhere; then the certificate itself.
#[derive(Debug)]
struct Verifier {
    chain: Arc<dyn ClientCertVerifier>,
    named: Named,
}

/// How well a certificate that is shown has to name its owner.
#[derive(Debug)]
enum Named {
    /// One that names nobody counts as none shown.
    Perhaps,
    /// Beyond doubt.
    Beyond,
    /// As a process of this domain of trust.
    Workload(Arc<str>),
}

impl Named {
    fn fits(&self, certificate: &[u8]) -> Result<(), String> {
        let read = || identity(certificate).map_err(|error| error.to_string());
        match self {
            Self::Perhaps => Ok(()),
            Self::Beyond => read().map(drop),
            Self::Workload(domain) => match workload(&read()?, domain) {
                Some(_) => Ok(()),
                None => Err(format!("it names no process of {domain}")),
            },
        }
    }
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        // Verifying a chain leaves names unread; pingora, which reads them after the handshake, takes it for granted that it can.
        if !matches!(parse_x509_certificate(end_entity), Ok(([], _))) {
            return Err(CertificateError::BadEncoding.into());
        }
        if let Err(error) = self.named.fits(end_entity) {
            // Whoever shows it has not proven yet that it is theirs: strangers could fill the log.
            tracing::debug!(%error, "a client certificate of our roots is refused");
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
