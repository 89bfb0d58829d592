//! Any text as an OpenAPI file: it is read or refused, and what is read can be compiled and asked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_policy::classify::Classifier;
use tollgate_policy::openapi;

fuzz_target!(|text: &str| {
    if let Ok(description) = openapi::load_text("fuzz.yaml", text) {
        let (classifier, _) = Classifier::compile(&description);
        for operation in description.operations.iter().take(100) {
            for base in &operation.bases {
                let target = format!("{base}{}", operation.route);
                let _ = classifier.classify(&operation.method, &target);
            }
        }
    }
});
