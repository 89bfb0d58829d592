//! What a gateway tells the sidecar behind it of a call it admitted, so that one hop alone reserves quota and bills.
//!
//! An [`Admission`] travels in the field [`FIELD`] over mutual TLS. It proves nothing by itself: it counts because the connection it
//! came over is that of the one who issued it, because that one is believed, because it is for this API and of now
//! ([`Admission::check`]), and because it was not used before ([`Replays::first_use`]). Whoever reads it still decides about access,
//! terms and revocation on its own. The field of a client is never believed, and has to be taken away at the edge.
//! Not here: who is believed, and what a call without a good admission comes to.
//!
//! Form: base64url without padding of a version and the parts in order, numbers big-endian, texts with their length before them. Every
//! admission has one form, and one form says one admission.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::credentials::Digest;
use crate::directory::CredentialRef;
use crate::time::Timestamp;
use crate::workload::{Kind, WorkloadId};

/// The header field it travels in.
pub const FIELD: &str = "x-tollgate-admission";

/// How long an admission is good for where nothing else is said: longer than a call waits for a connection to the service, shorter
/// than a thief needs.
pub const LIFETIME: Duration = Duration::from_secs(30);

/// The longest life that is believed. What was used is remembered for it.
pub const LONGEST_LIFETIME: Duration = Duration::from_secs(60);

/// How far the clock of the issuer may be ahead.
pub const AHEAD: Duration = Duration::from_secs(5);

/// Bytes of the written form.
pub const LONGEST: usize = 4096;

/// Claims an admission may carry.
pub const MOST_CLAIMS: usize = 32;

/// The only version there is.
const VERSION: u8 = 1;

/// A call that was admitted, and as whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Who admitted it, and bills it.
    pub issuer: WorkloadId,
    /// Name of the API it was admitted to.
    pub audience: Arc<str>,
    /// Label-safe name of the operation. The reader classifies the call itself; where it finds another one, this is not its call.
    pub operation: Arc<str>,
    /// `x-request-id`.
    pub request_id: Arc<str>,
    /// Generation of the API's policy that decided.
    pub generation: u64,
    /// When, by the issuer's clock.
    pub issued: Timestamp,
    /// How long after `issued` it counts, in whole milliseconds; at most [`LONGEST_LIFETIME`], usually [`LIFETIME`].
    pub lifetime: Duration,
    /// Random, and another one for each attempt to forward the call: instances that share an identity do not know each other's.
    pub nonce: u64,
    /// The credential that was verified; `None`: nobody in particular.
    pub credential: Option<CredentialRef>,
    /// `sub` of the token.
    pub end_user: Option<Arc<str>>,
    /// Plan the call is billed by; empty for none.
    pub plan: Arc<str>,
    /// Claims the API passes on, by name; at most [`MOST_CLAIMS`].
    pub claims: Vec<(Arc<str>, Arc<str>)>,
}

/// An admission says more than fits into [`LONGEST`] bytes, or lives longer than anybody believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the admission is too long")]
pub struct TooLong;

/// Why an admission does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadAdmission {
    /// Not of the form admissions have.
    #[error("it is malformed")]
    Malformed,
    /// Somebody else issued it than sent it, or nobody who may admit.
    #[error("it is not of a peer that may admit")]
    Foreign,
    /// Its time is over, or has not come.
    #[error("it has expired, or is of another time")]
    Expired,
    /// It is for another API.
    #[error("it is for another API")]
    OtherApi,
    /// It was used before.
    #[error("it was used before")]
    Replayed,
    /// So many came at once that it cannot be said whether it was used before.
    #[error("there are too many to tell whether it was used before")]
    Crowded,
}

impl BadAdmission {
    /// As counted in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Foreign => "foreign",
            Self::Expired => "expired",
            Self::OtherApi => "other_api",
            Self::Replayed => "replayed",
            Self::Crowded => "crowded",
        }
    }
}

impl Admission {
    /// The value of [`FIELD`].
    ///
    /// # Errors
    /// Nobody would read it: it says too much. Long claims are the usual reason.
    pub fn encode(&self) -> Result<String, TooLong> {
        let mut bytes = vec![VERSION];
        put(&mut bytes, &self.issuer.to_string())?;
        for text in [
            &self.audience,
            &self.operation,
            &self.request_id,
            &self.plan,
        ] {
            put(&mut bytes, text)?;
        }
        let lifetime = u32::try_from(self.lifetime.as_millis()).map_err(|_| TooLong)?;
        bytes.extend(self.generation.to_be_bytes());
        bytes.extend(self.issued.millis().to_be_bytes());
        bytes.extend(lifetime.to_be_bytes());
        bytes.extend(self.nonce.to_be_bytes());
        put_credential(&mut bytes, self.credential.as_ref())?;
        bytes.push(u8::from(self.end_user.is_some()));
        if let Some(end_user) = &self.end_user {
            put(&mut bytes, end_user)?;
        }
        let count = u8::try_from(self.claims.len()).map_err(|_| TooLong)?;
        bytes.push(count);
        for (name, value) in &self.claims {
            put(&mut bytes, name)?;
            put(&mut bytes, value)?;
        }
        let text = URL_SAFE_NO_PAD.encode(bytes);
        let readable = text.len() <= LONGEST
            && self.claims.len() <= MOST_CLAIMS
            && self.lifetime <= LONGEST_LIFETIME;
        readable.then_some(text).ok_or(TooLong)
    }

    /// Reads the value of [`FIELD`]. Who wrote it is not known yet: [`Admission::check`].
    ///
    /// # Errors
    /// [`BadAdmission::Malformed`].
    pub fn decode(value: &[u8]) -> Result<Self, BadAdmission> {
        if value.len() > LONGEST {
            return Err(BadAdmission::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(value).ok();
        let read = bytes.and_then(|bytes| Reader(&bytes).admission());
        read.ok_or(BadAdmission::Malformed)
    }

    /// Whether it counts for a call to `api` over a connection whose other end is `peer`, as verified by its certificate.
    /// `believed` says whose admissions count here at all.
    ///
    /// # Errors
    /// All but [`BadAdmission::Malformed`] and those of [`Replays::first_use`], which comes after it.
    pub fn check(
        &self,
        peer: &WorkloadId,
        believed: impl Fn(&WorkloadId) -> bool,
        api: &str,
        now: Timestamp,
    ) -> Result<(), BadAdmission> {
        let admits = match self.issuer.kind() {
            Kind::Gateway | Kind::Service => true,
            Kind::Control => false,
        };
        if !admits || self.issuer != *peer || !believed(peer) {
            return Err(BadAdmission::Foreign);
        }
        if self.issued > now.plus(AHEAD) || now >= self.expires() {
            return Err(BadAdmission::Expired);
        }
        if *self.audience != *api {
            return Err(BadAdmission::OtherApi);
        }
        Ok(())
    }

    /// From then on it does not count.
    fn expires(&self) -> Timestamp {
        self.issued.plus(self.lifetime.min(LONGEST_LIFETIME))
    }
}

fn put(bytes: &mut Vec<u8>, text: &str) -> Result<(), TooLong> {
    let length = u16::try_from(text.len()).map_err(|_| TooLong)?;
    bytes.extend(length.to_be_bytes());
    bytes.extend(text.as_bytes());
    Ok(())
}

const NOBODY: u8 = 0;
const KEY: u8 = 1;
const LOGIN: u8 = 2;
const CERTIFICATE: u8 = 3;
const USER: u8 = 4;

fn put_credential(bytes: &mut Vec<u8>, credential: Option<&CredentialRef>) -> Result<(), TooLong> {
    match credential {
        None => bytes.push(NOBODY),
        Some(CredentialRef::Key(digest)) => {
            bytes.push(KEY);
            bytes.extend(digest.0);
        }
        Some(CredentialRef::Login { issuer, client }) => {
            bytes.push(LOGIN);
            put(bytes, issuer)?;
            put(bytes, client)?;
        }
        Some(CredentialRef::Certificate(name)) => {
            bytes.push(CERTIFICATE);
            put(bytes, name)?;
        }
        Some(CredentialRef::User(name)) => {
            bytes.push(USER);
            put(bytes, name)?;
        }
    }
    Ok(())
}

/// What of the bytes is not read yet.
struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn admission(mut self) -> Option<Admission> {
        if self.byte()? != VERSION {
            return None;
        }
        let admission = Admission {
            issuer: self.text()?.parse().ok()?,
            audience: self.text().filter(|name| !name.is_empty())?,
            operation: self.text().filter(|name| !name.is_empty())?,
            request_id: self.text()?,
            plan: self.text()?,
            generation: u64::from_be_bytes(self.array()?),
            issued: Timestamp::from_millis(i64::from_be_bytes(self.array()?)),
            lifetime: Duration::from_millis(u32::from_be_bytes(self.array()?).into()),
            nonce: u64::from_be_bytes(self.array()?),
            credential: self.credential()?,
            end_user: self.end_user()?,
            claims: self.claims()?,
        };
        let whole = self.0.is_empty() && admission.lifetime <= LONGEST_LIFETIME;
        whole.then_some(admission)
    }

    fn credential(&mut self) -> Option<Option<CredentialRef>> {
        let credential = match self.byte()? {
            NOBODY => return Some(None),
            KEY => CredentialRef::Key(Digest(self.array()?)),
            LOGIN => CredentialRef::Login {
                issuer: self.text()?,
                client: self.text()?,
            },
            CERTIFICATE => CredentialRef::Certificate(self.text()?),
            USER => CredentialRef::User(self.text()?),
            _ => return None,
        };
        Some(Some(credential))
    }

    fn end_user(&mut self) -> Option<Option<Arc<str>>> {
        match self.byte()? {
            0 => Some(None),
            1 => self.text().map(Some),
            _ => None,
        }
    }

    fn claims(&mut self) -> Option<Vec<(Arc<str>, Arc<str>)>> {
        let count = usize::from(self.byte()?);
        if count > MOST_CLAIMS {
            return None;
        }
        (0..count)
            .map(|_| Some((self.text()?, self.text()?)))
            .collect()
    }

    fn text(&mut self) -> Option<Arc<str>> {
        let length = u16::from_be_bytes(self.array()?);
        let (text, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        std::str::from_utf8(text).ok().map(Arc::from)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }
}

/// Which admissions were used. Each is remembered for as long as it could be used again, and for at most twice as long.
///
/// Takes 20 to 40 bytes for each admission of the last two minutes, grows as needed and gives back what a burst took. Beyond
/// [`Replays::MOST`] admissions it refuses those that are new, because it could not refuse them a second time; that is 8,000
/// calls a second and more. Several may share the work where an admission always comes to the same one, by its nonce.
#[derive(Debug)]
pub struct Replays {
    issuers: RandomState,
    most: usize,
    /// Since when `young` is filled.
    since: Timestamp,
    young: Used,
    old: Used,
    /// Everything issued until then may have been used and forgotten. In the order of time it has expired anyway; where the clock
    /// was set back it would count again.
    forgotten: Option<Timestamp>,
}

/// Admissions by issuer and nonce.
#[derive(Debug, Default)]
struct Used {
    known: HashSet<(u64, u64)>,
    /// The last of them by the issuer's clock.
    last_issued: Option<Timestamp>,
}

impl Default for Replays {
    fn default() -> Self {
        Self::new(Self::MOST)
    }
}

impl Replays {
    /// Admissions that are remembered at the same time: about 36 MB.
    pub const MOST: usize = 1 << 20;

    /// How long an admission is remembered at least. One that is used as early as it can be, while the issuer's clock is ahead, counts
    /// this long.
    const MEMORY: Duration = LONGEST_LIFETIME.saturating_add(AHEAD);

    /// Remembers at most so many.
    pub fn new(most: usize) -> Self {
        Self {
            issuers: RandomState::new(),
            most,
            since: Timestamp::default(),
            young: Used::default(),
            old: Used::default(),
            forgotten: None,
        }
    }

    /// Uses an admission that [`Admission::check`] found good; others would only take room.
    ///
    /// # Errors
    /// [`BadAdmission::Replayed`]: not for the first time. [`BadAdmission::Crowded`]: there is no room to remember it.
    pub fn first_use(&mut self, admission: &Admission, now: Timestamp) -> Result<(), BadAdmission> {
        self.turn(now);
        let key = (self.issuers.hash_one(&admission.issuer), admission.nonce);
        let forgotten = self
            .forgotten
            .is_some_and(|until| admission.issued <= until);
        if forgotten || self.young.known.contains(&key) || self.old.known.contains(&key) {
            return Err(BadAdmission::Replayed);
        }
        if self.len() >= self.most {
            return Err(BadAdmission::Crowded);
        }
        self.young.known.insert(key);
        self.young.last_issued = self.young.last_issued.max(Some(admission.issued));
        Ok(())
    }

    /// Admissions that are remembered.
    pub fn len(&self) -> usize {
        self.young.known.len() + self.old.known.len()
    }

    /// Whether none are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what cannot be used again.
    fn turn(&mut self, now: Timestamp) {
        if now < self.since {
            // The clock was set back: what is young stays so.
            self.since = now;
        }
        let age = now.since(self.since);
        if age < Self::MEMORY {
            return;
        }
        self.forget();
        if age >= 2 * Self::MEMORY {
            self.forget();
        }
        self.since = now;
    }

    /// Forgets the old; the young are old from now on.
    fn forget(&mut self) {
        self.forgotten = self.forgotten.max(self.old.last_issued);
        std::mem::swap(&mut self.young, &mut self.old);
        self.young.last_issued = None;
        self.young.known.clear();
        // As much room as was needed lately: neither what a burst took for good, nor growing anew in each turn.
        self.young.known.shrink_to(self.old.known.len());
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]
mod tests;
