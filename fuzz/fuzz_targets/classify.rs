//! Any method and target against a file with every kind of template: no panic, and values that lie within the path.
//!
//! Input: `METHOD target`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tollgate_policy::classify::Classifier;
use tollgate_policy::openapi;

static CLASSIFIER: LazyLock<Classifier> = LazyLock::new(|| {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../policy/fixtures/classify-sample.yaml"
    );
    let description = openapi::load(file.as_ref()).expect("the fixture is readable");
    Classifier::compile(&description).0
});

fuzz_target!(|call: &str| {
    let (method, target) = call.split_once(' ').unwrap_or(("GET", call));
    if let Ok(matched) = CLASSIFIER.classify(method, target) {
        for (_, value) in &matched.parameters {
            assert!(!value.is_empty() && value.len() <= target.len());
        }
    }
    CLASSIFIER.explain(method, target);
});
