//! Configuration changes while calls flow: none fails, a mistake hurts only its owner, and a restart remembers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::path::Path;
use std::time::{Duration, Instant};

use world::load::Load;
use world::tls::{self, TlsService};
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
    get: {{ operationId: {extra}, responses: {{ '200': {{ description: fine }} }} }}
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
        Self::at(tempfile::tempdir().unwrap())
    }

    fn at(home: tempfile::TempDir) -> Self {
        let two = Self {
            home,
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

#[test]
fn who_loses_a_base_path_leaves_no_series() {
    let two = Two::new();
    let world = two.start();
    world.get("/blue/first");
    replace(&two.file("blue.yaml"), &spec("/red", "usurped"));
    eventually("the conflict is shown", || {
        world.api("blue")["state"] == "conflicting"
    });
    assert_eq!(world.labels("operation", "usurped").len(), 0);
    assert_eq!(
        world.get("/blue/first").status,
        200,
        "its previous version stays"
    );
    // A newcomer that never served has nothing to count at all.
    std::fs::remove_file(two.file("config/apis/blue.yaml")).unwrap();
    eventually("blue is gone", || world.get("/blue/first").status == 404);
    let late = world::api_file(&two.file("blue.yaml"), &two.service.url(), "");
    replace(&two.file("config/apis/late.yaml"), &late);
    eventually("the newcomer is refused", || {
        world.apis().to_string().contains("conflicting")
    });
    let metrics = world.metrics();
    let late: Vec<_> = metrics
        .lines()
        .filter(|line| line.contains("api=\"late\""))
        .collect();
    assert!(
        late.iter().all(|line| line.starts_with("tollgate_api_")),
        "only that it was refused: {late:?}"
    );
}

#[test]
fn a_replaced_certificate_is_taken_into_use_without_another_file_changing() {
    let service = TlsService::new();
    let home = tempfile::tempdir().unwrap();
    let (description, trusted) = (home.path().join("red.yaml"), home.path().join("pki/ca.pem"));
    std::fs::create_dir(home.path().join("pki")).unwrap();
    std::fs::write(&description, spec("/red", "first")).unwrap();
    std::fs::write(&trusted, tls::stranger()).unwrap();
    let policy = format!(
        "  tls: {{ server_name: {}, ca: {} }}\n",
        tls::NAME,
        trusted.display()
    );
    let url = format!("https://{}", service.address);
    let plan = || Plan::before(&url).api("red", world::api_file(&description, &url, &policy));
    plan().write(home.path());
    let world = plan().start_again(home.path());
    assert_eq!(
        world.get("/red/first").status,
        502,
        "a service nobody knows"
    );
    replace(&trusted, &service.certificate);
    eventually("the service is known", || {
        world.get("/red/first").status == 200
    });
    // And back, in the way Kubernetes' volumes never do: written in place.
    std::fs::write(&trusted, tls::stranger()).unwrap();
    eventually("the service is a stranger again", || {
        world.get("/red/first").status == 502
    });
    std::fs::write(&trusted, "no certificate").unwrap();
    eventually("the broken file is refused", || {
        world.api("red")["state"] == "serving_previous"
    });
    let error = world.api("red")["last_error"].to_string();
    assert!(error.contains("ca.pem"), "{error}");
}

#[test]
fn a_thousand_reloads_under_load_fail_no_request_and_leave_nothing_behind() {
    // In memory where there is such a place: each version is kept durably, and waiting for a disk proves nothing here.
    let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let two = Two::at(home.unwrap());
    let world = two.start();
    let kept = Load::kept(world.address, "/red/steady");
    let fresh = Load::on(world.address, "/blue/steady");
    let mut client = world.client();
    let mut early = None;
    let begun = Instant::now();
    for round in 1..=1000 {
        let operation = format!("round{round}");
        replace(&two.file("red.yaml"), &spec("/red", &operation));
        world.signal("HUP");
        let path = format!("/red/{operation}");
        loop {
            client.request("GET", &path, &[], b"");
            if client.answer().expect("an answer").status == 200 {
                break;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(300),
                "stuck at {round}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        if round == 100 {
            early = Some(world.footprint());
        }
    }
    let took = begun.elapsed();
    kept.lost_nothing();
    fresh.lost_nothing();
    let (early, late) = (early.unwrap(), world.footprint());
    eprintln!("1,000 reloads in {took:?}: {early:?}, then {late:?}");
    assert_eq!(world.api("red")["generation"], 1001);
    assert!(
        late.resident_kib <= early.resident_kib + 5 * 1024,
        "{early:?} {late:?}"
    );
    assert!(
        late.descriptors <= early.descriptors + 8,
        "{early:?} {late:?}"
    );
    assert!(late.series <= early.series + 100, "{early:?} {late:?}");
    // Series go with the reload after the last call on their version: calls of the load may have been under way for long.
    replace(&two.file("red.yaml"), &spec("/red", "last"));
    world.signal("HUP");
    eventually("the last version is served", || {
        world.get("/red/last").status == 200
    });
    let operations = world.labels("operation", "round");
    assert!(operations.len() <= 2, "{operations:?}");
}
