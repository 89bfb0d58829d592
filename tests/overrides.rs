//! What organisations, projects and consumers are granted beside plans and APIs, by hand on the command line and in files: it counts
//! for all who share the limit, and for nobody else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use world::fleet::Fleet;
use world::shop::{self, Key, shop, shop_with};
use world::{Plan, Service, World, eventually, run};

#[test]
fn limits_of_a_plan_and_overrides_are_made_listed_and_removed() {
    let service = Service::new();
    let world = shop(&service).start();
    let spend = r#"{"name": "spend", "metric": "money", "amount": "20.00", "window": "month"}"#;
    let made = [
        &["plans", "create", "paid", "--api", "shop"][..],
        &[
            "--limit",
            "name=calls,amount=100,window=1m",
            "--limit",
            spend,
        ],
        &["--currency", "CHF", "--price-version", "3"],
    ]
    .concat();
    world.cli(&made).good();
    let plan = world.cli(&["plans", "show", "paid", "--json"]).json();
    assert_eq!(plan["limits"][0]["amount"], "100");
    assert_eq!(plan["limits"][1]["metric"], "money");
    assert_eq!(plan["price"]["currency"], "CHF");
    world
        .cli(&["consumers", "create", "partner", "--project", "floor"])
        .good();
    world
        .cli(&["consumers", "subscribe", "partner", "shop", "paid"])
        .good();
    let why = ["--owner", "ada", "--reason", "launch week"];
    let set = ["overrides", "set", "partner", "paid/calls", "--extra", "50"];
    world.cli(&[&set[..], &why].concat()).good();
    let set = [
        "overrides",
        "set",
        "partner",
        "plan/paid/spend",
        "--amount",
        "5.00",
        "--cap",
    ];
    world.cli(&[&set[..], &why].concat()).good();
    let listed = world
        .cli(&["overrides", "list", "partner", "--json"])
        .json();
    assert_eq!(listed[0]["limit"], "plan/paid/calls", "{listed}");
    assert_eq!(
        (&listed[1]["amount"], &listed[1]["cap"]),
        (&"5.00".into(), &true.into())
    );
    world
        .cli(&["overrides", "remove", "partner", "paid/calls"])
        .good();
    let listed = world
        .cli(&["overrides", "list", "partner", "--json"])
        .json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
}

/// Two consumers of one project, and one of another, on a plan without limits; the API says what each project and consumer may call.
const CONSUMERS: &str = "\
organisations:
  bookshop:
    projects:
      floor: { consumers: { desk: { subscriptions: { shop: all } }, till: { subscriptions: { shop: all } } } }
      cellar: { consumers: { store: { subscriptions: { shop: all } } } }
";

const LIMITS: &str = "limits:
  - { name: shared, amount: 4, window: lifetime, per: project, operations: [listBooks] }
  - { name: own, amount: 2, window: lifetime, per: credential, operations: [getBook] }
  - { name: all, amount: 1000, window: 1d, per: everybody }
";

fn limited(service: &Service) -> Plan {
    shop_with(service, LIMITS).file("consumers.yaml", CONSUMERS)
}

/// How many calls pass until one is refused.
fn pass(world: &World, key: &Key, path: &str) -> usize {
    let answers = (0..50).map(|_| world.get_with(key, path).status);
    answers.take_while(|status| *status == 200).count()
}

const WHY: [&str; 4] = ["--owner", "ada", "--reason", "launch"];

fn set(world: &World, what: &[&str]) {
    let set = [&["overrides", "set"][..], what, &WHY].concat();
    world.cli(&set).good();
}

#[test]
fn a_project_is_granted_more_of_an_api_s_limit_and_all_its_consumers_share_it() {
    let service = Service::new();
    let world = limited(&service).start();
    let [desk, till, store] = ["desk", "till", "store"].map(|it| world.key(it));
    assert_eq!(pass(&world, &desk, "/v1/books"), 4);
    assert_eq!(world.get_with(&till, "/v1/books").status, 429);
    set(
        &world,
        &["project:floor", "api/shop/shared", "--extra", "6"],
    );
    // Both ask in turn: neither takes back what the other was granted.
    let mut passed = 0;
    eventually("the grant has come to both", || {
        let both = [&desk, &till].map(|key| world.get_with(key, "/v1/books").status);
        passed += both.iter().filter(|status| **status == 200).count();
        passed == 6
    });
    for key in [&desk, &till, &desk, &till] {
        assert_eq!(world.get_with(key, "/v1/books").status, 429);
    }
    let refused = world.get_with(&till, "/v1/books");
    let problem = refused.is_problem(429, "quota_exceeded").json();
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("of 10 calls"), "{detail}");
    assert_eq!(pass(&world, &store, "/v1/books"), 4, "another project's");
    // A limit that goes below what is used refuses at once.
    let less = [
        "project:cellar",
        "api/shop/shared",
        "--amount",
        "1",
        "--cap",
    ];
    set(&world, &less);
    assert_eq!(world.get_with(&store, "/v1/books").status, 429);
    // And counts again as the file says once the grant is gone.
    world
        .cli(&["overrides", "remove", "project:floor", "api/shop/shared"])
        .good();
    let listed = world.cli(&["overrides", "list", "--json"]).json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed[0]["subject"], "project:cellar");
}

#[test]
fn a_consumer_is_granted_more_of_an_api_s_limit_and_each_of_its_keys_has_it() {
    let service = Service::new();
    let world = limited(&service).start();
    let (first, till) = (world.key("desk"), world.key("till"));
    set(&world, &["desk", "api/shop/own", "--amount", "5"]);
    let second = world.key("desk");
    for key in [&first, &second] {
        assert_eq!(pass(&world, key, "/v1/books/1"), 5);
    }
    assert_eq!(pass(&world, &till, "/v1/books/1"), 2);
    let told = world
        .ask(
            "GET",
            "/v1/.tollgate/quota",
            &[("x-api-key", &first.secret)],
            b"",
        )
        .json();
    let own = told["quota"].as_array().unwrap();
    let own = own.iter().find(|it| it["limit"] == "api/shop/own").unwrap();
    assert_eq!(own["amount"], 5, "{told}");
}

#[test]
fn what_was_granted_of_an_api_counts_after_a_kill_and_with_the_file_s() {
    let service = Service::new();
    let granted = CONSUMERS.replace(
        "      cellar: { ",
        "      cellar: { overrides: [{ limit: api/shop/shared, extra: 3, owner: ada, reason: move }], ",
    );
    let plan = || limited(&service).file("consumers.yaml", &granted);
    let world = plan().start();
    let [desk, store] = ["desk", "store"].map(|it| world.key(it));
    set(
        &world,
        &["project:floor", "api/shop/shared", "--extra", "2"],
    );
    assert_eq!(pass(&world, &desk, "/v1/books"), 6);
    assert_eq!(pass(&world, &store, "/v1/books"), 7);
    let home = world.kill();
    let world = plan().start_again(home.path());
    assert_eq!(world.get_with(&desk, "/v1/books").status, 429);
    set(
        &world,
        &["project:floor", "api/shop/shared", "--extra", "4"],
    );
    eventually("two more", || {
        world.get_with(&desk, "/v1/books").status == 200
    });
    let set = [
        "overrides",
        "set",
        "project:cellar",
        "api/shop/shared",
        "--extra",
        "1",
    ];
    let refused = world.cli(&[&set[..], &WHY].concat());
    assert!(refused.failed().contains("consumers.yaml"), "{refused:?}");
}

#[test]
fn what_makes_no_sense_is_refused_with_what_to_do() {
    let service = Service::new();
    let world = limited(&service).start();
    for (what, words) in [
        (["desk", "api/shop/shared"], "override it for the project"),
        (
            ["project:floor", "api/shop/own"],
            "override it for the consumer",
        ),
        (
            ["organisation:bookshop", "api/shop/shared"],
            "override it for the project",
        ),
        (["desk", "api/shop/all"], "change the limit itself"),
        (["desk", "api/shop/none"], "there is no limit"),
        (["desk", "api/none/own"], "there is no API"),
        (["project:none", "api/shop/shared"], "there is no project"),
    ] {
        let set = [&["overrides", "set"][..], &what, &["--extra", "1"], &WHY].concat();
        let refused = world.cli(&set);
        assert!(refused.failed().contains(words), "{what:?}: {refused:?}");
    }
    for what in [["user:desk", "api/shop/own"], ["desk", "shop/own/more"]] {
        let set = [&["overrides", "set"][..], &what, &["--extra", "1"], &WHY].concat();
        assert_eq!(world.cli(&set).status.code(), Some(2), "{what:?}");
    }
}

#[test]
fn a_check_tells_of_overrides_that_change_nothing() {
    let service = Service::new();
    let limits = "apis: { shop: all }\n    limits: [{ name: calls, amount: 5, window: 1d }]";
    let plans = shop::PLANS.replace("apis: { shop: all }", limits);
    for (limit, words) in [
        ("plan/all/calls", "is a limit per consumer"),
        ("api/shop/own", "is a limit per credential"),
        ("api/shop/shard", "did you mean `api/shop/shared`?"),
        ("plan/all/cals", "did you mean `plan/all/calls`?"),
        ("api/shops/shared", "there is no API `shops`"),
    ] {
        let one = format!("[{{ limit: {limit}, extra: 3, owner: a, reason: b }}]");
        let floor = format!("      floor: {{ overrides: {one}, ");
        let consumers = CONSUMERS.replace("      floor: { ", &floor);
        let files = tempfile::tempdir().unwrap();
        let plan = limited(&service).file("plans.yaml", &plans);
        plan.file("consumers.yaml", &consumers).write(files.path());
        let config = files.path().join("config");
        let (status, out, err) = run(&["check", config.to_str().unwrap()]);
        assert_eq!(status.code(), Some(1), "{limit}: {out}{err}");
        let told = out + &err;
        assert!(told.contains(words), "{limit}: {told}");
    }
}

#[test]
fn gateways_that_share_a_project_s_limit_of_an_api_have_what_it_was_granted_and_no_more() {
    let limits = "limits: [{ name: shared, amount: 4, window: lifetime, per: project, operations: [listBooks] }]\n";
    let fleet = Fleet::start(limits);
    let app = Service::new();
    let _sidecar = fleet.sidecar("shop-1", "shop", &app);
    let edges = [fleet.gateway("edge-1"), fleet.gateway("edge-2")];
    let keys = ["desk", "web"].map(|consumer| fleet.key(consumer).1);
    let mut passed = 0;
    let mut call_all = || {
        for edge in &edges {
            for key in &keys {
                passed += usize::from(edge.status("/v1/books", key) == 200);
            }
        }
        passed
    };
    eventually("what the file says is spent", || call_all() == 4);
    let grant = ["project:floor", "api/shop/shared", "--extra", "6"];
    fleet.cli(&[&["overrides", "set"][..], &grant, &WHY].concat());
    // Of two callers with different amounts each would take back what the other was granted.
    eventually("all of it is spent, at both", || call_all() == 10);
    for _ in 0..10 {
        assert_eq!(call_all(), 10);
    }
}
