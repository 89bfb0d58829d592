//! How far each sender has come, and what of a batch is new.
//!
//! Promises, within one transaction: a record is taken once, whatever is sent twice, overlaps or comes late; numbers that are
//! skipped are kept as a range until they come. Not here: adding up what is taken (`totals`, `write`).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use sqlx::Row as _;
use tollgate_policy::time::Timestamp;
use tollgate_proto::{RunId, UsageBatch};

use crate::store::{Connection, StoreError, number, time};

/// A writer within one life of a node's process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SenderName {
    pub(crate) node: Arc<str>,
    pub(crate) run: RunId,
    pub(crate) shard: u32,
}

impl SenderName {
    pub(crate) fn of(batch: &UsageBatch) -> Self {
        Self {
            node: Arc::clone(&batch.node),
            run: batch.run,
            shard: batch.shard,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Progress {
    next: u64,
    records: u64,
    complete: bool,
}

/// What is to be told of a batch once it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// These numbers were skipped.
    Missing(SenderName, Range<u64>),
    /// These came after all.
    Found(SenderName, Range<u64>),
    /// Records came after the batch that was said to be the last.
    AfterTheEnd(SenderName),
}

/// What of a batch is new.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// The number expected next.
    pub(crate) next: u64,
    /// Places in the batch of the records that are new.
    pub(crate) fresh: Vec<Range<usize>>,
    pub(crate) news: Vec<News>,
}

/// Progress of the senders of one transaction.
#[derive(Debug, Default)]
pub(crate) struct Senders {
    held: HashMap<SenderName, Progress>,
}

impl Senders {
    /// Takes a batch over. Its numbers fit into a signed one.
    pub(crate) async fn take(
        &mut self,
        on: &mut Connection,
        batch: &UsageBatch,
        now: Timestamp,
    ) -> Result<Taken, StoreError> {
        let name = SenderName::of(batch);
        let mut progress = match self.held.get(&name) {
            Some(held) => held.clone(),
            None => read(on, &name).await?,
        };
        let count = u64::try_from(batch.records.len()).unwrap_or(u64::MAX);
        let numbers = batch.first..batch.first.saturating_add(count);
        let mut taken = Taken::default();
        // What was expected before: only the part that had been missing is new.
        let old = numbers.start..numbers.end.min(progress.next);
        if !old.is_empty() {
            for found in fill(on, &name, &old, now).await? {
                taken.take(&found, numbers.start);
                taken.news.push(News::Found(name.clone(), found));
            }
        }
        let reached = numbers.end.max(numbers.start);
        if reached > progress.next {
            if progress.complete {
                taken.news.push(News::AfterTheEnd(name.clone()));
            }
            if numbers.start > progress.next {
                let missing = progress.next..numbers.start;
                open(on, &name, &missing, now).await?;
                taken.news.push(News::Missing(name.clone(), missing));
            }
            let new = numbers.start.max(progress.next)..numbers.end;
            taken.take(&new, numbers.start);
            progress.next = reached;
        }
        let added: usize = taken.fresh.iter().map(ExactSizeIterator::len).sum();
        progress.records += u64::try_from(added).unwrap_or(0);
        progress.complete |= batch.closing;
        taken.next = progress.next;
        self.held.insert(name, progress);
        Ok(taken)
    }

    /// Writes the progress of all.
    pub(crate) async fn write(
        &self,
        on: &mut Connection,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for (name, progress) in &self.held {
            sqlx::query(
                "INSERT INTO usage_senders
                     (node, run, shard, next_number, records, complete, reported, first_seen, last_seen)
                 VALUES ($1, $2, $3, $4, $5, $6, FALSE, $7, $7)
                 ON CONFLICT (node, run, shard) DO UPDATE SET next_number = excluded.next_number,
                     records = excluded.records, complete = excluded.complete, reported = FALSE,
                     last_seen = excluded.last_seen",
            )
            .bind(&*name.node)
            .bind(name.run.to_string())
            .bind(i64::from(name.shard))
            .bind(signed(progress.next))
            .bind(signed(progress.records))
            .bind(progress.complete)
            .bind(now.millis())
            .execute(&mut *on)
            .await?;
        }
        Ok(())
    }
}

impl Taken {
    fn take(&mut self, numbers: &Range<u64>, first: u64) {
        let place =
            |number: u64| usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
        if !numbers.is_empty() {
            self.fresh.push(place(numbers.start)..place(numbers.end));
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

async fn read(on: &mut Connection, name: &SenderName) -> Result<Progress, StoreError> {
    let row = sqlx::query(
        "SELECT next_number, records, complete FROM usage_senders
         WHERE node = $1 AND run = $2 AND shard = $3",
    )
    .bind(&*name.node)
    .bind(name.run.to_string())
    .bind(i64::from(name.shard))
    .fetch_optional(on)
    .await?;
    let Some(row) = row else {
        return Ok(Progress::default());
    };
    Ok(Progress {
        next: number(&row, "next_number")?,
        records: number(&row, "records")?,
        complete: row.try_get("complete")?,
    })
}

/// Notes that `missing` was skipped.
async fn open(
    on: &mut Connection,
    name: &SenderName,
    missing: &Range<u64>,
    found_at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO usage_gaps
             (seq, node, run, shard, first_missing, last_missing, found_at, closed_at)
         SELECT COALESCE(MAX(seq), 0) + 1, $1, $2, $3, $4, $5, $6, NULL FROM usage_gaps",
    )
    .bind(&*name.node)
    .bind(name.run.to_string())
    .bind(i64::from(name.shard))
    .bind(signed(missing.start))
    .bind(signed(missing.end.saturating_sub(1)))
    .bind(found_at.millis())
    .execute(on)
    .await?;
    Ok(())
}

/// Closes what `came` fills of the sender's gaps, and says what that is. A gap filled in part becomes up to three ranges.
async fn fill(
    on: &mut Connection,
    name: &SenderName,
    came: &Range<u64>,
    now: Timestamp,
) -> Result<Vec<Range<u64>>, StoreError> {
    let rows = sqlx::query(
        "SELECT seq, first_missing, last_missing, found_at FROM usage_gaps
         WHERE node = $1 AND run = $2 AND shard = $3 AND closed_at IS NULL
             AND first_missing < $4 AND last_missing >= $5
         ORDER BY first_missing",
    )
    .bind(&*name.node)
    .bind(name.run.to_string())
    .bind(i64::from(name.shard))
    .bind(signed(came.end))
    .bind(signed(came.start))
    .fetch_all(&mut *on)
    .await?;
    let mut filled = Vec::with_capacity(rows.len());
    for row in &rows {
        let last: u64 = number(row, "last_missing")?;
        let gap = number(row, "first_missing")?..last.saturating_add(1);
        let found_at = time(row, "found_at")?;
        let part = gap.start.max(came.start)..gap.end.min(came.end);
        sqlx::query(
            "UPDATE usage_gaps SET first_missing = $2, last_missing = $3, closed_at = $4 WHERE seq = $1",
        )
        .bind(number::<i64>(row, "seq")?)
        .bind(signed(part.start))
        .bind(signed(part.end.saturating_sub(1)))
        .bind(now.millis())
        .execute(&mut *on)
        .await?;
        for left in [gap.start..part.start, part.end..gap.end] {
            if !left.is_empty() {
                open(on, name, &left, found_at).await?;
            }
        }
        filled.push(part);
    }
    Ok(filled)
}
