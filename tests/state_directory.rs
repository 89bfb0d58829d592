//! A state directory that cannot be used is told of in one line; one that is full stops nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use world::disk::Disk;
use world::load::Load;
use world::{Plan, Service, World, eventually};

/// One clear line, which names what to do.
fn says_so(said: &str, why: &str) {
    let lines = said.lines().filter(|line| !line.trim().is_empty());
    assert_eq!(lines.count(), 1, "{said}");
    assert!(said.contains(why) && said.contains("--state-dir"), "{said}");
}

#[test]
fn a_place_where_no_directory_can_be_is_refused() {
    let service = Service::new();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    std::fs::write(&file, "").unwrap();
    let said = World::refused(Plan::bookstore(&service).state(&file.join("below")));
    says_so(&said, "Not a directory");
}

#[test]
fn a_read_only_state_directory_is_refused() {
    let service = Service::new();
    let Some(disk) = Disk::new() else { return };
    disk.make_read_only();
    let said = World::refused(Plan::bookstore(&service).state(disk.path()));
    says_so(&said, "Read-only file system");
}

#[test]
fn a_full_state_directory_stops_neither_a_start_nor_a_hand_over() {
    let service = Service::new();
    let Some(disk) = Disk::new() else { return };
    disk.fill();
    let mut world = Plan::bookstore(&service).state(disk.path()).start();
    assert_eq!(world.get("/v1/books").status, 200);
    let log = world.log();
    assert!(log.contains("serving all the same"), "{log}");
    let load = Load::on(world.address, "/v1/books");
    let successor = world.successor(Plan::bookstore(&service).state(disk.path()));
    load.goes_on();
    assert!(world.ended().success());
    load.lost_nothing();
    // A second instance by accident is still refused.
    let rival = successor.rival(Plan::bookstore(&service).state(disk.path()));
    assert!(rival.contains("is already served"), "{rival}");
}

#[test]
fn a_disk_that_becomes_full_stops_no_reload() {
    let service = Service::new();
    let Some(disk) = Disk::new() else { return };
    let home = tempfile::tempdir().unwrap();
    let description = home.path().join("books.yaml");
    let text = std::fs::read_to_string(world::bookstore()).unwrap();
    std::fs::write(&description, &text).unwrap();
    let plan = || {
        let file = world::api_file(&description, &service.url(), "");
        Plan::bookstore(&service)
            .api("books", file)
            .state(disk.path())
    };
    plan().write(home.path());
    let world = plan().start_again(home.path());
    disk.fill();
    let changed = text.replace("/books/new-arrivals", "/books/fresh");
    std::fs::write(&description, changed).unwrap();
    world.signal("HUP");
    eventually("the change is served", || {
        world.api("books")["generation"] == 2
    });
    assert_eq!(world.api("books")["state"], "serving");
    eventually("it says what it could not keep", || {
        world.log().contains("not kept as last-known-good")
    });
    // What was kept before is still there for a start with a broken file.
    drop(world.kill());
    std::fs::write(&description, "{ broken").unwrap();
    let world = plan().start_again(home.path());
    assert_eq!(world.api("books")["state"], "serving_last_known_good");
    assert_eq!(world.get("/v1/books").status, 200);
}
