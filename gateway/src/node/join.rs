//! Becoming a node: a one-time token for a certificate.
//!
//! Promises: the token goes to nobody whose certificate was not signed by the root it names, as the control plane's; the key is made here
//! and stays here; a certificate that is not for this key, or not of that root, is refused. Not here: keeping and renewing it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use http::Uri;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tollgate_policy::workload::{Kind, WorkloadId};
use tollgate_proto::wire::identity_client::IdentityClient;
use tollgate_proto::wire::{Credentials, JoinRequest};
use tonic::codegen::Service;

use super::channel::{CONNECT, ControlAddress, dial, endpoint};
use super::membership::Membership;
use super::tls::peer_of;

/// Time for an answer: a wrong token is answered late.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// Why a process did not become a node.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The text is no token.
    #[error("that is no join token; make one with `tollgate join-tokens create`")]
    Token,
    /// Nobody answers.
    #[error("the control plane cannot be reached: {0}")]
    Unreachable(String),
    /// Somebody else answers.
    #[error(
        "whoever answers at {0} is not the control plane the token is of; the token was not sent. \
         Check the address; where roots were exchanged since, make another token"
    )]
    Impostor(ControlAddress),
    /// The control plane says no.
    #[error("the control plane refuses: {0}")]
    Refused(String),
    /// What it answers cannot be used.
    #[error("the control plane's answer cannot be used: {0}")]
    Answer(String),
    /// No key can be made.
    #[error("no key can be made: {0}")]
    Key(String),
}

/// Joins: uses `token` up, and is a node called `node` from then on.
///
/// # Errors
/// Nothing has changed here then; the token may be used up where the answer did not come back.
pub async fn join(
    control: &ControlAddress,
    token: &str,
    node: &str,
) -> Result<Membership, JoinError> {
    let token = token.trim();
    let root = pinned(token).ok_or(JoinError::Token)?;
    let opening = tokio::time::timeout(CONNECT, open(control, root));
    let stream = opening
        .await
        .unwrap_or_else(|_| Err(JoinError::Unreachable("no answer in time".to_owned())))?;
    let (key, request) = asked().map_err(JoinError::Key)?;
    let endpoint = endpoint();
    let channel = endpoint
        .connect_with_connector(Once(Some(stream)))
        .await
        .map_err(|error| JoinError::Unreachable(error.to_string()))?;
    let asking = JoinRequest {
        token: token.to_owned(),
        request,
        node: node.to_owned(),
    };
    let mut client = IdentityClient::new(channel);
    let answer = tokio::time::timeout(ANSWER, client.join(asking))
        .await
        .map_err(|_| JoinError::Unreachable("no answer in time".to_owned()))?;
    let credentials = answer.map_err(|status| match status.code() {
        tonic::Code::Unavailable => JoinError::Unreachable(status.message().to_owned()),
        _ => JoinError::Refused(status.message().to_owned()),
    })?;
    let own = (control.clone(), node.to_owned());
    let joined = taken(credentials.into_inner(), key, own).map_err(JoinError::Answer)?;
    if !joined.roots.iter().any(|it| fingerprint(it) == root) {
        let why = "the root of the token is not among those given out";
        return Err(JoinError::Answer(why.to_owned()));
    }
    Ok(joined)
}

/// The fingerprint in a token: `tgj_<secret>_<fingerprint>`, in hexadecimal.
fn pinned(token: &str) -> Option<[u8; 32]> {
    let (secret, root) = token.strip_prefix("tgj_")?.split_once('_')?;
    if secret.is_empty() || root.len() != 64 || !root.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(root.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
    bytes
}

/// A new key, and a request for a certificate of it. It names nothing: whoever signs knows who asks.
pub(super) fn asked() -> Result<(PrivatePkcs8KeyDer<'static>, Vec<u8>), String> {
    let make = || {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&key)?.der().to_vec();
        Ok((PrivatePkcs8KeyDer::from(key.serialize_der()), request))
    };
    make().map_err(|error: rcgen::Error| error.to_string())
}

/// What was given out, if it is good: for this key, of one of the roots that came with it, and valid now.
pub(super) fn taken(
    credentials: Credentials,
    key: PrivatePkcs8KeyDer<'static>,
    (control, node): (ControlAddress, String),
) -> Result<Membership, String> {
    let certificates = |all: Vec<Vec<u8>>| all.into_iter().map(CertificateDer::from).collect();
    let membership = Membership {
        control,
        node,
        chain: certificates(credentials.chain),
        roots: certificates(credentials.roots),
        key,
        pepper: credentials
            .pepper
            .try_into()
            .map_err(|_| "the pepper is not of 32 bytes")?,
    };
    let held = membership.held()?;
    if held.id.to_string() != credentials.spiffe_id {
        return Err("the certificate is not for who it says".to_owned());
    }
    let [leaf, rest @ ..] = held.chain.as_slice() else {
        return Err("there is no certificate".to_owned());
    };
    let provider = Arc::new(default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&held.roots), provider);
    let name = ServerName::try_from(held.id.dns_name()).map_err(|error| error.to_string())?;
    let verified = verifier
        .build()
        .map_err(|error| error.to_string())?
        .verify_server_cert(leaf, rest, &name, &[], UnixTime::now());
    verified.map_err(|error| format!("the certificate is not good: {error}"))?;
    Ok(membership)
}

/// A connection to who has a certificate of this root.
async fn open(control: &ControlAddress, root: [u8; 32]) -> Result<TlsStream<TcpStream>, JoinError> {
    let unreachable = |error: &dyn fmt::Display| JoinError::Unreachable(error.to_string());
    let provider = Arc::new(default_provider());
    let verifier = Pinned {
        root,
        provider: Arc::clone(&provider),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unreachable(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    // Not what is verified: the name follows from the certificate itself, and the root vouches for it.
    let name = ServerName::try_from(control.host.clone()).map_err(|error| unreachable(&error))?;
    let stream = dial(control).await.map_err(|error| unreachable(&error))?;
    let shaking = TlsConnector::from(Arc::new(config)).connect(name, stream);
    shaking.await.map_err(|error| {
        let cause = error.get_ref().and_then(|it| it.downcast_ref::<Error>());
        match cause {
            Some(Error::InvalidCertificate(_)) => JoinError::Impostor(control.clone()),
            _ => unreachable(&error),
        }
    })
}

/// Believes one root, by its fingerprint, and of those it signed for the control plane alone.
#[derive(Debug)]
struct Pinned {
    root: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let wrong = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let mut shown = intermediates.iter();
        let Some(root) = shown.find(|it| fingerprint(it) == self.root) else {
            return Err(wrong);
        };
        let named = peer_of(std::slice::from_ref(end_entity));
        let control = named.filter(|id: &WorkloadId| id.kind() == Kind::Control);
        let name = control.and_then(|id| ServerName::try_from(id.dns_name()).ok());
        let Some(name) = name else {
            return Err(wrong);
        };
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let provider = Arc::clone(&self.provider);
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|_| wrong)?
            .verify_server_cert(end_entity, &[], &name, ocsp_response, now)
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

/// The one connection that was verified, and no other.
struct Once(Option<TlsStream<TcpStream>>);

impl Service<Uri> for Once {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = String;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, String>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), String>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.take().map(TokioIo::new);
        let stream = stream.ok_or_else(|| "the connection broke".to_owned());
        Box::pin(std::future::ready(stream))
    }
}
