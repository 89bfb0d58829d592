//! Passwords of `basic`: verified off the request threads, a few at a time, and remembered by a keyed digest.
//!
//! Wrong ones are remembered for moments, and one source may only be wrong so often: whoever guesses uses up his own turns, not those of
//! the others. A user nobody knows is treated in every way as one whose password is wrong.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tollgate_policy::credentials::basic::{refuse_password, verify_password};
use tollgate_policy::credentials::{BadCredential, Digest};
use tollgate_policy::directory::Secret;

use super::budget::MissBudget;
use super::token::Disbelief;

/// Right passwords kept.
const CAPACITY: usize = 20_000;

/// How long a right password is believed without computing its hash again. A changed hash counts at once: it is part of the key.
const REMEMBERED: Duration = Duration::from_secs(300);

/// How long a wrong password is known to be wrong: a client that repeats it without end costs nothing.
const WRONG: Duration = Duration::from_secs(10);

/// Hashes computed at once: each takes tens of milliseconds and tens of megabytes.
const AT_ONCE: usize = 2;

/// How many may wait for their turn.
const WAITING: usize = 32;

/// How long they wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// Passwords that were right.
#[derive(Debug)]
pub(super) struct Passwords {
    right: Cache<Digest, Instant>,
    /// Apart from the right ones: strangers push nobody out.
    wrong: Cache<Digest, Instant>,
    strangers: MissBudget,
    turns: Arc<Semaphore>,
    places: Semaphore,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            right: Cache::new(CAPACITY),
            wrong: Cache::new(CAPACITY),
            strangers: MissBudget::default(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            places: Semaphore::new(WAITING),
        }
    }
}

impl Passwords {
    /// Whether `password` fits `hash`. `digest` is that of user, password and hash together; `source` pays for wrong ones.
    ///
    /// # Errors
    /// It does not, or too many are being verified.
    pub(super) async fn verify(
        &self,
        digest: Digest,
        hash: &Secret,
        password: &Secret,
        source: Option<IpAddr>,
    ) -> Result<(), Disbelief> {
        let known = self.right.get(&digest);
        if known.is_some_and(|since| since.elapsed() < REMEMBERED) {
            return Ok(());
        }
        let (hash, password) = (hash.clone(), password.clone());
        let judge = move || verify_password(hash.reveal(), password.reveal());
        self.judged(digest, source, judge).await?;
        self.right.insert(digest, Instant::now());
        Ok(())
    }

    /// What a user nobody knows is answered, after the time a wrong password takes.
    pub(super) async fn refuse(
        &self,
        digest: Digest,
        password: &Secret,
        source: Option<IpAddr>,
    ) -> Disbelief {
        let password = password.clone();
        let judge = move || refuse_password(password.reveal());
        let refused = self.judged(digest, source, judge).await;
        refused
            .err()
            .unwrap_or(Disbelief::Bad(BadCredential::Password))
    }

    async fn judged(
        &self,
        digest: Digest,
        source: Option<IpAddr>,
        judge: impl FnOnce() -> Result<(), BadCredential> + Send + 'static,
    ) -> Result<(), Disbelief> {
        let known = self.wrong.get(&digest);
        if known.is_some_and(|since| since.elapsed() < WRONG) {
            return Err(Disbelief::Bad(BadCredential::Password));
        }
        if !self.strangers.left(source, Instant::now()) {
            return Err(Disbelief::TooMany);
        }
        let judged = self.in_turn(judge).await;
        if matches!(judged, Err(Disbelief::Bad(_))) {
            self.strangers.take(source, Instant::now());
            self.wrong.insert(digest, Instant::now());
        }
        judged
    }

    async fn in_turn(
        &self,
        judge: impl FnOnce() -> Result<(), BadCredential> + Send + 'static,
    ) -> Result<(), Disbelief> {
        let place = self.places.try_acquire();
        let _place = place.map_err(|_| Disbelief::Unknowable)?;
        let turn = tokio::time::timeout(PATIENCE, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Disbelief::Unknowable);
        };
        let judged = tokio::task::spawn_blocking(move || {
            let judged = judge();
            drop(turn);
            judged
        });
        match judged.await {
            Ok(judged) => judged.map_err(Disbelief::Bad),
            Err(_panicked) => Err(Disbelief::Bad(BadCredential::Password)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn guessing_is_held_to_a_budget_and_repeating_costs_nothing() {
        let passwords = Passwords::default();
        let guesser = Some("192.0.2.1".parse().unwrap());
        let wrong = || Err(BadCredential::Password);
        let mut refused = 0;
        for number in 0..60 {
            let judged = passwords.judged(Digest([number; 32]), guesser, wrong).await;
            refused += u32::from(judged == Err(Disbelief::TooMany));
        }
        assert!(refused > 0);
        // Known to be wrong: not judged again, and not charged.
        let known = passwords.judged(Digest([0; 32]), guesser, || Ok(())).await;
        assert_eq!(known, Err(Disbelief::Bad(BadCredential::Password)));
        // Nobody else is held to it.
        let other = Some("198.51.100.1".parse().unwrap());
        let judged = passwords.judged(Digest([99; 32]), other, || Ok(())).await;
        assert_eq!(judged, Ok(()));
    }
}
