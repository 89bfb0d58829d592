//! The control plane's database, opened by somebody else.

use std::path::{Path, PathBuf};

use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::World;

/// The file.
pub struct Store {
    path: PathBuf,
    runtime: tokio::runtime::Runtime,
}

/// Keeps every other writer out until it is dropped.
pub struct Lock<'s> {
    store: &'s Store,
    connection: Option<SqliteConnection>,
}

impl Store {
    pub fn of(world: &World) -> Self {
        Self::at(&world.file("state"))
    }

    pub fn at(state_dir: &Path) -> Self {
        Self::named(state_dir, "control.db")
    }

    /// Another database of the state directory.
    pub fn named(state_dir: &Path, file: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            path: state_dir.join(file),
            runtime,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn connect(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new()
            .filename(&self.path)
            .busy_timeout(super::PATIENCE);
        self.runtime
            .block_on(SqliteConnection::connect_with(&options))
            .unwrap()
    }

    /// Runs one statement.
    ///
    /// # Errors
    /// What the database says.
    pub fn run(&self, statement: &str) -> Result<(), String> {
        let mut connection = self.connect();
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        self.runtime.block_on(async {
            let done = sqlx::query(statement).execute(&mut connection).await;
            connection.close().await.unwrap();
            done.map(|_| ()).map_err(|error| error.to_string())
        })
    }

    /// Locks it as another process that writes for long.
    pub fn lock(&self) -> Lock<'_> {
        let mut connection = self.connect();
        let begun = sqlx::query("BEGIN EXCLUSIVE").execute(&mut connection);
        self.runtime.block_on(begun).unwrap();
        Lock {
            store: self,
            connection: Some(connection),
        }
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            self.store.runtime.block_on(async {
                let _ = sqlx::query("ROLLBACK").execute(&mut connection).await;
                let _ = connection.close().await;
            });
        }
    }
}
