//! Any bytes as `tollgate.yaml` and as `apis/fuzz.yaml`: each is read, and read the same again, or refused with findings that
//! say where, what and how to put it right.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tollgate_policy::settings::{ApiConfig, ProcessConfig, check, read_api, read_process};
use tollgate_policy::{Finding, openapi};

/// A directory of this process alone; the readers open files.
static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = std::env::temp_dir().join(format!("tollgate-fuzz-{}", std::process::id()));
    let spec = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../policy/fixtures/classify-sample.yaml"
    );
    std::fs::create_dir_all(directory.join("apis")).expect("the directory can be made");
    std::fs::copy(spec, directory.join("spec.yaml")).expect("the fixture is there");
    directory
});

fuzz_target!(|bytes: &[u8]| {
    let process = DIRECTORY.join("tollgate.yaml");
    write(&process, bytes);
    let unsaid = || ProcessConfig::default_for(2, PathBuf::from("/var/lib/tollgate"));
    let read = || read_process(&process, unsaid(), &environment);
    judge(&process, read(), read());

    let api = DIRECTORY.join("apis/fuzz.yaml");
    write(&api, bytes);
    let read = || read_api(&api, &environment);
    judge(&api, read(), read());
    let described = |config: &ApiConfig| match &config.spec {
        Some(spec) => openapi::load(spec),
        None => Err(Vec::new()),
    };
    helpful(&check::check(&api, &environment, &described).findings);
});

fn judge<T: PartialEq + std::fmt::Debug>(
    file: &Path,
    first: Result<T, Vec<Finding>>,
    second: Result<T, Vec<Finding>>,
) {
    assert_eq!(first, second);
    if let Err(findings) = first {
        assert!(!findings.is_empty(), "a refusal says why");
        helpful(&findings);
        assert!(
            findings
                .iter()
                .all(|finding| *finding.place.file == *file.display().to_string())
        );
    }
}

fn helpful(findings: &[Finding]) {
    for finding in findings {
        assert!(
            !finding.what.is_empty() && !finding.remedy.is_empty(),
            "{finding:?}"
        );
    }
}

fn environment(name: &str) -> Option<String> {
    (name == "NAME").then(|| "http://127.0.0.1:9000".to_owned())
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("the file can be written");
}
