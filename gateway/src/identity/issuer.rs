//! An issuer of tokens as one API believes it: the rules its tokens must meet, and its keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tollgate_policy::credentials::jwt::TokenRules;
use tollgate_policy::settings::IssuerConfig;

use super::introspection::Introspector;
use super::keys::IssuerKeys;

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
    /// Compiles one. Reads no file and asks nobody; see [`IssuerKeys::maintain`].
    pub fn new(name: &Arc<str>, config: &IssuerConfig) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: name.clone(),
            rules: TokenRules::from(config),
            keys: IssuerKeys::of(config),
            introspector: config.introspection.as_ref().map(Introspector::new),
        })
    }
}
