//! Any text as an API key, and as user and password: no panic; what is read is what was made.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_policy::credentials::basic::parse_basic;
use tollgate_policy::credentials::key::{ApiKey, is_environment, make_key};

fuzz_target!(|input: (&str, [u8; 16])| {
    let (text, random) = input;
    if let Ok(key) = ApiKey::parse(text) {
        assert_eq!(key.text(), text);
        assert!(is_environment(key.environment()) && text.len() <= ApiKey::MAX_LENGTH);
    }
    if is_environment(text) {
        let made = make_key(text, random);
        assert_eq!(ApiKey::parse(&made).map(|key| key.environment()), Ok(text));
    }
    if let Ok((user, password)) = parse_basic(text) {
        assert!(!user.contains(':') && user.len() + password.reveal().len() < text.len());
    }
});
