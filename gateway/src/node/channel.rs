//! The way to the control plane: mutual TLS with the identity of this process, expecting the control plane's name.
//!
//! A connection is made when something is asked and made anew when it broke; one that does not answer is given up within ten seconds, so
//! that a partition is noticed. Not here: what is asked.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tollgate_policy::workload::{Kind, WorkloadId};
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

use super::identity::NodeIdentity;
use super::tls;
use crate::remote::{Bounds, connect};

/// Time for a connection with its handshake.
pub(super) const CONNECT: Duration = Duration::from_secs(3);
/// How often a connection is asked whether it lives, and how long an answer may take.
const PING: Duration = Duration::from_secs(5);
/// Where nothing is said.
const PORT: u16 = 9910;

/// Where a control plane is: `https://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlAddress {
    /// A name or an address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for ControlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "https://[{}]:{}", self.host, self.port),
            false => write!(f, "https://{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for ControlAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no address of a control plane; write https://control.example:{PORT}"
            )
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        let plain = matches!(uri.scheme_str(), None | Some("https"))
            && uri.path_and_query().is_none_or(|path| path.as_str() == "/")
            && !authority.as_str().contains('@');
        let host = authority.host().trim_matches(['[', ']']);
        if !plain || host.is_empty() || ServerName::try_from(host).is_err() {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(PORT),
        })
    }
}

/// A channel to the control plane. Nothing is connected before something is asked.
///
/// # Errors
/// In words: TLS cannot be spoken.
pub fn channel(control: &ControlAddress, identity: Arc<NodeIdentity>) -> Result<Channel, String> {
    let config = tls::client_config(&identity).map_err(|error| error.to_string())?;
    let connector = Connector {
        control: control.clone(),
        identity,
        config,
    };
    Ok(endpoint().connect_with_connector_lazy(connector))
}

/// How gRPC is spoken, whatever the connection. The name is for the head of requests alone.
pub(super) fn endpoint() -> Endpoint {
    Endpoint::from(Uri::from_static("http://control"))
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .keep_alive_while_idle(true)
}

/// A TCP connection to the control plane.
pub(super) async fn dial(control: &ControlAddress) -> Result<TcpStream, String> {
    let bounds = Bounds {
        deadline: CONNECT,
        bytes: 0,
        // The operator named it; it usually stands in the same network.
        allow_private: true,
    };
    connect(&control.host, control.port, bounds).await
}

#[derive(Clone)]
struct Connector {
    control: ControlAddress,
    identity: Arc<NodeIdentity>,
    config: Arc<ClientConfig>,
}

impl Connector {
    async fn open(self) -> Result<TokioIo<TlsStream<TcpStream>>, String> {
        let held = self.identity.current().ok_or("this process never joined")?;
        let expected = WorkloadId::new(held.id.domain(), Kind::Control, "");
        let expected = expected.map_err(|error| error.to_string())?.dns_name();
        let name = ServerName::try_from(expected).map_err(|error| error.to_string())?;
        let stream = dial(&self.control).await?;
        let stream = TlsConnector::from(self.config).connect(name, stream).await;
        let stream = stream.map_err(|error| format!("the TLS handshake failed: {error}"))?;
        Ok(TokioIo::new(stream))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = String;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, String>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), String>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().open())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for (text, written) in [
            (
                "https://control.example:9443",
                "https://control.example:9443",
            ),
            ("https://control.example/", "https://control.example:9910"),
            ("127.0.0.1:9910", "https://127.0.0.1:9910"),
            ("https://[::1]:9910", "https://[::1]:9910"),
        ] {
            let address: ControlAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), written);
            assert_eq!(written.parse::<ControlAddress>().unwrap(), address);
        }
        for text in [
            "http://a:1",
            "https://",
            "https://a/b",
            "https://u@a:1",
            "",
            "a b",
        ] {
            assert!(text.parse::<ControlAddress>().is_err(), "{text}");
        }
    }
}
