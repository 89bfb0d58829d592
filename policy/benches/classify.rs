//! What a classification costs, and that it does not grow with the number of operations.
//!
//! Prints nanoseconds per look-up: the median over interleaved rounds, so that a busy machine disturbs all sizes alike. How to
//! read it: `GitHub` below 250 ns, and the synthetic sizes within noise of each other.
//!
//! Instructions instead of time, which no neighbour on the machine disturbs, for one subject and one round of 20,000 look-ups:
//! `valgrind --tool=callgrind --toggle-collect='*Subject::round*' target/release/deps/classify-* GitHub 1`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a bench is no request path"
)]

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use tollgate_policy::classify::Classifier;
use tollgate_policy::openapi::{self, Description};

const ROUNDS: usize = 31;
const PASSES: usize = 20_000;

struct Subject {
    name: String,
    classifier: Classifier,
    calls: Vec<(String, String)>,
    rounds: Vec<f64>,
}

impl Subject {
    fn new(name: String, description: &Description) -> Self {
        let start = Instant::now();
        let (classifier, findings) = Classifier::compile(description);
        println!(
            "{name}: compiled in {:?}, {} findings",
            start.elapsed(),
            findings.len()
        );
        let calls = description.operations.iter().map(|operation| {
            let base = operation.bases.first().map_or("", |b| &**b);
            let path = format!("{base}{}", operation.route);
            (operation.method.to_string(), filled(&path))
        });
        // Spread over the whole file, but few enough that all sizes fit the same caches.
        let calls: Vec<_> = calls.collect();
        let step = (calls.len() / 500).max(1);
        let calls = calls.into_iter().step_by(step).collect();
        Self {
            name,
            classifier,
            calls,
            rounds: Vec::new(),
        }
    }

    #[inline(never)]
    fn round(&mut self) {
        let start = Instant::now();
        for index in 0..PASSES {
            let (method, path) = &self.calls[index.wrapping_mul(7_919) % self.calls.len()];
            black_box(self.classifier.classify(method, black_box(path))).ok();
        }
        self.rounds
            .push(start.elapsed().as_secs_f64() * 1e9 / PASSES as f64);
    }
}

/// The template with a value for every expression.
fn filled(template: &str) -> String {
    let mut path = String::new();
    for (index, piece) in template.split(['{', '}']).enumerate() {
        path.push_str(if index % 2 == 1 { "octo-7" } else { piece });
    }
    path
}

fn synthetic(operations: usize) -> Description {
    let mut paths = serde_json::Map::new();
    for index in 0..operations {
        let key = format!("/v1/group{}/{{owner}}/thing{index}/{{id}}", index % 97);
        paths.insert(key, serde_json::json!({ "get": { "responses": {} } }));
    }
    let file = serde_json::json!({
        "openapi": "3.0.3", "info": { "title": "synthetic", "version": "1" }, "paths": paths,
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("synthetic.json");
    std::fs::write(&path, file.to_string()).unwrap();
    openapi::load(&path).unwrap()
}

fn main() {
    // `cargo bench` adds a flag of its own.
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let chosen = words.next().unwrap_or_default();
    let rounds = words.next().map_or(ROUNDS, |word| word.parse().unwrap());
    let mut subjects = Vec::new();
    let github = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/specs/github.json"
    ));
    if github.exists() {
        subjects.push(Subject::new(
            "GitHub".into(),
            &openapi::load(github).unwrap(),
        ));
    } else {
        println!("skipped: GitHub's file is not beside the repository");
    }
    for size in [10, 1_000, 10_000] {
        subjects.push(Subject::new(format!("synthetic {size}"), &synthetic(size)));
    }
    subjects.retain(|subject| chosen.is_empty() || subject.name == chosen);
    for _ in 0..rounds {
        subjects.iter_mut().for_each(Subject::round);
    }
    for subject in &mut subjects {
        subject.rounds.sort_by(f64::total_cmp);
        println!(
            "{}: {:.0} ns per look-up",
            subject.name,
            subject.rounds[rounds / 2]
        );
    }
}
