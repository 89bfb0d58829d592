//! Plans, consumers and terms are files: what is changed there counts within moments, and what is broken there changes nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::time::{Duration, Instant};

use world::shop::{CONSUMERS, Key, PLANS, shop};
use world::{Service, World, eventually};

/// What is promised for an edit.
const SOON: Duration = Duration::from_secs(2);

fn write(world: &World, name: &str, text: &str) -> Instant {
    std::fs::write(world.file("config").join(name), text).unwrap();
    Instant::now()
}

/// Waits until `getBook` answers so; gives when it did.
fn answers(world: &World, key: &Key, status: u16) -> Instant {
    eventually(&format!("the answer is {status}"), || {
        world.get_with(key, "/v1/books/1").status == status
    });
    Instant::now()
}

/// On a machine that is busy with other tests, an edit may take a little longer than promised.
fn was_soon(begun: Instant, then: Instant) {
    let took = then.duration_since(begun);
    assert!(took < SOON + Duration::from_secs(1), "{took:?}");
}

#[test]
fn an_edit_counts_within_two_seconds() {
    let service = Service::new();
    let world = shop(&service).start();
    let key = world.key("guest");
    world
        .get_with(&key, "/v1/books/1")
        .is_problem(403, "not_subscribed");
    let sold = CONSUMERS.replace("guest: {}", "guest: { subscriptions: { shop: reader } }");
    let begun = write(&world, "consumers.yaml", &sold);
    was_soon(begun, answers(&world, &key, 200));
    let narrower = PLANS.replace("[listBooks, getBook]", "[listBooks]");
    let begun = write(&world, "plans.yaml", &narrower);
    was_soon(begun, answers(&world, &key, 403));
    world
        .get_with(&key, "/v1/books/1")
        .is_problem(403, "not_in_plan");
    let suspended = CONSUMERS.replace("guest: {}", "guest: { suspended: true }");
    write(&world, "consumers.yaml", &suspended);
    eventually("the suspension holds", || {
        let answer = world.get_with(&key, "/v1/books");
        answer.status == 403 && answer.text().contains("consumer_suspended")
    });
    // Gone from the file, gone from the gateway; its keys lead nowhere.
    let begun = write(
        &world,
        "consumers.yaml",
        &CONSUMERS.replace("          guest: {}\n", ""),
    );
    was_soon(begun, answers(&world, &key, 401));
}

#[test]
fn a_signal_is_not_waited_for() {
    let service = Service::new();
    let world = shop(&service).start();
    let key = world.key("guest");
    let sold = CONSUMERS.replace("guest: {}", "guest: { subscriptions: { shop: reader } }");
    write(&world, "consumers.yaml", &sold);
    world.signal("HUP");
    answers(&world, &key, 200);
    assert!(
        world.log().contains("directory read again"),
        "{}",
        world.log()
    );
}

#[test]
fn a_broken_file_changes_nothing_and_is_named() {
    let service = Service::new();
    let world = shop(&service).start();
    let key = world.key("web");
    assert_eq!(world.get_with(&key, "/v1/books/1").status, 200);
    let broken = [
        ("consumers.yaml", "organisations: [\n".to_owned()),
        (
            "consumers.yaml",
            CONSUMERS.replace("web:", "web: { rolls: [] }\n          wob:"),
        ),
        (
            "consumers.yaml",
            CONSUMERS.replace("shop: reader", "shop: raeder"),
        ),
        ("plans.yaml", PLANS.replace("shop: all", "shop: everything")),
    ];
    for (number, (name, text)) in broken.iter().enumerate() {
        let good = std::fs::read_to_string(world.file("config").join(name)).unwrap();
        write(&world, name, text);
        let complaints = || world.log().matches("the directory stays as it is").count();
        eventually("the mistake is told", || complaints() > number);
        let log = world.log();
        let told = log.lines().filter(|line| line.contains(name)).count();
        assert!(told > 0, "{name}: {log}");
        assert_eq!(world.get_with(&key, "/v1/books/1").status, 200, "{text}");
        let read_again = || world.log().matches("directory read again").count();
        let before = read_again();
        write(&world, name, &good);
        eventually("the good file is read", || read_again() > before);
    }
    assert_eq!(world.get_with(&key, "/v1/books/1").status, 200);
}

#[test]
fn a_start_with_a_broken_file_serves_the_last_that_was_good() {
    let service = Service::new();
    let world = shop(&service).start();
    let key = world.key("web");
    assert_eq!(world.get_with(&key, "/v1/books/1").status, 200);
    let home = world.kill();
    let broken = shop(&service).file("consumers.yaml", "organisations: { bookshop: oops }\n");
    broken.write(home.path());
    let world = broken.start_again(home.path());
    assert_eq!(world.get_with(&key, "/v1/books/1").status, 200);
    assert!(world.log().contains("consumers.yaml:1:"), "{}", world.log());
    assert!(
        world.log().contains("the last that could be read"),
        "{}",
        world.log()
    );
    // Mended, it counts.
    let sold = CONSUMERS.replace("shop: reader", "shop: all");
    write(&world, "consumers.yaml", &sold);
    eventually("the mended file is read", || {
        let headers = [("x-api-key", &*key.secret)];
        world.ask("DELETE", "/v1/books/1", &headers, b"").status == 200
    });
}

#[test]
fn a_first_start_with_a_broken_file_is_refused_and_says_where() {
    let service = Service::new();
    let said = World::refused(shop(&service).file("plans.yaml", "plans: { a: { apis: 7 } }\n"));
    assert!(said.contains("plans.yaml:1:"), "{said}");
}

#[test]
fn files_that_come_later_are_found() {
    let service = Service::new();
    let world = world::shop::bare(&service.url(), "").start();
    world
        .get("/v1/books")
        .is_problem(401, "credential_required");
    write(&world, "plans.yaml", PLANS);
    write(&world, "consumers.yaml", CONSUMERS);
    eventually("the consumers are known", || {
        world.cli(&["consumers", "show", "web"]).status.success()
    });
    let key = world.key("web");
    assert_eq!(world.get_with(&key, "/v1/books").status, 200);
}

#[test]
fn what_file_and_store_both_define_is_the_files() {
    let service = Service::new();
    let world = shop(&service).start();
    world
        .cli(&[
            "consumers",
            "create",
            "late",
            "--project",
            "floor",
            "--subscribe",
            "shop=all",
        ])
        .good();
    let key = world.key("late");
    assert_eq!(world.get_with(&key, "/v1/events").status, 200);
    let both = CONSUMERS.to_owned() + "          late: { subscriptions: { shop: reader } }\n";
    write(&world, "consumers.yaml", &both);
    eventually("the file counts", || {
        world.get_with(&key, "/v1/events").status == 403
    });
    let shown = world.cli(&["consumers", "show", "late", "--json"]).json();
    assert_eq!(shown["origin"]["kind"], "file", "{shown}");
}
