//! Configuration changes while calls flow: none fails, a mistake hurts only its owner, and a restart remembers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::path::Path;

use world::load::Load;
use world::{Plan, Service, World, eventually};

/// One API under `base` with the operations `/steady` and `/{extra}`.
fn spec(base: &str, extra: &str) -> String {
    format!(
        "openapi: 3.1.0
info: {{ title: Live, version: '1-{extra}' }}
servers: [{{ url: {base} }}]
paths:
  /steady:
    get: {{ operationId: steady, responses: {{ '200': {{ description: fine }} }} }}
  /{extra}:
    get: {{ operationId: extra, responses: {{ '200': {{ description: fine }} }} }}
"
    )
}

/// Replaced in one step, as editors and deployments do.
fn replace(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, file).unwrap();
}

struct Two {
    home: tempfile::TempDir,
    service: Service,
}

impl Two {
    fn new() -> Self {
        let two = Self {
            home: tempfile::tempdir().unwrap(),
            service: Service::new(),
        };
        std::fs::write(two.file("red.yaml"), spec("/red", "first")).unwrap();
        std::fs::write(two.file("blue.yaml"), spec("/blue", "first")).unwrap();
        two.plan().write(two.home.path());
        two
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    fn plan(&self) -> Plan {
        let api = |name: &str| world::api_file(&self.file(name), &self.service.url(), "");
        Plan::bookstore(&self.service)
            .api("red", api("red.yaml"))
            .api("blue", api("blue.yaml"))
    }

    fn start(&self) -> World {
        self.plan().start_again(self.home.path())
    }
}

#[test]
fn many_apis_are_served_side_by_side() {
    let two = Two::new();
    let world = two.start();
    assert_eq!(world.get("/red/steady").status, 200);
    assert_eq!(world.get("/blue/steady").status, 200);
    assert_eq!(world.get("/green/steady").status, 404);
    assert_eq!(world.api("red")["state"], "serving");
}

#[test]
fn edits_take_effect_and_no_request_fails() {
    let two = Two::new();
    let world = two.start();
    let load = Load::on(world.address, "/red/steady");
    for round in 0..10 {
        let extra = format!("extra-{round}");
        replace(&two.file("red.yaml"), &spec("/red", &extra));
        let path = format!("/red/{extra}");
        eventually("the edit takes effect", || world.get(&path).status == 200);
        load.goes_on();
    }
    load.lost_nothing();
    assert_eq!(world.get("/red/first").status, 404, "what went is gone");
    assert!(world.api("red")["generation"].as_u64().unwrap() > 1);
    assert_eq!(
        world.api("blue")["generation"],
        1,
        "the other API was left alone"
    );
}

#[test]
fn a_broken_file_leaves_its_api_on_the_previous_version() {
    let two = Two::new();
    let world = two.start();
    let load = Load::on(world.address, "/red/steady");
    replace(
        &two.file("red.yaml"),
        "openapi: 3.1.0\npaths: [ this is { no YAML\n",
    );
    eventually("the error is shown", || {
        world.api("red")["state"] == "serving_previous"
    });
    load.goes_on();
    assert_eq!(world.get("/red/first").status, 200);
    assert_eq!(world.get("/blue/first").status, 200);
    let error = world.api("red")["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("red.yaml"), "it names the file: {error}");
    assert_eq!(world.api("blue")["state"], "serving");
    assert!(
        world.log().contains("red.yaml"),
        "the log says it too: {}",
        world.log()
    );
    assert!(
        world.metrics().contains("tollgate_api_reload_failed"),
        "and a metric"
    );
    let admin = world.admin.to_string();
    let (_, out, err) = world::run(&["status", "--admin", &admin]);
    assert!(
        out.contains("red") && out.contains("serving_previous"),
        "{out}{err}"
    );
    // Repaired, it is served again.
    replace(&two.file("red.yaml"), &spec("/red", "repaired"));
    eventually("the repair takes effect", || {
        world.get("/red/repaired").status == 200
    });
    assert_eq!(world.api("red")["state"], "serving");
    load.lost_nothing();
}

#[test]
fn a_restart_with_a_broken_file_serves_the_last_known_good_version() {
    let two = Two::new();
    let world = two.start();
    assert_eq!(world.get("/red/first").status, 200);
    drop(world.kill());
    replace(&two.file("red.yaml"), "{ broken");
    let world = two.start();
    assert_eq!(world.get("/red/first").status, 200);
    assert_eq!(world.get("/blue/first").status, 200);
    assert_eq!(world.api("red")["state"], "serving_last_known_good");
    assert!(world.log().contains("red"), "it says so: {}", world.log());
}

#[test]
fn an_api_that_never_was_good_takes_no_other_down() {
    let two = Two::new();
    std::fs::write(two.file("red.yaml"), "{ broken").unwrap();
    let world = two.start();
    assert_eq!(world.get("/blue/first").status, 200);
    assert_eq!(world.get("/red/first").status, 404);
    assert_eq!(world.api("red")["state"], "refused");
}

#[test]
fn sighup_reloads() {
    let two = Two::new();
    let world = two.start();
    replace(&two.file("red.yaml"), &spec("/red", "hup"));
    world.signal("HUP");
    eventually("the edit takes effect", || {
        world.get("/red/hup").status == 200
    });
}

#[test]
fn of_two_apis_for_one_base_path_the_serving_one_stays() {
    let two = Two::new();
    let world = two.start();
    replace(&two.file("blue.yaml"), &spec("/red", "usurped"));
    eventually("the conflict is shown", || {
        world.api("blue")["state"] != "serving"
    });
    assert_eq!(world.get("/red/first").status, 200);
    assert_eq!(world.get("/red/usurped").status, 404);
}
