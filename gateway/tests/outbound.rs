//! What the app beside a data plane gets from its outbound port: other services by their names, in HTTP/1.1, h2c and gRPC, and nothing
//! else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod installation;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use installation::{
    Answer, Authority, Instance, Plane, Setup, eventually, get, post, print, raw, service_id,
    within,
};
use tokio::net::TcpStream;
use tollgate_gateway::node::Services;
use tollgate_policy::settings::ServiceInstance;

/// Billing's data plane, with its identity and the print of its certificate; and orders.
async fn neighbours() -> (Plane, Instance, String) {
    let authority = Authority::new();
    let plane = Setup::new().start().await;
    let held = authority.issue(&service_id("billing"));
    let shown = print(&held.chain[0]);
    plane.identity.replace(held);
    let orders = Instance::of("orders", &authority.issue(&service_id("orders"))).await;
    (plane, orders, shown)
}

/// Locates as soon as somebody asks: a service that nobody follows is forgotten.
async fn located(plane: &Plane, name: &'static str, instances: &[&Instance]) {
    let services = Arc::clone(&plane.services);
    let endpoints: Arc<[_]> = instances.iter().map(|it| it.endpoint()).collect();
    let mut wanted = services.wanted();
    tokio::spawn(async move {
        loop {
            services.set(name, Arc::clone(&endpoints));
            wanted.changed().await.unwrap();
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_called_by_its_name_in_either_form_and_sees_who_calls() {
    let (plane, orders, shown) = neighbours().await;
    located(&plane, "orders", &[&orders]).await;
    let expected = format!("orders {shown}");
    let absolute = |target: &str| {
        format!("GET {target} HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n")
    };
    let answers = [
        get(plane.outbound, "/hello?a=b", "orders").await,
        get(plane.outbound, "/hello", "orders:8080").await,
        get(plane.outbound, "/hello", "orders.service.shop.example").await,
        raw(plane.outbound, &absolute("http://orders/hello")).await,
        raw(plane.outbound, &absolute("http://orders")).await,
        post(plane.outbound, "/a/b%2Fc;d=e/", "orders", "some text").await,
        raw(
            plane.outbound,
            "POST http://orders/form HTTP/1.1\r\nhost: orders\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi",
        )
        .await,
        // What this path means is for the service's own sidecar to say.
        get(plane.outbound, "/.tollgate/quota", "orders").await,
        raw(
            plane.outbound,
            "PURGE /x HTTP/1.1\r\nhost: orders\r\nauthorization: Bearer of-the-app\r\nconnection: close\r\n\r\n",
        )
        .await,
    ];
    for answer in &answers {
        assert_eq!(
            (answer.status, &*answer.body),
            (200, &*expected),
            "{answer:?}"
        );
    }
    let heads = orders.heads();
    let lines: Vec<_> = heads
        .iter()
        .filter_map(|head| head.lines().next())
        .collect();
    assert_eq!(
        lines,
        [
            "GET /hello?a=b HTTP/1.1",
            "GET /hello HTTP/1.1",
            "GET /hello HTTP/1.1",
            "GET /hello HTTP/1.1",
            "GET / HTTP/1.1",
            "POST /a/b%2Fc;d=e/ HTTP/1.1",
            "POST /form HTTP/1.1",
            "GET /.tollgate/quota HTTP/1.1",
            "PURGE /x HTTP/1.1",
        ]
    );
    let head = |index: usize| heads[index].to_ascii_lowercase();
    assert!(head(3).contains("\r\nhost: orders\r\n"), "{}", head(3));
    // Credentials are between the app and the service.
    assert!(head(8).contains("authorization: bearer of-the-app"));

    eventually("calls are recorded", async || {
        let records = plane.records();
        let told = |it: &&serde_json::Value| it["api"] == "outbound" && it["operation"] == "orders";
        records.iter().filter(told).count() == answers.len()
    })
    .await;
    let page = get(plane.admin, "/metrics", "localhost").await.body;
    let counted =
        |line: &&str| line.contains("api=\"outbound\"") && line.contains("operation=\"orders\"");
    assert!(page.lines().any(|line| counted(&line)), "{page}");
    // Nobody is billed for them.
    let billed = |line: &&str| line.starts_with("tollgate_usage_records_total");
    assert!(
        page.lines().filter(billed).all(|line| line.ends_with(" 0")),
        "{page}"
    );
}

async fn h2c(plane: &Plane) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(plane.outbound).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send
}

/// Status, body, and `grpc-status` of the trailers.
async fn ask(send: &mut SendRequest<Bytes>, uri: &str, kind: &str) -> (u16, String, String) {
    let request = http::Request::post(uri)
        .header("content-type", kind)
        .header("te", "trailers");
    let request = request.body(()).unwrap();
    let (answer, mut body) = send.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(b"\0\0\0\0\0"), true)
        .unwrap();
    let (head, mut body) = within(answer).await.unwrap().into_parts();
    let mut text = Vec::new();
    while let Some(bytes) = within(body.data()).await {
        text.extend_from_slice(&bytes.unwrap());
    }
    let trailers = within(body.trailers()).await.unwrap().unwrap_or_default();
    let status = trailers
        .get("grpc-status")
        .or(head.headers.get("grpc-status"));
    let status = status.map_or("", |it| it.to_str().unwrap()).to_owned();
    (
        head.status.as_u16(),
        String::from_utf8(text).unwrap(),
        status,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_goes_through_as_it_is_and_other_h2c_calls_reach_services_of_http_1() {
    let (plane, orders, shown) = neighbours().await;
    located(&plane, "orders", &[&orders]).await;
    let mut send = h2c(&plane).await;
    let uri = "http://orders/shop.Orders/List";
    for _ in 0..3 {
        let told = ask(&mut send, uri, "application/grpc").await;
        assert_eq!(told, (200, format!("orders {shown}"), "0".to_owned()));
    }
    // One connection carries them all.
    assert_eq!(orders.connections(), 1);
    assert!(
        orders.heads()[0].starts_with("POST https://orders/shop.Orders/List")
            || orders.heads()[0].starts_with("POST http://orders/shop.Orders/List"),
        "{:?}",
        orders.heads()
    );
    let told = ask(&mut send, "http://orders/form", "text/plain").await;
    assert_eq!(told, (200, format!("orders {shown}"), String::new()));
    assert!(orders.heads()[3].starts_with("POST /form HTTP/1.1"));
    let (status, _, code) = ask(
        &mut send,
        "http://elsewhere.example/a.B/C",
        "application/grpc",
    )
    .await;
    assert_eq!((status, &*code), (200, "12"));
}

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.body.contains(code), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_service_is_refused_and_never_forwarded() {
    let outside = Instance::plain("outside").await;
    let mut setup = Setup::new().api("orders", &format!("http://{}", outside.address));
    setup.mesh.services = Arc::new(Services::alone());
    let plane = setup.start().await;
    let elsewhere = outside.address;
    let targets = [
        elsewhere.to_string(),
        "localhost".to_owned(),
        "example.com".to_owned(),
        "orders".to_owned(),
        "orders.service.shop.example".to_owned(),
        "Orders..".to_owned(),
    ];
    for host in &targets {
        let absolute = format!(
            "GET http://{host}/hello HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        );
        let named = host.trim_end_matches('.');
        for answer in [
            get(plane.outbound, "/orders/hello", host).await,
            raw(plane.outbound, &absolute).await,
        ] {
            if named.len() == host.len() {
                refused(&answer, 404, "unknown_service");
            } else {
                assert!(matches!(answer.status, 400 | 404), "{answer:?}");
            }
        }
    }
    let connect = format!("CONNECT {elsewhere} HTTP/1.1\r\nhost: {elsewhere}\r\n\r\n");
    let answer = raw(plane.outbound, &connect).await;
    refused(&answer, 405, "CONNECT");
    let answer = raw(
        plane.outbound,
        "GET /a/../b HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n",
    );
    refused(&answer.await, 400, "malformed_request");
    assert_eq!(outside.connections(), 0);
    // The other way round: callers reach APIs alone.
    assert_eq!(
        get(plane.inbound, "/orders/hello", "orders").await.status,
        200
    );
    refused(
        &get(plane.inbound, "/hello", "orders").await,
        404,
        "unknown_api",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_call_waits_a_moment_for_what_nobody_has_said_yet() {
    let (plane, orders, shown) = neighbours().await;
    let begun = Instant::now();
    let answer = get(plane.outbound, "/hello", "orders").await;
    refused(&answer, 503, "no_endpoint");
    assert!(begun.elapsed() < Duration::from_secs(5));

    let mut wanted = plane.services.wanted();
    let asked = tokio::spawn({
        let outbound = plane.outbound;
        async move { get(outbound, "/hello", "stock").await }
    });
    within(wanted.wait_for(|count| *count >= 2)).await.unwrap();
    plane.locate("stock", &[&orders]);
    let answer = asked.await.unwrap();
    assert_eq!(
        (answer.status, answer.body),
        (200, format!("orders {shown}"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_balanced_and_tried_again_elsewhere() {
    let (one, two, gone) = (
        Instance::plain("one").await,
        Instance::plain("two").await,
        Instance::plain("gone").await,
    );
    let mut setup = Setup::new();
    let instances = [&one, &two, &gone].map(|it| ServiceInstance {
        address: it.address,
        id: None,
    });
    setup
        .process
        .services
        .insert("stock".into(), instances.into());
    let plane = setup.start().await;
    gone.close();
    let closed = async || TcpStream::connect(gone.address).await.is_err();
    eventually("one of them is gone", closed).await;
    for _ in 0..30 {
        assert_eq!(get(plane.outbound, "/hello", "stock").await.status, 200);
        assert_eq!(
            post(plane.outbound, "/hello", "stock", "text").await.status,
            200
        );
    }
    assert!(one.calls() > 0 && two.calls() > 0);
    assert_eq!((one.calls() + two.calls(), gone.calls()), (60, 0));
}
