//! The JOSE vectors of Project Wycheproof: no signature that is not genuine is accepted, every genuine one of a supported algorithm is.
//!
//! A sample lies in `fixtures/wycheproof`; the whole suite is read where it is there. Encryption (JWE) is not ours: those vectors have to
//! be refused.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

use std::path::{Path, PathBuf};

use serde_json::Value;
use tollgate_policy::credentials::jwks::KeySet;
use tollgate_policy::credentials::jws::Signed;
use tollgate_policy::settings::Algorithm;

const ALGORITHMS: [Algorithm; 12] = [
    Algorithm::Rs256,
    Algorithm::Rs384,
    Algorithm::Rs512,
    Algorithm::Ps256,
    Algorithm::Ps384,
    Algorithm::Ps512,
    Algorithm::Es256,
    Algorithm::Es384,
    Algorithm::EdDsa,
    Algorithm::Hs256,
    Algorithm::Hs384,
    Algorithm::Hs512,
];

/// Where the suite says other than we do, and why. (file, test, what we do, why)
const DISAGREEMENTS: [(&str, u64, Verdict, &str); 8] = [
    (
        "signature",
        346,
        Verdict::Refused,
        "the key says PS256, the token PS384: `alg` of a key pins",
    ),
    (
        "signature",
        350,
        Verdict::Refused,
        "the key says PS256, the token PS384: `alg` of a key pins",
    ),
    ("signature", 347, Verdict::Refused, "ES512 is not supported"),
    ("signature", 351, Verdict::Refused, "ES512 is not supported"),
    (
        "signature",
        367,
        Verdict::Accepted,
        "byte for byte the valid test 357",
    ),
    (
        "signature",
        370,
        Verdict::Accepted,
        "byte for byte the valid test 357",
    ),
    (
        "signature",
        372,
        Verdict::Refused,
        "`?` in base64url, which RFC 7515 section 2 excludes",
    ),
    (
        "signature",
        373,
        Verdict::Refused,
        "`?` in base64url, which RFC 7515 section 2 excludes",
    ),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Accepted,
    Refused,
}

/// The key set of a group: what verifiers are given.
fn keys(group: &Value) -> Option<KeySet> {
    let key = group
        .get("public")
        .filter(|key| !key.is_null())
        .or_else(|| group.get("private"))?;
    let document = match key.get("keys") {
        Some(_) => key.to_string(),
        None => serde_json::json!({ "keys": [key] }).to_string(),
    };
    KeySet::parse(document.as_bytes(), KeySet::MAX_BYTES).ok()
}

fn judge(keys: Option<&KeySet>, token: &str) -> Verdict {
    let verified = keys.and_then(|keys| {
        Signed::parse(token)
            .ok()?
            .verify(&ALGORITHMS, keys)
            .ok()
            .map(drop)
    });
    if verified.is_some() {
        Verdict::Accepted
    } else {
        Verdict::Refused
    }
}

/// Runs one file; how many were to be accepted and refused.
fn run(path: &Path) -> (usize, usize) {
    let name = path.file_stem().unwrap().to_string_lossy();
    let suite: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (mut accepted, mut refused) = (0, 0);
    for group in suite["testGroups"].as_array().unwrap() {
        let keys = keys(group);
        for test in group["tests"].as_array().unwrap() {
            // In JSON serialisation it is an object.
            let token = test.get("jws").or_else(|| test.get("jwe")).unwrap();
            let token = token
                .as_str()
                .map_or_else(|| token.to_string(), str::to_owned);
            let number = test["tcId"].as_u64().unwrap();
            // A genuine encrypted token is no signed one.
            let genuine = test["result"] == "valid" && test.get("jws").is_some();
            let disagreement = DISAGREEMENTS
                .iter()
                .find(|(file, id, ..)| name.contains(file) && *id == number);
            let expected = match disagreement {
                Some((_, _, verdict, _)) => *verdict,
                None if genuine => Verdict::Accepted,
                None => Verdict::Refused,
            };
            assert_eq!(
                judge(keys.as_ref(), &token),
                expected,
                "{name} {number}: {}",
                test["comment"]
            );
            match expected {
                Verdict::Accepted => accepted += 1,
                Verdict::Refused => refused += 1,
            }
        }
    }
    println!("{name}: {accepted} accepted, {refused} refused");
    (accepted, refused)
}

#[test]
fn the_sample_is_judged_rightly() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/wycheproof");
    let signatures = run(&folder.join("json_web_signature_sample.json"));
    assert_eq!(signatures, (19, 45));
    let keys = run(&folder.join("json_web_key_sample.json"));
    assert_eq!(keys, (5, 21));
}

#[test]
fn the_whole_suite_is_judged_rightly() {
    let folder = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/vectors/wycheproof"
    ));
    for name in ["crypto", "key", "signature", "encryption"] {
        let path = folder.join(format!("json_web_{name}_test.json"));
        if path.exists() {
            run(&path);
        } else {
            println!("skipped: {} is not here", path.display());
        }
    }
}

/// Where two tests disagree about a key's `alg`, the signature itself is genuine.
#[test]
fn a_mislabelled_key_verifies_under_its_right_label() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/wycheproof/json_web_signature_sample.json");
    let suite: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let groups = suite["testGroups"].as_array().unwrap();
    let figure = |group: &&Value| {
        group["tests"]
            .as_array()
            .unwrap()
            .iter()
            .any(|test| test["tcId"] == 346)
    };
    let mut group = groups.iter().find(figure).unwrap().clone();
    let token = group["tests"][0]["jws"].as_str().unwrap().to_owned();
    assert_eq!(judge(keys(&group).as_ref(), &token), Verdict::Refused);
    group["public"]["alg"] = "PS384".into();
    assert_eq!(judge(keys(&group).as_ref(), &token), Verdict::Accepted);
}
