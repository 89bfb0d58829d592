//! What this process holds of the control plane's directory: callers by credential, asked for once and kept until something changes.
//!
//! A held answer is found without a lock (a table per thread before a shared bounded cache), one question is on its way per unknown
//! credential, "nobody" is remembered for moments only, and one source cannot have strangers looked up without end. An announcement
//! empties what it touches before its sender goes on. Not here: whether the credential is genuine.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::sync::{broadcast, watch};
use tollgate_policy::credentials::Claims;
use tollgate_policy::directory::{Caller, CredentialRef, Revoked};
use tollgate_proto::{Announcement, Answer, ControlClient, Question, Resolved};

use super::budget::MissBudget;
use super::changed::{Changed, Whom};
use super::clock;
use super::near::Near;
use super::revoked::RevokedTokens;
use super::roll::Roll;
use super::standing::Standing;
use super::token::Tokens;

/// Credentials held at once. About 400 bytes each beside the caller, which credentials of one consumer share.
const CAPACITY: usize = 200_000;

/// How long "nobody has this credential" counts. Short: a key that was just made must not stay unknown.
const NOBODY: Duration = Duration::from_secs(2);

/// How long a request may wait for an answer from the control plane.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often an answer may be overtaken by an announcement before we give up.
const ATTEMPTS: usize = 4;

/// An answer of the directory, kept.
#[derive(Debug)]
pub struct Held {
    /// The credential.
    pub reference: CredentialRef,
    /// The caller; `None`: nobody has this credential.
    pub caller: Option<Arc<Caller>>,
    /// Whether it still counts.
    pub standing: Arc<Standing>,
    /// When it was asked for.
    pub since: Instant,
}

impl Held {
    fn fresh(&self, now: Instant) -> bool {
        self.caller.is_some() || now.duration_since(self.since) < NOBODY
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The control plane does not answer.
    Unavailable,
    /// This source has had too many unknown credentials looked up.
    TooManyUnknown,
}

/// How well the directory is held.
#[derive(Debug, Default)]
pub struct HeldCounts {
    /// Answers found here.
    pub hits: AtomicU64,
    /// Questions asked.
    pub asked: AtomicU64,
    /// Questions not asked because a source had used up its budget.
    pub over_budget: AtomicU64,
    /// Questions without an answer.
    pub unanswered: AtomicU64,
}

/// The directory as this process holds it.
#[derive(Debug)]
pub struct Directory {
    control: ControlClient,
    /// Heard from the beginning, so that none is missed before somebody follows them.
    announcements: Mutex<Option<broadcast::Receiver<Announcement>>>,
    held: Cache<CredentialRef, Arc<Held>>,
    /// Of the last announcement: an older answer is not kept.
    generation: AtomicU64,
    /// Moves with every announcement: what threads keep for themselves is looked up again.
    epoch: AtomicU64,
    revoked: ArcSwapOption<RevokedTokens>,
    withdrawals: watch::Sender<u64>,
    /// What calls stand on, also once the answer that admitted them is forgotten.
    roll: Roll,
    /// Whose calls under way have to be looked at again.
    changed: Changed,
    misses: MissBudget,
    /// Counts.
    pub counts: HeldCounts,
}

thread_local! {
    static NEAR: RefCell<Near<CredentialRef, Arc<Held>>> = const { RefCell::new(Near::new()) };
}

impl Directory {
    /// Holds nothing yet.
    pub fn new(control: ControlClient) -> Arc<Self> {
        Arc::new(Self {
            announcements: Mutex::new(Some(control.announcements())),
            control,
            held: Cache::new(CAPACITY),
            generation: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            revoked: ArcSwapOption::empty(),
            withdrawals: watch::Sender::new(0),
            roll: Roll::default(),
            changed: Changed::default(),
            misses: MissBudget::default(),
            counts: HeldCounts::default(),
        })
    }

    /// The control plane, for what is not held.
    pub fn control(&self) -> &ControlClient {
        &self.control
    }

    /// Moves whenever a credential was withdrawn.
    pub fn withdrawals(&self) -> watch::Receiver<u64> {
        self.withdrawals.subscribe()
    }

    /// Moves with every announcement; whoever keeps a conclusion drawn from the directory compares it.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Waits until it is known what was revoked, for at most `limit`.
    pub async fn ready(&self, limit: Duration) {
        let began = Instant::now();
        while self.revoked.load().is_none() && began.elapsed() < limit {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Whether a genuine token was revoked; `None`: not known yet.
    pub fn token_revoked(&self, claims: &Claims) -> Option<bool> {
        self.revoked
            .load()
            .as_ref()
            .map(|revoked| revoked.hold(claims))
    }

    /// Whether genuine certificates of this name were revoked, whoever has them; `None`: not known yet.
    pub fn certificate_revoked(&self, name: &str) -> Option<bool> {
        self.revoked
            .load()
            .as_ref()
            .map(|revoked| revoked.hold_certificate(name))
    }

    /// Who has this credential? Answers from what is held, else asks. `source` pays for unknown ones.
    ///
    /// # Errors
    /// See [`NoAnswer`].
    pub async fn find(
        &self,
        reference: &CredentialRef,
        source: Option<IpAddr>,
    ) -> Result<Arc<Held>, NoAnswer> {
        self.look_up(reference, Some(source)).await
    }

    /// As [`Self::find`], for what was proven to be genuine before: nobody can make it up, so nobody pays.
    ///
    /// # Errors
    /// See [`NoAnswer`].
    pub async fn find_proven(&self, reference: &CredentialRef) -> Result<Arc<Held>, NoAnswer> {
        self.look_up(reference, None).await
    }

    /// What a call stands on of whose caller nobody here could say anything: a revocation finds it all the same.
    pub fn unasked(&self, reference: &CredentialRef, caller: Option<Arc<Caller>>) -> Arc<Held> {
        let consumer = caller.as_ref().map(|caller| &caller.consumer.name);
        Arc::new(Held {
            reference: reference.clone(),
            standing: self.roll.enter(reference, consumer),
            caller,
            since: Instant::now(),
        })
    }

    async fn look_up(
        &self,
        reference: &CredentialRef,
        payer: Option<Option<IpAddr>>,
    ) -> Result<Arc<Held>, NoAnswer> {
        let now = Instant::now();
        if let Some(held) = self.near(reference).filter(|held| held.fresh(now)) {
            return Ok(held);
        }
        for _ in 0..ATTEMPTS {
            let waiting = self.held.get_value_or_guard_async(reference);
            let guard = match tokio::time::timeout(PATIENCE, waiting).await {
                Err(_elapsed) => return Err(self.unanswered()),
                Ok(Ok(held)) if held.fresh(now) => return Ok(held),
                Ok(Ok(_)) => {
                    self.held.remove(reference);
                    continue;
                }
                Ok(Err(guard)) => guard,
            };
            if payer.is_some_and(|source| !self.misses.take(source, now)) {
                self.counts.over_budget.fetch_add(1, Ordering::Relaxed);
                return Err(NoAnswer::TooManyUnknown);
            }
            let resolved = self.ask(reference).await?;
            let caller = resolved.caller.as_ref();
            if let (Some(source), Some(_)) = (payer, caller) {
                self.misses.give_back(source);
            }
            let consumer = caller.map(|caller| &caller.consumer.name);
            // A certificate of the listener's roots counts without a consumer, until it is revoked.
            let counts = consumer.is_some() || matches!(reference, CredentialRef::Certificate(_));
            let standing = counts.then(|| self.roll.enter(reference, consumer));
            let held = Arc::new(Held {
                reference: reference.clone(),
                caller: resolved.caller,
                standing: standing.unwrap_or_default(),
                since: Instant::now(),
            });
            let _replaced = guard.insert(held.clone());
            // An announcement may have come between the answer and now: then it found nothing to empty.
            if resolved.generation >= self.generation.load(Ordering::SeqCst) {
                return Ok(held);
            }
            self.held.remove(reference);
        }
        Err(self.unanswered())
    }

    fn unanswered(&self) -> NoAnswer {
        self.counts.unanswered.fetch_add(1, Ordering::Relaxed);
        NoAnswer::Unavailable
    }

    async fn ask(&self, reference: &CredentialRef) -> Result<Resolved, NoAnswer> {
        self.counts.asked.fetch_add(1, Ordering::Relaxed);
        match self
            .control
            .ask(Question::Resolve(reference.clone()), PATIENCE)
            .await
        {
            Ok(Answer::Resolved(resolved)) => Ok(resolved),
            _ => Err(self.unanswered()),
        }
    }

    /// From this thread's own table, else from the shared cache.
    fn near(&self, reference: &CredentialRef) -> Option<Arc<Held>> {
        // Read before the cache: an announcement in between makes what is put here old at once.
        let epoch = self.epoch();
        let owner = std::ptr::from_ref(self).addr();
        let near = NEAR.with_borrow(|near| near.get(owner, epoch, reference));
        let held = near.or_else(|| {
            let held = self.held.get(reference)?;
            NEAR.with_borrow_mut(|near| near.put(owner, epoch, reference.clone(), held.clone()));
            Some(held)
        })?;
        self.counts.hits.fetch_add(1, Ordering::Relaxed);
        Some(held)
    }

    /// Follows the control plane's announcements to the end of the conversation.
    pub async fn follow(self: Arc<Self>, tokens: Arc<Tokens>) {
        let Some(mut announcements) = self.announcements.lock().take() else {
            return;
        };
        // Beside it, because it asks: the next revocation must not wait for answers about the last change.
        tokio::join!(
            self.apply_all(&mut announcements, &tokens),
            self.look_again()
        );
    }

    async fn apply_all(
        &self,
        announcements: &mut broadcast::Receiver<Announcement>,
        tokens: &Tokens,
    ) {
        loop {
            self.load_revocations().await;
            loop {
                match announcements.recv().await {
                    Ok(announcement) => self.apply(&announcement, tokens),
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        // What was missed may have been a revocation.
                        self.forget_everything(None);
                        break;
                    }
                    Err(broadcast::error::RecvError::Closed) => {
                        self.changed.end();
                        return;
                    }
                }
            }
        }
    }

    /// Until it is known which tokens were revoked, none is believed.
    async fn load_revocations(&self) {
        loop {
            let asked = self.control.ask(Question::Revocations, PATIENCE).await;
            if let Ok(Answer::Revocations(all)) = asked {
                let revoked = Arc::new(RevokedTokens::of(&all, clock::now()));
                self.revoked.store(Some(revoked.clone()));
                // Some of them may have been missed while calls were under way.
                self.roll.withdraw(|reference, _| match reference {
                    CredentialRef::Certificate(name) => revoked.hold_certificate(name),
                    CredentialRef::Key(_)
                    | CredentialRef::Login { .. }
                    | CredentialRef::User(_) => false,
                });
                self.withdrawals.send_modify(|count| *count += 1);
                return;
            }
            tokio::time::sleep(PATIENCE).await;
        }
    }

    /// Ends calls that would not be admitted any more after a change. A revocation has done so already.
    async fn look_again(&self) {
        while let Some(whom) = self.changed.next().await {
            match whom {
                Whom::These(consumers) => self.end_what_fell(Some(&consumers)).await,
                Whom::All => self.end_what_fell(None).await,
            }
        }
    }

    /// Withdraws what calls of these consumers stand on, where it was deleted or has expired, or the consumer was suspended.
    async fn end_what_fell(&self, consumers: Option<&[Arc<str>]>) {
        let mut fell = false;
        for (reference, standing) in self.roll.stood_on(consumers) {
            // Where nobody answers, calls under way go on: nothing says that they should not.
            let Ok(resolved) = self.ask(&reference).await else {
                continue;
            };
            let stands = resolved.caller.is_some_and(|caller| {
                let ended = caller
                    .credential
                    .expires
                    .is_some_and(|end| end <= clock::now());
                !caller.consumer.suspended && !ended
            });
            if !stands {
                standing.withdraw();
                fell = true;
            }
        }
        if fell {
            self.withdrawals.send_modify(|count| *count += 1);
        }
    }

    fn apply(&self, announcement: &Announcement, tokens: &Tokens) {
        match announcement {
            Announcement::Revoked { generation, what } => {
                self.generation.fetch_max(*generation, Ordering::SeqCst);
                self.revoke(what, tokens);
            }
            Announcement::Changed {
                generation,
                consumers,
            } => {
                self.generation.fetch_max(*generation, Ordering::SeqCst);
                self.held.retain(|_, held| {
                    held.caller
                        .as_ref()
                        .is_some_and(|caller| !consumers.contains(&caller.consumer.name))
                });
                self.epoch.fetch_add(1, Ordering::Release);
                self.changed.note(Whom::These(consumers.to_vec()));
            }
            Announcement::Everything { generation } => self.forget_everything(Some(*generation)),
            // For those who watch quota.
            Announcement::Quota { .. } => {}
        }
    }

    fn forget_everything(&self, generation: Option<u64>) {
        if let Some(generation) = generation {
            self.generation.fetch_max(generation, Ordering::SeqCst);
        }
        self.held.clear();
        self.epoch.fetch_add(1, Ordering::Release);
        self.changed.note(Whom::All);
    }

    fn revoke(&self, what: &[Revoked], verified: &Tokens) {
        let current = self.revoked.load_full();
        let mut tokens = current.as_deref().cloned().unwrap_or_default();
        if tokens.add(what, clock::now()) {
            let tokens = Arc::new(tokens);
            // While the rest is not known, nothing is stored: no token is believed yet. Stored before calls are ended: a token
            // that is verified in between finds it.
            if current.is_some() {
                self.revoked.store(Some(tokens.clone()));
            }
            verified.withdraw(&tokens);
        }
        let hit = |reference: &CredentialRef, consumer: Option<&Arc<str>>| {
            what.iter()
                .any(|revoked| touches(revoked, reference, consumer))
        };
        self.roll.withdraw(hit);
        self.held.retain(|reference, held| {
            let caller = held.caller.as_ref();
            !hit(reference, caller.map(|caller| &caller.consumer.name))
        });
        self.epoch.fetch_add(1, Ordering::Release);
        self.withdrawals.send_modify(|count| *count += 1);
    }
}

/// Whether a revocation is about this credential of this consumer.
fn touches(revoked: &Revoked, reference: &CredentialRef, consumer: Option<&Arc<str>>) -> bool {
    match revoked {
        Revoked::Key(digest) => matches!(reference, CredentialRef::Key(held) if held == digest),
        Revoked::Certificate(name) => {
            matches!(reference, CredentialRef::Certificate(held) if held == name)
        }
        Revoked::Consumer(name) => consumer == Some(name),
        Revoked::Token { .. } | Revoked::Subject { .. } => false,
    }
}
