//! Takes batches in, several in one transaction.
//!
//! Promises: a receipt follows the commit; where that fails, all of its batches are refused and none of them counted, so that their
//! senders keep and repeat them; only what was committed is told of. While one group is written the next one gathers: under load a
//! commit, which waits for the disk, is shared by many.

use tokio::sync::mpsc;
use tollgate_proto::{Answer, UsageBatch, UsageReceipt};

use super::sender::{News, SenderName, Senders};
use super::totals::Tally;
use super::write::{KeyNumbers, write};
use super::{Waiting, count};
use crate::Control;
use crate::control::now;
use crate::refusal::Refusal;

/// Records after which a group takes no more batches: others wait for the store meanwhile.
const GROUP: usize = 16_384;

/// What a group did, once it is committed.
#[derive(Debug, Default)]
struct Stored {
    receipts: Vec<UsageReceipt>,
    news: Vec<News>,
    records: u64,
    duplicates: u64,
}

/// Stores what comes, as long as the control plane lives.
pub(crate) async fn intake(control: Control, mut waiting: mpsc::Receiver<Waiting>) {
    let mut numbers = KeyNumbers::default();
    while let Some((batch, back)) = waiting.recv().await {
        let mut records = batch.records.len();
        let (mut batches, mut backs) = (vec![batch], vec![back]);
        while records < GROUP
            && let Ok((batch, back)) = waiting.try_recv()
        {
            records += batch.records.len();
            batches.push(batch);
            backs.push(back);
        }
        match store(&control, &batches, &mut numbers).await {
            Ok(stored) => {
                tell(&control, &stored);
                for (receipt, back) in stored.receipts.into_iter().zip(backs) {
                    let _ = back.send(Answer::Received(receipt));
                }
            }
            Err(refusal) => {
                numbers.forget();
                let refused = u64::try_from(backs.len()).unwrap_or(u64::MAX);
                count(&control.inner.usage.counters.refused, refused);
                let why = match refusal {
                    Refusal::Unavailable(why) => why,
                    other => other.to_string(),
                };
                for back in backs {
                    let _ = back.send(Answer::Refused(why.clone()));
                }
            }
        }
    }
}

async fn store(
    control: &Control,
    batches: &[UsageBatch],
    numbers: &mut KeyNumbers,
) -> Result<Stored, Refusal> {
    let now = now();
    let mut turn = control.turn().await?;
    let (mut senders, mut tally) = (Senders::default(), Tally::default());
    let mut stored = Stored::default();
    for batch in batches {
        let taken = senders.take(turn.on(), batch, now).await?;
        let mut added = 0;
        for fresh in taken.fresh {
            let records = batch.records.get(fresh).unwrap_or_default();
            tally.add(records, |plan, version| control.currency(plan, version));
            added += records.len();
        }
        let known = batch.records.len().saturating_sub(added);
        stored.records += u64::try_from(added).unwrap_or(0);
        stored.duplicates += u64::try_from(known).unwrap_or(0);
        stored.news.extend(taken.news);
        stored.receipts.push(UsageReceipt { next: taken.next });
    }
    senders.write(turn.on(), now).await?;
    write(turn.on(), &tally, numbers).await?;
    turn.commit().await?;
    Ok(stored)
}

fn tell(control: &Control, stored: &Stored) {
    let counters = &control.inner.usage.counters;
    count(&counters.records, stored.records);
    count(&counters.duplicates, stored.duplicates);
    for news in &stored.news {
        match news {
            News::Missing(SenderName { node, run, shard }, range) => {
                count(&counters.missing, range.end.saturating_sub(range.start));
                let (from, to) = (range.start, range.end.saturating_sub(1));
                tracing::error!(%node, %run, shard, from, to, "usage records are missing; see `tollgate usage gaps`");
            }
            News::Found(SenderName { node, run, shard }, range) => {
                count(&counters.found, range.end.saturating_sub(range.start));
                let (from, to) = (range.start, range.end.saturating_sub(1));
                tracing::info!(%node, %run, shard, from, to, "usage records that were missing have come");
            }
            News::AfterTheEnd(SenderName { node, run, shard }) => {
                tracing::warn!(%node, %run, shard, "usage records came after what was to be the last");
            }
        }
    }
}
