//! The journal against deaths, damage, full disks and an intake that fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::sync::watch;
use tollgate_policy::time::Timestamp;
use tollgate_proto::{
    Answer, ControlClient, ControlServer, Meters, Question, RunId, UsageBatch, UsageOutcome,
    UsageReceipt, UsageRecord,
};

use super::frame::{self, Frame, HEADER, NAMES_PER_RECORD, Place, names};
use super::reader::{Cursor, Decoder, Next};
use super::segment::parse_name;
use super::*;

const LIMIT: Duration = Duration::from_secs(20);

fn limits() -> UsageLimits {
    UsageLimits {
        segment_bytes: 64 << 10,
        sync_every: Duration::from_millis(5),
        ship_every: Duration::from_millis(10),
        ..UsageLimits::default()
    }
}

/// The `n`th record of a shard: all of it follows from the number.
fn record(n: u64) -> UsageRecord {
    UsageRecord {
        at: Timestamp::from_millis(1_795_000_000_000 + i64::try_from(n).unwrap()),
        organisation: "acme".into(),
        project: "acme/web".into(),
        consumer: format!("consumer-{}", n % 7).into(),
        api: "bookstore".into(),
        operation: format!("operation{}", n % 5).into(),
        plan: if n.is_multiple_of(3) { "" } else { "gold" }.into(),
        price_version: u32::try_from(n % 4).unwrap(),
        currency: ["EUR", "CHF", ""][usize::try_from(n / 2 % 3).unwrap()].into(),
        outcome: UsageOutcome::ALL[usize::try_from(n % 5).unwrap()],
        calls: 1,
        units: units(n),
        money: n,
        request_bytes: n * 100,
        response_bytes: u64::MAX - n,
        cpu_nanos: 20_000 + n,
        micros: 1_500,
        // Most records are of no stream.
        stream_seconds: if n.is_multiple_of(4) { n } else { 0 },
        request_messages: if n.is_multiple_of(8) { n * 2 } else { 0 },
        response_messages: if n.is_multiple_of(8) { n * 3 } else { 0 },
    }
}

/// Those of most records have no name, those of some have several.
fn units(n: u64) -> Meters {
    let mut units = Meters::default();
    match n % 4 {
        0 => {}
        1 | 2 => units.add_unnamed(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        _ => {
            for meter in 0..n % 7 {
                units.add(&format!("meter{meter}").into(), n + meter);
            }
        }
    }
    units
}

/// What an intake does, and what it may do wrong.
#[derive(Default)]
struct Intake {
    next: HashMap<(RunId, u32), u64>,
    records: BTreeMap<(RunId, u32, u64), UsageRecord>,
    gaps: Vec<(u64, u64)>,
    closed: Vec<(RunId, u32)>,
    nodes: Vec<Arc<str>>,
    /// Batches without records.
    signs: usize,
}

impl Intake {
    fn receive(&mut self, batch: UsageBatch) -> UsageReceipt {
        assert!(batch.records.len() <= 1000);
        self.signs += usize::from(batch.records.is_empty());
        let next = self.next.entry((batch.run, batch.shard)).or_default();
        if batch.first > *next {
            self.gaps.push((*next, batch.first));
            *next = batch.first;
        }
        for (number, record) in (batch.first..).zip(batch.records) {
            if number >= *next {
                let twice = self
                    .records
                    .insert((batch.run, batch.shard, number), record);
                assert!(twice.is_none(), "{number} is billed twice");
                *next = number + 1;
            }
        }
        if batch.closing {
            self.closed.push((batch.run, batch.shard));
        }
        if !self.nodes.contains(&batch.node) {
            self.nodes.push(batch.node);
        }
        UsageReceipt { next: *next }
    }

    fn of(&self, run: RunId, shard: u32) -> Vec<u64> {
        let all = (run, shard, 0)..=(run, shard, u64::MAX);
        self.records
            .range(all)
            .map(|((.., number), _)| *number)
            .collect()
    }
}

type Misdeed = Box<dyn FnMut(u64) -> Deed + Send>;

enum Deed {
    Store,
    Refuse,
    StoreAndKeepSilent,
    StoreHalf,
}

/// An intake at the other end of a channel; the watch shows how many records it has.
struct World {
    client: ControlClient,
    intake: Arc<Mutex<Intake>>,
    stored: watch::Receiver<usize>,
}

fn world(mut misdeed: Misdeed) -> World {
    let (client, mut server): (_, ControlServer) = tollgate_proto::channel([0; 32]);
    let intake = Arc::new(Mutex::new(Intake::default()));
    let (told, stored) = watch::channel(0);
    let kept = intake.clone();
    tokio::spawn(async move {
        let mut asked = 0;
        while let Some((question, answer)) = server.questions.recv().await {
            let Question::Usage(mut batch) = question else {
                panic!("the journal only ships");
            };
            asked += 1;
            let deed = misdeed(asked);
            if matches!(deed, Deed::Refuse) {
                let _ = answer.send(Answer::Refused("not now".to_owned()));
                continue;
            }
            if matches!(deed, Deed::StoreHalf) && batch.records.len() > 1 {
                batch.records.truncate(batch.records.len() / 2);
                batch.closing = false;
            }
            let receipt = kept.lock().receive(batch);
            told.send_replace(kept.lock().records.len());
            if !matches!(deed, Deed::StoreAndKeepSilent) {
                let _ = answer.send(Answer::Received(receipt));
            }
        }
    });
    World {
        client,
        intake,
        stored,
    }
}

fn obedient() -> World {
    world(Box::new(|_| Deed::Store))
}

impl World {
    async fn holds(&mut self, records: usize) {
        let wait = self.stored.wait_for(|stored| *stored >= records);
        tokio::time::timeout(LIMIT, wait)
            .await
            .expect("in time")
            .unwrap();
    }

    fn check(&self, run: RunId, shard: u32, numbers: std::ops::Range<u64>) {
        let intake = self.intake.lock();
        assert_eq!(intake.of(run, shard), numbers.clone().collect::<Vec<_>>());
        for number in numbers {
            assert_eq!(intake.records[&(run, shard, number)], record(number));
        }
    }
}

fn open(directory: &Path, shards: usize, limits: UsageLimits) -> (Journal, Shipper) {
    Journal::open(directory, "node-1".into(), shards, limits).unwrap()
}

/// What is left of a run when its process is killed now.
fn death(from: &Path, run: RunId, to: &Path) -> PathBuf {
    let from = from.join(run.to_string());
    let to = to.join(run.to_string());
    fs::create_dir_all(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    to
}

fn segments(run: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(run)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| parse_name(path.file_name().unwrap().to_str().unwrap()).is_some())
        .collect();
    found.sort();
    found
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn every_record_comes_once_and_an_orderly_end_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let world = obedient();
    let (journal, shipper) = open(directory.path(), 2, limits());
    let shipping = tokio::spawn(shipper.run(world.client.clone()));
    for n in 0..5000 {
        assert_eq!(journal.shard(0).unwrap().append(&record(n)), Ok(n));
        // Fills many segments: the keeper has to keep up.
        if n % 100 == 0 {
            until("a spare", || journal.shard(0).unwrap().room() == Room::Free).await;
        }
    }
    journal.shard(1).unwrap().append(&record(0)).unwrap();
    assert!(journal.close(LIMIT).await);
    shipping.await.unwrap();
    world.check(journal.run(), 0, 0..5000);
    world.check(journal.run(), 1, 0..1);
    let intake = world.intake.lock();
    assert!(intake.gaps.is_empty());
    assert_eq!(intake.closed.len(), 2);
    assert_eq!(*intake.nodes, ["node-1".into()]);
    assert!(!directory.path().join(journal.run().to_string()).exists());
    let state = journal.state();
    assert_eq!(state.records.load(Ordering::Relaxed), 5001);
    assert_eq!(state.shipped.load(Ordering::Relaxed), 5001);
    assert_eq!(state.pending.load(Ordering::Relaxed), 0);
    assert_eq!(state.unmetered.load(Ordering::Relaxed), 0);
    // Nothing is taken after the end, and that is counted.
    assert_eq!(journal.shard(0).unwrap().append(&record(0)), Err(Full));
    assert_eq!(state.unmetered.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_a_killed_process_left_is_sent_by_the_next_under_its_own_name() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dead, _unused) = open(first.path(), 2, limits());
    for n in 0..3000 {
        until("a spare", || dead.shard(0).unwrap().room() == Room::Free).await;
        dead.shard(0).unwrap().append(&record(n)).unwrap();
    }
    dead.shard(1).unwrap().append(&record(0)).unwrap();
    let left = death(first.path(), dead.run(), second.path());
    let mut world = obedient();
    let (journal, shipper) = Journal::open(second.path(), "node-2".into(), 1, limits()).unwrap();
    tokio::spawn(shipper.run(world.client.clone()));
    world.holds(3001).await;
    world.check(dead.run(), 0, 0..3000);
    world.check(dead.run(), 1, 0..1);
    until("removal", || !left.exists()).await;
    assert!(
        world.intake.lock().closed.is_empty(),
        "it did not end in order"
    );
    assert_eq!(*world.intake.lock().nodes, ["node-1".into()]);
    assert_eq!(journal.state().replayed.load(Ordering::Relaxed), 3001);
}

#[tokio::test]
async fn a_death_while_a_segment_is_made_leaves_no_damage() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join(format!("{:032x}", 7));
    fs::create_dir_all(&run).unwrap();
    fs::write(run.join("00000-0000000000.usage"), "").unwrap();
    fs::write(run.join("00000-0000000001.usage"), [0; 100]).unwrap();
    fs::write(run.join("00001-0000000000.usage"), [0; 70_000]).unwrap();
    let world = obedient();
    let (journal, shipper) = open(directory.path(), 1, limits());
    tokio::spawn(shipper.run(world.client.clone()));
    until("removal", || !run.exists()).await;
    assert_eq!(journal.state().damaged.load(Ordering::Relaxed), 0);
    assert!(world.intake.lock().next.is_empty());
}

#[tokio::test]
async fn a_run_that_ended_in_order_is_closed_by_whoever_sends_it() {
    let directory = tempfile::tempdir().unwrap();
    let (first, shipper) = open(directory.path(), 1, limits());
    first.shard(0).unwrap().append(&record(0)).unwrap();
    assert!(!first.close(Duration::ZERO).await, "nobody ships");
    let run = first.run();
    drop((first, shipper));
    let mut world = obedient();
    let (_second, shipper) = open(directory.path(), 1, limits());
    tokio::spawn(shipper.run(world.client.clone()));
    world.holds(1).await;
    until("the end", || world.intake.lock().closed == [(run, 0)]).await;
}

#[tokio::test]
async fn a_run_that_somebody_holds_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (older, _older_shipper) = open(directory.path(), 1, limits());
    older.shard(0).unwrap().append(&record(0)).unwrap();
    let mut world = obedient();
    let (younger, shipper) = open(directory.path(), 1, limits());
    tokio::spawn(shipper.run(world.client.clone()));
    younger.shard(0).unwrap().append(&record(0)).unwrap();
    world.holds(1).await;
    world.check(younger.run(), 0, 0..1);
    assert!(run::claim(directory.path(), &[]).unwrap().is_none());
    assert!(directory.path().join(older.run().to_string()).exists());
}

#[tokio::test]
async fn an_intake_that_refuses_forgets_to_answer_or_stores_half_gets_everything_once() {
    let directory = tempfile::tempdir().unwrap();
    let world = world(Box::new(|asked| match asked % 5 {
        1 => Deed::Refuse,
        2 | 4 => Deed::StoreHalf,
        3 => Deed::StoreAndKeepSilent,
        _ => Deed::Store,
    }));
    let (journal, shipper) = open(directory.path(), 1, limits());
    for n in 0..100 {
        journal.shard(0).unwrap().append(&record(n)).unwrap();
    }
    tokio::spawn(shipper.run(world.client.clone()));
    assert!(journal.close(LIMIT).await);
    world.check(journal.run(), 0, 0..100);
    assert_eq!(world.intake.lock().closed.len(), 1);
    assert!(journal.state().ship_failures.load(Ordering::Relaxed) >= 2);
}

#[tokio::test]
async fn a_full_journal_refuses_first_records_what_is_in_flight_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let limits = UsageLimits {
        total_bytes: 64 * 1024 * 8,
        ..limits()
    };
    let (journal, shipper) = open(directory.path(), 1, limits);
    let shard = journal.shard(0).unwrap();
    let mut written = 0;
    while shard.room() != Room::Full {
        shard.append(&record(written)).unwrap();
        written += 1;
        // The keeper has its time, so that what ends is the space.
        if written % 200 == 0 {
            until("a look", || {
                shard.room() != Room::Low
                    || !shard.wants_spare()
                    || journal.state().bytes.load(Ordering::Relaxed) > 64 * 1024 * 7
            })
            .await;
        }
    }
    assert_eq!(journal.room(), Room::Full);
    assert!(!shard.admits());
    let mut in_flight = 0;
    while shard.append(&record(written)).is_ok() {
        written += 1;
        in_flight += 1;
    }
    assert!(in_flight > 100, "{in_flight} calls in flight were recorded");
    for _ in 0..9 {
        assert_eq!(shard.append(&record(written)), Err(Full));
    }
    let state = journal.state();
    assert_eq!(state.unmetered.load(Ordering::Relaxed), 10);
    until("since when", || {
        state.full_since.load(Ordering::Relaxed) > 0
    })
    .await;
    assert!(run::bytes(directory.path()) <= 64 * 1024 * 8 + 64 * 1024);

    let mut world = obedient();
    tokio::spawn(shipper.run(world.client.clone()));
    world.holds(usize::try_from(written).unwrap()).await;
    until("room", || {
        shard.room() == Room::Free && journal.room() == Room::Free
    })
    .await;
    assert_eq!(state.full_since.load(Ordering::Relaxed), 0);
    assert_eq!(shard.append(&record(written)), Ok(written));
    assert!(journal.close(LIMIT).await);
    world.check(journal.run(), 0, 0..written + 1);
    assert!(world.intake.lock().gaps.is_empty());
}

#[tokio::test]
async fn a_definition_that_found_no_room_is_never_referred_to() {
    let directory = tempfile::tempdir().unwrap();
    let limits = UsageLimits {
        total_bytes: 64 << 10,
        reserve_bytes: 0,
        ..limits()
    };
    let (journal, shipper) = open(directory.path(), 1, limits);
    let shard = journal.shard(0).unwrap();
    let long: Arc<str> = "x".repeat(900).into();
    let with = |name: &Arc<str>| UsageRecord {
        consumer: name.clone(),
        ..record(0)
    };
    let mut sent = Vec::new();
    for n in 0u64.. {
        let name = format!("{n}{long}").into();
        if shard.append(&with(&name)).is_err() {
            // The long name did not fit. In what is left, it must not count as defined.
            while shard.append(&record(0)).is_ok() {
                sent.push(record(0));
            }
            assert_eq!(shard.append(&with(&name)), Err(Full));
            break;
        }
        sent.push(with(&name));
    }
    let mut world = obedient();
    tokio::spawn(shipper.run(world.client.clone()));
    world.holds(sent.len()).await;
    let intake = world.intake.lock();
    assert!(intake.records.values().eq(&sent));
    assert_eq!(journal.state().damaged.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn synced_waits_for_the_disk_and_not_forever() {
    let directory = tempfile::tempdir().unwrap();
    let limits = UsageLimits {
        sync_wait: Duration::from_millis(300),
        ..limits()
    };
    let (journal, _shipper) = open(directory.path(), 1, limits);
    let shard = journal.shard(0).unwrap();
    let number = shard.append(&record(0)).unwrap();
    assert_eq!(shard.synced(number).await, Ok(()));
    assert_eq!(shard.synced(number + 1).await, Err(NotSynced));
}

#[tokio::test]
async fn in_silence_a_run_says_that_it_is_alive() {
    let directory = tempfile::tempdir().unwrap();
    let quiet = UsageLimits {
        sign_every: Duration::from_millis(5),
        ..limits()
    };
    let (journal, shipper) = open(directory.path(), 2, quiet);
    let world = obedient();
    tokio::spawn(shipper.run(world.client.clone()));
    journal.shard(0).unwrap().append(&record(0)).unwrap();
    until("it spoke again and again", || world.intake.lock().signs > 3).await;
    let intake = world.intake.lock();
    assert_eq!((intake.records.len(), intake.gaps.len()), (1, 0));
    assert_eq!(intake.next.len(), 1, "who never wrote says nothing");
}

#[tokio::test]
async fn after_a_pause_a_record_is_shipped_within_a_second() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = obedient();
    let (journal, shipper) = open(directory.path(), 1, UsageLimits::default());
    tokio::spawn(shipper.run(world.client.clone()));
    let shard = journal.shard(0).unwrap();
    for n in 0..2 {
        until("rest", || journal.shared.idle.load(Ordering::SeqCst)).await;
        let began = Instant::now();
        shard.append(&record(n)).unwrap();
        world.holds(usize::try_from(n + 1).unwrap()).await;
        assert!(
            began.elapsed() < Duration::from_millis(2500),
            "{:?}",
            began.elapsed()
        );
    }
}

#[test]
fn writers_that_share_a_shard_get_numbers_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _shipper) = open(directory.path(), 1, UsageLimits::default());
    let shard = journal.shard(0).unwrap();
    let mut numbers: Vec<u64> = std::thread::scope(|scope| {
        let writing: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..1000)
                        .map(|n| shard.append(&record(n)).unwrap())
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        writing
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (0..4000).collect::<Vec<_>>());
}

#[test]
fn a_node_needs_a_name_that_fits() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["", &"n".repeat(LONGEST_NODE + 1)] {
        let opened = Journal::open(directory.path(), name.into(), 1, limits());
        assert!(matches!(opened, Err(JournalError::Node)));
    }
}

/// A segment of 300 records as the writer makes it, cut after its last frame.
fn image() -> (Place, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _shipper) = open(directory.path(), 1, limits());
    for n in 0..300 {
        journal.shard(0).unwrap().append(&record(n)).unwrap();
    }
    let path = segments(&directory.path().join(journal.run().to_string())).remove(0);
    let mut bytes = fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes.truncate(used.next_multiple_of(8));
    let place = Place {
        run: journal.run(),
        shard: 0,
        index: 0,
    };
    (place, bytes)
}

fn decode(place: Place, bytes: &[u8]) -> (Vec<(u64, UsageRecord)>, bool) {
    let mut decoder = Decoder::new(place);
    let mut found = Vec::new();
    loop {
        let offset = usize::try_from(decoder.offset()).unwrap();
        match decoder.next(bytes.get(offset..).unwrap_or_default(), true) {
            Next::Record(number, record) => found.push((number, record)),
            Next::Closing(_) => {}
            Next::More => panic!("these are all bytes there are"),
            Next::End => return (found, decoder.damaged()),
        }
    }
}

fn runner() -> TestRunner {
    TestRunner::new(Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    })
}

/// A segment of these records, each with names of its own, its header left blank.
fn frames(place: Place, records: &[UsageRecord]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    let mut next = 1;
    for (sequence, record) in (0..).zip(records) {
        let mut numbers = [0; NAMES_PER_RECORD];
        for (number, name) in numbers.iter_mut().zip(names(record)) {
            if name.is_empty() {
                continue;
            }
            let mut frame = Frame::default();
            frame.name(next, name);
            put(&mut bytes, place, &mut frame);
            (*number, next) = (next, next + 1);
        }
        let mut frame = Frame::default();
        frame.record(sequence, record, &numbers);
        put(&mut bytes, place, &mut frame);
    }
    bytes
}

fn put(bytes: &mut Vec<u8>, place: Place, frame: &mut Frame) {
    let offset = u32::try_from(bytes.len()).unwrap();
    bytes.extend(frame.word(offset, place.seed()).to_le_bytes());
    bytes.extend(frame.body());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}

const PLACE: Place = Place {
    run: RunId(7),
    shard: 1,
    index: 2,
};

#[test]
fn any_meters_and_currency_are_read_as_they_were_written() {
    let name = prop::sample::select(vec!["units", "tokens", "pages", "a/b", "gold"]);
    let meters = prop::collection::vec((name, any::<u64>()), 0..24);
    let many = prop::collection::vec(any::<u64>(), 0..24);
    let currency = prop::sample::select(vec!["", "EUR", "CHF"]);
    let parts = (meters, many, currency, any::<u64>(), 0..4u64);
    runner()
        .run(&parts, |(meters, many, currency, money, n)| {
            let mut units = Meters::default();
            for (name, amount) in meters {
                units.add(&name.into(), amount);
            }
            for (n, amount) in many.into_iter().enumerate() {
                units.add(&format!("{}{n}", "m".repeat(60)).into(), amount);
            }
            let record = UsageRecord {
                units,
                money,
                currency: currency.into(),
                ..record(n)
            };
            let bytes = frames(PLACE, std::slice::from_ref(&record));
            prop_assert_eq!(decode(PLACE, &bytes), (vec![(0, record)], false));
            Ok(())
        })
        .unwrap();
}

#[test]
fn names_cost_only_those_who_have_them() {
    let size = |record: &UsageRecord, count: u32| {
        let mut frame = Frame::default();
        let mut numbers = [0; NAMES_PER_RECORD];
        for (number, n) in numbers.iter_mut().zip(1..count) {
            *number = n;
        }
        frame.record(7, record, &numbers);
        frame.body().len()
    };
    let with = |units: Meters| UsageRecord { units, ..record(1) };
    let mut two = Meters::from(0);
    two.add(&"tokens".into(), 5);
    let one = with(two.clone());
    two.add(&"pages".into(), 6);
    // As many bytes as before there were names: see `a_segment_of_the_first_version_is_read_with_units_of_no_name`.
    let bare = size(&with(Meters::default()), 7);
    assert_eq!(size(&with(Meters::from(5)), 7), bare);
    assert_eq!(size(&one, 8), bare + 3);
    assert_eq!(size(&with(two), 9), bare + 5);
    // In what money is costs nothing beyond the name of the plan.
    let priced = UsageRecord {
        currency: "EUR".into(),
        ..with(Meters::default())
    };
    assert_eq!(size(&priced, 7), bare);
}

/// Bytes as the first version wrote them: names, a record of no stream, one of a stream, and the end.
#[test]
fn a_segment_of_the_first_version_is_read_with_units_of_no_name() {
    let mut bytes = vec![0; HEADER];
    let frame = |bytes: &mut Vec<u8>, kind: u8, body: &[u8]| {
        let length = u16::try_from(body.len()).unwrap();
        let mut hasher = crc32fast::Hasher::new_with_initial(PLACE.seed());
        hasher.update(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
        hasher.update(&length.to_le_bytes());
        hasher.update(&[kind, 0]);
        hasher.update(body);
        bytes.extend(length.to_le_bytes());
        bytes.extend([kind, 0xA7]);
        bytes.extend(hasher.finalize().to_le_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    };
    for (number, name) in [(1u32, "acme"), (2, "web"), (3, "shop"), (4, "gold")] {
        let body = [&number.to_le_bytes(), name.as_bytes()].concat();
        frame(&mut bytes, 1, &body);
    }
    // Sequence; time 64 ms; names; price version, outcome, calls; units 300, money 9, bytes, time.
    let mut body = vec![
        0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x01, 1, 2, 3, 2, 1, 4, 3, 0, 1,
    ];
    body.extend([0xAC, 0x02, 9, 5, 6, 7, 8]);
    frame(&mut bytes, 2, &body);
    body[0] = 1;
    body.extend([10, 11, 12]);
    frame(&mut bytes, 2, &body);
    frame(&mut bytes, 3, &2u64.to_le_bytes());
    let (found, damaged) = decode(PLACE, &bytes);
    let record = |stream: [u64; 3]| UsageRecord {
        at: Timestamp::from_millis(64),
        organisation: "acme".into(),
        project: "web".into(),
        consumer: "shop".into(),
        api: "web".into(),
        operation: "acme".into(),
        plan: "gold".into(),
        price_version: 3,
        currency: "".into(),
        outcome: UsageOutcome::Served,
        calls: 1,
        units: Meters::from(300),
        money: 9,
        request_bytes: 5,
        response_bytes: 6,
        cpu_nanos: 7,
        micros: 8,
        stream_seconds: stream[0],
        request_messages: stream[1],
        response_messages: stream[2],
    };
    assert_eq!(found, [(0, record([0; 3])), (1, record([10, 11, 12]))]);
    assert!(!damaged);
    // What has no name and no currency is written as it was, to the byte.
    let mut again = Frame::default();
    again.record(1, &record([10, 11, 12]), &numbers([1, 2, 3, 2, 1, 4]));
    assert_eq!(again.body(), body);
    let header = frame::Header {
        node: "edge-1".into(),
        place: PLACE,
        first: 5,
    };
    for (version, read) in [(0u8, false), (1, true), (2, true), (3, false)] {
        let mut bytes = header.encode();
        bytes[8] = version;
        let crc = crc32fast::hash(&bytes[..HEADER - 4]);
        bytes[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(frame::Header::decode(&bytes).is_ok(), read, "{version}");
    }
}

fn numbers(fixed: [u32; 6]) -> [u32; NAMES_PER_RECORD] {
    let mut numbers = [0; NAMES_PER_RECORD];
    numbers[..6].copy_from_slice(&fixed);
    numbers
}

#[test]
fn a_metered_record_that_promises_more_than_there_is_is_none() {
    let mut units = Meters::default();
    units.add(&"tokens".into(), 5);
    let metered = UsageRecord { units, ..record(1) };
    let mut whole = Frame::default();
    whole.record(0, &metered, &numbers([0; 6]));
    let body = whole.body().to_vec();
    // The count of names stands before number and amount of the one there is.
    let count = body.len() - 3;
    assert_eq!(body[count], 1);
    for wrong in [0, 2, 17, 0x7F] {
        let mut body = body.clone();
        body[count] = wrong;
        let mut bytes = vec![0; HEADER];
        let mut hasher = crc32fast::Hasher::new_with_initial(PLACE.seed());
        let length = u16::try_from(body.len()).unwrap().to_le_bytes();
        hasher.update(&u32::try_from(HEADER).unwrap().to_le_bytes());
        hasher.update(&[length[0], length[1], 4, 0]);
        hasher.update(&body);
        bytes.extend([length[0], length[1], 4, 0xA7]);
        bytes.extend(hasher.finalize().to_le_bytes());
        bytes.extend(&body);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        assert_eq!(decode(PLACE, &bytes), (Vec::new(), true), "{wrong}");
    }
}

#[test]
fn cut_anywhere_a_segment_loses_its_tail_only() {
    let (place, bytes) = image();
    let (all, damaged) = decode(place, &bytes);
    assert!(!damaged);
    assert_eq!(all.len(), 300);
    assert!(all.iter().all(|(number, found)| *found == record(*number)));
    runner()
        .run(&(HEADER..bytes.len()), |length| {
            let (found, _) = decode(place, &bytes[..length]);
            prop_assert_eq!(&found, &all[..found.len()]);
            // As much as stands before the cut: frames are short.
            let (longer, _) = decode(place, &bytes[..(length + 400).min(bytes.len())]);
            prop_assert!(longer.len() - found.len() < 20);
            // The same where zeros follow, as in a file that was allocated.
            let mut zeros = bytes[..length].to_vec();
            zeros.resize(bytes.len() + 4096, 0);
            // Where only zeros were cut off, the last record is whole again.
            let (allocated, _) = decode(place, &zeros);
            prop_assert!((found.len()..=found.len() + 1).contains(&allocated.len()));
            prop_assert_eq!(&allocated, &all[..allocated.len()]);
            Ok(())
        })
        .unwrap();
}

#[test]
fn flipped_bits_and_lost_pages_cost_what_they_hit_and_nothing_is_made_up() {
    let (place, bytes) = image();
    let flips = prop::collection::vec((0..bytes.len(), 0..8u8), 1..20);
    let holes = prop::collection::vec((0..bytes.len(), 1..600usize), 0..3);
    // Definitions stand in the first kilobytes; without one, its records cannot be read.
    let defined = HEADER + 4096;
    runner()
        .run(&(flips, holes), |(flips, holes)| {
            let mut wrong = bytes.clone();
            for (at, bit) in &flips {
                wrong[*at] ^= 1 << bit;
            }
            for (at, length) in &holes {
                let end = (at + length).min(wrong.len());
                wrong[*at..end].fill(0);
            }
            let (found, damaged) = decode(place, &wrong);
            prop_assert!(found.is_sorted_by(|a, b| a.0 < b.0));
            for (number, found) in &found {
                prop_assert_eq!(found, &record(*number));
            }
            let lost = 300 - found.len();
            let hit = holes
                .iter()
                .map(|(_, length)| length / 40 + 2)
                .sum::<usize>()
                + flips.len();
            let sound = flips.iter().all(|(at, _)| *at > defined)
                && holes.iter().all(|(at, _)| *at > defined);
            prop_assert!(!sound || lost <= hit, "lost {} of {} hit", lost, hit);
            let tail = holes.iter().any(|(at, length)| at + length >= wrong.len());
            prop_assert!(lost == 0 || damaged || tail);
            Ok(())
        })
        .unwrap();
}

#[test]
fn any_bytes_are_read_without_panic() {
    let (place, bytes) = image();
    runner()
        .run(
            &(prop::collection::vec(any::<u8>(), 0..2000), 0..bytes.len()),
            |(noise, at)| {
                let mut wrong = bytes.clone();
                wrong.splice(at..at, noise.iter().copied());
                for (number, found) in decode(place, &wrong).0 {
                    prop_assert_eq!(found, record(number));
                }
                prop_assert!(decode(place, &noise).0.is_empty());
                Ok(())
            },
        )
        .unwrap();
}

#[test]
fn a_segment_read_in_pieces_while_it_grows_is_the_same() {
    let (place, bytes) = image();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("segment");
    fs::write(&path, &bytes).unwrap();
    let mut cursor = Cursor::new(Arc::new(File::open(&path).unwrap()), place);
    let (all, _) = decode(place, &bytes);
    let mut found = Vec::new();
    // The ends of frames are where a writer commits.
    let mut decoder = Decoder::new(place);
    while let Next::Record(..) =
        decoder.next(&bytes[usize::try_from(decoder.offset()).unwrap()..], true)
    {
        cursor.extend(decoder.offset());
        let mark = cursor.mark();
        let again = cursor.portion(7, 0).unwrap();
        cursor.rewind(mark);
        let portion = cursor.portion(7, 0).unwrap();
        assert_eq!(again, portion);
        let portion = portion.expect("a record was committed");
        found.extend((portion.first..).zip(portion.records));
        assert!(cursor.at_end() && !cursor.damaged());
    }
    assert_eq!(found, all);
}

#[tokio::test]
async fn a_damaged_run_is_sent_with_its_gap_and_kept_aside() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dead, _unused) = open(first.path(), 1, limits());
    for n in 0..3000 {
        until("a spare", || dead.shard(0).unwrap().room() == Room::Free).await;
        dead.shard(0).unwrap().append(&record(n)).unwrap();
    }
    let left = death(first.path(), dead.run(), second.path());
    let files = segments(&left);
    assert!(files.len() > 2);
    // The header of the first is destroyed, which costs nothing; in the second, two records are.
    let damage = |path: &Path, at: u64| {
        let mut file = File::options().write(true).open(path).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&[0x55; 16]).unwrap();
    };
    damage(&files[0], 16);
    damage(&files[1], 20_000);
    let mut world = obedient();
    let (journal, shipper) = open(second.path(), 1, limits());
    tokio::spawn(shipper.run(world.client.clone()));
    let state = journal.state().clone();
    until("replay", || {
        state.damaged.load(Ordering::Relaxed) == 2 && segments(&left).is_empty()
    })
    .await;
    world.holds(2990).await;
    let intake = world.intake.lock();
    let lost = 3000 - intake.records.len();
    assert!((1..=3).contains(&lost), "{lost}");
    let [(from, to)] = *intake.gaps else {
        panic!("one gap: {:?}", intake.gaps);
    };
    assert_eq!(to - from, u64::try_from(lost).unwrap());
    assert_eq!(state.gaps.load(Ordering::Relaxed), to - from);
    assert!(
        intake
            .records
            .iter()
            .all(|((.., n), found)| *found == record(*n))
    );
    let kept: Vec<_> = fs::read_dir(&left)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".usage.damaged"))
        .collect();
    assert_eq!(kept.len(), 2);
    drop(intake);
    assert!(
        run::claim(second.path(), &[journal.run()])
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_run_of_another_version_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join(format!("{:032x}", 7));
    fs::create_dir_all(&run).unwrap();
    let mut header = frame::Header {
        node: "node".into(),
        place: Place {
            run: RunId(7),
            shard: 0,
            index: 0,
        },
        first: 0,
    }
    .encode();
    header[8] = 99;
    let crc = crc32fast::hash(&header[..HEADER - 4]);
    header[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
    let path = run.join("00000-0000000000.usage");
    fs::write(&path, header).unwrap();
    let mut world = obedient();
    let (journal, shipper) = open(directory.path(), 1, limits());
    tokio::spawn(shipper.run(world.client.clone()));
    journal.shard(0).unwrap().append(&record(0)).unwrap();
    world.holds(1).await;
    assert!(journal.close(LIMIT).await);
    assert_eq!(fs::read(path).unwrap(), header);
}

/// `cargo test --release -p tollgate-gateway --lib usage::tests::speed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn speed() {
    let directory =
        tempfile::tempdir_in(std::env::var_os("USAGE_DIR").unwrap_or(".".into())).unwrap();
    let (journal, _shipper) = open(directory.path(), 1, UsageLimits::default());
    let shard = journal.shard(0).unwrap();
    let records: Vec<_> = (0..512)
        .map(|n| UsageRecord {
            units: (n % 100).into(),
            money: n * 13,
            response_bytes: n * 211,
            request_bytes: n * 3,
            ..record(n)
        })
        .collect();
    // As in the gateway, the same names come in the same `Arc`s.
    let mut same: HashMap<Arc<str>, Arc<str>> = HashMap::new();
    let mut one = |name: &Arc<str>| same.entry(name.clone()).or_insert(name.clone()).clone();
    let records: Vec<_> = records
        .into_iter()
        .map(|record| UsageRecord {
            organisation: one(&record.organisation),
            project: one(&record.project),
            consumer: one(&record.consumer),
            api: one(&record.api),
            operation: one(&record.operation),
            plan: one(&record.plan),
            currency: one(&record.currency),
            ..record
        })
        .collect();
    let count = 1_000_000u64;
    // What this thread has had of a processor, in nanoseconds: on a busy machine the clock says something else.
    let spent = || -> u64 {
        let told = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        told.split(' ').next().unwrap().parse().unwrap()
    };
    let before = spent();
    let mut slowest: Vec<Duration> = Vec::with_capacity(usize::try_from(count).unwrap());
    let began = Instant::now();
    let mut full = 0;
    for n in 0..count {
        let record = &records[usize::try_from(n).unwrap() % records.len()];
        while shard.append(record).is_err() {
            full += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let (took, spent) = (began.elapsed(), spent() - before);
    for n in 0..count {
        let record = &records[usize::try_from(n).unwrap() % records.len()];
        let before = Instant::now();
        let written = shard.append(record).is_ok();
        if written {
            slowest.push(before.elapsed());
        }
        if n % 8 == 7 {
            // As fast as a busy worker, not faster: 200,000 a second.
            while before.elapsed() < Duration::from_micros(40) {
                std::hint::spin_loop();
            }
        }
    }
    slowest.sort_unstable();
    let at = |permille: usize| slowest[(slowest.len() - 1) * permille / 10_000];
    let used: u64 = segments(&directory.path().join(journal.run().to_string()))
        .first()
        .map_or(0, |path| {
            let bytes = fs::read(path).unwrap();
            let place = Place {
                run: journal.run(),
                shard: 0,
                index: 0,
            };
            let (found, _) = decode(place, &bytes);
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            u64::try_from((end - HEADER) * 10 / found.len()).unwrap()
        });
    println!(
        "append: {} ns CPU, {} ns ({full} waits); p50 {:?}, p99 {:?}, p99.9 {:?}, p99.99 {:?}, max {:?} with two clock reads; {}.{} bytes a record",
        spent / count,
        took.as_nanos() / u128::from(count),
        at(5000),
        at(9900),
        at(9990),
        at(9999),
        at(10_000),
        used / 10,
        used % 10,
    );
}
