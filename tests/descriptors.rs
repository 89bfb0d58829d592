//! Too few file descriptors: who is in is served, who comes too late is turned away, and nothing is mistaken for broken.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::net::TcpStream;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use world::service::ok;
use world::{Client, Plan, Service, Then, World, eventually};

const SECOND: Duration = Duration::from_secs(1);

/// Connections that say nothing.
fn crowd(world: &World, size: usize) -> Vec<TcpStream> {
    (0..size)
        .filter_map(|_| TcpStream::connect_timeout(&world.address, SECOND).ok())
        .collect()
}

fn asks(client: &mut Client, path: &str) -> u16 {
    client.request("GET", path, &[], b"");
    client.answer().map_or(0, |answer| answer.status)
}

/// Takes at most a fifth of one core.
fn is_quiet(world: &World) {
    let spent = world.cpu_time_in(SECOND);
    assert!(spent <= SECOND / 5, "{spent:?} of a second");
}

#[test]
fn a_crowd_beyond_the_descriptors_is_turned_away_and_costs_nobody_else_anything() {
    let service = Service::new();
    let world = Plan::bookstore(&service).descriptors(256).start();
    assert!(
        world.log().contains("limits.connections is lowered"),
        "it says so: {}",
        world.log()
    );
    let mut kept: Vec<Client> = (0..20).map(|_| world.client()).collect();
    for client in &mut kept {
        assert_eq!(asks(client, "/v1/books"), 200);
    }
    let crowd = crowd(&world, 500);
    let before = world.log().lines().count();
    is_quiet(&world);
    for client in &mut kept {
        assert_eq!(asks(client, "/v1/books"), 200);
    }
    let open = world.descriptors();
    assert!(
        open <= 256 - 40,
        "{open} open: some are left for files and services"
    );
    let told = world.log().lines().count() - before;
    assert!(told <= 3, "{told} lines:\n{}", world.log());
    assert!(world.metrics().contains("cause=\"permits\""));
    drop(crowd);
    let gone = Instant::now();
    eventually("there is room again", || {
        Client::try_connect(world.address)
            .is_some_and(|mut client| asks(&mut client, "/v1/books") == 200)
    });
    assert!(gone.elapsed() < 2 * SECOND, "{:?}", gone.elapsed());
}

#[test]
fn idle_connections_to_a_service_leave_descriptors_to_others() {
    const CALLS: usize = 60;
    let all_came = Arc::new(Barrier::new(CALLS));
    let service = Service::answering(move |_, stream| {
        all_came.wait();
        ok(stream, "ok")
    });
    let world = Plan::bookstore(&service).descriptors(256).start();
    let before = world.descriptors();
    let mut clients: Vec<Client> = (0..CALLS).map(|_| world.client()).collect();
    for client in &mut clients {
        client.request("GET", "/v1/books", &[], b"");
    }
    for client in &mut clients {
        assert_eq!(client.answer().unwrap().status, 200);
    }
    drop(clients);
    // A sixth of what is above the reserve.
    let idle = (256 - 64) / 6;
    eventually("few are kept", || world.descriptors() <= before + idle);
    assert_eq!(service.connections(), CALLS, "there was one for each call");
}

#[test]
fn without_a_descriptor_left_kept_connections_are_served_and_nothing_spins() {
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let mut kept = world.client();
    assert_eq!(asks(&mut kept, "/v1/books"), 200);
    let Some(starved) = world.starve() else {
        return;
    };
    let crowd = crowd(&world, 50);
    let before = world.log().lines().count();
    is_quiet(&world);
    let told = world.log().lines().count() - before;
    assert!(told <= 3, "{told} lines:\n{}", world.log());
    for _ in 0..20 {
        assert_eq!(asks(&mut kept, "/v1/books"), 200);
    }
    drop(starved);
    drop(crowd);
    eventually("new connections are served", || {
        Client::try_connect(world.address)
            .is_some_and(|mut client| asks(&mut client, "/v1/books") == 200)
    });
}

#[test]
fn a_connection_that_cannot_be_opened_for_lack_of_descriptors_is_not_the_services_fault() {
    let service = Service::answering(|_, stream| {
        ok(stream, "ok");
        Then::Close
    });
    let world = Plan::bookstore(&service).start();
    // One connection for each call: some refusals close theirs.
    let mut kept: Vec<Client> = (0..20).map(|_| world.client()).collect();
    for client in &mut kept {
        assert_eq!(asks(client, "/v1/books"), 200);
    }
    let Some(starved) = world.starve() else {
        return;
    };
    for (number, client) in kept.iter_mut().enumerate() {
        // By both ways to the service.
        match number % 2 {
            0 => client.request("GET", "/v1/books", &[], b""),
            _ => client.request("POST", "/v1/books/1/reviews", &[], b"{}"),
        }
        client.answer().unwrap().is_problem(503, "overloaded");
    }
    drop(starved);
    assert_eq!(world.get("/v1/books").status, 200);
    assert!(!world.log().contains("ejected"), "{}", world.log());
}

#[test]
fn a_reload_without_descriptors_is_put_off_and_no_file_is_blamed() {
    let service = Service::new();
    let home = tempfile::tempdir().unwrap();
    let description = home.path().join("books.yaml");
    let text = std::fs::read_to_string(world::bookstore()).unwrap();
    std::fs::write(&description, &text).unwrap();
    let plan = || {
        let file = world::api_file(&description, &service.url(), "");
        Plan::bookstore(&service).api("books", file)
    };
    plan().write(home.path());
    let world = plan().start_again(home.path());
    let mut kept = world.client();
    assert_eq!(asks(&mut kept, "/v1/books"), 200);
    let Some(starved) = world.starve() else {
        return;
    };
    std::fs::write(
        &description,
        text.replace("/books/new-arrivals", "/books/fresh"),
    )
    .unwrap();
    world.signal("HUP");
    eventually("it says that it cannot look", || {
        world.log().contains("too many open files")
    });
    assert_eq!(asks(&mut kept, "/v1/books"), 200);
    drop(starved);
    eventually("the change is taken up", || {
        world.api("books")["generation"] == 2
    });
    let books = world.api("books");
    assert_eq!(books["state"], "serving");
    assert_eq!(books["last_error"], "");
    assert!(
        !world.log().contains("the previous version stays"),
        "{}",
        world.log()
    );
    let failed = world.metrics();
    assert!(!failed.contains("result=\"failed\""), "{failed}");
}
