//! The step `identify`: who is calling? What the OpenAPI file demands is looked for where it says, and verified; what is not proven
//! is nobody's.
//!
//! Authentication never opens: what cannot be verified now is refused with 503, what is wrong with 401. Not here: what a caller may do.

mod budget;
mod changed;
pub mod clock;
pub mod held;
mod identified;
pub mod introspection;
pub mod issuer;
pub mod keys;
mod near;
mod password;
mod revoked;
mod roll;
pub mod shown;
pub mod standing;
pub mod token;
mod told;

use std::net::IpAddr;
use std::sync::Arc;

use pingora_http::RequestHeader;
use smallvec::SmallVec;
use tollgate_policy::access::{ApiAccess, CredentialPlace, Demand, Scheme, SchemeDemand, Witness};
use tollgate_policy::credentials::basic::parse_basic;
use tollgate_policy::credentials::certificate::CertificateIdentity;
use tollgate_policy::credentials::key::{ApiKey, Pepper};
use tollgate_policy::credentials::{BadCredential, Digest, jwt};
use tollgate_policy::directory::{CredentialRef, Secret};
use tollgate_policy::time::Timestamp;
use tollgate_policy::workload::WorkloadId;
use tollgate_proto::ControlClient;

pub use self::identified::Identified;

use self::held::{Directory, Held, NoAnswer};
use self::issuer::Issuer;
use self::password::Passwords;
use self::shown::shown;
use self::token::{Disbelief, Token, Tokens, issuer_of};
use self::told::tell;
use crate::admission::Admissions;

/// Length of a key that was not made by Tollgate and stands in a file, as `consumers.yaml` takes it.
const IMPORTED_KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=512;

/// All that is needed to identify callers. One per process.
#[derive(Debug)]
pub struct Identities {
    /// What is held of the control plane's directory.
    pub directory: Arc<Directory>,
    /// Verified tokens.
    pub tokens: Arc<Tokens>,
    /// What gateways before us admitted.
    pub(crate) admissions: Admissions,
    passwords: Passwords,
    pepper: Pepper,
}

/// What is known of a request besides its head.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// Its head.
    pub head: &'r RequestHeader,
    /// Its query, without `?`.
    pub query: Option<&'r str>,
    /// Client address after PROXY protocol and trusted hops.
    pub client: Option<IpAddr>,
    /// The client certificate of its connection, verified.
    pub certificate: Option<&'r CertificateIdentity>,
    /// The process of the installation that calls, verified.
    pub workload: Option<&'r WorkloadId>,
    /// The moment it is judged.
    pub now: Timestamp,
}

/// Why nobody is identified.
#[derive(Clone, Debug, PartialEq)]
pub enum Unidentified {
    /// No credential was shown where one is demanded.
    Nothing,
    /// What was shown is not valid.
    Bad(BadCredential),
    /// A token lacks this scope.
    Scope(Arc<str>),
    /// It cannot be known now.
    Unknowable,
    /// This source showed too many unknown credentials.
    TooManyUnknown,
}

impl From<Disbelief> for Unidentified {
    fn from(disbelief: Disbelief) -> Self {
        match disbelief {
            Disbelief::Bad(bad) => Self::Bad(bad),
            Disbelief::Unknowable => Self::Unknowable,
            Disbelief::TooMany => Self::TooManyUnknown,
        }
    }
}

impl From<NoAnswer> for Unidentified {
    fn from(no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::Unavailable => Self::Unknowable,
            NoAnswer::TooManyUnknown => Self::TooManyUnknown,
        }
    }
}

/// What one scheme proved.
#[derive(Clone, Debug, Default)]
struct Proof {
    held: Option<Arc<Held>>,
    token: Option<Arc<Token>>,
    certificate: Option<Arc<str>>,
}

/// Results by scheme, so that alternatives that share a scheme verify it once.
type Proofs = SmallVec<[(usize, Result<Proof, Unidentified>); 4]>;

impl Identities {
    /// Knows nobody yet.
    pub fn new(control: ControlClient) -> Arc<Self> {
        Arc::new(Self {
            pepper: Pepper::new(*control.pepper()),
            directory: Directory::new(control),
            tokens: Arc::default(),
            admissions: Admissions::default(),
            passwords: Passwords::default(),
        })
    }

    /// Who calls, as far as the operation demands to know it. `witness` is told what each alternative came to.
    ///
    /// # Errors
    /// See [`Unidentified`]. Of several failures the one that helps the caller most is told.
    pub async fn identify(
        &self,
        access: &ApiAccess,
        issuers: &[Arc<Issuer>],
        operation: usize,
        request: Request<'_>,
        witness: &mut impl Witness,
    ) -> Result<Identified, Unidentified> {
        let (alternatives, anonymous) = match access.operations.get(operation).map(|it| &it.demand)
        {
            Some(Demand::Public) => return Ok(Identified::default()),
            Some(Demand::Alternatives {
                combinations,
                anonymous,
            }) => (combinations, *anonymous),
            Some(Demand::Unreadable) | None => return Err(Unidentified::Nothing),
        };
        let mut proofs = Proofs::new();
        let mut failure = Unidentified::Nothing;
        for alternative in alternatives {
            let mut identified = Identified::default();
            let mut failed = None;
            for SchemeDemand {
                scheme: index,
                scopes,
            } in alternative
            {
                let Some(scheme) = access.schemes.get(*index) else {
                    failed = Some(Unidentified::Nothing);
                    break;
                };
                let proof = match proofs.iter().find(|(known, _)| known == index) {
                    Some((_, proof)) => proof.clone(),
                    None => {
                        let proof = self.prove(scheme, issuers, request).await;
                        proofs.push((*index, proof.clone()));
                        proof
                    }
                };
                let added = proof.and_then(|proof| identified.add(proof, scopes));
                tell(witness, scheme, &added);
                if let Err(why) = added {
                    failed = Some(why);
                    break;
                }
            }
            match failed {
                None => return Ok(identified),
                Some(why) => failure = worse(failure, why),
            }
        }
        if anonymous && failure == Unidentified::Nothing {
            return Ok(Identified::default());
        }
        Err(failure)
    }

    /// Who shows a credential of any scheme of the API: for what Tollgate itself answers to consumers.
    ///
    /// # Errors
    /// See [`Unidentified`].
    pub async fn anybody(
        &self,
        access: &ApiAccess,
        issuers: &[Arc<Issuer>],
        request: Request<'_>,
    ) -> Result<Identified, Unidentified> {
        let mut failure = Unidentified::Nothing;
        for scheme in &access.schemes {
            // A cookie is sent by a browser whoever wrote the form: it proves no intent.
            if matches!(scheme.place, CredentialPlace::Cookie(_)) {
                continue;
            }
            let mut identified = Identified::default();
            match self
                .prove(scheme, issuers, request)
                .await
                .and_then(|proof| identified.add(proof, &[]))
            {
                Ok(()) => return Ok(identified),
                Err(why) => failure = worse(failure, why),
            }
        }
        Err(failure)
    }

    async fn prove(
        &self,
        scheme: &Scheme,
        issuers: &[Arc<Issuer>],
        request: Request<'_>,
    ) -> Result<Proof, Unidentified> {
        if scheme.unknown {
            return Err(Unidentified::Nothing);
        }
        if scheme.place == CredentialPlace::Certificate {
            return self.certificate(scheme, request).await;
        }
        let text = shown(request.head, request.query, &scheme.place)
            .map_err(Unidentified::Bad)?
            .ok_or(Unidentified::Nothing)?;
        match &scheme.place {
            CredentialPlace::Header(_) | CredentialPlace::Query(_) | CredentialPlace::Cookie(_) => {
                self.key(&text, request).await
            }
            CredentialPlace::Bearer if text.starts_with(ApiKey::PREFIX) => {
                self.key(&text, request).await
            }
            CredentialPlace::Bearer => {
                let of_scheme = scheme.issuers.iter();
                let candidates = of_scheme.filter_map(|index| issuers.get(*index));
                self.token(&text, candidates, request).await
            }
            CredentialPlace::Basic => self.basic(&text, request).await,
            CredentialPlace::Certificate | CredentialPlace::Nowhere => Err(Unidentified::Nothing),
        }
    }

    async fn key(&self, text: &str, request: Request<'_>) -> Result<Proof, Unidentified> {
        if text.starts_with(ApiKey::PREFIX) {
            // A checksum comes first: random keys and typing errors ask nobody.
            ApiKey::parse(text).map_err(Unidentified::Bad)?;
        } else if !IMPORTED_KEY_BYTES.contains(&text.len()) {
            return Err(Unidentified::Bad(BadCredential::Malformed));
        }
        let reference = CredentialRef::Key(self.pepper.digest(text));
        let held = self.directory.find(&reference, request.client).await?;
        if held.caller.is_none() {
            return Err(Unidentified::Bad(BadCredential::Unknown));
        }
        Ok(Proof {
            held: Some(held),
            ..Proof::default()
        })
    }

    async fn basic(&self, text: &str, request: Request<'_>) -> Result<Proof, Unidentified> {
        let (user, password) = parse_basic(text).map_err(Unidentified::Bad)?;
        if user.starts_with(ApiKey::PREFIX) && password.reveal().is_empty() {
            return self.key(&user, request).await;
        }
        let reference = CredentialRef::User(user.clone());
        let held = self.directory.find(&reference, request.client).await?;
        let caller = held.caller.as_ref();
        let hash = caller.and_then(|caller| caller.credential.password.as_ref());
        let known = hash.map_or("", Secret::reveal);
        let whole = format!("{user}\0{known}\0{}", password.reveal());
        let digest = self.pepper.digest(&whole);
        let Some(hash) = hash else {
            // As slow as a wrong password, or names could be told apart from strangers.
            let refused = self.passwords.refuse(digest, &password, request.client);
            return Err(refused.await.into());
        };
        self.passwords
            .verify(digest, hash, &password, request.client)
            .await?;
        Ok(Proof {
            held: Some(held),
            ..Proof::default()
        })
    }

    async fn token<'i>(
        &self,
        text: &str,
        candidates: impl Iterator<Item = &'i Arc<Issuer>> + Clone,
        request: Request<'_>,
    ) -> Result<Proof, Unidentified> {
        let digest = self.pepper.digest(text);
        let known = candidates
            .clone()
            .find_map(|issuer| self.tokens.known(digest, issuer, request.now));
        let token = match known {
            Some(token) => token,
            None => self.verify(text, digest, candidates, request).await?,
        };
        match self.directory.token_revoked(&token.claims) {
            Some(false) => {}
            Some(true) => return Err(Unidentified::Bad(BadCredential::Revoked)),
            None => return Err(Unidentified::Unknowable),
        }
        let claims = &token.claims;
        let held = if claims.client.is_empty() {
            None
        } else {
            let reference = CredentialRef::Login {
                issuer: claims.issuer.clone(),
                client: claims.client.clone(),
            };
            // Genuine, and so no guess: a token of nobody we know is not on the budget of its source.
            let held = self.directory.find_proven(&reference).await?;
            held.caller.is_some().then_some(held)
        };
        Ok(Proof {
            held,
            token: Some(token),
            certificate: None,
        })
    }

    async fn verify<'i>(
        &self,
        text: &str,
        digest: Digest,
        candidates: impl Iterator<Item = &'i Arc<Issuer>> + Clone,
        request: Request<'_>,
    ) -> Result<Arc<Token>, Unidentified> {
        match jwt::Token::parse(text) {
            Ok(token) => {
                let issuer = issuer_of(&token, candidates);
                let issuer = issuer.ok_or(Unidentified::Bad(BadCredential::Issuer))?;
                Ok(self.tokens.verify(token, digest, issuer, request.now)?)
            }
            // A broken JWT stays one: nobody is asked to believe what we do not.
            Err(bad) if jwt::is_jwt(text) => Err(Unidentified::Bad(bad)),
            Err(bad) => {
                self.introspect(text, digest, candidates, request, bad)
                    .await
            }
        }
    }

    /// Asks the issuers of tokens that say nothing themselves, one after the other; `bad` is what it is where none is asked.
    async fn introspect<'i>(
        &self,
        text: &str,
        digest: Digest,
        candidates: impl Iterator<Item = &'i Arc<Issuer>>,
        request: Request<'_>,
        bad: BadCredential,
    ) -> Result<Arc<Token>, Unidentified> {
        let mut failure = Unidentified::Bad(bad);
        for issuer in candidates {
            let Some(introspector) = &issuer.introspector else {
                continue;
            };
            let rules = &issuer.rules;
            let asked = introspector.ask(text, digest, rules, request.client, request.now);
            match asked.await {
                Ok((claims, until)) => {
                    let keys = issuer.keys.generation();
                    return Ok(self.tokens.keep(digest, issuer, claims, Some(until), keys));
                }
                Err(why) => failure = worse(failure, why.into()),
            }
        }
        Err(failure)
    }

    async fn certificate(
        &self,
        scheme: &Scheme,
        request: Request<'_>,
    ) -> Result<Proof, Unidentified> {
        let certificate = request.certificate.ok_or(Unidentified::Nothing)?;
        certificate
            .check_time(request.now)
            .map_err(Unidentified::Bad)?;
        let malformed = Unidentified::Bad(BadCredential::Malformed);
        let name = certificate.name().ok_or(malformed)?;
        if !scheme.admits_certificate(name) {
            return Err(Unidentified::Bad(BadCredential::Unknown));
        }
        // The directory knows revoked certificates no more, and those without a consumer it never knew.
        match self.directory.certificate_revoked(name) {
            Some(false) => {}
            Some(true) => return Err(Unidentified::Bad(BadCredential::Revoked)),
            None => return Err(Unidentified::Unknowable),
        }
        let reference = CredentialRef::Certificate(name.clone());
        let held = self.directory.find_proven(&reference).await?;
        Ok(Proof {
            held: Some(held),
            token: None,
            certificate: Some(name.clone()),
        })
    }
}

/// Of two failures the one to tell: what cannot be known outweighs what is wrong, which outweighs what is missing.
fn worse(first: Unidentified, second: Unidentified) -> Unidentified {
    let weight = |failure: &Unidentified| match failure {
        Unidentified::Nothing => 0,
        Unidentified::Bad(_) => 1,
        Unidentified::Scope(_) => 2,
        Unidentified::TooManyUnknown => 3,
        Unidentified::Unknowable => 4,
    };
    if weight(&second) > weight(&first) {
        second
    } else {
        first
    }
}
