//! An intake that is wrong on purpose: totals are committed at once, how far their senders have come a moment later, in a commit of its
//! own. Killed between the two, the store holds the first alone.
//!
//! The shipped intake cannot be made to do that; so the marks it wrote in that moment are taken back while nothing runs.
#![allow(unreachable_pub, reason = "for tests")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on ends by panicking"
)]

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _};

/// Notes which marks the second step has written by now.
pub fn note(state: &Path) {
    run(
        state,
        "DROP TABLE IF EXISTS noted.marks; CREATE TABLE noted.marks AS SELECT * FROM usage_senders",
    );
}

/// The second step came to no more than was noted.
pub fn cut_off(state: &Path) {
    run(
        state,
        "DELETE FROM usage_senders; INSERT INTO usage_senders SELECT * FROM noted.marks",
    );
}

fn run(state: &Path, statements: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let options = SqliteConnectOptions::new()
        .filename(state.join("control.db"))
        .create_if_missing(true)
        .busy_timeout(Duration::from_secs(5));
    let noted = state.with_extension("noted");
    let attach = format!("ATTACH '{}' AS noted", noted.display());
    runtime.unwrap().block_on(async {
        let mut store = SqliteConnection::connect_with(&options).await.unwrap();
        for text in [attach, statements.to_owned()] {
            let statement = sqlx::raw_sql(AssertSqlSafe(text));
            statement.execute(&mut store).await.unwrap();
        }
        store.close().await.unwrap();
    });
}
