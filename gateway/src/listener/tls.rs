//! TLS of a listener: certificates by name and the roots of its clients, changed without a restart.
//!
//! Promises: the certificate that fits the client's SNI, else the first; ALPN `h2` and `http/1.1`; a broken new file leaves
//! all the old ones serving. Not here: handshake limits (`accept`), judging certificates of clients (`clients`).

use std::any::Any;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::listeners::tls::{Acceptor, TlsSettings};
use pingora_core::listeners::{TlsAccept, TlsAcceptCallbacks};
use pingora_core::protocols::tls::TlsRef;
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsAcceptor;
use tollgate_policy::credentials::certificate::CertificateIdentity;
use tollgate_policy::settings::ListenerTls;
use tollgate_policy::time::Timestamp;
use tollgate_policy::workload::WorkloadId;

use super::clients;
use super::mutual::Node;
use crate::identity::clock::Judged;

/// How often files are looked at. Certificates are renewed days before they end.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Modification time and size of each file, in order.
type Stamps = Vec<Option<(SystemTime, u64)>>;

/// The certificates a listener serves now, and the roots it believes clients by.
pub struct TlsKeys {
    source: Source,
    /// None while there is nothing to serve: then no handshake succeeds.
    acceptor: ArcSwapOption<Acceptor>,
}

/// Where certificates come from.
#[derive(Debug)]
enum Source {
    /// Files, as last seen.
    Files(ListenerTls, Mutex<Stamps>),
    /// The identity of this process.
    Node(Node),
}

impl fmt::Debug for TlsKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TlsKeys")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// Loads the certificates and keys of a listener, and the roots of its clients.
///
/// # Errors
/// One line naming the file and what is wrong with it.
pub fn load(settings: &ListenerTls) -> Result<Arc<TlsKeys>, String> {
    let seen = stamps(settings);
    let acceptor = ArcSwapOption::from_pointee(acceptor(settings)?);
    Ok(Arc::new(TlsKeys {
        source: Source::Files(settings.clone(), Mutex::new(seen)),
        acceptor,
    }))
}

/// Follows where the certificates come from, for ever: files are looked at every two seconds. Changes are logged, broken ones once.
pub async fn watch(keys: Arc<TlsKeys>) {
    if let Source::Node(node) = &keys.source {
        return node.follow(&keys.acceptor).await;
    }
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    loop {
        ticks.tick().await;
        match keys.reload() {
            Ok(false) => {}
            Ok(true) => tracing::info!("new TLS certificates are served"),
            Err(error) => {
                tracing::error!(%error, "new TLS certificates are broken; the old ones are served");
            }
        }
    }
}

impl TlsKeys {
    /// Serves what a process of the installation is known by: clients show a certificate of its roots.
    pub fn of_node(node: Node) -> Arc<Self> {
        let keys = Self {
            acceptor: ArcSwapOption::empty(),
            source: Source::Node(node),
        };
        if let Source::Node(node) = &keys.source {
            node.renew(&keys.acceptor);
        }
        Arc::new(keys)
    }

    /// Whether clients that speak no TLS are served as well.
    pub(super) fn takes_plain(&self) -> bool {
        matches!(&self.source, Source::Node(node) if node.takes_plain())
    }

    /// Loads the files again if they changed since they were last looked at. True when new ones are served.
    ///
    /// # Errors
    /// What is wrong with the new files; the old ones stay.
    pub fn reload(&self) -> Result<bool, String> {
        let Source::Files(settings, seen) = &self.source else {
            return Ok(false);
        };
        let now = stamps(settings);
        if std::mem::replace(&mut *seen.lock(), now.clone()) == now {
            return Ok(false);
        }
        self.acceptor.store(Some(Arc::new(acceptor(settings)?)));
        Ok(true)
    }

    pub(super) fn acceptor(&self) -> Option<Arc<Acceptor>> {
        self.acceptor.load_full()
    }
}

fn stamps(settings: &ListenerTls) -> Stamps {
    let files = settings
        .certificates
        .iter()
        .flat_map(|(chain, key)| [chain, key]);
    let roots = settings.client.iter().map(|client| &client.roots);
    files
        .chain(roots)
        .map(|file| {
            let metadata = std::fs::metadata(file).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
        .collect()
}

fn acceptor(settings: &ListenerTls) -> Result<Acceptor, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut pairs = Vec::with_capacity(settings.certificates.len());
    for (chain, key) in &settings.certificates {
        pairs.push(Arc::new(pair(chain, key, &provider)?));
    }
    if pairs.is_empty() {
        return Err("TLS without a certificate".to_owned());
    }
    let versions: &[_] = if settings.tls12 {
        &[&TLS13, &TLS12]
    } else {
        &[&TLS13]
    };
    let pairs = Arc::new(ByName { pairs });
    let verifier: Arc<dyn ClientCertVerifier> = match &settings.client {
        Some(client) => clients::verifier(client, &provider)?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(Judged))
        .with_protocol_versions(versions)
        .map_err(|error| format!("TLS versions: {error}"))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(pairs.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    allow_resumption(&mut config, settings)?;
    noting_handshakes(Box::new(Notes(pairs.clone())), pairs, config)
}

/// Sessions of clients that show certificates are not resumed: a ticket holds the certificate, and nobody would look at its chain
/// again, however often one ticket is changed for the next.
fn allow_resumption(config: &mut ServerConfig, settings: &ListenerTls) -> Result<(), String> {
    if settings.client.is_some() {
        forbid_resumption(config);
        return Ok(());
    }
    // Resumption without a table that strangers fill; one ticket is what a keep-alive client needs.
    config.ticketer =
        aws_lc_rs::Ticketer::new().map_err(|error| format!("TLS tickets: {error}"))?;
    config.send_tls13_tickets = 1;
    Ok(())
}

pub(super) fn forbid_resumption(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
}

/// An acceptor that notes on each connection what its handshake was about.
pub(super) fn noting_handshakes(
    notes: TlsAcceptCallbacks,
    resolver: Arc<dyn ResolvesServerCert>,
    config: ServerConfig,
) -> Result<Acceptor, String> {
    let mut settings =
        TlsSettings::with_callbacks(notes).map_err(|error| format!("TLS: {error}"))?;
    // Its own configuration is replaced by ours in the next line; it only has to be one.
    settings.set_cert_resolver(resolver);
    let mut acceptor = settings.build();
    acceptor.acceptor = TlsAcceptor::from(Arc::new(config));
    Ok(acceptor)
}

/// Called at the end of each handshake.
struct Notes(Arc<ByName>);

#[async_trait]
impl TlsAccept for Notes {
    async fn handshake_complete_callback(
        &self,
        tls: &TlsRef,
    ) -> Option<Arc<dyn Any + Send + Sync>> {
        let handshake = Handshake {
            served_name: self.served_name(tls),
            certificate: tls.peer_certificate_der().and_then(clients::named),
            workload: None,
        };
        let remarkable = handshake.served_name.is_some() || handshake.certificate.is_some();
        remarkable.then(|| -> Arc<dyn Any + Send + Sync> { Arc::new(handshake) })
    }
}

impl Notes {
    fn served_name(&self, tls: &TlsRef) -> Option<Arc<ServedName>> {
        // With one certificate there is no other that a request could have been meant for.
        if self.0.pairs.len() < 2 {
            return None;
        }
        let name = tls.server_name()?.to_ascii_lowercase();
        let names = Arc::clone(&self.0);
        Some(Arc::new(ServedName { name, names }))
    }
}

/// What a TLS handshake was about. Stands in the digest of its connection, where there is something to tell.
#[derive(Debug)]
pub struct Handshake {
    /// The name the client asked for, where the listener has certificates to choose from.
    pub served_name: Option<Arc<ServedName>>,
    /// Whom the client's certificate names. Its chain led to the listener's roots, and the client has its key.
    pub certificate: Option<Arc<CertificateIdentity>>,
    /// The same as a process of this installation, where the roots were the installation's.
    workload: Option<WorkloadId>,
}

impl Handshake {
    /// With a process of this installation.
    pub(super) fn with_workload(
        certificate: Arc<CertificateIdentity>,
        workload: WorkloadId,
    ) -> Self {
        Self {
            served_name: None,
            certificate: Some(certificate),
            workload: Some(workload),
        }
    }

    /// The process of this installation that the client is, as long as its certificate is valid: a connection may outlive it.
    pub fn workload(&self, now: Timestamp) -> Option<&WorkloadId> {
        let certificate = self.certificate.as_ref()?;
        let valid = certificate.check_time(now).is_ok();
        self.workload.as_ref().filter(|_| valid)
    }
}

/// The name a TLS connection was made by, and the certificates that were there to choose from.
#[derive(Debug)]
pub struct ServedName {
    /// SNI, lower case.
    name: String,
    names: Arc<ByName>,
}

impl ServedName {
    /// Whether a request for `host` (lower case, no port) belongs on another connection (RFC 9110, section 15.5.20): the certificate
    /// of this one does not cover it, and another certificate of the listener does.
    ///
    /// A client may use one connection for all names of its certificate (RFC 9113, section 9.1.1). A host that no certificate covers
    /// is no site of its own; whether it is served is the APIs' matter.
    pub fn misdirects(&self, host: &str) -> bool {
        if host == self.name {
            return false;
        }
        let Ok(asked) = ServerName::try_from(host) else {
            return false;
        };
        let mine = ServerName::try_from(self.name.as_str()).ok();
        let mine = self.names.choose(mine.as_ref());
        let covers = |pair: &Arc<CertifiedKey>| fits(pair, &asked);
        !mine.is_some_and(covers) && self.names.pairs.iter().any(covers)
    }
}

fn pair(
    chain: &Path,
    key: &Path,
    provider: &rustls::crypto::CryptoProvider,
) -> Result<CertifiedKey, String> {
    let in_chain = |error: &dyn fmt::Display| format!("certificate {}: {error}", chain.display());
    let in_key = |error: &dyn fmt::Display| format!("key {}: {error}", key.display());
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| in_chain(&error))?;
    let Some(leaf) = certificates.first() else {
        return Err(in_chain(&"no certificate in it"));
    };
    ParsedCertificate::try_from(leaf).map_err(|error| in_chain(&error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| in_key(&error))?;
    CertifiedKey::from_der(certificates, private, provider).map_err(|error| in_key(&error))
}

/// Chooses by the names in the certificates. They are parsed anew for each handshake: microseconds beside its signature.
#[derive(Debug)]
struct ByName {
    pairs: Vec<Arc<CertifiedKey>>,
}

impl ByName {
    fn choose(&self, name: Option<&ServerName<'_>>) -> Option<&Arc<CertifiedKey>> {
        let first = self.pairs.first();
        let Some(name) = name.filter(|_| self.pairs.len() > 1) else {
            return first;
        };
        self.pairs.iter().find(|pair| fits(pair, name)).or(first)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello
            .server_name()
            .and_then(|name| ServerName::try_from(name).ok());
        self.choose(name.as_ref()).cloned()
    }
}

fn fits(pair: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let leaf = pair
        .cert
        .first()
        .and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
    leaf.is_some_and(|leaf| verify_server_name(&leaf, name).is_ok())
}
