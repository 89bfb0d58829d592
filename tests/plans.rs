//! What was sold decides what a consumer may call; what a file defines is changed in the file alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use serde_json::{Value, json};
use world::Service;
use world::shop::{shop, shop_with};

#[test]
fn a_plan_opens_its_operations_and_no_others() {
    let service = Service::new();
    let world = shop(&service).start();
    let (web, desk) = (world.key("web"), world.key("desk"));
    assert_eq!(world.get_with(&web, "/v1/books").status, 200);
    assert_eq!(world.get_with(&web, "/v1/books/1").status, 200);
    let delete = |key: &world::shop::Key| {
        world.ask("DELETE", "/v1/books/1", &[("x-api-key", &key.secret)], b"")
    };
    let refused = delete(&web);
    refused.is_problem(403, "not_in_plan");
    let record = world.record(refused.header("x-request-id").unwrap());
    assert_eq!(record["consumer"], "web", "{record}");
    assert_eq!(record["plan"], "reader", "{record}");
    let reason = record["reason"].as_str().unwrap();
    assert!(reason.contains("plans.yaml:4:"), "{reason}");
    assert_eq!(delete(&desk).status, 200);
    assert_eq!(service.last().header("x-tollgate-plan"), Some("all"));
}

#[test]
fn without_a_plan_or_suspended_nothing_opens_but_what_is_public() {
    let service = Service::new();
    let world = shop(&service).start();
    let (guest, banned) = (world.key("guest"), world.key("banned"));
    world
        .get_with(&guest, "/v1/books")
        .is_problem(403, "not_subscribed");
    world
        .get_with(&banned, "/v1/books")
        .is_problem(403, "consumer_suspended");
    assert_eq!(service.calls().len(), 0);
    for key in [&guest, &banned] {
        assert_eq!(world.get_with(key, "/v1/public").status, 200);
    }
}

#[test]
fn plans_sold_suspended_and_ended_count_from_the_next_call() {
    let service = Service::new();
    let world = shop(&service).start();
    let made = ["consumers", "create", "partner", "--project", "floor"];
    world.cli(&made).good();
    let key = world.key("partner");
    let books = || world.get_with(&key, "/v1/books");
    books().is_problem(403, "not_subscribed");
    world
        .cli(&["consumers", "subscribe", "partner", "shop", "reader"])
        .good();
    assert_eq!(books().status, 200);
    world.cli(&["consumers", "suspend", "partner"]).good();
    books().is_problem(403, "consumer_suspended");
    world.cli(&["consumers", "resume", "partner"]).good();
    assert_eq!(books().status, 200);
    world
        .cli(&["plans", "create", "nothing-much", "--api", "shop=getBook"])
        .good();
    world
        .cli(&["consumers", "subscribe", "partner", "shop", "nothing-much"])
        .good();
    books().is_problem(403, "not_in_plan");
    world
        .cli(&["consumers", "unsubscribe", "partner", "shop"])
        .good();
    books().is_problem(403, "not_subscribed");
    world.cli(&["consumers", "delete", "partner"]).good();
    books().is_problem(401, "credential_invalid");
}

#[test]
fn a_suspension_holds_for_a_consumer_of_a_file_as_well() {
    let service = Service::new();
    let world = shop(&service).start();
    let key = world.key("web");
    assert_eq!(world.get_with(&key, "/v1/books").status, 200);
    world.cli(&["consumers", "suspend", "web"]).good();
    world
        .get_with(&key, "/v1/books")
        .is_problem(403, "consumer_suspended");
    world.cli(&["consumers", "resume", "web"]).good();
    assert_eq!(world.get_with(&key, "/v1/books").status, 200);
}

#[test]
fn what_a_file_defines_is_read_only_and_the_answer_says_where_it_stands() {
    let service = Service::new();
    let world = shop(&service).start();
    let table: [(&[&str], &str); 6] = [
        (&["plans", "delete", "reader"], "plans.yaml:4"),
        (&["plans", "create", "reader", "--api", "*"], "plans.yaml:4"),
        (&["consumers", "delete", "web"], "consumers.yaml:9"),
        (
            &["consumers", "subscribe", "web", "shop", "all"],
            "consumers.yaml:9",
        ),
        (
            &["consumers", "unsubscribe", "web", "shop"],
            "consumers.yaml:9",
        ),
        (&["projects", "delete", "floor"], "consumers.yaml:4"),
    ];
    for (verb, place) in table {
        let refused = world.cli(verb);
        let said = refused.failed();
        assert!(said.contains(place), "{verb:?}: {said}");
    }
    let refused = world.ask_control("DELETE", "/v1/plans/reader", &Value::Null);
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.text().contains("plans.yaml:4"), "{refused:?}");
    let shown = world.cli(&["plans", "show", "reader", "--json"]).json();
    assert_eq!(shown["origin"]["kind"], "file", "{shown}");
    assert_eq!(shown["origin"]["line"], 4, "{shown}");
    let key = world.key("web");
    assert_eq!(
        world.get_with(&key, "/v1/books").status,
        200,
        "nothing changed"
    );
}

#[test]
fn where_plans_are_off_none_is_asked_for() {
    let service = Service::new();
    let world = shop_with(&service, "auth:\n  subscription: off\n").start();
    let (guest, web) = (world.key("guest"), world.key("web"));
    assert_eq!(world.get_with(&guest, "/v1/books").status, 200);
    assert_eq!(service.last().header("x-tollgate-consumer"), Some("guest"));
    assert_eq!(service.last().header("x-tollgate-plan"), None);
    let deleted = world.ask("DELETE", "/v1/books/1", &[("x-api-key", &web.secret)], b"");
    assert_eq!(deleted.status, 200, "a plan that is held does not narrow");
    let banned = world.key("banned");
    world
        .get_with(&banned, "/v1/books")
        .is_problem(403, "consumer_suspended");
}

#[test]
fn where_plans_are_required_every_caller_needs_one() {
    let service = Service::new();
    let world = shop_with(&service, "auth:\n  subscription: required\n").start();
    let (guest, web) = (world.key("guest"), world.key("web"));
    world
        .get_with(&guest, "/v1/books")
        .is_problem(403, "not_subscribed");
    assert_eq!(world.get_with(&web, "/v1/books").status, 200);
}

#[test]
fn administration_needs_its_credential() {
    let service = Service::new();
    let world = shop(&service).start();
    let key = world.key("desk");
    let tries = [
        String::new(),
        "authorization: Bearer wrong\r\n".to_owned(),
        format!("authorization: Bearer {}\r\n", key.secret),
        format!("x-api-key: {}\r\n", key.secret),
    ];
    for headers in tries {
        for (method, path) in [("GET", "/v1/consumers"), ("POST", "/v1/organisations")] {
            let answer = world.ask_control_as(&headers, method, path, &json!({ "name": "x" }));
            assert_eq!(answer.status, 401, "{headers}{method} {path}: {answer:?}");
            assert!(!answer.text().contains("desk"), "{answer:?}");
        }
    }
    let mode = std::fs::metadata(world.admin_credential())
        .unwrap()
        .permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o600
    );
    assert_eq!(
        world
            .ask_control("GET", "/v1/consumers", &Value::Null)
            .status,
        200
    );
    // Neither the traffic port nor the admin port leads there.
    assert_eq!(world.get("/v1/consumers").status, 404);
    assert!(!world.admin_get("/v1/consumers").contains("desk"));
}

#[test]
fn consumers_are_changed_and_unused_terms_deleted_by_the_command_line() {
    let service = Service::new();
    let world = shop(&service).start();
    let cli = |arguments: &[&str]| world.cli(arguments).good().to_owned();
    let hash = "$argon2id$v=19$m=65536,t=2,p=1$gZiV/M1gPc22ElAH/Jh1Hw$CWOrkoo7oJBQ/iyh7uJ0LO2aLEfrHwTWllSAxT0zRno";
    cli(&[
        "consumers",
        "create",
        "till",
        "--project",
        "floor",
        "--role",
        "staff",
        "--user",
        "till",
        hash,
    ]);
    let shown = world.cli(&["consumers", "show", "till", "--json"]).json();
    assert_eq!(shown["users"], json!(["till"]), "{shown}");
    cli(&["consumers", "change", "till", "--explains", "true"]);
    cli(&[
        "consumers",
        "change",
        "till",
        "--role",
        "night",
        "--role",
        "day",
    ]);
    let shown = world.cli(&["consumers", "show", "till", "--json"]).json();
    assert_eq!(shown["roles"], json!(["night", "day"]), "{shown}");
    assert_eq!(shown["explains"], true, "{shown}");
    cli(&["consumers", "change", "till", "--no-roles"]);
    let shown = world.cli(&["consumers", "show", "till", "--json"]).json();
    assert_eq!(shown["roles"], json!([]), "{shown}");
    let refused = world.cli(&["consumers", "change", "web", "--no-roles"]);
    assert!(refused.failed().contains("consumers.yaml"), "{refused:?}");
    cli(&["terms", "create", "draft"]);
    assert!(cli(&["terms", "delete", "draft"]).contains("deleted"));
    assert!(!world.cli(&["terms", "show", "draft"]).status.success());
}
