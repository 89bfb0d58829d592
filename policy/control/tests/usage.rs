//! Usage is counted once: whatever comes twice, late, out of order, or through a process that is killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tollgate_control::UsageSettings;
use tollgate_policy::time::Timestamp;
use tollgate_proto::{
    Answer, ControlClient, Meters, Question, RunId, UsageBatch, UsageOutcome, UsageRecord,
};
use world::{DEADLINE, World, files};

const RUN: RunId = RunId(7);

fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}

fn record(consumer: &str, operation: &str, units: u64) -> UsageRecord {
    UsageRecord {
        at: now(),
        organisation: "acme".into(),
        project: "web".into(),
        consumer: consumer.into(),
        api: "books".into(),
        operation: operation.into(),
        plan: "basic".into(),
        price_version: 1,
        currency: "EUR".into(),
        outcome: UsageOutcome::Served,
        calls: 1,
        units: units.into(),
        money: 10,
        request_bytes: 100,
        response_bytes: 1000,
        cpu_nanos: 5000,
        micros: 300,
        stream_seconds: 0,
        request_messages: 0,
        response_messages: 0,
    }
}

/// Records of a run that never differ: number `n` has `n` units.
fn numbered(run: RunId, first: u64, count: u64) -> UsageBatch {
    let consumers = ["shop", "app", ""];
    let numbered = |n: u64| {
        let consumer = consumers[usize::try_from(n % 3).unwrap()];
        let operation = if n.is_multiple_of(2) { "list" } else { "show" };
        record(consumer, operation, n)
    };
    UsageBatch {
        node: "edge-1".into(),
        run,
        shard: 0,
        first,
        records: (first..first + count).map(numbered).collect(),
        closing: false,
    }
}

async fn offer(client: &ControlClient, batch: UsageBatch) -> Result<u64, String> {
    match client.ask(Question::Usage(batch), DEADLINE).await {
        Ok(Answer::Received(receipt)) => Ok(receipt.next),
        Ok(Answer::Refused(why)) => Err(why),
        other => panic!("{other:?}"),
    }
}

async fn sent(world: &World, batch: UsageBatch) -> u64 {
    offer(&world.client, batch).await.unwrap()
}

/// The whole month in one row.
async fn total(world: &World) -> Value {
    let (status, shown) = world.get("/v1/usage").await;
    assert_eq!(status, 200, "{shown}");
    shown["items"][0].clone()
}

/// (records, units) of the whole month.
async fn sums(world: &World) -> (u64, u64) {
    let total = total(world).await;
    (
        total["records"].as_u64().unwrap(),
        total["units"].as_u64().unwrap(),
    )
}

/// What `count` numbered records make.
fn whole(count: u64) -> (u64, u64) {
    (count, (0..count).sum())
}

async fn gaps(world: &World) -> Vec<(u64, u64, bool)> {
    let (_, shown) = world.get("/v1/usage/gaps").await;
    let gaps = shown["items"].as_array().unwrap().iter();
    let range = |gap: &Value| {
        let (from, to) = (gap["from"].as_u64().unwrap(), gap["to"].as_u64().unwrap());
        (from, to, gap["closed_at"].is_null())
    };
    let mut gaps: Vec<_> = gaps.map(range).collect();
    gaps.sort_unstable();
    gaps
}

async fn sender(world: &World, run: RunId) -> Value {
    let (_, shown) = world.get("/v1/usage/senders").await;
    let mut senders = shown["items"].as_array().unwrap().iter();
    let found = senders.find(|sender| sender["run"] == run.to_string());
    found.unwrap_or_else(|| panic!("{shown}")).clone()
}

async fn assert_balanced(world: &World) {
    let (_, balance) = world.get("/v1/usage/balance").await;
    assert_eq!(balance["balanced"], true, "{balance}");
}

async fn open(state: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(state.join("control.db"));
    SqliteConnection::connect_with(&options).await.unwrap()
}

#[tokio::test]
async fn a_batch_that_comes_twice_counts_once() {
    let world = World::new().await;
    assert_eq!(sent(&world, numbered(RUN, 0, 10)).await, 10);
    assert_eq!(sent(&world, numbered(RUN, 0, 10)).await, 10);
    assert_eq!(sums(&world).await, whole(10));
    // A batch that overlaps: the part already stored is skipped.
    assert_eq!(sent(&world, numbered(RUN, 5, 10)).await, 15);
    assert_eq!(sums(&world).await, whole(15));
    // An empty one asks how far the intake is.
    assert_eq!(sent(&world, numbered(RUN, 0, 0)).await, 15);
    let figures = world.control.usage_figures();
    assert_eq!(
        (figures.records, figures.duplicates, figures.missing),
        (15, 15, 0)
    );
    // The same numbers of another run, shard or node are others.
    for change in [
        |batch: &mut UsageBatch| batch.run = RunId(8),
        |batch: &mut UsageBatch| batch.shard = 1,
        |batch: &mut UsageBatch| batch.node = "edge-2".into(),
    ] {
        let mut batch = numbered(RUN, 0, 1);
        change(&mut batch);
        assert_eq!(sent(&world, batch).await, 1);
    }
    assert_eq!(sums(&world).await.0, 18);
    assert_balanced(&world).await;
}

/// Cost units as they are named here.
fn meters(named: &[(&str, u64)]) -> Meters {
    let mut meters = Meters::default();
    for (name, amount) in named {
        meters.add(&Arc::from(*name), *amount);
    }
    meters
}

/// Records of which number `n` has `n` tokens, every other `n` units without a name as well, and the last is billed in francs.
fn metered(run: RunId, first: u64, count: u64) -> UsageBatch {
    let mut batch = numbered(run, first, count);
    for (n, record) in (first..).zip(&mut batch.records) {
        record.units = meters(&[("tokens", n), ("units", n * (n % 2)), ("pages", 1)]);
        record.currency = if n == 9 { "CHF" } else { "EUR" }.into();
    }
    batch
}

#[tokio::test]
async fn each_name_of_cost_units_and_each_currency_counts_once_and_apart() {
    let world = World::new().await;
    assert_eq!(sent(&world, metered(RUN, 0, 6)).await, 6);
    assert_eq!(sent(&world, metered(RUN, 0, 6)).await, 6);
    assert_eq!(sent(&world, metered(RUN, 4, 6)).await, 10);
    let shown = total(&world).await;
    assert_eq!(
        shown["units_by_name"],
        json!({ "pages": 10, "tokens": 45, "units": 25 })
    );
    assert_eq!(shown["money_by_currency"], json!({ "CHF": 10, "EUR": 90 }));
    assert_eq!(
        (&shown["units"], &shown["money"]),
        (&json!(80), &json!(100))
    );
    // By whatever it is grouped and however it is paged, the parts make up the whole.
    for query in [
        "?group_by=operation,consumer",
        "?granularity=day&group_by=outcome,plan",
    ] {
        let mut parts: [u64; 4] = [0; 4];
        let mut next = String::new();
        loop {
            let after = format!("/v1/usage{query}&limit=2&after={}", escaped(&next));
            let path = if next.is_empty() {
                format!("/v1/usage{query}&limit=2")
            } else {
                after
            };
            let (_, page) = world.get(&path).await;
            for row in page["items"].as_array().unwrap() {
                let units = &row["units_by_name"];
                let by = [&units["tokens"], &units["units"], &units["pages"]];
                let by = by.into_iter().chain([&row["money_by_currency"]["CHF"]]);
                for (part, value) in parts.iter_mut().zip(by) {
                    *part += value.as_u64().unwrap_or_default();
                }
            }
            match page["next"].as_str() {
                Some(more) => next = more.to_owned(),
                None => break,
            }
        }
        assert_eq!(parts, [45, 25, 10, 10], "{query}");
    }
    let (_, csv) = world.text("/v1/usage?group_by=plan&format=csv").await;
    assert!(
        csv.contains(",pages=10 tokens=45 units=25,CHF=10 EUR=90\r\n"),
        "{csv}"
    );
    // What is dropped is dropped with its names.
    let later = now().plus(Duration::from_secs(900 * 86_400));
    world.control.purge_usage(later).await.unwrap();
    let mut other = open(world.state.path()).await;
    let left: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM usage_amounts")
        .fetch_one(&mut other)
        .await
        .unwrap();
    assert_eq!(left, 0);
    assert_balanced(&world).await;
}

#[tokio::test]
async fn names_of_a_batch_that_was_not_stored_are_not_remembered() {
    let world = World::new().await;
    let mut other = open(world.state.path()).await;
    let full = "CREATE TRIGGER full BEFORE INSERT ON usage_amounts
         BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END";
    sqlx::query(full).execute(&mut other).await.unwrap();
    assert!(offer(&world.client, metered(RUN, 0, 3)).await.is_err());
    assert_eq!(sums(&world).await, (0, 0), "nothing of it is kept");
    sqlx::query("DROP TRIGGER full")
        .execute(&mut other)
        .await
        .unwrap();
    assert_eq!(sent(&world, metered(RUN, 0, 3)).await, 3);
    let shown = total(&world).await["units_by_name"].clone();
    assert_eq!(shown, json!({ "pages": 3, "tokens": 3, "units": 1 }));
}

/// As a store of an earlier version is: without the tables for names, with rows in the others.
#[tokio::test]
async fn what_was_stored_before_there_were_names_is_shown_without_them() {
    let world = World::new().await;
    sent(&world, numbered(RUN, 0, 4)).await;
    let mut other = open(world.state.path()).await;
    for statement in [
        "DROP TABLE usage_amounts",
        "DROP TABLE usage_meters",
        "DELETE FROM _sqlx_migrations WHERE version >= 12",
    ] {
        sqlx::query(statement).execute(&mut other).await.unwrap();
    }
    drop(other);
    let world = world.restart().await;
    let shown = total(&world).await;
    assert_eq!(shown["units_by_name"], json!({ "units": 6 }));
    assert_eq!(shown["money_by_currency"], json!({ "XXX": 40 }));
    // The sender goes on where it was, and now it tells names.
    assert_eq!(sent(&world, metered(RUN, 2, 4)).await, 6);
    let shown = total(&world).await;
    assert_eq!(
        shown["units_by_name"],
        json!({ "pages": 2, "tokens": 9, "units": 11 })
    );
    assert_eq!(shown["money_by_currency"], json!({ "EUR": 20, "XXX": 40 }));
    assert_balanced(&world).await;
}

#[tokio::test]
async fn a_gap_is_named_exactly_and_closes_when_it_is_filled() {
    let world = World::new().await;
    sent(&world, numbered(RUN, 0, 10)).await;
    // 10 to 29 are skipped; what follows counts.
    assert_eq!(sent(&world, numbered(RUN, 30, 5)).await, 35);
    assert_eq!(gaps(&world).await, [(10, 29, true)]);
    assert_eq!(world.control.usage_figures().missing, 20);
    assert_eq!(sender(&world, RUN).await["missing"], 20);
    assert_eq!(sums(&world).await.0, 15);
    assert_balanced(&world).await;
    // From its middle, with parts on both sides that are known.
    assert_eq!(sent(&world, numbered(RUN, 14, 4)).await, 35);
    let expected = [(10, 13, true), (14, 17, false), (18, 29, true)];
    assert_eq!(gaps(&world).await, expected);
    // Twice is once.
    assert_eq!(sent(&world, numbered(RUN, 14, 4)).await, 35);
    assert_eq!(sums(&world).await.0, 19);
    // Over both that are left, and beyond the end.
    assert_eq!(sent(&world, numbered(RUN, 5, 35)).await, 40);
    let expected = [(10, 13, false), (14, 17, false), (18, 29, false)];
    assert_eq!(gaps(&world).await, expected);
    assert_eq!(sums(&world).await, whole(40));
    let sender = sender(&world, RUN).await;
    assert_eq!(
        (&sender["missing"], &sender["records"]),
        (&json!(0), &json!(40))
    );
    assert_eq!(world.control.usage_figures().found, 20);
    assert_balanced(&world).await;
}

#[tokio::test]
async fn a_run_that_ends_without_a_word_is_reported_with_its_last_number() {
    let world = World::new().await;
    sent(&world, numbered(RUN, 0, 10)).await;
    assert_eq!(sender(&world, RUN).await["state"], "open");
    let minutes = |n: u64| now().plus(Duration::from_secs(n * 60));
    // As long as there is no other run, it may just be idle.
    let silent = minutes(60);
    assert_eq!(
        world.control.report_incomplete_usage(silent).await.unwrap(),
        0
    );
    tokio::time::sleep(Duration::from_millis(2)).await;
    let next = RunId(8);
    sent(&world, numbered(next, 0, 1)).await;
    assert_eq!(
        world
            .control
            .report_incomplete_usage(minutes(1))
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        world.control.report_incomplete_usage(silent).await.unwrap(),
        1
    );
    assert_eq!(
        world.control.report_incomplete_usage(silent).await.unwrap(),
        0,
        "once"
    );
    assert_eq!(sender(&world, RUN).await["next"], 10);
    // Its journal is replayed after all, and closed: the closing batch has no records.
    let closing = UsageBatch {
        closing: true,
        ..numbered(RUN, 10, 0)
    };
    assert_eq!(sent(&world, closing.clone()).await, 10);
    assert_eq!(sender(&world, RUN).await["state"], "complete");
    assert_eq!(sent(&world, closing).await, 10);
    assert_eq!(
        world
            .control
            .report_incomplete_usage(minutes(600))
            .await
            .unwrap(),
        0
    );
    assert_eq!(sender(&world, next).await["state"], "open");
    // A closing batch after a gap ends the run, and says what is missing.
    let closing = UsageBatch {
        closing: true,
        ..numbered(next, 5, 0)
    };
    assert_eq!(sent(&world, closing).await, 5);
    assert_eq!(gaps(&world).await, [(1, 4, true)]);
    assert_eq!(sender(&world, next).await["state"], "complete");
}

#[tokio::test]
async fn a_locked_store_sends_batches_back_and_loses_none() {
    let world = World::new().await;
    sent(&world, numbered(RUN, 0, 3)).await;
    let mut other = open(world.state.path()).await;
    sqlx::query("BEGIN EXCLUSIVE")
        .execute(&mut other)
        .await
        .unwrap();
    let refused = offer(&world.client, numbered(RUN, 3, 3)).await;
    assert!(
        refused.as_ref().unwrap_err().contains("locked"),
        "{refused:?}"
    );
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(sums(&world).await, whole(3));
    assert_eq!(sent(&world, numbered(RUN, 3, 3)).await, 6);
    assert_eq!(sums(&world).await, whole(6));
    assert_eq!(world.control.usage_figures().refused, 1);
    assert!(gaps(&world).await.is_empty());
    world.control.stop().await;
    let refused = world
        .client
        .ask(Question::Usage(numbered(RUN, 6, 1)), DEADLINE)
        .await;
    assert!(!matches!(refused, Ok(Answer::Received(_))), "{refused:?}");
}

#[tokio::test]
async fn a_full_store_sends_batches_back_and_goes_on_when_there_is_room() {
    let world = World::new().await;
    sent(&world, numbered(RUN, 0, 3)).await;
    // The database's own bound stands in for the disk's; it is kept by each connection, so a trigger plays it here.
    let mut other = open(world.state.path()).await;
    let full = "CREATE TRIGGER full BEFORE INSERT ON usage_totals
         BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END";
    sqlx::query(full).execute(&mut other).await.unwrap();
    // Also a key that is new must not be remembered from the failed transaction.
    let mut batch = numbered(RUN, 3, 3);
    batch.records[0].operation = "new".into();
    assert!(offer(&world.client, batch.clone()).await.is_err());
    assert_eq!(
        sender(&world, RUN).await["next"],
        3,
        "nothing of it is kept"
    );
    sqlx::query("DROP TRIGGER full")
        .execute(&mut other)
        .await
        .unwrap();
    assert_eq!(sent(&world, batch).await, 6);
    assert_eq!(sums(&world).await, whole(6));
    assert_balanced(&world).await;
}

#[tokio::test]
async fn what_cannot_be_right_is_refused() {
    let world = World::new().await;
    let many = numbered(
        RUN,
        0,
        u64::try_from(tollgate_control::MAX_USAGE_BATCH).unwrap() + 1,
    );
    let mut nameless = numbered(RUN, 0, 1);
    nameless.node = "".into();
    let last = UsageBatch {
        first: u64::MAX,
        ..numbered(RUN, 0, 1)
    };
    for batch in [many, nameless, last] {
        assert!(offer(&world.client, batch).await.is_err());
    }
    assert_eq!(sums(&world).await, (0, 0));
}

#[tokio::test]
async fn sums_stop_at_the_largest_number_and_are_shown_nevertheless() {
    let world = World::new().await;
    let mut batch = numbered(RUN, 0, 4);
    for record in &mut batch.records {
        record.units = u64::MAX.into();
        record.money = 1 << 62;
    }
    sent(&world, batch.clone()).await;
    batch.first = 4;
    sent(&world, batch).await;
    let total = total(&world).await;
    // Four keys, each of which has stopped at 2^63 - 1.
    assert_eq!(total["units"], u64::MAX);
    assert!(total["money"].as_u64().unwrap() >= 1 << 63);
    assert_eq!(total["records"], 8);
}

#[tokio::test]
async fn groups_buckets_and_pages_add_up_to_the_same() {
    let world = World::new().await;
    let mut batch = numbered(RUN, 0, 100);
    let midnight = Timestamp::from_millis(now().millis().div_euclid(86_400_000) * 86_400_000);
    for (n, record) in batch.records.iter_mut().enumerate() {
        record.at = midnight.minus(Duration::from_secs(3600 * (n as u64 % 24)));
        record.price_version = u32::try_from(n % 2).unwrap();
        record.outcome = UsageOutcome::ALL[n % 5];
    }
    sent(&world, batch).await;
    let begin = midnight.minus(Duration::from_secs(24 * 3600));
    for query in [
        "",
        "granularity=minute",
        "granularity=hour",
        "granularity=day",
        "group_by=consumer",
        "group_by=operation,outcome&granularity=hour",
        "group_by=price_version,organisation,project,api,plan",
        "granularity=minute&group_by=organisation,project,consumer,api,operation,plan,price_version,outcome&limit=7",
    ] {
        let (mut records, mut units, mut after, mut pages) = (0, 0, String::new(), 0);
        loop {
            let path = format!("/v1/usage?from={begin}&{query}{after}");
            let (status, shown) = world.get(&path).await;
            assert_eq!(status, 200, "{path}: {shown}");
            for row in shown["items"].as_array().unwrap() {
                records += row["records"].as_u64().unwrap();
                units += row["units"].as_u64().unwrap();
            }
            pages += 1;
            let Some(next) = shown["next"].as_str() else {
                break;
            };
            after = format!("&after={}", escaped(next));
        }
        assert_eq!((records, units), whole(100), "{query}");
        assert!(pages > 1 || !query.contains("limit"), "{query}");
    }
    let (_, shown) = world
        .get(&format!(
            "/v1/usage?from={begin}&consumer=shop&group_by=operation"
        ))
        .await;
    let rows: Vec<_> = shown["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            (
                row["operation"].as_str().unwrap().to_owned(),
                row["records"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(rows, [("list".to_owned(), 17), ("show".to_owned(), 17)]);
    let (_, shown) = world
        .get(&format!(
            "/v1/usage?from={begin}&outcome=failed&price_version=1"
        ))
        .await;
    assert_eq!(shown["items"][0]["records"], 10);
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn what_cannot_be_answered_exactly_is_not_answered() {
    let world = World::new().await;
    let old = now().minus(Duration::from_secs(100 * 86_400)).to_string();
    let (day, _) = old.split_once('T').unwrap();
    for (query, field) in [
        ("granularity=week".to_owned(), "granularity"),
        ("group_by=colour".to_owned(), "group_by"),
        ("group_by=api,api".to_owned(), "group_by"),
        ("from=yesterday".to_owned(), "from"),
        (format!("from={day}T00:00:30Z"), "from"),
        (format!("from={day}T01:00:00Z&granularity=day"), "from"),
        // Hours of a hundred days ago are no longer there.
        (format!("from={day}T01:00:00Z"), "from"),
        ("to=2999-01-01T00:00:30Z".to_owned(), "from"),
        ("after=x".to_owned(), "after"),
        ("format=xml".to_owned(), "format"),
        ("format=cloudevents".to_owned(), "granularity"),
        ("limit=501".to_owned(), "limit"),
    ] {
        let (status, shown) = world.get(&format!("/v1/usage?{query}")).await;
        let by_field = shown["field"] == field || query.starts_with("to=");
        assert!(status == 422 && by_field, "{query}: {status} {shown}");
    }
    let (status, _) = world.get("/v1/usage?colour=red").await;
    assert_eq!(status, 400);
    let (status, _) = world.get("/v1/audit?consumer=shop").await;
    assert_eq!(
        status, 400,
        "parameters of one list are not those of another"
    );
    let (status, _) = world.anonymous("GET", "/v1/usage", &[]).await;
    assert_eq!(status, 401);
}

#[tokio::test]
async fn old_totals_are_dropped_each_at_its_time_and_the_balance_stays() {
    let world = World::new().await;
    let day = Duration::from_secs(86_400);
    let mut batch = numbered(RUN, 0, 4);
    for (record, age) in batch.records.iter_mut().zip([0, 3, 61, 801]) {
        record.at = now().minus(day * age);
    }
    batch.closing = true;
    sent(&world, batch).await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    sent(&world, numbered(RunId(8), 3, 1)).await;
    let mut other = open(world.state.path()).await;
    let mut rows = async |step: i64| {
        let counted = sqlx::query_scalar(
            "SELECT CAST(SUM(records) AS BIGINT) FROM usage_totals WHERE step = $1",
        );
        let counted: Option<i64> = counted.bind(step).fetch_one(&mut other).await.unwrap();
        counted.unwrap_or_default()
    };
    assert_eq!(
        (rows(60).await, rows(3600).await, rows(86_400).await),
        (5, 5, 5)
    );
    assert_eq!(world.control.purge_usage(now()).await.unwrap(), 3 + 2 + 1);
    assert_eq!(
        (rows(60).await, rows(3600).await, rows(86_400).await),
        (2, 3, 4)
    );
    assert_balanced(&world).await;
    assert_eq!(world.control.purge_usage(now()).await.unwrap(), 0);
    // Much later all is gone, but for the sender that may yet speak; its gap stays with it.
    world
        .control
        .purge_usage(now().plus(day * 900))
        .await
        .unwrap();
    assert_eq!((rows(60).await, rows(86_400).await), (0, 0));
    assert_balanced(&world).await;
    let (_, senders) = world.get("/v1/usage/senders").await;
    assert_eq!(senders["items"].as_array().unwrap().len(), 1, "{senders}");
    assert_eq!(gaps(&world).await, [(0, 2, true)]);
    assert_eq!(sent(&world, numbered(RunId(8), 4, 1)).await, 5);
    assert_balanced(&world).await;
    let defaults = UsageSettings::default();
    assert_eq!(
        (
            defaults.keep.minutes,
            defaults.keep.hours,
            defaults.keep.days
        ),
        (day * 2, day * 60, day * 800)
    );
}

#[tokio::test]
async fn usage_is_exported_as_csv_and_as_events_that_keep_their_ids() {
    let world = World::new().await;
    let mut batch = numbered(RUN, 0, 6);
    let hours = |n: u64| now().minus(Duration::from_secs(3600 * n));
    for (n, record) in batch.records.iter_mut().enumerate() {
        record.at = hours(n as u64 % 2);
        // The names of operations come from OpenAPI files.
        record.operation = ["-1+1", "=cmd", "list"][n % 3].into();
        record.consumer = "shop".into();
    }
    sent(&world, batch).await;
    let from = Timestamp::from_millis(hours(1).millis().div_euclid(3_600_000) * 3_600_000);
    let query = format!("/v1/usage?from={from}&group_by=operation&format=csv");
    let (head, csv) = world.text(&query).await;
    assert!(head.contains("content-type: text/csv"), "{head}");
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert_eq!(
        lines[0],
        "from,to,operation,records,calls,units,money,request_bytes,response_bytes,cpu_nanos,micros,stream_seconds,request_messages,response_messages,units_by_name,money_by_currency"
    );
    assert_eq!(
        lines[1],
        format!("{from},,\"'-1+1\",2,2,3,20,200,2000,10000,600,0,0,0,units=3,EUR=20")
    );
    assert_eq!(
        lines[2],
        format!("{from},,\"'=cmd\",2,2,5,20,200,2000,10000,600,0,0,0,units=5,EUR=20")
    );
    assert_eq!(lines.len(), 5, "{csv}");
    // Page by page, by the header.
    let (head, csv) = world.text(&format!("{query}&limit=2")).await;
    assert_eq!(csv.lines().count(), 3);
    let link = head
        .lines()
        .find_map(|line| line.strip_prefix("link: <"))
        .unwrap();
    let (next, _) = link.split_once('>').unwrap();
    let (head, csv) = world.text(next).await;
    assert_eq!(
        (csv.lines().count(), head.contains("link:")),
        (2, false),
        "{csv}"
    );

    let query = format!("/v1/usage?from={from}&granularity=hour&format=cloudevents");
    let events = async |more: &str| -> Vec<Value> {
        let (head, text) = world.text(&format!("{query}{more}")).await;
        assert!(
            head.contains("application/cloudevents-batch+json"),
            "{head}"
        );
        serde_json::from_str(&text).unwrap()
    };
    let first = events("&group_by=consumer").await;
    // The hour that has not ended is no event yet.
    assert_eq!(first.len(), 1, "{first:?}");
    let event = &first[0];
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["type"], "tollgate.usage.hour");
    assert_eq!(event["source"], "/tollgate/usage");
    assert_eq!(event["subject"], "shop");
    assert_eq!(event["id"], format!("hour/{from}?consumer=shop"));
    assert_eq!(event["data"]["records"], 3);
    // However it is asked for, the same is the same.
    assert_eq!(events("&group_by=consumer").await, first);
    assert_eq!(events("&consumer=shop").await, first);
    let ids = events("&group_by=operation,consumer").await;
    let ids: std::collections::BTreeSet<_> =
        ids.iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn a_service_reports_with_its_own_numbers_and_may_repeat_itself() {
    let world = World::with_files(files()).await;
    let run = "0123456789abcdef0123456789abcdef";
    let entry = json!({ "at": now().to_string(), "consumer": "filed", "api": "jobs", "operation": "render", "units": 7 });
    let report = |first: u64, records: Vec<Value>| json!({ "source": "renderer", "run": run, "first": first, "records": records });
    for _ in 0..2 {
        let (status, shown) = world
            .post("/v1/usage/records", report(0, vec![entry.clone(); 3]))
            .await;
        assert_eq!((status, &shown["next"]), (200, &json!(3)), "{shown}");
    }
    let (_, shown) = world
        .get("/v1/usage?group_by=organisation,project,consumer,api,operation")
        .await;
    let row = &shown["items"][0];
    for (member, value) in [
        ("organisation", "acme"),
        ("project", "web"),
        ("consumer", "filed"),
        ("api", "jobs"),
    ] {
        assert_eq!(row[member], value, "{shown}");
    }
    assert_eq!((&row["units"], &row["calls"]), (&json!(21), &json!(3)));
    let (status, _) = world
        .post("/v1/usage/records", report(5, vec![entry.clone()]))
        .await;
    assert_eq!(status, 200);
    assert_eq!(gaps(&world).await, [(3, 4, true)]);
    let (_, senders) = world.get("/v1/usage/senders?node=service:renderer").await;
    assert_eq!(senders["items"][0]["next"], 6);
    // Names of cost units, and money of a currency, or of one that nobody says.
    let mut named = entry.clone();
    named["units_by_name"] = json!({ "pages": 2, "a/b.c": 3 });
    named["money"] = 5.into();
    named["currency"] = "CHF".into();
    let mut unsaid = entry.clone();
    unsaid["money"] = 4.into();
    let (status, shown) = world
        .post("/v1/usage/records", report(3, vec![named, unsaid]))
        .await;
    assert_eq!(status, 200, "{shown}");
    let shown = total(&world).await;
    assert_eq!(
        shown["units_by_name"],
        json!({ "a/b.c": 3, "pages": 2, "units": 42 })
    );
    assert_eq!(shown["money_by_currency"], json!({ "CHF": 5, "XXX": 4 }));
    // One that is gone from the directory is named in full.
    let mut gone = entry.clone();
    gone["consumer"] = "gone".into();
    assert_eq!(
        world
            .post("/v1/usage/records", report(6, vec![gone.clone()]))
            .await
            .0,
        404
    );
    gone["organisation"] = "acme".into();
    assert_eq!(
        world
            .post("/v1/usage/records", report(6, vec![gone.clone()]))
            .await
            .0,
        422
    );
    gone["project"] = "web".into();
    assert_eq!(
        world
            .post("/v1/usage/records", report(6, vec![gone]))
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn reports_have_limits() {
    let world = World::with_files(files()).await;
    let run = "0123456789abcdef0123456789abcdef";
    let entry = json!({ "at": now().to_string(), "consumer": "filed", "api": "jobs", "operation": "render" });
    let with = |member: &str, value: Value| {
        let mut report =
            json!({ "source": "renderer", "run": run, "first": 0, "records": [entry.clone()] });
        report[member] = value;
        report
    };
    let broken = |member: &str, value: Value| {
        let mut broken = entry.clone();
        broken[member] = value;
        with("records", json!([broken]))
    };
    let many = (0..17).map(|n| (format!("meter{n}"), json!(1))).collect();
    let many = Value::Object(many);
    for (report, expected) in [
        (with("records", json!(vec![entry.clone(); 501])), 422),
        (with("records", json!(vec![entry.clone(); 900])), 413),
        (with("source", json!("A source")), 422),
        (with("run", json!("1")), 422),
        (with("run", json!("+123456789abcdef0123456789abcdef0")), 422),
        (with("first", json!(u64::MAX)), 422),
        (with("first", json!(-1)), 400),
        (with("more", json!(1)), 400),
        (broken("at", json!("now")), 422),
        (broken("api", json!("=1+1")), 422),
        (broken("operation", json!("a b")), 422),
        (broken("operation", json!("")), 422),
        (broken("plan", json!("Gold")), 422),
        (broken("outcome", json!("fine")), 422),
        (broken("units", json!(-1)), 400),
        (broken("units_by_name", json!({ "a b": 1 })), 422),
        (broken("units_by_name", json!({ "money": 1 })), 422),
        (broken("units_by_name", json!({ "": 1 })), 422),
        (broken("units_by_name", many), 422),
        (broken("currency", json!("euro")), 422),
    ] {
        let (status, shown) = world.post("/v1/usage/records", report.clone()).await;
        assert_eq!(status, expected, "{shown}");
    }
    assert_eq!(sums(&world).await, (0, 0));
    let (status, _) = world.anonymous("POST", "/v1/usage/records", &[]).await;
    assert_eq!(status, 401);
}

#[tokio::test]
async fn a_consumer_sees_its_own_usage_and_no_other() {
    let world = World::new().await;
    let mut batch = numbered(RUN, 0, 9);
    let today = Timestamp::from_millis(now().millis().div_euclid(86_400_000) * 86_400_000);
    let yesterday = today.minus(Duration::from_secs(60));
    batch.records[0].at = yesterday;
    batch.records[3].api = "other".into();
    batch.records[6].units = meters(&[("tokens", 2), ("units", 4)]);
    sent(&world, batch).await;
    let question = Question::OwnUsage {
        consumer: "shop".into(),
        api: "books".into(),
        limits: Vec::new(),
    };
    let Ok(Answer::OwnUsage(shown)) = world.client.ask(question, DEADLINE).await else {
        panic!("no answer");
    };
    // Of the shop's records 0, 3 and 6, one was yesterday and one elsewhere.
    assert_eq!(shown["today"]["total"]["units"], 6, "{shown}");
    let named = &shown["today"]["total"];
    assert_eq!(named["units_by_name"], json!({ "tokens": 2, "units": 4 }));
    assert_eq!(named["money_by_currency"], json!({ "EUR": 10 }));
    let operation = &shown["today"]["operations"][0];
    assert_eq!(operation["units_by_name"], named["units_by_name"]);
    assert_eq!(shown["today"]["operations"][0]["operation"], "list");
    let first = now().to_string()[8..10] == *"01";
    let expected = if first { 1 } else { 2 };
    assert_eq!(shown["month"]["total"]["calls"], expected, "{shown}");
    assert!(shown["month"]["total"].get("cpu_nanos").is_none());
    let question = Question::OwnUsage {
        consumer: "nobody".into(),
        api: "books".into(),
        limits: Vec::new(),
    };
    let answer = world.client.ask(question, DEADLINE).await;
    let Ok(Answer::OwnUsage(shown)) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(shown["month"]["operations"], json!([]));
}

/// Ends a control plane in the middle of whatever it does, as often as it takes, and repeats what was not answered.
#[test]
fn a_process_that_ends_in_the_middle_counts_nothing_twice_and_loses_nothing() {
    const COUNT: u64 = 1_500;
    let (mut state, mut next, mut lives) = (Some(tempfile::tempdir().unwrap()), 0, 0);
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    while next < COUNT {
        let runtime = runtime();
        let world = runtime.block_on(World::start(state.take().unwrap(), Arc::default()));
        let sending = async {
            while next < COUNT {
                let count = (COUNT - next).min(1 + next % 37);
                if let Ok(received) = offer(&world.client, numbered(RUN, next, count)).await {
                    next = received;
                }
            }
        };
        let life = Duration::from_millis(5 + lives * 7 % 41);
        let _cut_off = runtime.block_on(async { tokio::time::timeout(life, sending).await });
        // All tasks end where they are; nothing is written in order.
        runtime.shutdown_background();
        state = Some(world.state);
        lives += 1;
    }
    assert!(lives > 3, "{lives} lives are no test");
    runtime().block_on(async {
        let world = World::start(state.take().unwrap(), Arc::default()).await;
        assert_eq!(sums(&world).await, whole(COUNT));
        assert!(gaps(&world).await.is_empty());
        assert_balanced(&world).await;
    });
}

/// State directory of [`a_life`].
const LIFE: &str = "TOLLGATE_TEST_LIFE";
/// Where [`a_life`] begins, and where it ends.
const NUMBERS: &str = "TOLLGATE_TEST_NUMBERS";

/// Not a promise: the process that [`of_a_killed_process_each_answered_record_counts_once`] kills. It says each receipt aloud.
#[tokio::test]
#[ignore = "started by another test"]
async fn a_life() {
    let (Ok(state), Ok(numbers)) = (std::env::var(LIFE), std::env::var(NUMBERS)) else {
        return;
    };
    let (next, end) = numbers.split_once(' ').unwrap();
    let (mut next, end): (u64, u64) = (next.parse().unwrap(), end.parse().unwrap());
    let (client, server) = tollgate_proto::channel(world::PEPPER);
    let options = tollgate_control::Options {
        state_dir: state.into(),
        pepper: world::PEPPER,
        files: None,
        key_environment: "test".to_owned(),
        usage: UsageSettings::default(),
    };
    let _control = tollgate_control::Control::start(options, server)
        .await
        .unwrap();
    while next < end {
        let count = (end - next).min(1 + next % 37);
        if let Ok(received) = offer(&client, numbered(RUN, next, count)).await {
            next = received;
            println!("\nreceived {next}");
        }
    }
}

/// `TOLLGATE_KILLS` sets how often; a few by default.
#[test]
fn of_a_killed_process_each_answered_record_counts_once() {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};
    let kills: u64 = std::env::var("TOLLGATE_KILLS").map_or(12, |kills| kills.parse().unwrap());
    let state = tempfile::tempdir().unwrap();
    let mut next = 0;
    for kill in 0..=kills {
        // The last life may come to its end.
        let end = if kill < kills { u64::MAX } else { next + 100 };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "a_life"])
            .env(LIFE, state.path())
            .env(NUMBERS, format!("{next} {end}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (heard, mut kill_at) = (next, 1 + kill * 7 % 11);
        for line in lines.map_while(Result::ok) {
            let Some(received) = line.strip_prefix("received ") else {
                continue;
            };
            // A line may be cut off where its writer was killed; the number before it is true.
            let Ok(received) = received.parse::<u64>() else {
                continue;
            };
            if received <= next {
                continue;
            }
            next = received;
            kill_at = kill_at.saturating_sub(1);
            if kill_at == 0 && kill < kills {
                // While the next group is on its way.
                std::thread::sleep(Duration::from_micros(kill * 619 % 4_000));
                let _gone_already = child.kill();
            }
        }
        child.wait().unwrap();
        assert!(next > heard, "life {kill} did nothing");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = World::start(state, Arc::default()).await;
        assert_eq!(sums(&world).await, whole(next));
        assert!(gaps(&world).await.is_empty());
        assert_balanced(&world).await;
    });
}

#[tokio::test]
async fn of_two_processes_on_one_store_both_take_in_and_none_counts_twice() {
    let world = World::new().await;
    let (_successor, other) = world.beside().await;
    for first in (0..200).step_by(10) {
        let (own, other) = tokio::join!(
            offer(&world.client, numbered(RUN, first, 10)),
            offer(&other, numbered(RUN, first, 10)),
        );
        assert_eq!((own.unwrap(), other.unwrap()), (first + 10, first + 10));
    }
    assert_eq!(sums(&world).await, whole(200));
    assert!(gaps(&world).await.is_empty());
    assert_balanced(&world).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Batches of three senders in any order, some twice, some overlapping, some lost at first and sent again.
    #[test]
    fn any_order_of_delivery_gives_the_same_totals(
        deliveries in prop::collection::vec((0_u128..3, 0_u64..60, 1_u64..20), 0..40),
        at_once in any::<bool>(),
    ) {
        const COUNT: u64 = 60;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            let batches = deliveries.iter().map(|(run, first, count)| {
                numbered(RunId(*run), *first, (*count).min(COUNT - first))
            });
            // The same batches, in one group or one by one.
            let sending: Vec<_> = batches.map(|batch| {
                let client = world.client.clone();
                tokio::spawn(async move { offer(&client, batch).await })
            }).collect();
            for sending in sending {
                if at_once { tokio::task::yield_now().await; }
                let _refused_ones_come_again = sending.await.unwrap();
            }
            // In the end all is repeated by its sender, as after a loss.
            for run in 0..3 {
                for first in (0..COUNT).step_by(15) {
                    let reached = sent(&world, numbered(RunId(run), first, 15)).await;
                    assert!(reached >= first + 15);
                }
                assert_eq!(sender(&world, RunId(run)).await["missing"], 0);
            }
            let (records, units) = whole(COUNT);
            assert_eq!(sums(&world).await, (3 * records, 3 * units));
            assert!(gaps(&world).await.iter().all(|(_, _, open)| !open));
            assert_balanced(&world).await;
        });
    }
}

/// How many records a second are stored, from several senders at once. `cargo test --release -p tollgate-control --test usage -- --ignored
/// --nocapture`
#[tokio::test]
#[ignore = "a measurement"]
async fn records_per_second() {
    const RECORDS: u64 = 1_000;
    const BATCHES: u64 = 50;
    let world = World::new().await;
    for (name, keys) in [("few keys", 8), ("many keys", 2_000)] {
        let begun = Instant::now();
        let senders = (0..8_u32).map(|shard| {
            let client = world.client.clone();
            tokio::spawn(async move {
                for batch in 0..BATCHES {
                    let record = |n: u64| record(&format!("c{}", n % keys), "list", 1);
                    let batch = UsageBatch {
                        node: name.into(),
                        run: RUN,
                        shard,
                        first: batch * RECORDS,
                        records: (0..RECORDS).map(record).collect(),
                        closing: false,
                    };
                    while offer(&client, batch.clone()).await.is_err() {}
                }
            })
        });
        for sender in senders.collect::<Vec<_>>() {
            sender.await.unwrap();
        }
        let seconds = begun.elapsed().as_secs_f64();
        let records = 8 * BATCHES * RECORDS;
        println!(
            "{name}: {:.0} records/s ({records} in {seconds:.2} s)",
            records as f64 / seconds
        );
    }
    assert_balanced(&world).await;
}
