//! TLS between processes of one installation: each shows the certificate of its own identity and believes the installation's roots.
//!
//! Promises: only a chain that leads to these roots, to a certificate that names one process of this installation, makes a
//! [`WorkloadId`]; a renewed certificate or exchanged roots are used from the next handshake on. Not here: where they come from
//! (`node::identity`), and what a process may do.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use pingora_core::listeners::TlsAccept;
use pingora_core::listeners::tls::Acceptor;
use pingora_core::protocols::tls::TlsRef;
use pingora_core::server::ShutdownWatch;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;

use super::socket::Accepted;
use super::tls::{Handshake, forbid_resumption, noting_handshakes};
use super::{clients, drain, head};
use crate::identity::clock::Judged;
use crate::node::{Held, NodeIdentity};

/// First byte of a TLS connection: a record of the handshake (RFC 8446, section 5.1). No method of HTTP begins with it.
const HANDSHAKE_RECORD: u8 = 22;

/// Who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutual {
    /// Anybody, with TLS or without. Whoever shows a certificate of the installation is known by it.
    Permissive,
    /// Only who shows a certificate of the installation.
    Strict,
}

/// This process as its clients see it.
pub struct Node {
    identity: Arc<NodeIdentity>,
    mutual: Mutual,
}

impl fmt::Debug for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Node")
            .field("mutual", &self.mutual)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// With the identity that `identity` holds at each moment. While it holds none, no handshake succeeds.
    pub fn new(identity: Arc<NodeIdentity>, mutual: Mutual) -> Self {
        Self { identity, mutual }
    }

    pub(super) fn takes_plain(&self) -> bool {
        self.mutual == Mutual::Permissive
    }

    /// Puts what is held now into `acceptor`. What cannot be served leaves the old one there.
    pub(super) fn renew(&self, acceptor: &ArcSwapOption<Acceptor>) {
        let Some(held) = self.identity.current() else {
            return;
        };
        match build(&held, self.mutual) {
            Ok(built) => acceptor.store(Some(Arc::new(built))),
            Err(error) => {
                tracing::error!(id = %held.id, %error, "this identity cannot be served");
            }
        }
    }

    /// As [`Self::renew`], whenever the identity changes.
    pub(super) async fn follow(&self, acceptor: &ArcSwapOption<Acceptor>) {
        let mut changed = self.identity.changed();
        loop {
            // Also before the first wait: it may have changed since the listener was opened.
            self.renew(acceptor);
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

fn build(held: &Held, mutual: Mutual) -> Result<Acceptor, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let strict = mutual == Mutual::Strict;
    let verifier = clients::of_installation(held, strict, &provider)?;
    let own = Arc::new(Own(Arc::clone(&held.certified)));
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(Judged))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| format!("TLS versions: {error}"))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    forbid_resumption(&mut config);
    let notes = Box::new(Names(Arc::clone(held.id.domain())));
    noting_handshakes(notes, own, config)
}

/// The one certificate of this process.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Notes at the end of a handshake which process of the domain the client is.
struct Names(Arc<str>);

#[async_trait]
impl TlsAccept for Names {
    async fn handshake_complete_callback(
        &self,
        tls: &TlsRef,
    ) -> Option<Arc<dyn Any + Send + Sync>> {
        let certificate = tls.peer_certificate_der().and_then(clients::named)?;
        let workload = clients::workload(&certificate, &self.0)?;
        Some(Arc::new(Handshake::with_workload(certificate, workload)))
    }
}

/// Waits for the first byte, for at most `limit`, and says whether it begins TLS. It is not taken. Where none comes there is nothing
/// to encrypt.
pub(super) async fn begins_tls(
    accepted: &Accepted,
    ahead: &[u8],
    limit: Duration,
    draining: &mut ShutdownWatch,
) -> bool {
    if let Some(first) = ahead.first() {
        return *first == HANDSHAKE_RECORD;
    }
    // Whoever shares the machine's files needs no certificate.
    let Accepted::Tcp(stream) = accepted else {
        return false;
    };
    let mut first = [0];
    let drained = async {
        drain::started(draining).await;
        pingora_timeout::sleep(head::REQUEST_GRACE).await;
    };
    let peeked = pingora_timeout::timeout(limit, async {
        tokio::select! {
            biased;
            peeked = stream.peek(&mut first) => matches!(peeked, Ok(1..)),
            () = drained => false,
        }
    });
    peeked.await.unwrap_or(false) && first == [HANDSHAKE_RECORD]
}

#[cfg(test)]
mod tests;
