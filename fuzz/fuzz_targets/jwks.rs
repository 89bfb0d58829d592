//! Any bytes as a key set, JSON or PEM, and as a client certificate: no panic, and limits hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_policy::credentials::certificate::{self, is_spiffe_id};
use tollgate_policy::credentials::jwks::KeySet;

fuzz_target!(|document: &[u8]| {
    if let Ok(keys) = KeySet::parse(document, KeySet::MAX_BYTES) {
        assert!((1..=KeySet::MAX_KEYS).contains(&keys.len()));
    }
    if let Ok(identity) = certificate::identity(document) {
        assert!(identity.spiffe_id.is_none_or(|id| is_spiffe_id(&id)));
        assert!(!identity.subject.contains(char::is_control));
    }
});
