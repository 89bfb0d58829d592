//! Every answered call is billed once: processes that serve, ship and store are killed at random moments under load, and what callers
//! counted is compared with what `tollgate usage` says afterwards.
//!
//! All of it is what is shipped: gateways with their journal and shipper, the control plane with its intake, in one process and in two.
//! Each life of a gateway has a consumer of its own, each caller an operation of its own, and each call a cost that follows from its
//! number: the totals show which calls they are of. The call that a death cuts off may be billed, if it reached the service.
//!
//! `TOLLGATE_KILLS` says how many deaths there are: 12 in the suite, 1,000 with `make kill-test`. That the comparison would notice is
//! shown by an intake that commits in two steps: it must fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod killed;
mod world;

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use killed::{Site, random, two_steps, units};
use tollgate_gateway::usage::{Journal, Room, UsageLimits};
use tollgate_policy::time::Timestamp;
use tollgate_proto::{Answer, ControlServer, Question, UsageOutcome, UsageReceipt, UsageRecord};

/// Where a child fills the disk.
const DIRECTORY: &str = "TOLLGATE_KILL_DIRECTORY";

/// Each of the two tests of what is shipped takes half of them.
fn kills() -> u64 {
    let kills = std::env::var("TOLLGATE_KILLS").map_or(12, |kills| kills.parse().unwrap());
    kills / 2
}

#[test]
fn of_one_process_that_is_killed_every_answered_call_is_billed_once() {
    let kills = kills();
    let mut site = Site::alone(kills);
    for kill in 1..=kills {
        site.moment();
        site.kill_gateway();
        tell("one process", kill, &site);
    }
    site.settles();
    site.assert_right(kills);
}

#[test]
fn of_two_processes_that_are_killed_apart_every_answered_call_is_billed_once() {
    let kills = kills();
    let mut site = Site::apart(kills);
    for kill in 1..=kills {
        match random(10) {
            0..5 => {
                site.moment_of_intake();
                site.fleet.control.start_again();
            }
            5 => {
                site.moment();
                site.fleet.control.kill();
                site.kill_gateway();
                site.fleet.control.start_again();
            }
            _ => {
                site.moment();
                site.kill_gateway();
            }
        }
        tell("two processes", kill, &site);
    }
    site.settles();
    site.assert_right(kills);
}

#[test]
fn an_intake_that_commits_in_two_steps_is_found_out() {
    let most = 40;
    let mut site = Site::apart(most);
    for _ in 0..most {
        site.moment();
        two_steps::note(&site.state());
        sleep(Duration::from_micros(random(300_000)));
        site.fleet.control.kill();
        site.gateway_ends();
        two_steps::cut_off(&site.state());
        site.fleet.control.start_again();
        site.gateway_begins();
        if !site.wrong().is_empty() {
            break;
        }
    }
    site.settles();
    let (books, wrong) = site.compare();
    println!("two steps: {books:?}, {wrong:?}");
    assert!(wrong.iter().any(|wrong| wrong.starts_with("billed twice")));
    // And that is all that is wrong.
    assert!(!wrong.iter().any(|wrong| wrong.starts_with("lost")));
}

#[test]
fn a_disk_without_space_is_no_signal_and_no_loss() {
    let directory = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=2m usage \"$0\" 2>/dev/null || exit 77; exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--mount", "sh", "-c", mount])
        .arg(directory.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .stdin(Stdio::null());
    let output = command.output();
    let said = |output: &std::process::Output| {
        String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
    };
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) if output.status.code() == Some(101) || output.status.code().is_none() => {
            panic!("{}: {}", output.status, said(&output))
        }
        Ok(output) => println!("skipped: no file system of one's own: {}", said(&output)),
        Err(error) => println!("skipped: unshare: {error}"),
    }
}

/// What the parent starts; for anybody else it does nothing.
#[test]
#[ignore = "runs as a child of the test above"]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(fill(Path::new(&directory)));
}

fn tell(what: &str, kill: u64, site: &Site) {
    if kill.is_multiple_of(50) {
        println!("{what}: {kill} kills, {:?}", site.began.elapsed());
    }
}

fn record(number: u64) -> UsageRecord {
    UsageRecord {
        at: Timestamp::from_millis(1_795_000_000_000),
        organisation: "acme".into(),
        project: "web".into(),
        consumer: format!("consumer{}", number % 100).into(),
        api: "bookstore".into(),
        operation: format!("operation{}", number % 9).into(),
        plan: "gold".into(),
        price_version: 1,
        currency: "EUR".into(),
        outcome: UsageOutcome::Served,
        calls: 1,
        units: units(number).into(),
        money: number,
        request_bytes: 0,
        response_bytes: 1,
        cpu_nanos: 1,
        micros: 1,
        stream_seconds: 0,
        request_messages: 0,
        response_messages: 0,
    }
}

// ---- a disk without space ----

/// Writes until the disk is full, then lets the intake have it all.
async fn fill(directory: &Path) {
    let limits = UsageLimits {
        segment_bytes: 256 << 10,
        reserve_bytes: 32 << 10,
        ..UsageLimits::default()
    };
    let usage = directory.join("usage");
    let (journal, shipper) = Journal::open(&usage, "node".into(), 1, limits).unwrap();
    let shard = journal.shard(0).unwrap();
    let (mut written, mut in_flight, mut stopped) = (0, 0, 0);
    while stopped < 20 {
        let full = shard.room() == Room::Full;
        match shard.append(&record(written)) {
            Ok(_) => {
                written += 1;
                in_flight += u64::from(full);
            }
            // The keeper may have been behind; a full disk stays full.
            Err(_) => {
                stopped += 1;
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
        }
    }
    assert!(
        journal.room() == Room::Full && in_flight > 100,
        "{in_flight}"
    );
    assert!(written > 10_000, "{written}");
    let unmetered = &journal.state().unmetered;
    assert_eq!(
        unmetered.load(std::sync::atomic::Ordering::Relaxed),
        stopped
    );
    let (client, mut server): (_, ControlServer) = tollgate_proto::channel([0; 32]);
    let shipping = tokio::spawn(shipper.run(client));
    let mut next = HashMap::new();
    while next.get(&0u32) != Some(&written) {
        let (question, answer) = server.questions.recv().await.unwrap();
        let Question::Usage(batch) = question else {
            panic!("the journal only ships");
        };
        let expected = next.entry(batch.shard).or_insert(0u64);
        assert_eq!(*expected, batch.first);
        *expected += batch.records.len() as u64;
        let receipt = UsageReceipt { next: *expected };
        let _ = answer.send(Answer::Received(receipt));
    }
    let began = Instant::now();
    while shard.room() != Room::Free {
        assert!(began.elapsed() < Duration::from_secs(20), "no room again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(shard.append(&record(written)), Ok(written));
    shipping.abort();
}
