//! Data planes' questions, answered.
//!
//! Promises: who somebody is, and which terms there are, is answered from memory at once, whatever the store does; what has to
//! be written waits in a queue of its own; an acceptance is recorded, audited and announced before it is answered. Questions
//! beyond a queue are refused, never kept.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tollgate_policy::directory::TermsVersion;
use tollgate_policy::quota::Counter;
use tollgate_policy::time::Timestamp;
use tollgate_proto::{Acceptance, Answer, Asked, AuditRecord, Question};

use crate::audit::Entry;
use crate::control::{Control, now};
use crate::index::{Edit, Index};
use crate::refusal::Refusal;
use crate::store::{AcceptanceRow, KeyRow};
use crate::text::put;
use crate::{quota, usage};

/// Questions that wait to be written.
const WRITES: usize = 256;
/// Questions written at a time.
const BATCH: usize = 64;
/// Overviews put together at once.
const OVERVIEWS: usize = 8;
/// Decisions recorded of one batch; more are counted. Bounds what strangers can write to the disk.
const DECISIONS: usize = 1000;
/// Longest declared purpose, in characters.
const PURPOSE: usize = 1000;
/// Longest text taken over from a data plane into the audit log, in characters.
const TEXT: usize = 256;

/// Answers until nobody can ask any more.
pub(crate) async fn answer(control: Control, mut questions: mpsc::Receiver<Asked>) {
    let (writes, queue) = mpsc::channel(WRITES);
    let overviews = Arc::new(Semaphore::new(OVERVIEWS));
    let answering = async {
        while let Some((question, back)) = questions.recv().await {
            sort(&control, question, back, &writes, &overviews);
        }
        // Ends the writer once it has written what waits.
        drop(writes);
    };
    tokio::join!(answering, write(&control, queue));
}

/// Answers at once, or hands over to whoever takes longer. An asker that went away is nobody's loss.
fn sort(
    control: &Control,
    question: Question,
    back: oneshot::Sender<Answer>,
    writes: &mpsc::Sender<Asked>,
    overviews: &Arc<Semaphore>,
) {
    match question {
        // Files alone do not know what was revoked: no answer is better than one that lets it pass.
        Question::Resolve(_) | Question::Terms { .. } | Question::Revocations
            if !control.facts_known() =>
        {
            let _ = back.send(Answer::Refused("the store was never read".into()));
        }
        Question::Resolve(reference) => {
            let resolved = control.inner.index.read().resolve(&reference);
            let _ = back.send(Answer::Resolved(resolved));
        }
        Question::Terms { consumer, api } => {
            let index = control.inner.index.read();
            let _ = back.send(Answer::Terms(index.terms_texts(&consumer, &api, now())));
        }
        Question::Revocations => {
            let _ = back.send(Answer::Revocations(control.revoked()));
        }
        Question::Overview { consumer } => {
            // Without a place the asker learns by its deadline that we are busy.
            let Ok(place) = Arc::clone(overviews).try_acquire_owned() else {
                return;
            };
            let control = control.clone();
            tokio::spawn(async move {
                let _ = back.send(overview(&control, &consumer).await);
                drop(place);
            });
        }
        Question::Lease(holder, asks) => control.inner.quota.ask(holder, asks, back),
        Question::Usage(batch) => control.inner.usage.offer(batch, back),
        Question::OwnUsage {
            consumer,
            api,
            limits,
        } => {
            let Ok(place) = Arc::clone(overviews).try_acquire_owned() else {
                return;
            };
            let control = control.clone();
            tokio::spawn(async move {
                let _ = back.send(own_usage(&control, &consumer, &api, &limits).await);
                drop(place);
            });
        }
        Question::Accept(_) | Question::Audit(_) => {
            if let Err(full) = writes.try_send((question, back)) {
                let (_, back) = full.into_inner();
                let _ = back.send(Answer::Refused("too much is waiting to be recorded".into()));
            }
        }
    }
}

async fn write(control: &Control, mut queue: mpsc::Receiver<Asked>) {
    let mut batch = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let (mut records, mut reporters) = (Vec::new(), Vec::new());
        for (question, back) in batch.drain(..) {
            match question {
                Question::Accept(acceptance) => {
                    // Without an answer the asker knows that it may try again: nothing is wrong with the acceptance.
                    if let Some(answer) = accept(control, acceptance).await {
                        let _ = back.send(answer);
                    }
                }
                Question::Audit(reported) => {
                    records.extend(reported);
                    reporters.push(back);
                }
                Question::Resolve(_)
                | Question::Terms { .. }
                | Question::Revocations
                | Question::Overview { .. }
                | Question::Lease(..)
                | Question::Usage(_)
                | Question::OwnUsage { .. } => {}
            }
        }
        if reporters.is_empty() {
            continue;
        }
        let noted = note(control, records).await.map_err(|e| e.to_string());
        for back in reporters {
            let answer = match &noted {
                Ok(()) => Answer::Noted,
                Err(why) => Answer::Refused(why.clone()),
            };
            let _ = back.send(answer);
        }
    }
}

async fn accept(control: &Control, acceptance: Acceptance) -> Option<Answer> {
    match record(control, acceptance, None).await {
        Ok(()) => Some(Answer::Accepted),
        Err(Refusal::Unavailable(_)) => None,
        Err(refusal) => Some(Answer::Refused(refusal.to_string())),
    }
}

/// Records an acceptance, given by the consumer itself or, on its behalf, by `operator`.
pub(crate) async fn record(
    control: &Control,
    acceptance: Acceptance,
    operator: Option<&str>,
) -> Result<(), Refusal> {
    // Checked under the change, so that no version is replaced meanwhile.
    let mut change = control.begin().await?;
    let version = accepted_version(&control.inner.index.read(), &acceptance)?;
    AcceptanceRow::insert(change.on(), &acceptance, &version.text_hash).await?;
    change.edit(Edit::Accepted {
        consumer: Arc::clone(&acceptance.consumer),
        terms: Arc::clone(&acceptance.terms),
        version: acceptance.version,
    });
    let consumer = &acceptance.consumer;
    change.note(Entry {
        at: now(),
        actor: operator.map_or_else(|| format!("consumer:{consumer}"), str::to_owned),
        action: "terms.accept",
        subject: acceptance.terms.to_string(),
        detail: json!({
            "consumer": &**consumer,
            "credential": &*acceptance.credential,
            "version": acceptance.version,
            "text_hash": &*version.text_hash,
            "purpose": acceptance.purpose,
        }),
        from: acceptance.from,
    });
    change.commit().await
}

/// The version that is accepted, if it may be.
fn accepted_version(index: &Index, acceptance: &Acceptance) -> Result<TermsVersion, Refusal> {
    let Acceptance {
        consumer, terms, ..
    } = acceptance;
    if !index.consumers.contains_key(consumer) {
        return Err(Refusal::missing("consumer", consumer));
    }
    let Some(held) = index.terms.get(terms) else {
        return Err(Refusal::missing("terms", terms));
    };
    let mut versions = held.versions.iter().map(|(version, _)| version);
    let Some(version) = versions.find(|v| v.version == acceptance.version) else {
        let name = format!("{terms} version {}", acceptance.version);
        return Err(Refusal::missing("terms", &name));
    };
    if let Some(shown) = &acceptance.text_hash
        && *shown != version.text_hash
    {
        let why = "this is not the text of the version; read it again";
        return Err(Refusal::invalid("text_hash", why));
    }
    if version.purpose_required && acceptance.purpose.trim().is_empty() {
        let why = "these terms want to know what the API is used for";
        return Err(Refusal::invalid("purpose", why));
    }
    if acceptance.purpose.chars().count() > PURPOSE {
        let why = format!("longer than {PURPOSE} characters");
        return Err(Refusal::invalid("purpose", why));
    }
    Ok(version.clone())
}

async fn note(control: &Control, records: Vec<AuditRecord>) -> Result<(), Refusal> {
    let omitted = records.len().saturating_sub(DECISIONS);
    let mut change = control.begin().await?;
    for record in records.into_iter().take(DECISIONS) {
        change.note(decision(record));
    }
    if omitted > 0 {
        change.note(Entry {
            at: now(),
            actor: "node".to_owned(),
            action: "decisions.omitted",
            subject: omitted.to_string(),
            detail: Value::Null,
            from: None,
        });
    }
    change.commit().await
}

fn decision(record: AuditRecord) -> Entry {
    Entry {
        at: record.at,
        actor: "node".to_owned(),
        action: "decision",
        subject: cut(&record.request_id),
        detail: json!({
            "api": &*record.api,
            "generation": record.generation,
            "operation": cut(&record.operation),
            "consumer": &*record.consumer,
            "credential": cut(&record.credential),
            "verdict": record.verdict,
            "rule": cut(&record.rule),
        }),
        from: record.client,
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT).collect()
}

/// What a consumer may see of itself.
async fn overview(control: &Control, consumer: &str) -> Answer {
    let (mut shown, mut keys) = {
        let index = control.inner.index.read();
        let Some(shown) = own_view(&index, consumer, now()) else {
            return Answer::Refused(Refusal::missing("consumer", consumer).to_string());
        };
        let keys = index
            .file_keys
            .iter()
            .filter(|(_, k)| *k.consumer == *consumer);
        let shown_key = |(id, key): (&Arc<str>, &crate::index::FileKey)| json!({ "id": &**id, "name": &*key.name });
        (shown, keys.map(shown_key).collect::<Vec<_>>())
    };
    let made = async {
        let store = control.store()?;
        Ok::<_, Refusal>(KeyRow::of_consumer(&mut *store.read().await?, consumer).await?)
    };
    match made.await {
        Ok(rows) => keys.extend(rows.iter().map(|key| {
            json!({
                "id": &*key.id,
                "name": &*key.name,
                "created_at": key.created_at.to_string(),
                "expires": key.expires.map(|at| at.to_string()),
            })
        })),
        // Better a part than nothing, and said so.
        Err(_) => put(&mut shown, "keys_incomplete", true),
    }
    put(&mut shown, "keys", keys);
    Answer::Overview(shown)
}

/// What a consumer has used; of itself alone.
async fn own_usage(control: &Control, consumer: &str, api: &str, limits: &[Counter]) -> Answer {
    let read = async {
        let store = control.store()?;
        let mut snapshot = store.snapshot().await?;
        let mut shown = usage::own(&mut snapshot, consumer, api, now()).await?;
        drop(snapshot);
        let quota = quota::own(&control.inner.quota, limits, now()).await?;
        put(&mut shown, "quota", quota);
        Ok::<_, Refusal>(shown)
    };
    match read.await {
        Ok(shown) => Answer::OwnUsage(shown),
        Err(refusal) => Answer::Refused(refusal.to_string()),
    }
}

fn own_view(index: &Index, name: &str, now: Timestamp) -> Option<Value> {
    let consumer = index.consumer(name)?;
    let subscriptions: Vec<Value> = consumer
        .subscriptions
        .iter()
        .map(|held| {
            let texts = index.terms_texts(name, &held.api, now);
            let terms = texts.iter().map(|text| {
                json!({
                    "terms": &*text.terms,
                    "version": text.version,
                    "effective": text.effective.to_string(),
                    "enforced": text.enforced.to_string(),
                    "accepted": text.accepted >= text.version,
                })
            });
            json!({
                "api": &*held.api,
                "plan": &*held.plan.name,
                "terms": terms.collect::<Vec<_>>(),
            })
        })
        .collect();
    Some(json!({
        "consumer": &*consumer.name,
        "project": &*consumer.project,
        "organisation": &*consumer.organisation,
        "suspended": consumer.suspended,
        "subscriptions": subscriptions,
    }))
}
