//! What can be wrong with the store, told apart by what an operator does about it.

use std::path::{Path, PathBuf};

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process writes, or holds a lock.
    #[error("the store is locked by another process; stop it, or wait for it to end")]
    Locked,
    /// The file is damaged, or no database at all.
    #[error("{} is damaged ({detail}); keep the file and restore a backup", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        detail: String,
    },
    /// There was a store, and it is gone.
    #[error(
        "{} is missing or empty although an audit log was kept there; restore a backup, or remove {} to begin anew",
        path.display(), head.display()
    )]
    Gone {
        /// The database.
        path: PathBuf,
        /// What says that there was one.
        head: PathBuf,
    },
    /// No space is left.
    #[error("the disk is full; free space in the state directory")]
    Full,
    /// It may be read, not written.
    #[error("the store cannot be written; check owner and mode of the state directory")]
    ReadOnly,
    /// It was written by a newer version of this program.
    #[error("the store was written by a newer version; run that one, or restore an older backup")]
    Newer,
    /// It could not be opened at all.
    #[error("{} cannot be opened", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A row is not what this program writes.
    #[error("the store holds what this program did not write: {0}")]
    Strange(String),
    /// Anything else the database says.
    #[error("the store failed")]
    Database(#[source] sqlx::Error),
}

impl StoreError {
    /// Tells an error of the database apart. Codes are those of <https://www.sqlite.org/rescode.html>.
    pub(crate) fn of(path: &Path, error: sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else {
            return match error {
                sqlx::Error::PoolTimedOut => Self::Locked,
                other => Self::Database(other),
            };
        };
        let code = database.code().and_then(|code| code.parse::<u32>().ok());
        match code.map(|code| code & 0xff) {
            Some(5 | 6) => Self::Locked,
            Some(8) => Self::ReadOnly,
            Some(11 | 26) => Self::Corrupt {
                path: path.to_owned(),
                detail: database.message().to_owned(),
            },
            Some(13) => Self::Full,
            _ => Self::Database(error),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::of(Path::new("control.db"), error)
    }
}
