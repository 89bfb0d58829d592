//! The keys of an issuer: fetched ahead of need, kept while they cannot be fetched, never waited for by a request.
//!
//! All APIs that believe the same issuer share one set. A key nobody knows yet has the set fetched again, at most once in a while,
//! whoever shows it. Not here: what a key is good for.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tollgate_policy::credentials::jwks::KeySet;
use tollgate_policy::settings::{IssuerConfig, KeySource};

use crate::remote::{Bounds, Inquiry, Trust, ask};

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
    trust: Trust,
    stale_for: Duration,
    current: ArcSwapOption<KeySet>,
    generation: AtomicU64,
    wanted: Arc<Notify>,
    maintained: AtomicBool,
    seen: Mutex<Seen>,
}

/// What the last attempts came to.
#[derive(Clone, Debug, Default)]
struct Seen {
    raw: Vec<u8>,
    good_at: Option<Instant>,
    error: String,
}

static ALL: Mutex<Vec<Weak<IssuerKeys>>> = Mutex::new(Vec::new());

impl IssuerKeys {
    /// The keys of this issuer, shared with whoever asks for the same. Files and secrets are read at once; the rest by
    /// [`Self::maintain`].
    pub fn of(config: &IssuerConfig, trust: &Trust) -> Arc<Self> {
        let mut all = ALL.lock();
        all.retain(|keys| keys.strong_count() > 0);
        let same = |keys: &Arc<Self>| {
            keys.issuer == config.issuer
                && keys.source == config.keys
                && keys.allow_private == config.allow_private
                && keys.trust == *trust
                && keys.stale_for == config.stale_for
        };
        if let Some(known) = all.iter().filter_map(Weak::upgrade).find(same) {
            return known;
        }
        // Where only the bounds changed, what was fetched goes on being used until it is fetched again: a reload refuses nobody.
        let alike = |keys: &Arc<Self>| keys.issuer == config.issuer && keys.source == config.keys;
        let before = all.iter().filter_map(Weak::upgrade).find(alike);
        let keys = Arc::new(Self {
            issuer: config.issuer.clone(),
            source: config.keys.clone(),
            allow_private: config.allow_private,
            trust: trust.clone(),
            stale_for: config.stale_for,
            current: ArcSwapOption::new(before.as_ref().and_then(|keys| keys.current())),
            generation: AtomicU64::new(0),
            wanted: Arc::default(),
            maintained: AtomicBool::new(false),
            seen: Mutex::new(
                before
                    .map(|keys| keys.seen.lock().clone())
                    .unwrap_or_default(),
            ),
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

    /// Somebody showed a key that is not known, or there are none.
    pub fn want_refresh(&self) {
        self.wanted.notify_one();
    }

    /// Why there are no keys, or the last attempt failed; empty where all is well.
    pub fn last_error(&self) -> String {
        self.seen.lock().error.clone()
    }

    /// How long ago they were last read or fetched without error; `None`: never.
    pub fn age(&self) -> Option<Duration> {
        self.seen.lock().good_at.map(|good| good.elapsed())
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
                    self.seen.lock().good_at = Some(Instant::now());
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
                    for why in keys.refused() {
                        tracing::warn!(issuer = %self.issuer, "of the keys of {}: {why}", self.issuer);
                    }
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
        let told = ask(Inquiry::get(parsed), &self.trust, bounds)
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

/// A file as a whole. Nothing but a file: a pipe would be waited for, a device would not end.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    if !std::fs::metadata(path).map_err(told)?.is_file() {
        return Err(format!("{}: is no file", path.display()));
    }
    let file = std::fs::File::open(path).map_err(told)?;
    let mut raw = Vec::new();
    file.take(LARGEST as u64 + 1)
        .read_to_end(&mut raw)
        .map_err(told)?;
    match raw.len() > LARGEST {
        true => Err(format!(
            "{}: is larger than {LARGEST} bytes",
            path.display()
        )),
        false => Ok(raw),
    }
}

impl Drop for IssuerKeys {
    /// Nobody believes the issuer any more: whoever follows it wakes, finds that out and ends.
    fn drop(&mut self) {
        self.wanted.notify_one();
    }
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
                // Whoever has keys can wait; whoever has none refuses callers meanwhile.
                let this = match strong.current() {
                    Some(_) => pause.max(PAUSE),
                    None => pause,
                };
                pause = (this * 2).min(LONGEST_PAUSE);
                this
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

    fn config(keys: KeySource) -> IssuerConfig {
        let place = tollgate_policy::finding::Place {
            file: "api.yaml".into(),
            line: 1,
            column: 1,
        };
        IssuerConfig::new("https://id.example".into(), keys, place)
    }

    #[test]
    fn a_key_file_is_a_file_of_bounded_size() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap_err().contains("is no file"));
        assert!(
            read(Path::new("/dev/zero"))
                .unwrap_err()
                .contains("is no file")
        );
        let file = folder.path().join("keys");
        std::fs::write(&file, vec![b' '; LARGEST]).unwrap();
        assert_eq!(read(&file).unwrap().len(), LARGEST);
        std::fs::write(&file, vec![b' '; LARGEST + 1]).unwrap();
        assert!(read(&file).unwrap_err().contains("is larger"));
    }

    #[test]
    fn keys_are_shared_and_outlive_a_change_of_bounds() {
        let secret = "0123456789abcdef0123456789abcdef";
        let keys = KeySource::Secret(tollgate_policy::directory::Secret::new(secret));
        let first = config(keys);
        let second = IssuerConfig {
            stale_for: Duration::from_secs(1),
            ..first.clone()
        };
        let keys = IssuerKeys::of(&first, &Trust::default());
        assert!(Arc::ptr_eq(
            &keys,
            &IssuerKeys::of(&first, &Trust::default())
        ));
        let changed = IssuerKeys::of(&second, &Trust::default());
        assert!(!Arc::ptr_eq(&keys, &changed));
        assert!(changed.current().is_some());
        assert!(changed.age().is_some());
    }

    #[test]
    fn keys_that_cannot_be_read_any_more_count_for_as_long_as_they_may() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        let set = r#"{"keys":[{"kty":"oct","kid":"a","alg":"HS256","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}]}"#;
        for (stale_for, kept) in [
            (Duration::from_secs(24 * 3600), true),
            (Duration::ZERO, false),
        ] {
            std::fs::write(&file, set).unwrap();
            let config = IssuerConfig {
                stale_for,
                ..config(KeySource::File(file.clone()))
            };
            let keys = IssuerKeys::of(&config, &Trust::default());
            let generation = keys.generation();
            assert!(keys.current().is_some(), "{}", keys.last_error());
            std::fs::remove_file(&file).unwrap();
            keys.learn(read(&file));
            assert!(!keys.last_error().is_empty());
            assert_eq!(keys.current().is_some(), kept);
            // What was verified with them is not believed any longer than they are.
            assert_eq!(keys.generation() == generation, kept);
            std::fs::write(&file, set).unwrap();
            keys.learn(read(&file));
            assert!(keys.current().is_some() && keys.last_error().is_empty());
        }
    }

    #[tokio::test]
    async fn nobody_follows_an_issuer_that_nobody_believes() {
        let folder = tempfile::tempdir().unwrap();
        let keys = IssuerKeys::of(
            &config(KeySource::File(folder.path().join("none"))),
            &Trust::default(),
        );
        let followed = tokio::spawn(follow(Arc::downgrade(&keys)));
        assert!(keys.last_error().contains("none"));
        drop(keys);
        let ended = tokio::time::timeout(PAUSE, followed).await;
        ended.unwrap().unwrap();
    }

    #[test]
    fn fetches_are_spread_and_early() {
        for _ in 0..100 {
            let time = jittered(Duration::from_secs(1000));
            assert!((750..=1000).contains(&time.as_secs()), "{time:?}");
        }
    }
}
