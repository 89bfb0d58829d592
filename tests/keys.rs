//! A key is shown once, opens what was sold to its consumer wherever the file lets it stand, and the service never sees it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use serde_json::Value;
use tollgate_policy::credentials::basic::hash_password;
use tollgate_policy::credentials::key::make_key;
use world::shop::{self, Key, shop, shop_with};
use world::{Answer, Service, World};

/// RFC 4648, for user names and passwords.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in text.as_bytes().chunks(3) {
        let bits = group
            .iter()
            .fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for place in 0..4 {
            out.push(match place <= group.len() {
                true => char::from(DIGITS[bits >> (18 - 6 * place) & 63]),
                false => '=',
            });
        }
    }
    out
}

/// What is shown, to which path, by which fields.
type Showing = (&'static str, String, Vec<(&'static str, String)>);

/// Asks for `/v1/books` with the key in each place where a key may stand.
fn everywhere(key: &Key) -> Vec<Showing> {
    let secret = &key.secret;
    let books = "/v1/books".to_owned();
    let basic = format!("Basic {}", base64(&format!("{secret}:")));
    vec![
        ("header", books.clone(), vec![("x-api-key", secret.clone())]),
        (
            "bearer",
            books.clone(),
            vec![("authorization", format!("Bearer {secret}"))],
        ),
        ("basic", books.clone(), vec![("authorization", basic)]),
        (
            "query",
            format!("{books}?limit=2&api_key={secret}&author=x"),
            vec![],
        ),
        (
            "cookie",
            books,
            vec![("cookie", format!("theme=dark; session={secret}; lang=de"))],
        ),
    ]
}

fn ask(world: &World, path: &str, headers: &[(&str, String)]) -> Answer {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect();
    world.ask("GET", path, &headers, b"")
}

#[test]
fn a_key_is_shown_once_and_kept_nowhere() {
    let service = Service::new();
    let world = shop(&service).start();
    let made = world.cli(&["keys", "create", "web", "--name", "laptop"]);
    let told = made.good();
    assert!(told.contains("shown this once"), "{told}");
    let secret = told
        .split_whitespace()
        .find(|word| word.starts_with("tg_live_"));
    let secret = secret.expect("the key is in the answer").to_owned();
    let listed = world.cli(&["keys", "list", "web", "--json"]).json();
    let id = listed[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(listed[0]["name"], "laptop");
    let key = Key { id, secret };
    let answer = world.get_with(&key, "/v1/books");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(world.get_with(&key, "/v1/public").status, 200);
    let _record = world.record(answer.header("x-request-id").unwrap());
    let shown = [
        world.cli(&["keys", "list", "web"]).good().to_owned(),
        world
            .cli(&["keys", "show", "web", &key.id])
            .good()
            .to_owned(),
        world.cli(&["audit", "list"]).good().to_owned(),
        world.admin_get("/config"),
        world.metrics(),
        world.log(),
    ];
    for text in shown {
        assert!(!text.contains(&key.secret), "{text}");
    }
    let mut looked_at = 0;
    let mut directories = vec![world.directory().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                looked_at += 1;
                let secret = key.secret.as_bytes();
                let found = bytes.windows(secret.len()).any(|window| window == secret);
                assert!(!found, "{} holds the key", path.display());
            }
        }
    }
    assert!(looked_at > 5, "store, log and files were looked at");
}

#[test]
fn a_key_opens_wherever_the_file_lets_it_stand_and_stops_at_the_gateway() {
    let service = Service::new();
    let world = shop(&service).start();
    let key = world.key("web");
    for (place, path, headers) in everywhere(&key) {
        let answer = ask(&world, &path, &headers);
        assert_eq!(answer.status, 200, "{place}: {answer:?}");
        let call = service.last();
        assert!(!call.head.contains(&key.secret), "{place}: {}", call.head);
        assert!(!call.head.contains(&base64(&key.secret)[..30]), "{place}");
        assert_eq!(call.all("x-tollgate-consumer"), ["web"], "{place}");
        assert_eq!(call.all("x-tollgate-plan"), ["reader"], "{place}");
        assert_eq!(call.all("x-tollgate-operation"), ["listBooks"], "{place}");
        match place {
            "query" => assert_eq!(call.target(), "/v1/books?limit=2&author=x"),
            "cookie" => assert_eq!(call.all("cookie"), ["theme=dark; lang=de"]),
            _ => assert_eq!(call.target(), "/v1/books"),
        }
        let record = world.record(answer.header("x-request-id").unwrap());
        assert_eq!(record["consumer"], "web", "{record}");
        assert_eq!(record["credential"], key.id.as_str(), "{record}");
        assert_eq!(record["plan"], "reader", "{record}");
    }
    let log = std::fs::read_to_string(world.file("access.log")).unwrap();
    assert!(!log.contains(&key.secret));
}

#[test]
fn forward_credentials_leaves_the_key_in() {
    let service = Service::new();
    let world = shop_with(&service, "auth:\n  forward_credentials: true\n").start();
    let key = world.key("web");
    for (place, path, headers) in everywhere(&key) {
        assert_eq!(ask(&world, &path, &headers).status, 200, "{place}");
        let call = service.last();
        let encoded = base64(&format!("{}:", key.secret));
        let there = call.head.contains(&key.secret) || call.head.contains(&encoded);
        assert!(there, "{place}: {}", call.head);
        assert_eq!(call.all("x-tollgate-consumer"), ["web"], "{place}");
    }
}

#[test]
fn what_a_client_says_about_itself_does_not_reach_the_service() {
    let service = Service::new();
    let world = shop(&service).start();
    let key = world.key("web");
    let lies = [
        ("x-tollgate-consumer", "desk"),
        ("X-Tollgate-Plan", "all"),
        ("x-tollgate-operation", "deleteBook"),
        ("x_tollgate_consumer", "desk"),
        ("x-consumer-id", "desk"),
    ];
    let with_key = [&lies[..], &[("x-api-key", &key.secret)]].concat();
    assert_eq!(world.ask("GET", "/v1/books", &with_key, b"").status, 200);
    let call = service.last();
    assert_eq!(call.all("x-tollgate-consumer"), ["web"]);
    assert_eq!(call.all("x-tollgate-plan"), ["reader"]);
    assert!(!call.head.contains("desk"), "{}", call.head);
    // Where nobody is identified, nobody is named.
    assert_eq!(world.ask("GET", "/v1/public", &lies, b"").status, 200);
    let call = service.last();
    assert_eq!(call.header("x-tollgate-consumer"), None);
    assert_eq!(call.header("x-tollgate-plan"), None);
    assert_eq!(call.all("x-tollgate-operation"), ["readPublic"]);
}

#[test]
fn what_is_no_key_opens_nothing() {
    let service = Service::new();
    let world = shop(&service).start();
    let key = world.key("web");
    let deleted = world.key("web");
    world.cli(&["keys", "delete", &deleted.id]).good();
    let secret = &key.secret;
    let mut mistyped = secret.clone();
    let last = if mistyped.ends_with('0') { "1" } else { "0" };
    mistyped.replace_range(secret.len() - 1.., last);
    let tries: Vec<(&str, Vec<(&str, String)>)> = vec![
        ("wrong checksum", vec![("x-api-key", mistyped)]),
        ("unknown", vec![("x-api-key", deleted.secret.clone())]),
        ("cut", vec![("x-api-key", secret[..20].to_owned())]),
        ("longer", vec![("x-api-key", format!("{secret}0"))]),
        ("upper case", vec![("x-api-key", secret.to_uppercase())]),
        ("not ours", vec![("x-api-key", "x".repeat(40))]),
        ("endless", vec![("x-api-key", "x".repeat(20_000))]),
        (
            "twice",
            vec![("x-api-key", secret.clone()), ("x-api-key", secret.clone())],
        ),
        (
            "two, with a comma",
            vec![("x-api-key", format!("{secret}, {secret}"))],
        ),
        (
            "bearer",
            vec![("authorization", format!("Bearer {}", deleted.secret))],
        ),
        (
            "basic",
            vec![(
                "authorization",
                format!("Basic {}", base64(&format!("{}:", deleted.secret))),
            )],
        ),
        (
            "as a password",
            vec![(
                "authorization",
                format!("Basic {}", base64(&format!("web:{secret}"))),
            )],
        ),
        (
            "with a password",
            vec![(
                "authorization",
                format!("Basic {}", base64(&format!("{secret}:x"))),
            )],
        ),
        (
            "broken base64",
            vec![("authorization", "Basic §".to_owned())],
        ),
    ];
    for (what, headers) in tries {
        let answer = ask(&world, "/v1/books", &headers);
        answer.is_problem(401, "credential_invalid");
        assert!(answer.header("www-authenticate").is_some(), "{what}");
        assert!(!answer.text().contains(secret), "{what}");
    }
    for (what, headers) in [
        ("nothing", vec![]),
        ("empty", vec![("x-api-key", String::new())]),
        (
            "another scheme",
            vec![("authorization", "Digest x".to_owned())],
        ),
        ("another place", vec![("api-key", secret.clone())]),
    ] {
        let answer = ask(&world, "/v1/books", &headers);
        answer.is_problem(401, "credential_required");
        assert!(answer.header("www-authenticate").is_some(), "{what}");
    }
    assert_eq!(service.calls().len(), 0);
    assert_eq!(
        world.get_with(&key, "/v1/books").status,
        200,
        "the key itself is good"
    );
}

#[test]
fn a_key_in_the_path_of_another_place_is_not_looked_for() {
    let service = Service::new();
    let world = shop(&service).start();
    let key = world.key("desk");
    // `getBook` takes the key in its header alone.
    for (place, path, headers) in everywhere(&key) {
        if place == "header" {
            continue;
        }
        let path = path.replace("/v1/books", "/v1/books/1");
        ask(&world, &path, &headers).is_problem(401, "credential_required");
    }
    assert_eq!(service.calls().len(), 0);
}

#[test]
fn a_key_is_good_within_its_time_alone() {
    let service = Service::new();
    let world = shop(&service).start();
    let table = [
        (["--not-before", "2999-01-01T00:00:00Z"], 401),
        (["--expires", "2999-01-01T00:00:00Z"], 200),
        (["--not-before", "2020-01-01T00:00:00Z"], 200),
    ];
    for (flags, status) in table {
        let key = world.key_with("web", &flags);
        let answer = world.get_with(&key, "/v1/books");
        assert_eq!(answer.status, status, "{flags:?}: {answer:?}");
        if status == 401 {
            answer.is_problem(401, "credential_invalid");
        }
    }
    // Whoever makes a key that has expired made a mistake, or gets one that opens nothing.
    let made = world.cli(&[
        "keys",
        "create",
        "web",
        "--json",
        "--expires",
        "2020-01-01T00:00:00Z",
    ]);
    if made.status.success() {
        let key = Key::shown(&made.json());
        world
            .get_with(&key, "/v1/books")
            .is_problem(401, "credential_invalid");
    }
}

#[test]
fn a_key_opens_only_what_it_was_made_for() {
    let service = Service::new();
    let world = shop(&service).start();
    let restricted = "credential_restricted";
    let one = world.key_with("web", &["--operation", "getBook"]);
    assert_eq!(world.get_with(&one, "/v1/books/1").status, 200);
    world
        .get_with(&one, "/v1/books")
        .is_problem(403, restricted);
    let far = world.key_with("web", &["--network", "192.0.2.0/24"]);
    world
        .get_with(&far, "/v1/books")
        .is_problem(403, restricted);
    let near = world.key_with(
        "web",
        &["--network", "192.0.2.0/24", "--network", "127.0.0.0/8"],
    );
    assert_eq!(world.get_with(&near, "/v1/books").status, 200);
    let site = world.key_with("web", &["--referrer", "https://shop.example"]);
    let from = |name: &str, value: &str| {
        let headers = [("x-api-key", &*site.secret), (name, value)];
        world.ask("GET", "/v1/books", &headers, b"")
    };
    assert_eq!(from("origin", "https://shop.example").status, 200);
    assert_eq!(from("referer", "https://shop.example/cart?x=1").status, 200);
    from("origin", "https://shop.example.net").is_problem(403, restricted);
    from("referer", "http://shop.example/").is_problem(403, restricted);
    world
        .get_with(&site, "/v1/books")
        .is_problem(403, restricted);
    assert_eq!(service.calls().len(), 4);
}

#[test]
fn a_rotated_key_goes_on_for_the_overlap_alone() {
    let service = Service::new();
    let world = shop(&service).start();
    let old = world.key("web");
    assert_eq!(world.get_with(&old, "/v1/books").status, 200);
    let rotate = |key: &Key, overlap: &str| {
        let made = world.cli(&["keys", "rotate", &key.id, "--overlap", overlap, "--json"]);
        Key::shown(&made.json())
    };
    let second = rotate(&old, "1h");
    assert_ne!(old.secret, second.secret);
    assert_eq!(world.get_with(&old, "/v1/books").status, 200);
    assert_eq!(world.get_with(&second, "/v1/books").status, 200);
    let third = rotate(&second, "0s");
    world
        .get_with(&second, "/v1/books")
        .is_problem(401, "credential_invalid");
    assert_eq!(world.get_with(&third, "/v1/books").status, 200);
    assert_eq!(world.get_with(&old, "/v1/books").status, 200);
}

#[test]
fn keys_of_one_consumer_live_and_end_apart() {
    let service = Service::new();
    let world = shop(&service).start();
    let (first, second) = (world.key("web"), world.key("web"));
    for key in [&first, &second] {
        assert_eq!(world.get_with(key, "/v1/books").status, 200);
    }
    world.cli(&["keys", "revoke", &first.id]).good();
    world
        .get_with(&first, "/v1/books")
        .is_problem(401, "credential_invalid");
    assert_eq!(world.get_with(&second, "/v1/books").status, 200);
}

#[test]
fn a_key_made_just_after_it_was_tried_works_within_moments() {
    let service = Service::new();
    let world = shop(&service).start();
    // A consumer that is not there yet has no key; its first one works at once.
    world
        .cli(&[
            "consumers",
            "create",
            "fresh",
            "--project",
            "floor",
            "--subscribe",
            "shop=all",
        ])
        .good();
    let key = world.key("fresh");
    assert_eq!(world.get_with(&key, "/v1/books").status, 200);
    assert_eq!(service.last().header("x-tollgate-consumer"), Some("fresh"));
}

#[test]
fn strangers_use_up_their_budget_and_callers_do_not() {
    let service = Service::new();
    let world = shop(&service).start();
    // Sixty callers from one address, as behind a proxy: none is a stranger, whatever was forgotten of them.
    let mut keys = Vec::new();
    for consumer in ["web", "desk"] {
        for _ in 0..30 {
            let path = format!("/v1/consumers/{consumer}/keys");
            let made = world.ask_control("POST", &path, &serde_json::json!({}));
            assert_eq!(made.status, 201, "{made:?}");
            keys.push(Key::shown(&made.json()));
        }
    }
    for _ in 0..2 {
        for key in &keys {
            assert_eq!(world.get_with(key, "/v1/books").status, 200);
        }
        world.ask_control("POST", "/v1/reload", &serde_json::json!({}));
    }
    assert_eq!(world.get_with(&keys[0], "/v1/books").status, 200);
    // Well-formed keys that nobody issued are looked up for a while, then no more.
    let stopped = (0..250_u8).find_map(|number| {
        let secret = make_key("live", [number; 16]);
        let answer = world.ask("GET", "/v1/books", &[("x-api-key", &secret)], b"");
        (answer.status != 401).then_some(answer)
    });
    let stopped = stopped.expect("a flood is stopped");
    stopped.is_problem(429, "too_many_unknown_credentials");
    assert!(stopped.header("retry-after").is_some(), "{stopped:?}");
    assert_eq!(
        world.get_with(&keys[0], "/v1/books").status,
        200,
        "who is held is served"
    );
}

#[test]
fn users_of_a_file_show_name_and_password() {
    let service = Service::new();
    let hash = hash_password("open sesame", *b"sixteen bytes ok").unwrap();
    let consumers = shop::CONSUMERS.replace(
        "            subscriptions: { shop: reader }\n",
        "            subscriptions: { shop: reader }\n            users:\n              - { name: clerk, password_hash: \"${CLERK}\" }\n",
    );
    let world = shop::bare(&service.url(), "")
        .file("plans.yaml", shop::PLANS)
        .file("consumers.yaml", &consumers)
        .environment("CLERK", hash.reveal())
        .start();
    let ask = |pair: &str| {
        let field = format!("Basic {}", base64(pair));
        world.ask("GET", "/v1/books", &[("authorization", &field)], b"")
    };
    for _ in 0..3 {
        assert_eq!(ask("clerk:open sesame").status, 200);
    }
    let call = service.last();
    assert_eq!(call.all("x-tollgate-consumer"), ["web"]);
    assert_eq!(call.header("authorization"), None);
    for pair in [
        "clerk:open sesamE",
        "clerk:",
        "nobody:open sesame",
        "web:open sesame",
    ] {
        ask(pair).is_problem(401, "credential_invalid");
    }
    assert_eq!(service.calls().len(), 3);
    let log = std::fs::read_to_string(world.file("access.log")).unwrap() + &world.log();
    assert!(!log.contains("sesame") && !log.contains("argon2"), "{log}");
}

#[test]
fn keys_of_files_may_be_ours_or_brought_along() {
    let service = Service::new();
    let brought = "legacy-key-of-an-older-gateway";
    let consumers = shop::CONSUMERS.replace(
        "          guest: {}\n",
        "          guest:\n            subscriptions: { shop: reader }\n            keys:\n              - { name: old, secret: \"${SHOP_OLD_KEY}\" }\n",
    );
    let world = shop::bare(&service.url(), "")
        .file("plans.yaml", shop::PLANS)
        .file("consumers.yaml", &consumers)
        .environment("SHOP_OLD_KEY", brought)
        .start();
    let answer = world.ask("GET", "/v1/books", &[("x-api-key", brought)], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(service.last().header("x-tollgate-consumer"), Some("guest"));
    let listed: Value = world.cli(&["keys", "list", "guest", "--json"]).json();
    assert_eq!(listed[0]["origin"]["kind"], "file", "{listed}");
    assert!(!listed.to_string().contains(brought));
    let refused = world.cli(&["keys", "delete", listed[0]["id"].as_str().unwrap()]);
    let said = refused.failed();
    assert!(said.contains("consumers.yaml:"), "{said}");
}
