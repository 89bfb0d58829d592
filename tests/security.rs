//! What the file demands of callers is enforced, unless somebody switched that off in so many words.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use world::{Plan, SECRET, Service};

const DEMANDING: [(&str, &str); 4] = [
    ("GET", "/v1/admin/stats"),
    ("PUT", "/v1/admin/prices"),
    ("POST", "/v1/books"),
    ("DELETE", "/v1/books/1"),
];

#[test]
fn operations_that_demand_a_credential_are_refused_without() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    for (method, path) in DEMANDING {
        let answer = world.ask(method, path, &[], b"");
        answer.is_problem(401, "credential_required");
        assert!(
            answer.header("www-authenticate").is_some(),
            "{method} {path}: {answer:?}"
        );
    }
    assert_eq!(service.calls().len(), 0);
}

#[test]
fn a_credential_nobody_can_verify_opens_nothing() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let tries = [
        (("x-api-key", SECRET), "credential_invalid"),
        (("x-api-key", ""), "credential_required"),
        // Not where the file says that a credential belongs: as good as none.
        (("authorization", "Bearer s3cr3t"), "credential_required"),
    ];
    for (header, code) in tries {
        let answer = world.ask("GET", "/v1/admin/stats", &[header], b"");
        answer.is_problem(401, code);
        assert!(!answer.text().contains("s3cr3t"), "{answer:?}");
    }
    assert_eq!(service.calls().len(), 0);
    let log = std::fs::read_to_string(world.file("access.log")).unwrap_or_default() + &world.log();
    assert!(!log.contains("s3cr3t"), "{log}");
}

#[test]
fn public_operations_need_nothing() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    assert_eq!(world.get("/v1/books").status, 200);
    assert_eq!(world.get("/v1/books/1").status, 200);
}

#[test]
fn the_start_says_how_many_operations_demand_a_credential() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let log = world.log();
    assert!(log.contains("4 demand a credential"), "{log}");
    assert!(log.contains("--security"), "how to change it: {log}");
}

#[test]
fn switched_off_it_is_left_to_the_service() {
    let service = Service::new();
    let world = Plan::bookstore(&service)
        .argument("--security")
        .argument("off")
        .start();
    for (method, path) in DEMANDING {
        let answer = world.ask(method, path, &[("x-api-key", SECRET)], b"");
        assert_eq!(answer.status, 200, "{method} {path}");
        assert_eq!(
            service.last().header("x-api-key"),
            Some(SECRET),
            "the service judges it"
        );
    }
}

#[test]
fn no_spelling_of_a_path_gets_around_the_demand() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let spellings = [
        "/v1/admin/stats",
        "/v1/admin/stat%73",
        "/v1/%61dmin/stats",
        "/v1/admin//stats",
        "/v1/./admin/stats",
        "/v1/books/../admin/stats",
        "/v1/books/%2e%2e/admin/stats",
        "/v1/books/..%2fadmin/stats",
        "/v1/admin/stats/",
        "/v1/ADMIN/stats",
        "/v1/admin%2fstats",
        "/v1/admin/stats%00",
        "/v1/admin/stats;x=y",
        "/v1\\admin\\stats",
        "//v1/admin/stats",
    ];
    for path in spellings {
        let answer = world.ask("GET", path, &[], b"");
        assert!(
            [400, 401, 404].contains(&answer.status),
            "{path}: {answer:?}"
        );
    }
    let overrides = [
        ("x-original-url", "/v1/admin/stats"),
        ("x-rewrite-url", "/v1/admin/stats"),
        ("x-http-method-override", "DELETE"),
    ];
    for header in overrides {
        assert_eq!(world.ask("GET", "/v1/books/1", &[header], b"").status, 200);
        assert_eq!(service.last().line(), "GET /v1/books/1 HTTP/1.1");
    }
}
