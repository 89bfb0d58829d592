//! Passwords of `basic`: verified off the request threads, a few at a time, and remembered by a keyed digest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tollgate_policy::credentials::basic::{refuse_password, verify_password};
use tollgate_policy::credentials::{BadCredential, Digest};
use tollgate_policy::directory::Secret;

use super::token::Disbelief;

/// Right passwords kept.
const CAPACITY: usize = 20_000;

/// How long a right password is believed without computing its hash again. A changed hash counts at once: it is part of the key.
const REMEMBERED: Duration = Duration::from_secs(300);

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
    turns: Arc<Semaphore>,
    places: Semaphore,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            right: Cache::new(CAPACITY),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            places: Semaphore::new(WAITING),
        }
    }
}

impl Passwords {
    /// Whether `password` fits `hash`. `digest` is that of user, password and hash together.
    ///
    /// # Errors
    /// It does not, or too many are being verified.
    pub(super) async fn verify(
        &self,
        digest: Digest,
        hash: &Secret,
        password: &Secret,
    ) -> Result<(), Disbelief> {
        let known = self.right.get(&digest);
        if known.is_some_and(|since| since.elapsed() < REMEMBERED) {
            return Ok(());
        }
        let (hash, password) = (hash.clone(), password.clone());
        self.in_turn(move || verify_password(hash.reveal(), password.reveal()))
            .await?;
        self.right.insert(digest, Instant::now());
        Ok(())
    }

    /// What a user nobody knows is answered, after the time a wrong password takes.
    pub(super) async fn refuse(&self, password: &Secret) -> Disbelief {
        let password = password.clone();
        let refused = self.in_turn(move || refuse_password(password.reveal()));
        refused
            .await
            .err()
            .unwrap_or(Disbelief::Bad(BadCredential::Password))
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
