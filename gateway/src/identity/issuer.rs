//! An issuer of tokens as one API believes it: the rules its tokens must meet, and its keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tollgate_policy::credentials::jwt::TokenRules;
use tollgate_policy::settings::IssuerConfig;

use super::introspection::Introspector;
use super::keys::IssuerKeys;
use crate::remote::Trust;

/// One issuer of one API.
#[derive(Debug)]
pub struct Issuer {
    /// Unique in the process: a token verified under these rules is kept under it.
    pub id: u64,
    /// Its name in the API file.
    pub name: Arc<str>,
    /// What its tokens must meet.
    pub rules: TokenRules,
    /// Its keys, shared by all APIs that believe it.
    pub keys: Arc<IssuerKeys>,
    /// Asked about tokens that are no JWTs.
    pub introspector: Option<Introspector>,
}

impl Issuer {
    /// Compiles one. Asks nobody; see [`IssuerKeys::maintain`].
    ///
    /// # Errors
    /// Its root certificates cannot be used.
    pub fn new(name: &Arc<str>, config: &IssuerConfig) -> Result<Arc<Self>, String> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let trust = Trust::of(config.ca.as_deref())?;
        let introspection = config.introspection.as_ref();
        Ok(Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: name.clone(),
            rules: TokenRules::from(config),
            keys: IssuerKeys::of(config, &trust),
            introspector: introspection.map(|it| Introspector::new(it, trust)),
        }))
    }
}
