//! Every acknowledged record is billed once: processes that write, ship and store usage are killed at random moments, and the books are
//! compared afterwards.
//!
//! The writer is this test binary started again; it appends on two shards as fast as it can and tells each number it got over a socket.
//! The intake is a third process with a small SQLite store. `TOLLGATE_KILLS` says how many deaths there are: 30 in the suite, 1,000 with
//! `make kill-test`. That the comparison would notice is shown by an intake that commits in two steps: it must fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Once, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Row, SqliteConnection, SqlitePool};
use tollgate_gateway::usage::{Journal, Room, Shipper, UsageLimits};
use tollgate_policy::time::Timestamp;
use tollgate_proto::{
    Answer, ControlServer, Question, UsageBatch, UsageOutcome, UsageReceipt, UsageRecord,
};

/// What a child does.
const ROLE: &str = "TOLLGATE_KILL_ROLE";
/// Where it does it.
const DIRECTORY: &str = "TOLLGATE_KILL_DIRECTORY";
/// How many records a writer appends before it ends in order.
const RECORDS: &str = "TOLLGATE_KILL_RECORDS";

/// What a child says once it has written, or stored, something.
const AT_WORK: &str = "at work";

const SHARDS: u32 = 2;

/// A record's units follow from its number, so that sums show which records they are of.
fn units(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44
}

#[test]
fn whatever_is_killed_every_acknowledged_record_is_billed_once() {
    let kills = std::env::var("TOLLGATE_KILLS").map_or(30, |kills| kills.parse().unwrap());
    let mut world = World::start("intake");
    let began = Instant::now();
    for kill in 0..kills {
        match random(10) {
            0..4 => world.kill_intake(),
            4 => {
                world.kill_writer();
                world.kill_intake();
            }
            _ => world.kill_writer(),
        }
        if kill % 100 == 99 {
            println!("{} kills, {:?}", kill + 1, began.elapsed());
        }
    }
    world.settle();
    let books = world.compare();
    println!("{kills} kills: {books:?}");
    assert_eq!(books.wrong, Vec::<String>::new());
    assert!(books.billed >= books.acknowledged && books.acknowledged > 1000);
    assert!(
        books.runs > kills / 4,
        "most writers died before they began"
    );
}

#[test]
fn an_intake_that_commits_in_two_steps_is_found_out() {
    let mut world = World::start("two-step intake");
    for _ in 0..40 {
        world.kill_intake();
    }
    world.settle();
    let books = world.compare();
    println!("two steps: {books:?}");
    assert!(
        books
            .wrong
            .iter()
            .any(|wrong| wrong.contains("billed twice"))
    );
    // And that is all that is wrong.
    assert!(!books.wrong.iter().any(|wrong| wrong.contains("lost")));
}

#[test]
fn a_disk_without_space_is_no_signal_and_no_loss() {
    let directory = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=2m usage \"$0\" 2>/dev/null || exit 77; exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--mount", "sh", "-c", mount])
        .arg(directory.path())
        .arg(std::env::current_exe().unwrap());
    let output = as_child(&mut command, "full", directory.path())
        .stderr(Stdio::piped())
        .output();
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

/// What the parent starts again; for anybody else it does nothing.
#[test]
#[ignore = "runs as a child of the tests above"]
fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    match role.as_str() {
        "writer" => runtime.block_on(write(&directory)),
        "full" => runtime.block_on(fill(&directory)),
        other => runtime.block_on(store(&directory, other == "two-step intake")),
    }
}

// ---- the parent ----

/// Numbers acknowledged to a caller: how many of each run and shard. They begin at 0 and have no gaps.
type Acknowledged = Arc<Mutex<BTreeMap<(String, u32), u64>>>;

struct World {
    directory: tempfile::TempDir,
    intake_role: &'static str,
    writer: Process,
    intake: Process,
    acknowledged: Acknowledged,
    readers: Arc<Mutex<Vec<std::thread::JoinHandle<()>>>>,
}

#[derive(Debug)]
struct Books {
    acknowledged: u64,
    billed: u64,
    runs: usize,
    wrong: Vec<String>,
}

/// Killed when forgotten.
struct Process {
    child: Child,
    /// Says something once the process is at work.
    at_work: mpsc::Receiver<()>,
}

impl Process {
    fn watch(mut child: Child) -> Self {
        let (tell, at_work) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if line.contains(AT_WORK) {
                    let _ = tell.send(());
                }
            }
        });
        Self { child, at_work }
    }

    /// Lets it work for a moment; now and then it does not even come to begin.
    fn moment(&self) {
        if random(5) > 0 {
            let _ = self.at_work.recv_timeout(Duration::from_secs(5));
            std::thread::sleep(Duration::from_micros(random(40_000)));
        } else {
            std::thread::sleep(Duration::from_millis(random(60)));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn as_child<'a>(command: &'a mut Command, role: &str, directory: &Path) -> &'a mut Command {
    command
        .args(["--ignored", "--exact", "child", "--nocapture"])
        .env(ROLE, role)
        .env(DIRECTORY, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
}

fn start(role: &str, directory: &Path) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    Process::watch(as_child(&mut command, role, directory).spawn().unwrap())
}

fn random(below: u64) -> u64 {
    RandomState::new().build_hasher().finish() % below
}

impl World {
    fn start(intake_role: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let acknowledged = Acknowledged::default();
        let readers = Arc::new(Mutex::new(Vec::new()));
        let listener = UnixListener::bind(directory.path().join("acknowledged")).unwrap();
        let (all, kept) = (acknowledged.clone(), readers.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, all) = (stream.unwrap(), all.clone());
                let reader = std::thread::spawn(move || read_acknowledged(stream, &all));
                kept.lock().unwrap().push(reader);
            }
        });
        Self {
            writer: start("writer", directory.path()),
            intake: start(intake_role, directory.path()),
            intake_role,
            directory,
            acknowledged,
            readers,
        }
    }

    fn kill_writer(&mut self) {
        self.writer.moment();
        self.writer = start("writer", self.directory.path());
    }

    fn kill_intake(&mut self) {
        self.intake.moment();
        self.intake = start(self.intake_role, self.directory.path());
    }

    /// Kills once more; the last writer sends what is there and ends in order.
    fn settle(&mut self) {
        self.kill_writer();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let command = as_child(&mut command, "writer", self.directory.path());
        let last = command
            .env(RECORDS, "1000")
            .stderr(Stdio::inherit())
            .spawn();
        // Until here two of them live beside each other, as in a hand-over.
        self.writer = Process::watch(last.unwrap());
        assert!(
            self.writer.child.wait().unwrap().success(),
            "the last writer"
        );
        let readers = std::mem::take(&mut *self.readers.lock().unwrap());
        for reader in readers {
            reader.join().unwrap();
        }
    }

    fn compare(&self) -> Books {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut stored = runtime.block_on(stored(self.directory.path()));
        let acknowledged = self.acknowledged.lock().unwrap();
        let mut books = Books {
            acknowledged: acknowledged.values().sum(),
            billed: stored.values().map(|sender| sender.calls).sum(),
            runs: stored.len() / 2,
            wrong: Vec::new(),
        };
        for (sender, acknowledged) in &*acknowledged {
            let found = stored.remove(sender).unwrap_or_default();
            found.compare(sender, *acknowledged, &mut books.wrong);
        }
        for (sender, found) in stored {
            found.compare(&sender, 0, &mut books.wrong);
        }
        books
    }
}

fn read_acknowledged(stream: UnixStream, all: &Acknowledged) {
    let mut stream = BufReader::new(stream);
    let mut head = [0; 36];
    if stream.read_exact(&mut head).is_err() {
        return;
    }
    let run = String::from_utf8(head[..32].to_vec()).unwrap();
    let shard = u32::from_le_bytes(head[32..].try_into().unwrap());
    let (mut number, mut next) = ([0; 8], 0);
    while stream.read_exact(&mut number).is_ok() {
        assert_eq!(u64::from_le_bytes(number), next, "numbers have no gaps");
        next += 1;
    }
    all.lock().unwrap().insert((run, shard), next);
}

/// What the store says of one run and shard.
#[derive(Debug, Default)]
struct Sender {
    next: u64,
    calls: u64,
    units: u64,
    /// Records left out, or that are not what their number says.
    odd: u64,
}

impl Sender {
    fn compare(&self, sender: &(String, u32), acknowledged: u64, wrong: &mut Vec<String>) {
        let sum: u64 = (0..self.next).map(units).sum();
        let mut check = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!(
                    "{what}: {sender:?}: {acknowledged} acknowledged, {self:?}"
                ));
            }
        };
        check(self.next >= acknowledged, "lost");
        check(self.calls >= self.next, "lost");
        check(self.calls <= self.next, "billed twice");
        check(
            self.calls != self.next || self.units == sum,
            "billed wrongly",
        );
        check(self.odd == 0, "odd");
        // Killed between writing a record and saying so: one at most.
        check(self.next <= acknowledged + 1, "made up");
    }
}

async fn stored(directory: &Path) -> BTreeMap<(String, u32), Sender> {
    let path = format!("sqlite:{}", directory.join("intake.db").display());
    let mut store = SqliteConnection::connect(&path).await.unwrap();
    let rows = sqlx::query("SELECT run, shard, calls, units, odd, coalesce(next, 0) AS next FROM totals LEFT JOIN marks USING (run, shard)")
        .fetch_all(&mut store)
        .await
        .unwrap();
    let number = |value: i64| u64::try_from(value).unwrap();
    rows.iter()
        .map(|row| {
            let sender = Sender {
                next: number(row.get("next")),
                calls: number(row.get("calls")),
                units: number(row.get("units")),
                odd: number(row.get("odd")),
            };
            ((row.get("run"), row.get("shard")), sender)
        })
        .collect()
}

// ---- the writer ----

async fn write(directory: &Path) {
    let limits = UsageLimits {
        segment_bytes: 256 << 10,
        total_bytes: 64 << 20,
        ..UsageLimits::default()
    };
    let usage = directory.join("usage");
    let (journal, shipper) = Journal::open(&usage, "node".into(), SHARDS as usize, limits).unwrap();
    let shipping = tokio::spawn(ship(shipper, directory.join("intake")));
    let records = std::env::var(RECORDS).map_or(u64::MAX, |records| records.parse().unwrap());
    let journal = Arc::new(journal);
    let writing: Vec<_> = (0..SHARDS)
        .map(|shard| {
            let (journal, path) = (journal.clone(), directory.join("acknowledged"));
            tokio::task::spawn_blocking(move || append(&journal, shard, records, &path))
        })
        .collect();
    for writing in writing {
        writing.await.unwrap();
    }
    // What the dead left is sent, too, before this ends.
    let own = journal.run().to_string();
    let others = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&usage).unwrap();
        let others = entries
            .flatten()
            .filter(|entry| entry.file_name() != *own && entry.path().is_dir());
        others.map(|entry| entry.path()).collect()
    };
    let (mut left, mut since) = (usize::MAX, Instant::now());
    loop {
        let others = others();
        let Some(one) = others.first() else {
            break;
        };
        if others.len() < left {
            (left, since) = (others.len(), Instant::now());
        }
        let files = || std::fs::read_dir(one).map(|files| files.flatten().collect::<Vec<_>>());
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "{left} former runs stay: {:?}; {:?}",
            files(),
            journal.state()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(journal.close(Duration::from_secs(60)).await);
    shipping.await.unwrap();
}

fn at_work() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| println!("{AT_WORK}"));
}

/// Appends, and says so.
fn append(journal: &Journal, shard: u32, records: u64, path: &Path) {
    let mut acknowledged = UnixStream::connect(path).unwrap();
    acknowledged
        .write_all(journal.run().to_string().as_bytes())
        .unwrap();
    acknowledged.write_all(&shard.to_le_bytes()).unwrap();
    let writer = journal.shard(shard as usize).unwrap();
    let mut number = 0;
    while number < records {
        let Ok(given) = writer.append(&record(number)) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        assert_eq!(given, number);
        acknowledged.write_all(&given.to_le_bytes()).unwrap();
        at_work();
        number += 1;
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

/// Ships to the intake's process.
async fn ship(shipper: Shipper, socket: PathBuf) {
    let (client, mut server): (_, ControlServer) = tollgate_proto::channel([0; 32]);
    std::thread::spawn(move || {
        let mut connection = None;
        while let Some((question, answer)) = server.questions.blocking_recv() {
            let Question::Usage(batch) = question else {
                panic!("the journal only ships");
            };
            let mut stored = forward(&mut connection, &socket, &batch);
            // Mostly the same batch again, so that the intake has something to do as soon as it is back. Otherwise no answer: then the
            // journal sends it again, after a while.
            while stored.is_err() && !answer.is_closed() && random(200) > 0 {
                std::thread::sleep(Duration::from_millis(2));
                connection = None;
                stored = forward(&mut connection, &socket, &batch);
            }
            if let Ok(next) = stored {
                let _ = answer.send(Answer::Received(UsageReceipt { next }));
            }
        }
    });
    shipper.run(client).await;
}

fn forward(
    connection: &mut Option<BufReader<UnixStream>>,
    socket: &Path,
    batch: &UsageBatch,
) -> std::io::Result<u64> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(BufReader::new(UnixStream::connect(socket)?)),
    };
    let records: Vec<_> = batch
        .records
        .iter()
        .map(|record| (record.money, record.units.total()))
        .collect();
    let message = json!({
        "run": batch.run.to_string(),
        "shard": batch.shard,
        "first": batch.first,
        "records": records,
    });
    connection
        .get_mut()
        .write_all(format!("{message}\n").as_bytes())?;
    let mut line = String::new();
    connection.read_line(&mut line)?;
    line.trim().parse().map_err(std::io::Error::other)
}

// ---- the intake ----

async fn store(directory: &Path, two_steps: bool) {
    let options = SqliteConnectOptions::new()
        .filename(directory.join("intake.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(Duration::from_secs(5));
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await
        .unwrap();
    for table in [
        "totals (run TEXT, shard INTEGER, calls INTEGER, units INTEGER, odd INTEGER, PRIMARY KEY (run, shard))",
        "marks (run TEXT, shard INTEGER, next INTEGER, PRIMARY KEY (run, shard))",
    ] {
        let statement = format!("CREATE TABLE IF NOT EXISTS {table}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&pool)
            .await
            .unwrap();
    }
    let socket = directory.join("intake");
    let _ = std::fs::remove_file(&socket);
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let pool = pool.clone();
        tokio::spawn(async move {
            use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
            let (read, mut write) = stream.into_split();
            let mut lines = tokio::io::BufReader::new(read).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let batch: Value = serde_json::from_str(&line).unwrap();
                at_work();
                let next = receive(&pool, &batch, two_steps).await.unwrap();
                if write
                    .write_all(format!("{next}\n").as_bytes())
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
    }
}

/// Adds up what is new in a batch and remembers how far it came: in one transaction, or, wrongly, in two.
async fn receive(pool: &SqlitePool, batch: &Value, two_steps: bool) -> sqlx::Result<i64> {
    let (run, shard) = (
        batch["run"].as_str().unwrap(),
        batch["shard"].as_i64().unwrap(),
    );
    let first = batch["first"].as_i64().unwrap();
    let records = batch["records"].as_array().unwrap();
    let mut transaction = pool.begin().await?;
    let mark = "SELECT next FROM marks WHERE run = ? AND shard = ?";
    let expected: i64 = sqlx::query_scalar(mark)
        .bind(run)
        .bind(shard)
        .fetch_optional(&mut *transaction)
        .await?
        .unwrap_or(0);
    let (mut calls, mut sum, mut odd) = (0i64, 0i64, (first - expected).max(0));
    for (number, record) in (first..)
        .zip(records)
        .filter(|(number, _)| *number >= expected)
    {
        calls += 1;
        sum += record[1].as_i64().unwrap();
        odd += i64::from(record[0].as_i64() != Some(number));
    }
    let next = expected.max(first + i64::try_from(records.len()).unwrap());
    sqlx::query("INSERT INTO totals VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, units = units + excluded.units, odd = odd + excluded.odd")
        .bind(run)
        .bind(shard)
        .bind(calls)
        .bind(sum)
        .bind(odd)
        .execute(&mut *transaction)
        .await?;
    if two_steps {
        transaction.commit().await?;
        // As long as a commit takes on a disk; in memory most kills would miss it.
        tokio::time::sleep(Duration::from_millis(5)).await;
        transaction = pool.begin().await?;
    }
    sqlx::query(
        "INSERT INTO marks VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET next = excluded.next",
    )
    .bind(run)
    .bind(shard)
    .bind(next)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(next)
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
