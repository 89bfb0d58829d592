//! What may befall an installation, with real processes: two nodes of one identity, a control plane that lies, disks that are full or
//! read-only, clocks that jump, and a flood of questions. In all of it nobody is let in without a credential that counts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod liar;
mod world;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use liar::{Liar, Lie};
use rustls::ClientConfig;
use tollgate_control::{Ca, CaOptions};
use tollgate_gateway::node::{NodeIdentity, channel, join};
use tollgate_proto::wire::control_client::ControlClient;
use tollgate_proto::wire::{self, check_request, check_response, credential_ref};
use world::clock::Clock;
use world::disk::{Disk, Sealed};
use world::fleet::{Fleet, Member, Special};
use world::{Service, eventually};

const BOOKS: &str = "/v1/books";
/// Between calls of strangers, so that their address may go on having keys looked up.
const PAUSE: Duration = Duration::from_millis(200);
/// In the form of a key, and nobody's.
const NOBODY: &str = "tg_live_7FDEL8T1cel14i4aXt9adq2wwGoh";

/// Nobody comes in who shows nothing, nothing that counts, or what was revoked.
fn admits_no_stranger(edge: &Member, revoked: &str) {
    for stranger in ["", "nonsense", NOBODY, revoked] {
        let status = edge.status(BOOKS, stranger);
        // 429: who tries too many keys is not even looked up.
        let refused = matches!(status, 401 | 429 | 503);
        assert!(refused, "{stranger:?}: {status}");
    }
}

/// A key that was revoked, known as such at this gateway.
fn revoked_key(fleet: &Fleet, edge: &Member) -> String {
    let (id, revoked) = fleet.key("web");
    eventually("it is served", || edge.status(BOOKS, &revoked) == 200);
    fleet.cli(&["keys", "revoke", &id]);
    eventually("it is refused", || edge.status(BOOKS, &revoked) == 401);
    revoked
}

/// The plan of `desk` allows so many calls in all.
fn allow(fleet: &Fleet, calls: u32) {
    let plans = world::fleet::PLANS.replace(
        "amount: 100000, window: 1d",
        &format!("amount: {calls}, window: lifetime"),
    );
    std::fs::write(fleet.config("plans.yaml"), plans).unwrap();
}

#[test]
fn two_processes_with_one_identity_spend_nothing_twice_lose_no_usage_and_are_seen() {
    let mut fleet = Fleet::start("");
    allow(&fleet, 300);
    let app = Service::new();
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let edge = fleet.gateway("edge-1");
    let (unlimited, limited) = (fleet.key("web").1, fleet.key("desk").1);
    let (mut web, mut desk) = (0, 0);
    eventually("the plan is as it was changed", || {
        let answer = edge.call("GET", BOOKS, &[("x-api-key", &limited)]);
        let served = answer.filter(|it| it.status == 200);
        desk += u64::from(served.is_some());
        served.is_some_and(|it| it.header("ratelimit-policy").unwrap().contains("q=300"))
    });
    let serve = |edge: &Member, count: &mut u64| {
        *count += u64::from(edge.status(BOOKS, &unlimited) == 200);
    };
    eventually("it is served", || {
        serve(&edge, &mut web);
        web > 0
    });
    eventually("callers are kept", || edge.state.join("callers").exists());
    std::thread::sleep(Duration::from_secs(1));
    // Records wait in the journal: the copy has them as well, and the lock on them is another file's.
    fleet.control.kill();
    for _ in 0..30 {
        serve(&edge, &mut web);
    }
    let twin = fleet.twin(&edge, "edge-2");
    for _ in 0..20 {
        serve(&edge, &mut web);
        serve(&twin, &mut web);
    }
    assert_eq!(twin.status(BOOKS, NOBODY), 503);
    fleet.control.start_again();
    eventually("both are seen, and said to be two", || {
        let (success, listed, _) = fleet.try_cli(&["nodes"]);
        let warned = listed
            .lines()
            .filter(|line| line.contains("edge-1") && line.contains("another process"));
        success && warned.count() == 2
    });
    eventually("both are granted", || {
        let mut granted = |edge: &Member| {
            let passed = edge.status(BOOKS, &limited) == 200;
            desk += u64::from(passed);
            passed
        };
        granted(&edge) & granted(&twin)
    });
    // To the end: refused for longer than a lease lives.
    let mut refused = 0;
    while refused < 100 {
        for edge in [&edge, &twin] {
            serve(edge, &mut web);
            match edge.status(BOOKS, &limited) {
                200 => (desk, refused) = (desk + 1, 0),
                429 => refused += 1,
                503 => {}
                other => panic!("{other}"),
            }
        }
        if refused > 0 {
            std::thread::sleep(Duration::from_millis(40));
        }
    }
    assert!((270..=300).contains(&desk), "{desk}");
    eventually("usage is complete", || {
        (fleet.calls("web"), fleet.calls("desk")) == (web, desk)
    });
    // Both look every few seconds for what others left.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!((fleet.calls("web"), fleet.calls("desk")), (web, desk));
    let gaps = fleet.cli(&["usage", "gaps", "--json"]);
    let gaps: serde_json::Value = serde_json::from_str(&gaps).unwrap();
    let open = gaps
        .as_array()
        .unwrap()
        .iter()
        .filter(|gap| gap["closed_at"].is_null());
    assert_eq!(open.count(), 0, "{gaps}");
}

#[test]
fn a_control_plane_that_lies_changes_nothing_and_lets_nobody_in() {
    let mut fleet = Fleet::start("");
    let app = Service::new();
    let sidecar = fleet.sidecar("shop-1", "shop", &app);
    let mut edge = fleet.gateway("edge-1");
    let revoked = revoked_key(&fleet, &edge);
    // A second generation, so that there is an older one.
    let api = std::fs::read_to_string(fleet.config("apis/shop.yaml")).unwrap();
    let tightened = format!(
        "{api}operations: {{ deleteBook: {{ acl: [{{ name: closed, effect: deny }}] }} }}\n"
    );
    std::fs::write(fleet.config("apis/shop.yaml"), tightened).unwrap();
    let (unlimited, limited) = (fleet.key("web").1, fleet.key("desk").1);
    let delete = |edge: &Member| {
        let answer = edge.call("DELETE", "/v1/books/moby", &[("x-api-key", &unlimited)]);
        answer.map_or(0, |answer| answer.status)
    };
    eventually("the change is there", || delete(&edge) == 403);
    eventually("it is served", || edge.status(BOOKS, &limited) == 200);
    eventually("it is served", || edge.status(BOOKS, &unlimited) == 200);
    let (mut web, mut desk) = (stored(&fleet, "web"), stored(&fleet, "desk"));
    fleet.control.kill();
    for lie in [Lie::Zeros, Lie::Nonsense, Lie::Old, Lie::Noise] {
        let liar = Liar::start(lie, &fleet.state("control"), fleet.nodes);
        let heard = |counter: &AtomicU64| counter.load(Ordering::Relaxed) > 0;
        eventually("the node listened to all of it", || {
            admits_no_stranger(&edge, &revoked);
            desk += u64::from(edge.status(BOOKS, &limited) == 200);
            assert_eq!(edge.status(BOOKS, &unlimited), 200, "{lie:?}");
            web += 1;
            assert_eq!(delete(&edge), 403, "{lie:?}");
            std::thread::sleep(PAUSE);
            let asked = &liar.asked;
            let all = [
                &asked.policy,
                &asked.revocations,
                &asked.callers,
                &asked.quota,
                &asked.usage,
            ];
            heard(&asked.noise) || all.into_iter().all(heard)
        });
        // What was said has its effect, if it has one. Not faster than one address may have keys looked up that nobody has.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1500) {
            admits_no_stranger(&edge, &revoked);
            assert_eq!(edge.status(BOOKS, &unlimited), 200, "{lie:?}");
            assert_eq!(delete(&edge), 403, "{lie:?}");
            web += 1;
            std::thread::sleep(PAUSE);
        }
        assert!(edge.node.is_alive(), "{lie:?}");
        for node in [&edge.node, &sidecar.node] {
            assert!(!node.log().contains("panicked"), "{lie:?}");
        }
    }
    fleet.control.start_again();
    let (_, new) = {
        eventually("the control plane answers", || {
            fleet.try_cli(&["keys", "list", "desk"]).0
        });
        fleet.key("web")
    };
    eventually("the truth is heard again", || {
        edge.status(BOOKS, &new) == 200
    });
    web += 1;
    assert_eq!(edge.status(BOOKS, &revoked), 401);
    eventually("usage is complete", || {
        (fleet.calls("web"), fleet.calls("desk")) == (web, desk)
    });
    // Whatever generation was claimed meanwhile, the next true one counts.
    let other = "spec: ../shop-spec.yaml\nservice: shop\nupstream: service://shop\nsecurity: off\n";
    std::fs::write(fleet.config("apis/shop.yaml"), other).unwrap();
    eventually("what is true now is served", || {
        edge.status(BOOKS, "") == 200
    });
}

/// Calls that are stored of a consumer, once nothing more comes.
fn stored(fleet: &Fleet, consumer: &str) -> u64 {
    let mut last = 0;
    eventually("it is stored", || {
        std::thread::sleep(Duration::from_millis(700));
        let now = fleet.calls(consumer);
        std::mem::replace(&mut last, now) == now && now > 0
    });
    last
}

/// The configuration changes twice: an API that is open comes, and what nobody may do any more.
fn change_policy(fleet: &Fleet) {
    let api = std::fs::read_to_string(fleet.config("apis/shop.yaml")).unwrap();
    let closed = "operations: { deleteBook: { acl: [{ name: closed, effect: deny }] } }\n";
    std::fs::write(fleet.config("apis/shop.yaml"), format!("{api}{closed}")).unwrap();
    let other = "spec: ../shop-spec.yaml\nservice: shop\nbase_path: /other\nupstream: service://shop\nsecurity: off\n";
    std::fs::write(fleet.config("apis/other.yaml"), other).unwrap();
}

/// Both changes are there. Asked of the gateway itself: what it does not refuse yet its sidecar may, and that is billed.
fn has_changed(edge: &Member, key: &str) {
    eventually("the new API is served", || {
        edge.status("/other/books", "") == 200
    });
    eventually("the change is there", || {
        let apis = edge.ask_admin("/apis").map(|answer| answer.json());
        let apis = apis
            .as_ref()
            .and_then(|it| it.as_array().or(it["apis"].as_array()));
        let shop = apis.and_then(|all| all.iter().find(|api| api["name"] == "shop"));
        shop.is_some_and(|api| api["generation"] == 2)
    });
    let answer = edge.call("DELETE", "/v1/books/moby", &[("x-api-key", key)]);
    assert_eq!(answer.unwrap().status, 403);
}

#[test]
fn a_node_with_a_full_disk_serves_what_is_new_starts_on_it_and_counts_again() {
    let Some(disk) = Disk::new() else { return };
    disk.grow();
    let fleet = Fleet::start("");
    let app = Service::new();
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let special = Special {
        state: Some(disk.path().join("state")),
        ..Special::default()
    };
    let mut edge = fleet.gateway_with("edge-1", special);
    let revoked = revoked_key(&fleet, &edge);
    let key = fleet.key("web").1;
    eventually("it is served", || edge.status(BOOKS, &key) == 200);
    eventually("callers are kept", || edge.state.join("callers").exists());
    let mut served = stored(&fleet, "web");
    disk.fill();
    change_policy(&fleet);
    has_changed(&edge, &key);
    assert!(
        edge.node
            .log()
            .contains("is held until this process ends only")
    );
    let mut call = |edge: &Member| {
        let status = edge.status(BOOKS, &key);
        assert!(matches!(status, 200 | 503), "{status}");
        served += u64::from(status == 200);
        status
    };
    for _ in 0..50 {
        call(&edge);
        admits_no_stranger(&edge, &revoked);
    }
    // It says so now and then, not over and over.
    assert!(edge.node.log().lines().count() < 60, "{}", edge.node.log());
    edge.node.start_again();
    edge.is_ready();
    has_changed(&edge, &key);
    for _ in 0..20 {
        call(&edge);
        admits_no_stranger(&edge, &revoked);
    }
    disk.clear();
    eventually("it is served again, and recorded", || call(&edge) == 200);
    eventually("usage is complete", || fleet.calls("web") == served);
    edge.node.start_again();
    edge.is_ready();
    has_changed(&edge, &key);
}

#[test]
fn a_node_whose_disk_turns_read_only_serves_what_is_new_and_refuses_to_start_on_it() {
    let fleet = Fleet::start("");
    let app = Service::new();
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let mut edge = fleet.gateway("edge-1");
    let revoked = revoked_key(&fleet, &edge);
    let key = fleet.key("web").1;
    eventually("it is served", || edge.status(BOOKS, &key) == 200);
    let mut served = stored(&fleet, "web");
    let Some(sealed) = Sealed::new(&edge.state) else {
        return;
    };
    change_policy(&fleet);
    has_changed(&edge, &key);
    assert!(
        edge.node
            .log()
            .contains("is held until this process ends only")
    );
    for _ in 0..50 {
        // There is room in the segment that was made before.
        assert_eq!(edge.status(BOOKS, &key), 200);
        admits_no_stranger(&edge, &revoked);
    }
    served += 50;
    edge.node.start_again();
    eventually("it says that it cannot start", || !edge.node.is_alive());
    assert!(
        edge.node.log().contains(&*edge.state.to_string_lossy()),
        "{}",
        edge.node.log()
    );
    drop(sealed);
    edge.node.start_again();
    edge.is_ready();
    admits_no_stranger(&edge, &revoked);
    has_changed(&edge, &key);
    eventually("it is served again", || {
        let passed = edge.status(BOOKS, &key) == 200;
        served += u64::from(passed);
        passed
    });
    eventually("usage is complete", || fleet.calls("web") == served);
}

#[test]
fn a_node_whose_clock_jumps_lets_nobody_in_gives_no_quota_twice_and_recovers() {
    let Some(clock) = Clock::new() else { return };
    let fleet = Fleet::start("");
    allow(&fleet, 60);
    let app = Service::new();
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let special = Special {
        environment: clock.environment(),
        ..Special::default()
    };
    let mut edge = fleet.gateway_with("edge-1", special);
    let revoked = revoked_key(&fleet, &edge);
    let (unlimited, limited) = (fleet.key("web").1, fleet.key("desk").1);
    let passes = |edge: &Member, key: &str| u64::from(edge.status(BOOKS, key) == 200);
    eventually("the plan is as it was changed", || {
        let answer = edge.call("GET", BOOKS, &[("x-api-key", &limited)]);
        let policy = answer.filter(|it| it.status == 200);
        policy.is_some_and(|it| it.header("ratelimit-policy").unwrap().contains("q=60"))
    });
    eventually("it is served", || edge.status(BOOKS, &unlimited) == 200);
    let (mut web, mut desk) = (stored(&fleet, "web"), stored(&fleet, "desk"));
    let (mut web_refused, mut desk_refused) = (0, 0);
    for off in ["+1h", "-1h", "+400d", "-400d", "+0"] {
        clock.set(off);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1500) {
            admits_no_stranger(&edge, &revoked);
            let status = edge.status(BOOKS, &unlimited);
            // Certificates that are over by its clock are refused by it, and what it says of a caller by a sidecar whose clock is right.
            assert!(matches!(status, 200 | 401 | 502 | 503), "{off}: {status}");
            web += u64::from(status == 200);
            web_refused += u64::from(status != 200);
            match edge.status(BOOKS, &limited) {
                200 => desk += 1,
                _ => desk_refused += 1,
            }
        }
        assert!(edge.node.is_alive(), "{off}");
    }
    eventually("it is served again", || {
        let passed = passes(&edge, &unlimited);
        web += passed;
        web_refused += 1 - passed;
        passed == 1
    });
    change_policy(&fleet);
    has_changed(&edge, &unlimited);
    let mut refused = 0;
    while refused < 60 {
        match edge.status(BOOKS, &limited) {
            200 => (desk, refused) = (desk + 1, 0),
            _ => (desk_refused, refused) = (desk_refused + 1, refused + 1),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // And a twentieth, where the control plane did not answer in time: this machine is busy.
    assert!(desk <= 63, "{desk}");
    // What the sidecar refused had reached it, and counts.
    eventually("usage is complete", || {
        let (of_web, of_desk) = (fleet.calls("web"), fleet.calls("desk"));
        (web..=web + web_refused).contains(&of_web)
            && (desk..=desk + desk_refused).contains(&of_desk)
    });
    let counted = (stored(&fleet, "web"), stored(&fleet, "desk"));
    assert!(
        counted.0 <= web + web_refused && counted.1 <= desk + desk_refused,
        "{counted:?}"
    );
    assert!(!edge.node.log().contains("panicked"));
}

#[test]
fn a_certificate_that_is_over_stays_over_where_the_clock_is_set_back() {
    let Some(clock) = Clock::new() else { return };
    let fleet = Fleet::start("");
    let app = Service::new();
    let special = Special {
        environment: clock.environment(),
        arguments: vec!["--mtls".to_owned(), "strict".to_owned()],
        ..Special::default()
    };
    let sidecar = fleet.sidecar_with("shop-1", "shop", &app, special);
    let key = fleet.key("web").1;
    let short = Passport::of_the_edge(&fleet, Duration::from_secs(8));
    let good = Passport::of_the_edge(&fleet, Duration::from_secs(3600));
    eventually("it counts", || {
        short.status(sidecar.address, &key) == Some(200)
    });
    eventually("it is over", || {
        short.status(sidecar.address, &key).is_none()
    });
    for off in ["-1h", "-400d"] {
        clock.set(off);
        assert_eq!(short.status(sidecar.address, &key), None, "{off}");
        assert_eq!(good.status(sidecar.address, &key), Some(200), "{off}");
    }
    clock.set("+2h");
    assert_eq!(
        good.status(sidecar.address, &key),
        None,
        "over by its clock"
    );
    clock.set("+0");
    assert_eq!(
        good.status(sidecar.address, &key),
        Some(200),
        "it was the clock"
    );
}

#[test]
fn a_flood_of_questions_holds_up_neither_quota_nor_revocations() {
    let fleet = Fleet::start("");
    let app = Service::new();
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let edge = fleet.gateway("edge-1");
    let ((id, revoked), limited) = (fleet.key("web"), fleet.key("desk").1);
    eventually("it is served", || edge.status(BOOKS, &revoked) == 200);
    eventually("it is served", || edge.status(BOOKS, &limited) == 200);
    let flood = Flood::start(&fleet);
    eventually("the flood has begun", || flood.answered() > 1_000);
    let begun = Instant::now();
    for _ in 0..100 {
        let asked = Instant::now();
        assert_eq!(edge.status(BOOKS, &limited), 200);
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "{:?}",
            asked.elapsed()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    fleet.cli(&["keys", "revoke", &id]);
    let told = Instant::now();
    eventually("it is refused", || edge.status(BOOKS, &revoked) == 401);
    assert!(
        told.elapsed() < Duration::from_secs(2),
        "{:?}",
        told.elapsed()
    );
    let stranger = edge.status(BOOKS, NOBODY);
    assert_eq!(
        stranger, 401,
        "whoever is not known is asked about all the same"
    );
    let (judged, refused) = flood.end();
    // Four hundred at once, and two hundred a second.
    let lasted = begun.elapsed().as_secs() + 10;
    assert!(judged <= 400 + 200 * lasted, "{judged} in {lasted} s");
    assert!(refused > 0, "{judged} were judged");
}

#[test]
#[ignore = "heavy: twenty gateways; figures, beside a promise"]
fn twenty_gateways_exceed_a_limit_by_nothing_and_by_a_twentieth_while_nobody_grants() {
    const AMOUNT: u64 = 4_000;
    let mut fleet = Fleet::start("");
    let limits =
        format!("    limits: [{{ name: all-time, amount: {AMOUNT}, window: lifetime }}]\n");
    let plan = |name: &str| format!("  {name}:\n    apis: {{ shop: all }}\n{limits}");
    let plans = format!("plans:\n{}{}", plan("all"), plan("free"));
    std::fs::write(fleet.config("plans.yaml"), plans).unwrap();
    let app = Service::new();
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let edges: Vec<Member> = (1..=20)
        .map(|number| fleet.gateway(&format!("edge-{number}")))
        .collect();
    let resident = |edge: &Member| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", edge.node.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
        kilobytes.parse::<u64>().unwrap()
    };
    let memory = edges.iter().map(resident).sum::<u64>() / 20;
    let (desk, web) = (fleet.key("desk").1, fleet.key("web").1);
    for (edge, key) in edges.iter().flat_map(|edge| [(edge, &desk), (edge, &web)]) {
        eventually("the plan is as it was changed", || {
            let answer = edge.call("GET", BOOKS, &[("x-api-key", key)]);
            let policy = answer.filter(|it| it.status == 200);
            policy.is_some_and(|it| it.header("ratelimit-policy").unwrap().contains("q=4000"))
        });
    }
    // Whatever passed until now is counted as well.
    let passed = |key: &str, most: u64, before: u64| {
        let count = AtomicU64::new(before);
        std::thread::scope(|scope| {
            for edge in &edges {
                scope.spawn(|| {
                    let mut refused = 0;
                    while refused < 100 && count.load(Ordering::Relaxed) < most {
                        match edge.status(BOOKS, key) {
                            200 => {
                                count.fetch_add(1, Ordering::Relaxed);
                                refused = 0;
                            }
                            429 | 503 => refused += 1,
                            other => panic!("{other}"),
                        }
                        if refused > 0 {
                            std::thread::sleep(Duration::from_millis(40));
                        }
                    }
                });
            }
        });
        count.into_inner()
    };
    let (before_desk, before_web) = (stored(&fleet, "desk"), stored(&fleet, "web"));
    let steady = passed(&desk, u64::MAX, before_desk);
    let half = passed(&web, AMOUNT / 2, before_web);
    fleet.control.kill();
    let away = passed(&web, u64::MAX, half);
    println!(
        "{steady} of {AMOUNT} passed with a grantor, {away} without one from the middle on; {memory} KiB resident each"
    );
    assert!(steady <= AMOUNT, "{steady}");
    assert!(away <= AMOUNT + AMOUNT / 20, "{away}");
}

/// A node that asks as fast as it can whether calls may pass.
struct Flood {
    runtime: tokio::runtime::Runtime,
    judged: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Flood {
    fn start(fleet: &Fleet) -> Self {
        let _again = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let token = fleet.token("--gateway", "flood");
        let address = format!("https://{}", fleet.nodes).parse().unwrap();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let joined = runtime.block_on(join(&address, &token, "flood-1")).unwrap();
        let identity = NodeIdentity::none();
        identity.replace(joined.held().unwrap());
        let (judged, refused) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let entered = runtime.enter();
        let channel = channel(&address, identity).unwrap();
        for _ in 0..32 {
            let mut client = ControlClient::new(channel.clone());
            let (judged, refused) = (judged.clone(), refused.clone());
            runtime.spawn(async move {
                loop {
                    let user = credential_ref::Kind::User("ann".to_owned());
                    let asked = client.check(wire::CheckRequest {
                        phase: check_request::Phase::Start.into(),
                        api: "shop".to_owned(),
                        operation: "listBooks".to_owned(),
                        credential: Some(wire::CredentialRef { kind: Some(user) }),
                        ..wire::CheckRequest::default()
                    });
                    let count = match asked.await {
                        Ok(answer) => {
                            let deny = check_response::Decision::Deny;
                            assert_eq!(answer.into_inner().decision(), deny);
                            &judged
                        }
                        Err(_) => &refused,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        drop(entered);
        Self {
            runtime,
            judged,
            refused,
        }
    }

    fn answered(&self) -> u64 {
        self.judged.load(Ordering::Relaxed) + self.refused.load(Ordering::Relaxed)
    }

    /// How many questions were judged, and how many refused.
    fn end(self) -> (u64, u64) {
        self.runtime.shutdown_timeout(Duration::from_secs(2));
        (
            self.judged.load(Ordering::Relaxed),
            self.refused.load(Ordering::Relaxed),
        )
    }
}

/// A certificate of the installation, with its key, and whom it believes.
struct Passport(Arc<ClientConfig>);

impl Passport {
    /// The gateway's, good for so long.
    fn of_the_edge(fleet: &Fleet, lifetime: Duration) -> Self {
        let _again = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let options = CaOptions {
            leaf_lifetime: lifetime,
            ..CaOptions::default()
        };
        let ca = Ca::open(&fleet.state("control"), "tollgate.internal", options).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let names = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        let request = names.serialize_request(&key).unwrap();
        let id = "spiffe://tollgate.internal/gateway/edge".parse().unwrap();
        let issued = ca.issue(&id, request.der()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        for root in ca.roots() {
            roots.add(root).unwrap();
        }
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(issued.chain, key.into());
        Self(Arc::new(config.unwrap()))
    }

    /// What a call with this key is answered; `None`: the certificate does not count.
    fn status(&self, address: SocketAddr, key: &str) -> Option<u16> {
        let name =
            rustls::pki_types::ServerName::try_from("shop.service.tollgate.internal").unwrap();
        let tls = rustls::ClientConnection::new(Arc::clone(&self.0), name).unwrap();
        let mut stream = rustls::StreamOwned::new(tls, TcpStream::connect(address).unwrap());
        let asked = format!(
            "GET {BOOKS} HTTP/1.1\r\nhost: shop\r\nx-api-key: {key}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(asked.as_bytes()).ok()?;
        let mut answer = Vec::new();
        let _ends_without_goodbye = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        answer.split(' ').nth(1)?.parse().ok()
    }
}
