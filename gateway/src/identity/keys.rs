//! The keys of an issuer: fetched ahead of need, kept while they cannot be fetched, never waited for by a request.
//!
//! All APIs that believe the same issuer share one set. A key nobody knows yet has the set fetched again, at most once in a while,
//! whoever shows it. Not here: what a key is good for.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tollgate_policy::credentials::jwks::KeySet;
use tollgate_policy::settings::{IssuerConfig, KeySource};

use crate::remote::{Bounds, Inquiry, ask};

/// How often keys are fetched where the issuer does not say, and bounds for where it does.
const USUAL: Duration = Duration::from_secs(600);
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Least time between two fetches, whoever asks for one.
const PAUSE: Duration = Duration::from_secs(8);

/// Longest pause after failures; the first is a second, each doubles.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often a file is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Bounds of a fetch.
const DEADLINE: Duration = Duration::from_secs(10);
const LARGEST: usize = 1 << 20;

/// The keys of one issuer.
#[derive(Debug)]
pub struct IssuerKeys {
    issuer: Arc<str>,
    source: KeySource,
    allow_private: bool,
    stale_for: Duration,
    current: ArcSwapOption<KeySet>,
    generation: AtomicU64,
    wanted: Arc<Notify>,
    maintained: AtomicBool,
    seen: Mutex<Seen>,
}

/// What the last attempts came to.
#[derive(Debug, Default)]
struct Seen {
    raw: Vec<u8>,
    good_at: Option<Instant>,
    error: String,
}

static ALL: Mutex<Vec<Weak<IssuerKeys>>> = Mutex::new(Vec::new());

impl IssuerKeys {
    /// The keys of this issuer, shared with whoever asks for the same. Files and secrets are read at once; the rest by
    /// [`Self::maintain`].
    pub fn of(config: &IssuerConfig) -> Arc<Self> {
        let mut all = ALL.lock();
        all.retain(|keys| keys.strong_count() > 0);
        let same = |keys: &Arc<Self>| {
            keys.issuer == config.issuer
                && keys.source == config.keys
                && keys.allow_private == config.allow_private
                && keys.stale_for == config.stale_for
        };
        if let Some(known) = all.iter().filter_map(Weak::upgrade).find(same) {
            return known;
        }
        let keys = Arc::new(Self {
            issuer: config.issuer.clone(),
            source: config.keys.clone(),
            allow_private: config.allow_private,
            stale_for: config.stale_for,
            current: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            wanted: Arc::default(),
            maintained: AtomicBool::new(false),
            seen: Mutex::default(),
        });
        keys.read_local();
        all.push(Arc::downgrade(&keys));
        keys
    }

    /// The keys; `None` while they were never fetched, or for too long.
    pub fn current(&self) -> Option<Arc<KeySet>> {
        self.current.load_full()
    }

    /// Moves when the keys change.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Somebody showed a key that is not known.
    pub fn want_refresh(&self) {
        self.wanted.notify_one();
    }

    /// Why there are no keys, or the last attempt failed; empty where all is well.
    pub fn last_error(&self) -> String {
        self.seen.lock().error.clone()
    }

    /// Keeps the keys up to date on the current runtime for as long as somebody holds them. Again is no harm.
    pub fn maintain(self: &Arc<Self>) {
        if !self.maintained.swap(true, Ordering::AcqRel) {
            tokio::spawn(follow(Arc::downgrade(self)));
        }
    }

    fn read_local(&self) {
        match &self.source {
            KeySource::File(path) => self.learn(read(path)),
            KeySource::Secret(secret) => match KeySet::from_secret(secret.reveal().as_bytes()) {
                Ok(keys) => {
                    self.current.store(Some(Arc::new(keys)));
                    self.generation.fetch_add(1, Ordering::Release);
                }
                Err(error) => self.learn(Err(error)),
            },
            KeySource::Discovery(_) | KeySource::Url(_) => {}
        }
    }

    /// Takes in what was read; what cannot be used leaves the keys as they are.
    fn learn(&self, read: Result<Vec<u8>, String>) {
        let mut seen = self.seen.lock();
        let parsed = read.and_then(|raw| {
            if raw == seen.raw && self.current.load().is_some() {
                return Ok(None);
            }
            KeySet::parse(&raw, LARGEST).map(|keys| Some((raw, keys)))
        });
        match parsed {
            Ok(new) => {
                seen.good_at = Some(Instant::now());
                seen.error.clear();
                if let Some((raw, keys)) = new {
                    seen.raw = raw;
                    self.current.store(Some(Arc::new(keys)));
                    self.generation.fetch_add(1, Ordering::Release);
                    tracing::info!(issuer = %self.issuer, "new keys of {}", self.issuer);
                }
            }
            Err(error) => {
                if seen.error != error {
                    tracing::warn!(issuer = %self.issuer, "keys of {}: {error}", self.issuer);
                }
                seen.error = error;
                let too_old = seen
                    .good_at
                    .is_some_and(|good| good.elapsed() > self.stale_for);
                if too_old && self.current.swap(None).is_some() {
                    self.generation.fetch_add(1, Ordering::Release);
                    tracing::error!(issuer = %self.issuer, "keys of {} are too old to be used", self.issuer);
                }
            }
        }
    }

    async fn fetch(&self) -> Result<(Vec<u8>, Duration), String> {
        let url = match &self.source {
            KeySource::Url(url) => url.to_string(),
            KeySource::Discovery(document) => self.discover(document).await?,
            KeySource::File(path) => return read(path).map(|raw| (raw, LOOK)),
            KeySource::Secret(_) => return Err("a secret is not fetched".to_owned()),
        };
        let told = self.get(&url).await?;
        let lifetime = max_age(&told.fields).unwrap_or(USUAL);
        Ok((told.body.to_vec(), lifetime.clamp(SHORTEST, LONGEST)))
    }

    async fn get(&self, url: &str) -> Result<crate::remote::Told, String> {
        let bounds = Bounds {
            deadline: DEADLINE,
            bytes: LARGEST,
            allow_private: self.allow_private,
        };
        let parsed = url.parse().map_err(|_| format!("`{url}` is no URL"))?;
        let told = ask(Inquiry::get(parsed), bounds)
            .await
            .map_err(|error| format!("{url}: {error}"))?;
        match told.status.is_success() {
            true => Ok(told),
            false => Err(format!("{url}: answered {}", told.status)),
        }
    }

    /// `jwks_uri` of the discovery document (OpenID Connect Discovery 1.0 section 4): of the right issuer, and by TLS if it came by TLS.
    async fn discover(&self, document: &str) -> Result<String, String> {
        let told = self.get(document).await?;
        let found: serde_json::Value = serde_json::from_slice(&told.body)
            .map_err(|error| format!("{document}: is no JSON: {error}"))?;
        let text = |name: &str| found.get(name).and_then(serde_json::Value::as_str);
        if text("issuer") != Some(&*self.issuer) {
            return Err(format!(
                "{document}: is of another issuer than {}",
                self.issuer
            ));
        }
        let uri = text("jwks_uri").ok_or_else(|| format!("{document}: has no `jwks_uri`"))?;
        if document.starts_with("https://") && !uri.starts_with("https://") {
            return Err(format!("{document}: `jwks_uri` is not https"));
        }
        Ok(uri.to_owned())
    }
}

/// `max-age` of `Cache-Control`.
fn max_age(fields: &http::HeaderMap) -> Option<Duration> {
    let text = fields.get(http::header::CACHE_CONTROL)?.to_str().ok()?;
    let mut directives = text.split(',').map(str::trim);
    let seconds = directives.find_map(|one| one.strip_prefix("max-age="))?;
    seconds.parse().ok().map(Duration::from_secs)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if size.len() > LARGEST as u64 {
        return Err(format!(
            "{}: is larger than {LARGEST} bytes",
            path.display()
        ));
    }
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Between three quarters and the whole: ahead of expiry, and not all at once.
fn jittered(time: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 1000;
    let permille = 750 + u32::try_from(random / 4).unwrap_or(0);
    time * permille / 1000
}

async fn follow(keys: Weak<IssuerKeys>) {
    let mut pause = Duration::from_secs(1);
    loop {
        let Some(strong) = keys.upgrade() else {
            return;
        };
        if matches!(strong.source, KeySource::Secret(_)) {
            return;
        }
        let fetched = strong.fetch().await;
        let wait = match &fetched {
            Ok((_, lifetime)) => {
                pause = Duration::from_secs(1);
                *lifetime
            }
            Err(_) => {
                pause = (pause * 2).min(LONGEST_PAUSE);
                pause
            }
        };
        let local = matches!(strong.source, KeySource::File(_));
        strong.learn(fetched.map(|(raw, _)| raw));
        let wanted = strong.wanted.clone();
        // Waiting must not keep alive what nobody uses any more.
        drop(strong);
        let least = if local { LOOK } else { PAUSE }.min(wait);
        tokio::time::sleep(least).await;
        let rest = jittered(wait).saturating_sub(least);
        let _woken = tokio::time::timeout(rest, wanted.notified()).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_lifetime_is_the_issuers_word() {
        let mut fields = http::HeaderMap::new();
        assert_eq!(max_age(&fields), None);
        let value = http::HeaderValue::from_static("public, max-age=300, must-revalidate");
        fields.insert(http::header::CACHE_CONTROL, value);
        assert_eq!(max_age(&fields), Some(Duration::from_secs(300)));
    }

    #[test]
    fn fetches_are_spread_and_early() {
        for _ in 0..100 {
            let time = jittered(Duration::from_secs(1000));
            assert!((750..=1000).contains(&time.as_secs()), "{time:?}");
        }
    }
}
