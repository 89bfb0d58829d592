//! What happens by itself: old totals are dropped, runs that ended without a word are reported.
//!
//! Promises: small transactions, so that nobody waits long for the store; nothing is dropped shortly after the clock jumped.

use std::time::Duration;

use sqlx::Row as _;
use tokio::time::Instant;
use tollgate_policy::time::Timestamp;

use super::balance::{FORGOTTEN, PURGED, remember, sum};
use super::count;
use super::totals::Step;
use crate::Control;
use crate::control::now;
use crate::refusal::Refusal;

/// How often it is looked for runs that fell silent.
const LOOK: Duration = Duration::from_secs(60);
/// Looks between two purges. The first one waits as long, too.
const LOOKS_PER_PURGE: u32 = 10;
/// Rows of one transaction.
const STEP_ROWS: i64 = 1000;
/// A wall clock that moved this much against the steady one has jumped.
const JUMP: Duration = Duration::from_secs(3600);
/// How long nothing is dropped after a jump: time for whoever set the clock wrong to set it right.
const AFTER_JUMP: Duration = Duration::from_secs(86_400);

/// Looks after the usage as long as the control plane lives.
pub(crate) async fn keep_house(control: Control) {
    let mut looks = 0;
    let mut clock = Clock::new(now());
    loop {
        tokio::time::sleep(LOOK).await;
        if let Err(refusal) = report(&control, now()).await {
            tracing::warn!("it is not known which runs are incomplete: {refusal}");
        }
        let trusted = clock.is_trusted(now());
        looks += 1;
        if looks < LOOKS_PER_PURGE || !trusted {
            continue;
        }
        looks = 0;
        if let Err(refusal) = purge(&control, now()).await {
            tracing::warn!("old usage was not dropped: {refusal}");
        }
    }
}

/// The wall clock, doubted.
struct Clock {
    wall: Timestamp,
    steady: Instant,
    doubted_until: Option<Instant>,
}

impl Clock {
    fn new(wall: Timestamp) -> Self {
        Self {
            wall,
            steady: Instant::now(),
            doubted_until: None,
        }
    }

    fn is_trusted(&mut self, wall: Timestamp) -> bool {
        let expected = self.wall.plus(self.steady.elapsed());
        if wall.since(expected).max(expected.since(wall)) > JUMP {
            tracing::warn!("the clock jumped; no usage is dropped for a day");
            *self = Self::new(wall);
            self.doubted_until = Some(Instant::now() + AFTER_JUMP);
        }
        self.doubted_until
            .is_none_or(|until| Instant::now() >= until)
    }
}

/// Reports runs that fell silent without an end while their node speaks in another run. Each once; how many.
pub(super) async fn report(control: &Control, now: Timestamp) -> Result<u64, Refusal> {
    let mut turn = control.turn().await?;
    let silent = sqlx::query(
        "UPDATE usage_senders SET reported = TRUE
         WHERE complete = FALSE AND reported = FALSE AND last_seen < $1
             AND (node, run, shard) IN (SELECT node, run, shard FROM usage_superseded)
         RETURNING node, run, shard, next_number",
    )
    .bind(now.minus(control.inner.usage.settings.silence).millis())
    .fetch_all(turn.on())
    .await?;
    turn.commit().await?;
    for row in &silent {
        let (node, run): (&str, &str) = (row.try_get("node")?, row.try_get("run")?);
        let (shard, next): (i64, i64) = (row.try_get("shard")?, row.try_get("next_number")?);
        tracing::error!(%node, %run, shard, next, "a run did not end in order: its usage may be incomplete after that number");
    }
    let reported = u64::try_from(silent.len()).unwrap_or(u64::MAX);
    count(&control.inner.usage.counters.incomplete, reported);
    Ok(reported)
}

/// Drops what is older than the settings say. How many rows.
pub(super) async fn purge(control: &Control, now: Timestamp) -> Result<u64, Refusal> {
    let settings = &control.inner.usage.settings;
    let mut dropped = 0;
    for step in Step::ALL {
        let before = settings.kept_since(step, now);
        dropped += purge_totals(control, step, before).await?;
    }
    let before = now.minus(settings.keep.days).millis();
    dropped += forget_senders(control, before).await?;
    let mut turn = control.turn().await?;
    let gaps = sqlx::query(
        "DELETE FROM usage_gaps WHERE found_at < $1 AND NOT EXISTS (SELECT 1 FROM usage_senders s
             WHERE s.node = usage_gaps.node AND s.run = usage_gaps.run AND s.shard = usage_gaps.shard)",
    )
    .bind(before)
    .execute(turn.on())
    .await?;
    turn.commit().await?;
    Ok(dropped + gaps.rows_affected())
}

async fn purge_totals(control: &Control, step: Step, before: Timestamp) -> Result<u64, Refusal> {
    let mut dropped = 0;
    loop {
        let mut turn = control.turn().await?;
        let rows = sqlx::query(
            "SELECT bucket, key_id, records FROM usage_totals WHERE step = $1 AND bucket < $2
             ORDER BY bucket, key_id LIMIT $3",
        )
        .bind(step.seconds())
        .bind(before.millis())
        .bind(STEP_ROWS)
        .fetch_all(turn.on())
        .await?;
        let Some(last) = rows.last() else {
            return Ok(dropped);
        };
        let end: (i64, i64) = (last.try_get("bucket")?, last.try_get("key_id")?);
        let mut gone = 0;
        // A total goes with what it comes to by name, and counts once.
        for statement in [
            "DELETE FROM usage_amounts WHERE step = $1 AND (bucket, key_id) <= ($2, $3)",
            "DELETE FROM usage_totals WHERE step = $1 AND (bucket, key_id) <= ($2, $3)",
        ] {
            let done = sqlx::query(statement)
                .bind(step.seconds())
                .bind(end.0)
                .bind(end.1)
                .execute(turn.on())
                .await?;
            gone = done.rows_affected();
        }
        if step == Step::Day {
            remember(turn.on(), PURGED, sum(&rows, "records")?).await?;
        }
        turn.commit().await?;
        dropped += gone;
    }
}

/// Forgets senders that ended, or that another run of their node has followed. One that only fell silent is kept: its next record
/// would look like the first after a gap.
async fn forget_senders(control: &Control, before: i64) -> Result<u64, Refusal> {
    let mut dropped = 0;
    loop {
        let mut turn = control.turn().await?;
        let rows = sqlx::query(
            "SELECT s.node, s.run, s.shard, s.records FROM usage_senders s WHERE s.last_seen < $1
                 AND (s.complete = TRUE OR (s.node, s.run, s.shard) IN
                     (SELECT node, run, shard FROM usage_superseded))
             LIMIT $2",
        )
        .bind(before)
        .bind(STEP_ROWS)
        .fetch_all(turn.on())
        .await?;
        if rows.is_empty() {
            return Ok(dropped);
        }
        for row in &rows {
            sqlx::query("DELETE FROM usage_senders WHERE node = $1 AND run = $2 AND shard = $3")
                .bind(row.try_get::<&str, _>("node")?)
                .bind(row.try_get::<&str, _>("run")?)
                .bind(row.try_get::<i64, _>("shard")?)
                .execute(turn.on())
                .await?;
        }
        remember(turn.on(), FORGOTTEN, sum(&rows, "records")?).await?;
        turn.commit().await?;
        dropped += u64::try_from(rows.len()).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clock_that_jumped_is_not_trusted_for_a_day() {
        let start = Timestamp::from_seconds(1_000_000_000);
        let mut clock = Clock::new(start);
        assert!(clock.is_trusted(start));
        let later = start.plus(Duration::from_secs(400 * 86_400));
        assert!(!clock.is_trusted(later), "forward");
        assert!(!clock.is_trusted(later), "still");
        assert!(!clock.is_trusted(start), "and back");
        clock.doubted_until = Some(Instant::now());
        assert!(clock.is_trusted(start), "a day later");
    }
}
