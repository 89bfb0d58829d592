//! The store: what was made through the API, and the facts that no file undoes, in SQLite.
//!
//! Promises: opened with a check; a damaged, locked or vanished file is an error with its remedy, never made anew; every
//! change is one transaction; the file is its owner's alone. The statements are standard SQL over the aliases below, so that
//! PostgreSQL can be its twin. Not here: what may be stored (`http`), and what is answered from memory (`index`).

mod bundles;
mod error;
mod facts;
mod join_tokens;
mod load;
mod objects;
mod overrides;
mod rows;

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection as _, SqlSafeStr};

pub(crate) use bundles::{BundleCount, BundleRow};
pub use error::StoreError;
pub(crate) use facts::suspend;
pub(crate) use facts::{AcceptanceRow, RevocationRow};
pub(crate) use join_tokens::JoinTokenRow;
pub(crate) use load::Contents;
pub(crate) use objects::{generation, next_generation};
pub(crate) use overrides::{Granted, OverrideRow};
pub(crate) use rows::{ConsumerRow, KeyRow, OrganisationRow, PlanRow, ProjectRow, TermsRow};
pub(crate) use rows::{number, optional_time, text, time};

/// The database, by one name.
pub(crate) type Database = sqlx::Sqlite;
/// A connection to it.
pub(crate) type Connection = sqlx::SqliteConnection;
/// A row of it.
pub(crate) type Row = sqlx::sqlite::SqliteRow;
/// A transaction on it.
pub(crate) type Transaction = sqlx::Transaction<'static, Database>;

/// One writer, and readers beside it.
const CONNECTIONS: u32 = 3;

/// An opened store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pool: sqlx::Pool<Database>,
    path: PathBuf,
}

impl Store {
    /// Opens `state_dir/control.db`, checks it and brings its tables up to date; makes it where there was none. `busy` is how
    /// long another process's lock is waited for.
    ///
    /// # Errors
    /// Locked, damaged, vanished, unwritable, full, or written by a newer version. The file is left as it is.
    pub async fn open(state_dir: &Path, busy: Duration) -> Result<Self, StoreError> {
        let path = state_dir.join("control.db");
        prepare(&path, &crate::audit::head_path(state_dir))?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(false)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(busy);
        let wait = busy + Duration::from_secs(3);
        let pool = connect(&path, options, CONNECTIONS, wait).await?;
        let store = Self { pool, path };
        store.check().await?;
        store.migrate().await?;
        Ok(store)
    }

    /// Begins a change. Only one is under way at a time.
    ///
    /// # Errors
    /// Another process writes, or the file cannot be written.
    pub(crate) async fn begin(&self) -> Result<Transaction, StoreError> {
        let begun = self.pool.begin_with("BEGIN IMMEDIATE").await;
        begun.map_err(|error| self.error(error))
    }

    /// Begins to read: all that is read in it is of one state. Writers do not wait for it, nor it for them.
    ///
    /// # Errors
    /// No connection became free in time.
    pub(crate) async fn snapshot(&self) -> Result<Transaction, StoreError> {
        let begun = self.pool.begin().await;
        begun.map_err(|error| self.error(error))
    }

    /// A connection to read with.
    ///
    /// # Errors
    /// None became free in time.
    pub(crate) async fn read(&self) -> Result<sqlx::pool::PoolConnection<Database>, StoreError> {
        self.pool.acquire().await.map_err(|error| self.error(error))
    }

    /// Tells an error apart, knowing the file.
    pub(crate) fn error(&self, error: sqlx::Error) -> StoreError {
        StoreError::of(&self.path, error)
    }

    /// Writes a copy, consistent in itself, to `target`, readable by its owner only. Writers do not wait for it.
    ///
    /// # Errors
    /// `target` exists or cannot be written, or the store cannot be read.
    pub async fn backup(&self, target: &Path) -> Result<(), StoreError> {
        let opening = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(target);
        opening.map_err(|source| StoreError::Open {
            path: target.to_owned(),
            source,
        })?;
        // SQLite takes an empty file as its target, and no parameter in its place.
        let quoted = target.to_string_lossy().replace('\'', "''");
        let statement = AssertSqlSafe(format!("VACUUM INTO '{quoted}'"));
        let mut connection = self.read().await?;
        let done = sqlx::query(statement).execute(&mut *connection).await;
        if let Err(error) = done {
            // Half a copy is none.
            let _ = std::fs::remove_file(target);
            return Err(self.error(error));
        }
        Ok(())
    }

    /// Waits for what is under way and closes the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn check(&self) -> Result<(), StoreError> {
        let mut connection = self.read().await?;
        let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(&mut *connection)
            .await
            .map_err(|error| self.error(error))?;
        if verdict == "ok" {
            return Ok(());
        }
        Err(StoreError::Corrupt {
            path: self.path.clone(),
            detail: verdict,
        })
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let step = |version, name: &'static str, text: &'static str| {
            let sql = text.into_sql_str();
            Migration::new(version, name.into(), MigrationType::Simple, sql, false)
        };
        let migrator = Migrator::with_migrations(vec![
            step(
                1,
                "directory",
                include_str!("../../migrations/0001_directory.sql"),
            ),
            step(
                2,
                "append only",
                include_str!("../../migrations/0002_append_only.sqlite.sql"),
            ),
            step(
                3,
                "withdrawn",
                include_str!("../../migrations/0003_withdrawn.sql"),
            ),
            step(
                4,
                "limits",
                include_str!("../../migrations/0004_limits.sql"),
            ),
            step(5, "usage", include_str!("../../migrations/0005_usage.sql")),
            step(6, "nodes", include_str!("../../migrations/0006_nodes.sql")),
            step(
                7,
                "bundles",
                include_str!("../../migrations/0007_bundles.sql"),
            ),
            step(
                8,
                "installation",
                include_str!("../../migrations/0008_installation.sqlite.sql"),
            ),
            step(
                9,
                "revoked tokens",
                include_str!("../../migrations/0009_revoked_tokens.sql"),
            ),
            step(
                10,
                "streams",
                include_str!("../../migrations/0010_streams.sql"),
            ),
            step(
                11,
                "overrides",
                include_str!("../../migrations/0011_overrides.sql"),
            ),
            step(
                12,
                "meters",
                include_str!("../../migrations/0012_meters.sql"),
            ),
        ]);
        migrate(&self.path, self.pool.clone(), migrator).await
    }
}

/// Opens a database. `wait` is how long a connection is waited for.
pub(crate) async fn connect(
    path: &Path,
    options: SqliteConnectOptions,
    connections: u32,
    wait: Duration,
) -> Result<sqlx::Pool<Database>, StoreError> {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(wait)
        // A disk that is full makes SQLite end a transaction by itself. The connection goes on counting it, could never begin
        // another, and is closed instead.
        .before_acquire(|connection, _| {
            let usable = !connection.is_in_transaction();
            Box::pin(async move { Ok(usable) })
        })
        .connect_with(options)
        .await
        .map_err(|error| StoreError::of(path, error))
}

/// Brings a database's tables up to date.
pub(crate) async fn migrate(
    path: &Path,
    pool: sqlx::Pool<Database>,
    migrator: Migrator,
) -> Result<(), StoreError> {
    // A task of its own: the compiler cannot see that the migrator's future may move between threads with its borrows.
    let migrated = tokio::spawn(async move {
        migrator.run(&pool).await?;
        // What that wrote lies in the log twice over; on a small disk the room is better used. Without it all is well too.
        let folded = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&pool);
        if let Err(error) = folded.await {
            tracing::debug!(%error, "the log of the store is folded in later");
        }
        Ok(())
    })
    .await;
    match migrated {
        Ok(Ok(())) => Ok(()),
        Ok(Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _))) => {
            Err(StoreError::of(path, error))
        }
        Ok(Err(MigrateError::VersionMissing(_))) => Err(StoreError::Newer),
        Ok(Err(other)) => Err(StoreError::Strange(other.to_string())),
        Err(error) => Err(StoreError::Strange(error.to_string())),
    }
}

/// Makes the file with a mode of our own, unless there was one before.
fn prepare(path: &Path, head: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Open {
        path: path.to_owned(),
        source,
    };
    let length = match std::fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(failed(error)),
    };
    if length == 0 && head.exists() {
        return Err(StoreError::Gone {
            path: path.to_owned(),
            head: head.to_owned(),
        });
    }
    let opening = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path);
    match opening {
        Ok(file) => file
            .set_permissions(std::fs::Permissions::from_mode(0o600))
            .map_err(failed),
        // What is there may be read; a change is refused when somebody makes one.
        Err(error) if length > 0 && may_not_be_written(&error) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn may_not_be_written(error: &std::io::Error) -> bool {
    let kind = error.kind();
    kind == std::io::ErrorKind::ReadOnlyFilesystem || kind == std::io::ErrorKind::PermissionDenied
}
