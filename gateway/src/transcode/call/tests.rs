//! Calls to a service over HTTP/2 that does each of them in its way, by its path.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use h2::server::SendResponse;
use http::Response;
use pingora_core::connectors::TransportConnector;
use pingora_core::upstreams::peer::HttpPeer;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::super::frame::{self, framed};
use super::super::gzip;
use super::super::link::{self, LinkKey};
use super::*;
use crate::upstream::EndpointAddress;
use crate::upstream::pool::PoolKey;

/// What the service does with a call, by its path.
async fn behave(path: &str, mut respond: SendResponse<Bytes>, mut body: RecvStream) {
    let grpc = |status: &str| {
        let head = Response::builder().header("content-type", "application/grpc+proto");
        let head = head.header("x-initial", "1");
        match status {
            "" => head,
            status => head.header("grpc-status", status),
        }
    };
    let trailers = |status: &str| {
        let mut fields = HeaderMap::new();
        fields.insert("grpc-status", status.parse().unwrap());
        fields.insert("x-trailing", "2".parse().unwrap());
        fields
    };
    let hello = framed(b"hello").unwrap();
    match path {
        "/refused" => respond.send_reset(Reason::REFUSED_STREAM),
        "/reset" => {
            let mut stream = respond
                .send_response(grpc("").body(()).unwrap(), false)
                .unwrap();
            stream.send_data(hello, false).unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        "/only-trailers" => {
            let head = grpc("5")
                .header("grpc-message", "no%20such")
                .body(())
                .unwrap();
            respond.send_response(head, true).unwrap();
        }
        "/no-trailers" => {
            let mut stream = respond
                .send_response(grpc("").body(()).unwrap(), false)
                .unwrap();
            stream.send_data(hello, true).unwrap();
        }
        "/html" => {
            let head = Response::builder()
                .header("content-type", "text/html")
                .body(())
                .unwrap();
            respond.send_response(head, true).unwrap();
        }
        "/404" => {
            let head = Response::builder().status(404).body(()).unwrap();
            respond.send_response(head, true).unwrap();
        }
        "/garbage" => {
            let mut stream = respond
                .send_response(grpc("").body(()).unwrap(), false)
                .unwrap();
            stream
                .send_data(Bytes::from_static(b"HTTP/1.1 200 OK"), false)
                .unwrap();
            let _ = stream.send_trailers(trailers("0"));
        }
        "/large" => {
            let mut stream = respond
                .send_response(grpc("").body(()).unwrap(), false)
                .unwrap();
            stream
                .send_data(Bytes::from_static(&[0, 0, 0x10, 0, 0]), false)
                .unwrap();
            let _reset = poll_fn(|cx| stream.poll_reset(cx)).await;
        }
        "/gzip" => {
            let mut stream = respond
                .send_response(grpc("").body(()).unwrap(), false)
                .unwrap();
            let mut out = Vec::new();
            frame::write(COMPRESSED, &gzip::compress(b"hello").unwrap(), &mut out).unwrap();
            stream.send_data(Bytes::from(out), false).unwrap();
            stream.send_trailers(trailers("0")).unwrap();
        }
        "/hang" => std::future::pending().await,
        _ => {
            let mut stream = respond
                .send_response(grpc("").body(()).unwrap(), false)
                .unwrap();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                stream.reserve_capacity(data.len());
                let _ = poll_fn(|cx| stream.poll_capacity(cx)).await;
                stream.send_data(data, false).unwrap();
            }
            stream.send_trailers(trailers("0")).unwrap();
        }
    }
}

/// A service, and what it noticed: `connected`, or `cancelled` by path.
async fn service() -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (say, said) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            say.send("connected".to_owned()).unwrap();
            let say = say.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let path = request.uri().path().to_owned();
                    let say = say.clone();
                    tokio::spawn(async move {
                        if path == "/hang" {
                            let reset = poll_fn(|cx| respond.poll_reset(cx)).await;
                            let _ = say.send(format!("reset {:?}", reset.unwrap()));
                            return;
                        }
                        behave(&path, respond, request.into_body()).await;
                    });
                }
            });
        }
    });
    (address, said)
}

struct Caller {
    connector: TransportConnector,
    peer: HttpPeer,
    key: LinkKey,
}

impl Caller {
    fn to(address: SocketAddr) -> Self {
        let mut peer = HttpPeer::new(address, false, String::new());
        peer.options.set_http_version(2, 2);
        let pool = PoolKey {
            group_key: 7,
            address: EndpointAddress::Tcp(address),
        };
        Self {
            connector: TransportConnector::new(None),
            peer,
            key: LinkKey {
                pool,
                streams: false,
            },
        }
    }

    async fn open(&self, path: &str) -> Result<(Sending, Receiving), Failure> {
        let seat = link::seat(&self.connector, &self.peer, &self.key)
            .await
            .unwrap();
        let request = Request::post(format!("http://service{path}"))
            .body(())
            .unwrap();
        open(seat, request, 64 * 1024).await
    }

    /// A whole call: messages and the end.
    async fn call(&self, path: &str, message: &[u8]) -> Result<(Vec<Bytes>, End), Failure> {
        let (mut sending, mut receiving) = self.open(path).await?;
        sending.queue(framed(message).unwrap(), true);
        let answer = async {
            receiving.head().await?;
            let mut messages = Vec::new();
            while let Some(message) = receiving.message().await? {
                messages.push(message.bytes);
            }
            Ok((messages, receiving.end().unwrap()))
        };
        tokio::pin!(answer);
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                () = sending.flush(), if !sending.is_idle() => {}
            }
        }
    }
}

#[tokio::test]
async fn calls_share_a_connection_and_end_with_their_trailers() {
    let (address, mut said) = service().await;
    let caller = Caller::to(address);
    let big = vec![b'x'; 60_000];
    let calls = (0..50).map(|_| caller.call("/echo", &big));
    for answer in futures_join(calls).await {
        let (messages, end) = answer.unwrap();
        assert_eq!(messages, [Bytes::from(big.clone())]);
        assert_eq!(end.status.code, Code::Ok);
        assert_eq!(end.trailers["x-trailing"], "2");
    }
    assert_eq!(said.recv().await.unwrap(), "connected");
    assert!(said.try_recv().is_err(), "one connection for all");
}

async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(|it| (Box::pin(it), None)).collect();
    poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in &mut futures {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        match pending {
            true => std::task::Poll::Pending,
            false => std::task::Poll::Ready(()),
        }
    })
    .await;
    futures
        .into_iter()
        .map(|(_, output)| output.unwrap())
        .collect()
}

#[tokio::test]
async fn each_fault_of_a_service_has_its_status() {
    let (address, _said) = service().await;
    let caller = Caller::to(address);
    let table = [
        ("/reset", Code::Internal),
        ("/no-trailers", Code::Unknown),
        ("/html", Code::Unknown),
        ("/404", Code::Unimplemented),
        ("/garbage", Code::Internal),
        ("/large", Code::ResourceExhausted),
    ];
    for (path, code) in table {
        let failure = caller.call(path, b"x").await.unwrap_err();
        assert_eq!(failure.status().code, code, "{path}: {failure:?}");
        assert_eq!(failure.outcome(), Outcome::Broken);
        let (messages, _) = caller.call("/echo", b"x").await.unwrap();
        assert_eq!(messages, ["x"], "after {path} the connection serves others");
    }
    let refused = caller.call("/refused", b"x").await.unwrap_err();
    assert!(matches!(refused, Failure::Unseen(_)), "{refused:?}");
}

#[tokio::test]
async fn a_status_in_the_head_and_a_compressed_message_are_read() {
    let (address, _said) = service().await;
    let caller = Caller::to(address);
    let (messages, end) = caller.call("/only-trailers", b"").await.unwrap();
    assert!(messages.is_empty());
    assert_eq!(end.status, Status::new(Code::NotFound, "no such"));
    let (messages, _) = caller.call("/gzip", b"").await.unwrap();
    assert_eq!(messages, ["hello"]);
}

#[tokio::test]
async fn a_call_that_is_given_up_is_cancelled_at_the_service_and_hurts_no_other() {
    let (address, mut said) = service().await;
    let caller = Caller::to(address);
    assert_eq!(
        caller.call("/echo", b"").await.unwrap().1.status.code,
        Code::Ok
    );
    assert_eq!(said.recv().await.unwrap(), "connected");
    let (mut sending, mut receiving) = caller.open("/hang").await.unwrap();
    sending.queue(framed(b"x").unwrap(), true);
    sending.flush().await;
    let waited = tokio::time::timeout(Duration::from_millis(50), receiving.head()).await;
    assert!(waited.is_err());
    drop((sending, receiving));
    assert_eq!(said.recv().await.unwrap(), "reset CANCEL");
    assert_eq!(caller.call("/echo", b"y").await.unwrap().0, ["y"]);
    assert!(said.try_recv().is_err());
}

#[tokio::test]
async fn many_who_wait_for_a_dead_service_fail_by_one_attempt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let caller = Caller::to(address);
    let seats = (0..20).map(|_| link::seat(&caller.connector, &caller.peer, &caller.key));
    let errors: Vec<_> = futures_join(seats)
        .await
        .into_iter()
        .map(|it| it.unwrap_err())
        .collect();
    let first = &errors[0];
    assert!(errors.iter().all(|error| Arc::ptr_eq(error, first)));
}
