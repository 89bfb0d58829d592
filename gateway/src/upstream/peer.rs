//! How to connect to an endpoint: certificates read and checked once, then one `HttpPeer` per endpoint.
//!
//! Whatever pingora would panic on (a bad certificate, a key of another kind, an address to resolve) is refused here.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::TcpKeepalive;
use pingora_core::tls::load_platform_certs_incl_env_into_store;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tollgate_policy::settings::{UpstreamConfig, UpstreamProtocol, UpstreamTls};

use super::EndpointAddress;
use super::credentials::Credentials;
use super::located::Place;
use crate::identity::clock::Judged;

/// Calls that share one HTTP/2 connection: what servers commonly allow.
const H2_STREAMS: usize = 100;
/// A peer that vanished (no FIN) is noticed within 60 + 5 × 10 s even on a silent stream.
const TCP_KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    count: 5,
    #[cfg(target_os = "linux")]
    user_timeout: Duration::ZERO,
};

/// TLS of a connection of our own, and the name to verify.
pub(super) type TlsPolicy = (Arc<ClientConfig>, ServerName<'static>);

/// TLS to the endpoints of one cluster.
#[derive(Debug)]
struct Tls {
    server_name: Option<Arc<str>>,
    ca: Option<Arc<[WrappedX509]>>,
    identity: Option<Arc<CertKey>>,
    /// The same policy for health checks; `None` when there are none over TLS.
    client: Option<Arc<ClientConfig>>,
}

/// TLS for a connection of our own to an endpoint, and the name to verify; `None` in cleartext.
///
/// # Errors
/// In words: a certificate that cannot be used.
pub(crate) fn client_tls(
    config: &UpstreamConfig,
    host: &str,
) -> Result<Option<(Arc<ClientConfig>, ServerName<'static>)>, String> {
    let Some(tls) = &config.tls else {
        return Ok(None);
    };
    let tls = Tls::read(tls, true, &mut DefaultHasher::new())?;
    let name = ServerName::try_from(tls.name(host).to_owned());
    let name = name.map_err(|_| format!("{host:?} is no name to verify: set tls.server_name"))?;
    Ok(tls.client.map(|client| (client, name)))
}

/// Makes the peers of one cluster.
#[derive(Debug)]
pub(super) struct PeerMaker {
    tls: Option<Tls>,
    config: UpstreamConfig,
    key: u64,
}

impl PeerMaker {
    /// Reads the files. The error is in words and names the file.
    pub(super) fn new(api: &str, config: &UpstreamConfig) -> Result<Self, String> {
        let mut hasher = DefaultHasher::new();
        api.hash(&mut hasher);
        (config.protocol == UpstreamProtocol::Http2).hash(&mut hasher);
        // An idle connection lives by the limit it was pooled with.
        config.keep_alive.hash(&mut hasher);
        let checked = config.health_check.is_some() && config.protocol == UpstreamProtocol::Http1;
        let tls = match &config.tls {
            Some(tls) => Some(Tls::read(tls, checked, &mut hasher)?),
            None => None,
        };
        Ok(Self {
            tls,
            config: config.clone(),
            key: hasher.finish(),
        })
    }

    /// The policy for connections of our own.
    pub(super) fn tls(&self, host: &str) -> Option<TlsPolicy> {
        let tls = self.tls.as_ref()?;
        let name = ServerName::try_from(tls.name(host).to_owned()).ok()?;
        Some((Arc::clone(tls.client.as_ref()?), name))
    }

    /// The peer for `address`, an address of `host`.
    pub(super) fn make(&self, address: &EndpointAddress, host: &str) -> Result<HttpPeer, String> {
        let sni = self.server_name(host)?;
        let mut hasher = DefaultHasher::new();
        (self.key, &sni).hash(&mut hasher);
        let mut peer = connect_to(address, self.tls.is_some(), sni)?;
        peer.group_key = hasher.finish();
        if let Some(tls) = &self.tls {
            peer.client_cert_key.clone_from(&tls.identity);
            peer.options.ca.clone_from(&tls.ca);
        }
        self.set_options(&mut peer);
        Ok(peer)
    }

    /// The peer for an instance of a service of the installation. Where it has an identity, that is verified, and ours is shown.
    ///
    /// # Errors
    /// In words: it has to be reached by mutual TLS, and we have no identity (yet).
    pub(super) fn make_in_mesh(
        &self,
        place: &Place,
        credentials: Option<&Credentials>,
    ) -> Result<HttpPeer, String> {
        let Some(id) = &place.id else {
            return self.make(&place.address, "");
        };
        let credentials =
            credentials.ok_or("this process has no identity to show, which mutual TLS needs")?;
        let name = id.dns_name();
        let mut hasher = DefaultHasher::new();
        (self.key, &name, credentials.key).hash(&mut hasher);
        let mut peer = connect_to(&place.address, true, name)?;
        peer.group_key = hasher.finish();
        peer.client_cert_key = Some(Arc::clone(&credentials.certificate));
        peer.options.ca = Some(Arc::clone(&credentials.roots));
        self.set_options(&mut peer);
        Ok(peer)
    }

    /// The name to verify; empty in cleartext.
    fn server_name(&self, host: &str) -> Result<String, String> {
        match &self.tls {
            Some(tls) => {
                let name = tls.name(host);
                ServerName::try_from(name)
                    .map_err(|_| format!("{name:?} is no name to verify: set tls.server_name"))?;
                Ok(name.to_owned())
            }
            None => Ok(String::new()),
        }
    }

    fn set_options(&self, peer: &mut HttpPeer) {
        let (config, options) = (&self.config, &mut peer.options);
        options.connection_timeout = Some(config.connect_timeout);
        // Once for TCP and once for TLS.
        options.total_connection_timeout = Some(config.connect_timeout.saturating_mul(2));
        options.read_timeout = Some(config.first_byte_timeout);
        options.write_timeout = Some(config.idle_timeout);
        options.idle_timeout = Some(config.keep_alive);
        options.tcp_keepalive = Some(TCP_KEEPALIVE.clone());
        options.verify_cert = true;
        options.verify_hostname = true;
        match config.protocol {
            UpstreamProtocol::Http1 => options.set_http_version(1, 1),
            UpstreamProtocol::Http2 => {
                options.set_http_version(2, 2);
                options.max_h2_streams = H2_STREAMS;
            }
        }
    }
}

impl Tls {
    fn read(tls: &UpstreamTls, checked: bool, hasher: &mut DefaultHasher) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let ca = match &tls.ca {
            Some(path) => {
                let certificates = read_certificates(path)?;
                for certificate in &certificates {
                    certificate.as_ref().hash(hasher);
                    roots
                        .add(certificate.clone())
                        .map_err(|e| explain(path, e))?;
                }
                Some(wrap(path, &certificates)?.into())
            }
            None => None,
        };
        if ca.is_none() && checked {
            load_platform_certs_incl_env_into_store(&mut roots)
                .map_err(|error| format!("the system's trusted roots: {error}"))?;
        }
        let builder = client_builder()?.with_root_certificates(roots);
        let (identity, client) = match &tls.client_certificate {
            Some((chain_path, key_path)) => {
                let chain = read_certificates(chain_path)?;
                check_chain(chain_path, &chain)?;
                let key =
                    PrivateKeyDer::from_pem_file(key_path).map_err(|e| explain(key_path, e))?;
                let der = key.secret_der().to_vec();
                PrivateKeyDer::try_from(der.as_slice()).map_err(|e| explain(key_path, e))?;
                (&chain, &der).hash(hasher);
                let client = builder
                    .with_client_auth_cert(chain.clone(), key.clone_key())
                    .map_err(|e| explain(key_path, e))?;
                let identity = cert_key(chain_path, &chain, der)?;
                (Some(Arc::new(identity)), client)
            }
            None => (None, builder.with_no_client_auth()),
        };
        let client = checked.then(|| Arc::new(client));
        Ok(Self {
            server_name: tls.server_name.clone(),
            ca,
            identity,
            client,
        })
    }

    fn name<'a>(&'a self, host: &'a str) -> &'a str {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        self.server_name.as_deref().unwrap_or(host)
    }
}

fn connect_to(address: &EndpointAddress, tls: bool, sni: String) -> Result<HttpPeer, String> {
    match address {
        EndpointAddress::Tcp(address) => Ok(HttpPeer::new(address, tls, sni)),
        EndpointAddress::Unix(path) => {
            let path = path
                .to_str()
                .ok_or("the path of a Unix socket must be UTF-8")?;
            HttpPeer::new_uds(path, tls, sni).map_err(|error| format!("unix:{path}: {error}"))
        }
    }
}

pub(super) fn client_builder()
-> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, String> {
    let provider = CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
    ClientConfig::builder_with_details(provider, Arc::new(Judged))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| explain(path, error))?;
    if certificates.is_empty() {
        return Err(explain(path, "no certificate in it"));
    }
    Ok(certificates)
}

/// Whether all can be read. Whoever goes on with one that cannot stumbles over it elsewhere, and blames the key.
pub(super) fn check_chain(path: &Path, chain: &[CertificateDer<'_>]) -> Result<(), String> {
    for certificate in chain {
        ParsedCertificate::try_from(certificate).map_err(|error| explain(path, error))?;
    }
    Ok(())
}

/// A chain that was checked, with its key, as pingora takes them.
pub(super) fn cert_key(
    path: &Path,
    chain: &[CertificateDer<'_>],
    key: Vec<u8>,
) -> Result<CertKey, String> {
    PrivateKeyDer::try_from(key.as_slice()).map_err(|error| explain(path, error))?;
    guarded(path, || {
        CertKey::new(chain.iter().map(|one| one.to_vec()).collect(), key)
    })
}

pub(super) fn wrap(
    path: &Path,
    certificates: &[CertificateDer<'_>],
) -> Result<Vec<WrappedX509>, String> {
    guarded(path, || {
        certificates
            .iter()
            .map(|one| WrappedX509::new(one.to_vec(), parse_x509))
            .collect()
    })
}

/// Pingora's X.509 parser panics on what it cannot read, and offers no other way to make these types.
fn guarded<T>(path: &Path, make: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(make)).map_err(|_| explain(path, "not an X.509 certificate"))
}

pub(super) fn explain(path: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}
