//! How counters stand, on disk: `quota.db` beside the store, so that counting never waits for administration.
//!
//! Promises: a change that was committed survives the death of the process; two processes at work on one ledger (a hand-over) see
//! each other's changes before they make their own. A power cut may take back the last moments.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{QueryBuilder, SqlSafeStr};
use tollgate_policy::quota::{Balance, Counter, CounterKey, Instance, Limit, Standing};
use tollgate_policy::settings::{stored_limits, written_limits};
use tollgate_policy::time::Timestamp;

use crate::store::{Database, Row, StoreError, Transaction, connect, migrate};

/// How long another process's lock is waited for: a call waits meanwhile.
const BUSY: Duration = Duration::from_millis(500);
/// One that writes, one that reads.
const CONNECTIONS: u32 = 2;
/// Counters of a statement; each takes eleven of its parameters.
const ROWS: usize = 500;
/// Counters looked through at a time.
const BLOCK: u32 = 500;
/// How long counters that begin anew, or are full again, are kept.
const KEPT: Duration = Duration::from_secs(86_400);

/// The open ledger.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    pool: sqlx::Pool<Database>,
    path: PathBuf,
}

/// What counters are wanted of all there are; nothing named: all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// That count calls of this API alone.
    pub(crate) api: Option<String>,
    /// That count calls of this operation alone.
    pub(crate) operation: Option<String>,
    /// Whose limit has this window, as [`written_limits`] writes it.
    pub(crate) window: Option<String>,
    /// Of this subject.
    pub(crate) subject: Option<String>,
    /// Of the limit of this id.
    pub(crate) limit: Option<String>,
}

/// How a counter stands.
pub(crate) type Counted = (Counter, Standing);

impl Ledger {
    /// Opens it, and makes it where there is none.
    pub(super) async fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join("quota.db");
        let made = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path);
        made.map_err(|source| StoreError::Open {
            path: path.clone(),
            source,
        })?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY);
        let wait = BUSY + Duration::from_secs(1);
        let pool = connect(&path, options, CONNECTIONS, wait).await?;
        let ledger = Self { pool, path };
        ledger.migrate().await?;
        Ok(ledger)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let sql = include_str!("../../migrations/quota/0001_counters.sql").into_sql_str();
        let first = Migration::new(1, "counters".into(), MigrationType::Simple, sql, false);
        let migrator = Migrator::with_migrations(vec![first]);
        migrate(&self.path, self.pool.clone(), migrator).await
    }

    /// Begins a change; another process's waits.
    pub(super) async fn begin(&self) -> Result<Transaction, StoreError> {
        let begun = self.pool.begin_with("BEGIN IMMEDIATE").await;
        begun.map_err(|error| self.error(error))
    }

    /// Begins the life of another grantor, and counts it.
    pub(super) async fn next_term(&self) -> Result<u32, StoreError> {
        let term: i64 = sqlx::query_scalar(
            "UPDATE meta SET value = value + 1 WHERE name = 'term' RETURNING value",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(|error| self.error(error))?;
        u32::try_from(term).map_err(|_| strange("term"))
    }

    /// How often the ledger was changed.
    pub(super) async fn version(&self, on: &mut Transaction) -> Result<i64, StoreError> {
        sqlx::query_scalar("SELECT value FROM meta WHERE name = 'version'")
            .fetch_one(&mut **on)
            .await
            .map_err(|error| self.error(error))
    }

    /// How counters stand; those never stored are left out.
    pub(super) async fn load(
        &self,
        on: &mut Transaction,
        keys: &[CounterKey],
    ) -> Result<Vec<(CounterKey, Standing)>, StoreError> {
        let mut found = Vec::new();
        for key in keys {
            let row = sqlx::query(
                "SELECT * FROM counters
                 WHERE limit_id = $1 AND subject = $2 AND api = $3 AND operation = $4",
            )
            .bind(&*key.limit)
            .bind(&*key.subject)
            .bind(&*key.api)
            .bind(&*key.operation)
            .fetch_optional(&mut **on)
            .await
            .map_err(|error| self.error(error))?;
            if let Some(row) = row {
                found.push((key.clone(), standing(&row)?));
            }
        }
        Ok(found)
    }

    /// Stores how counters stand now, and counts the change.
    pub(super) async fn store(
        &self,
        on: &mut Transaction,
        changes: &[Counted],
    ) -> Result<i64, StoreError> {
        for some in changes.chunks(ROWS) {
            let mut statement = QueryBuilder::<Database>::new("INSERT INTO counters ");
            statement.push_values(some, |mut row, (counter, standing)| {
                let key = &counter.key;
                let stored = Stored::of(counter, *standing);
                row.push_bind(key.limit.to_string())
                    .push_bind(key.api.to_string())
                    .push_bind(key.operation.to_string())
                    .push_bind(key.subject.to_string())
                    .push_bind(written(&counter.limit))
                    .push_bind(stored.kind)
                    .push_bind(stored.begin)
                    .push_bind(stored.end)
                    .push_bind(stored.total)
                    .push_bind(stored.level)
                    .push_bind(stored.at);
            });
            statement.push(
                " ON CONFLICT (limit_id, subject, api, operation) DO UPDATE SET
                    written = excluded.written, kind = excluded.kind, begin_at = excluded.begin_at, end_at = excluded.end_at,
                    total = excluded.total, level = excluded.level, level_at = excluded.level_at",
            );
            let done = statement.build().execute(&mut **on).await;
            done.map_err(|error| self.error(error))?;
        }
        sqlx::query_scalar(
            "UPDATE meta SET value = value + 1 WHERE name = 'version' RETURNING value",
        )
        .fetch_one(&mut **on)
        .await
        .map_err(|error| self.error(error))
    }

    /// Counters that are wanted and whose subject `of` takes, by limit and subject; at most `limit` after a place in that order.
    pub(super) async fn list(
        &self,
        wanted: &Wanted,
        of: impl Fn(&str) -> bool,
        after: &CounterKey,
        limit: u32,
    ) -> Result<Vec<Counted>, StoreError> {
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let (mut found, mut after) = (Vec::new(), after.clone());
        // Block by block: nobody waits for a connection while all of a large ledger is looked through.
        loop {
            let rows = self.block(wanted, &after, limit.max(BLOCK)).await?;
            for row in &rows {
                after = key(row)?;
                if of(&after.subject) {
                    found.push(counted(row)?);
                }
                if found.len() == most {
                    return Ok(found);
                }
            }
            if rows.len() < usize::try_from(limit.max(BLOCK)).unwrap_or(usize::MAX) {
                return Ok(found);
            }
        }
    }

    async fn block(
        &self,
        wanted: &Wanted,
        after: &CounterKey,
        rows: u32,
    ) -> Result<Vec<Row>, StoreError> {
        let text = |wanted: &Option<String>| wanted.clone().unwrap_or_default();
        let found = sqlx::query(
            "SELECT * FROM counters
             WHERE ($1 = '' OR subject = $1) AND ($2 = '' OR limit_id = $2)
               AND ($3 = '' OR api = $3) AND ($4 = '' OR operation = $4)
               AND ($5 = '' OR json_extract(written, '$[0].window') = $5)
               AND (limit_id, subject, api, operation) > ($6, $7, $8, $9)
             ORDER BY limit_id, subject, api, operation LIMIT $10",
        )
        .bind(text(&wanted.subject))
        .bind(text(&wanted.limit))
        .bind(text(&wanted.api))
        .bind(text(&wanted.operation))
        .bind(text(&wanted.window))
        .bind(&*after.limit)
        .bind(&*after.subject)
        .bind(&*after.api)
        .bind(&*after.operation)
        .bind(i64::from(rows))
        .fetch_all(&self.pool)
        .await;
        found.map_err(|error| self.error(error))
    }

    /// Forgets counters that say nothing any more.
    pub(super) async fn forget(&self, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM counters WHERE end_at < $1")
            .bind(now.minus(KEPT).millis())
            .execute(&self.pool)
            .await
            .map_err(|error| self.error(error))?;
        Ok(())
    }

    /// Tells an error apart, knowing the file.
    pub(super) fn error(&self, error: sqlx::Error) -> StoreError {
        StoreError::of(&self.path, error)
    }
}

struct Stored {
    kind: &'static str,
    begin: i64,
    end: i64,
    total: i64,
    level: String,
    at: i64,
}

impl Stored {
    fn of(counter: &Counter, standing: Standing) -> Self {
        match standing {
            Standing::Window { window, total } => Self {
                kind: "window",
                begin: window.begin,
                end: window.end,
                total: i64::try_from(total).unwrap_or(i64::MAX),
                level: String::new(),
                at: 0,
            },
            Standing::Bucket { level, at } => {
                let full = Balance::at(counter.clone(), standing, at).reset;
                Self {
                    kind: "bucket",
                    begin: 0,
                    end: full.map_or(i64::MAX, |after| at.plus(after).millis()),
                    total: 0,
                    level: level.to_string(),
                    at: at.millis(),
                }
            }
        }
    }
}

/// A limit as JSON, in the shape it is written in.
fn written(limit: &Arc<Limit>) -> String {
    written_limits(std::slice::from_ref(limit)).to_string()
}

fn key(row: &Row) -> Result<CounterKey, StoreError> {
    Ok(CounterKey {
        limit: text(row, "limit_id")?,
        api: text(row, "api")?,
        operation: text(row, "operation")?,
        subject: text(row, "subject")?,
    })
}

fn counted(row: &Row) -> Result<Counted, StoreError> {
    let key = key(row)?;
    let written = text(row, "written")?;
    let read = stored_limits("", &written).map_err(|_| strange("written"))?;
    let limit = read.into_iter().next().ok_or_else(|| strange("written"))?;
    Ok((Counter { key, limit }, standing(row)?))
}

fn standing(row: &Row) -> Result<Standing, StoreError> {
    match &*text(row, "kind")? {
        "window" => Ok(Standing::Window {
            window: Instance {
                begin: number(row, "begin_at")?,
                end: number(row, "end_at")?,
            },
            total: u64::try_from(number(row, "total")?).map_err(|_| strange("total"))?,
        }),
        "bucket" => Ok(Standing::Bucket {
            level: text(row, "level")?.parse().map_err(|_| strange("level"))?,
            at: Timestamp::from_millis(number(row, "level_at")?),
        }),
        _ => Err(strange("kind")),
    }
}

fn strange(what: &str) -> StoreError {
    StoreError::Strange(format!("a counter with {what}"))
}

fn text(row: &Row, name: &str) -> Result<Arc<str>, StoreError> {
    let text: Result<String, _> = row.try_get(name);
    text.map(Arc::from).map_err(|_| strange(name))
}

fn number(row: &Row, name: &str) -> Result<i64, StoreError> {
    row.try_get(name).map_err(|_| strange(name))
}
