//! Questions to remote parties that are not the service: keys of an issuer, token introspection, an external authoriser over HTTP.
//!
//! Each has a deadline and a greatest answer; names are resolved here and the address is judged before it is connected to, so that a
//! name cannot lead to the inside of a network (server-side request forgery). No redirects are followed. Certificates are verified.

mod address;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use address::is_private;
pub use trust::Trust;

/// How an answer is bounded.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From the first step to the last byte.
    pub deadline: Duration,
    /// Bytes of the answer's body.
    pub bytes: usize,
    /// The party may have a private, loopback or link-local address.
    pub allow_private: bool,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Inquiry {
    /// Method.
    pub method: Method,
    /// `http://` or `https://`.
    pub url: Uri,
    /// Header fields beside `host` and `content-length`.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// Body.
    pub body: Bytes,
}

impl Inquiry {
    /// GET.
    pub fn get(url: Uri) -> Self {
        Self {
            method: Method::GET,
            url,
            fields: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// POST of a form.
    pub fn form(url: Uri, form: String) -> Self {
        let media_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        Self {
            method: Method::POST,
            url,
            fields: vec![(CONTENT_TYPE, media_type)],
            body: Bytes::from(form),
        }
    }
}

/// What was answered.
#[derive(Debug)]
pub struct Told {
    /// Status.
    pub status: StatusCode,
    /// Header fields.
    pub fields: http::HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// Asks.
///
/// # Errors
/// In words: what went wrong. Never holds what was sent.
pub async fn ask(inquiry: Inquiry, trust: &Trust, bounds: Bounds) -> Result<Told, String> {
    tokio::time::timeout(bounds.deadline, exchange(inquiry, trust, bounds))
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {:?}", bounds.deadline)))
}

async fn exchange(inquiry: Inquiry, trust: &Trust, bounds: Bounds) -> Result<Told, String> {
    let url = &inquiry.url;
    let authority = url.authority().ok_or("the URL has no host")?;
    if authority.as_str().contains('@') {
        return Err("the URL holds a user, which nobody may read".to_owned());
    }
    let host = authority.host();
    let tls = match url.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err("the URL is neither http:// nor https://".to_owned()),
    };
    let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = connect(host, port, bounds).await?;
    match tls {
        false => converse(stream, inquiry, bounds.bytes).await,
        true => {
            let stream = secured(stream, host, trust, &[]).await?;
            converse(stream, inquiry, bounds.bytes).await
        }
    }
}

/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;

/// A TCP connection to one of the addresses of `host` that may be asked.
///
/// # Errors
/// In words: what went wrong.
pub async fn connect(host: &str, port: u16, bounds: Bounds) -> Result<TcpStream, String> {
    let found = tokio::net::lookup_host((host.trim_matches(['[', ']']), port))
        .await
        .map_err(|error| format!("the name `{host}` cannot be resolved: {error}"))?;
    let (private, public): (Vec<_>, Vec<_>) = found.partition(|it| is_private(it.ip()));
    let mut last = match private.first() {
        Some(address) if !bounds.allow_private => {
            format!("`{host}` has the private address {}", address.ip())
        }
        _ => format!("the name `{host}` has no address"),
    };
    let allowed = private.into_iter().filter(|_| bounds.allow_private);
    let tried: Vec<_> = public.into_iter().chain(allowed).take(ADDRESSES).collect();
    // One address that swallows everything must not use up the time of the others.
    let share = u32::try_from(tried.len()).unwrap_or(1).max(1);
    for address in tried {
        let connecting = TcpStream::connect(address);
        match tokio::time::timeout(bounds.deadline / share, connecting).await {
            Ok(Ok(stream)) => {
                let _best_effort = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = format!("cannot connect to {address}: {error}"),
            Err(_elapsed) => last = format!("cannot connect to {address} in time"),
        }
    }
    Err(last)
}

/// TLS on a connection, its peer proven to be `host` to whom `trust` believes; `protocols` are offered by ALPN.
///
/// # Errors
/// In words: what went wrong.
pub async fn secured(
    stream: TcpStream,
    host: &str,
    trust: &Trust,
    protocols: &[&[u8]],
) -> Result<TlsStream<TcpStream>, String> {
    let name = host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(name).map_err(|_| "the host is no name for a certificate")?;
    let mut config = trust.config()?;
    if !protocols.is_empty() {
        let offered = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::make_mut(&mut config).alpn_protocols = offered;
    }
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|error| format!("the TLS handshake failed: {error}"))
}

async fn converse<S>(stream: S, inquiry: Inquiry, most: usize) -> Result<Told, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| format!("the conversation broke: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends with this set, also when the deadline ends this conversation.
    let mut driven = JoinSet::new();
    driven.spawn(connection);
    converse_on(&mut sender, inquiry, most).await
}

async fn converse_on(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    inquiry: Inquiry,
    most: usize,
) -> Result<Told, String> {
    let authority = inquiry.url.authority().ok_or("the URL has no host")?;
    let path = inquiry
        .url
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(inquiry.method)
        .uri(path)
        .header(HOST, authority.as_str())
        .header(USER_AGENT, concat!("tollgate/", env!("CARGO_PKG_VERSION")));
    for (name, value) in inquiry.fields {
        request = request.header(name, value);
    }
    let request = request
        .body(Full::new(inquiry.body))
        .map_err(|error| format!("the request cannot be built: {error}"))?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| format!("the conversation broke: {error}"))?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, most)
        .collect()
        .await
        .map_err(|error| format!("the answer broke off or is larger than {most} bytes: {error}"))?
        .to_bytes();
    Ok(Told {
        status: head.status,
        fields: head.headers,
        body,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one connection with `answer`; `None`: says nothing.
    async fn party(answer: Option<&'static str>) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _read = stream.read(&mut head).await.unwrap();
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                None => std::future::pending().await,
            }
        });
        format!("http://127.0.0.1:{port}/keys").parse().unwrap()
    }

    fn bounds(allow_private: bool) -> Bounds {
        Bounds {
            deadline: Duration::from_millis(500),
            bytes: 8,
            allow_private,
        }
    }

    #[tokio::test]
    async fn an_answer_is_told_within_its_bounds() {
        let good = party(Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")).await;
        let told = ask(Inquiry::get(good), &Trust::default(), bounds(true))
            .await
            .unwrap();
        assert_eq!((told.status, &*told.body), (StatusCode::OK, &b"{}"[..]));
        for (answer, words) in [
            (
                Some("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123456789"),
                "larger than",
            ),
            (
                Some("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1"),
                "broke",
            ),
            (Some("garbage"), "broke"),
            (None, "within"),
        ] {
            let error = ask(
                Inquiry::get(party(answer).await),
                &Trust::default(),
                bounds(true),
            )
            .await
            .unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_not_followed() {
        let there =
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
        let told = ask(
            Inquiry::get(party(Some(there)).await),
            &Trust::default(),
            bounds(true),
        )
        .await;
        assert_eq!(told.unwrap().status, StatusCode::FOUND);
    }

    #[tokio::test]
    async fn a_url_with_a_user_is_not_asked() {
        let url = Uri::from_static("http://user:secret@127.0.0.1:1/");
        let error = ask(Inquiry::get(url), &Trust::default(), bounds(true))
            .await
            .unwrap_err();
        assert!(
            error.contains("user") && !error.contains("secret"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_private_address_is_not_asked_unless_allowed() {
        let url = party(Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")).await;
        let error = ask(Inquiry::get(url), &Trust::default(), bounds(false))
            .await
            .unwrap_err();
        assert!(error.contains("private address"), "{error}");
    }

    /// A certificate for `localhost` that is its own root, and a party that proves itself with it to as many as come.
    async fn secure_party() -> (tempfile::NamedTempFile, Uri) {
        use rustls::ServerConfig;
        use rustls_pki_types::PrivateKeyDer;
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, pair.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![pair.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut head = [0; 1024];
                let _read = stream.read(&mut head).await.unwrap();
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                stream.write_all(answer).await.unwrap();
                let _gone = stream.shutdown().await;
            }
        });
        let url = format!("https://localhost:{port}/keys");
        (file, url.parse().unwrap())
    }

    #[tokio::test]
    async fn a_party_is_believed_by_the_roots_named_for_it_alone() {
        let _ours_or_anothers = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (own, url) = secure_party().await;
        let (other, _) = secure_party().await;
        let trust = Trust::of(Some(own.path())).unwrap();
        let patient = Bounds {
            deadline: Duration::from_secs(5),
            ..bounds(true)
        };
        let told = ask(Inquiry::get(url.clone()), &trust, patient).await;
        assert_eq!(told.unwrap().status, StatusCode::OK);
        for distrust in [Trust::of(Some(other.path())).unwrap(), Trust::default()] {
            assert!(distrust != trust);
            let refused = ask(Inquiry::get(url.clone()), &distrust, patient).await;
            let refused = refused.unwrap_err();
            assert!(refused.contains("handshake failed"), "{refused}");
        }
        assert!(Trust::of(Some(own.path())).unwrap() == trust);
        std::fs::write(&own, "nothing").unwrap();
        assert!(Trust::of(Some(own.path())).is_err());
    }
}
