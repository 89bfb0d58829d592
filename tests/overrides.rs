//! What single consumers are granted beside their plans, by hand on the command line.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use world::Service;
use world::shop::shop;

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
