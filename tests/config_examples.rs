//! The examples under `config/` are right, whole, and say the defaults.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::large_enum_variant,
    reason = "tests"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use tollgate_policy::Finding;
use tollgate_policy::settings::{
    ApiConfig, ConsumerConfig, DirectoryConfig, OperationSettings, ProcessConfig, SecurityMode,
    read_api, read_directory, read_process,
};

fn config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

/// Every YAML file under `directory`.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|it| it == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

enum Example {
    Process(ProcessConfig),
    Api(ApiConfig),
    Directory(DirectoryConfig),
}

fn load(path: &Path) -> Result<Example, Vec<Finding>> {
    // The examples name few secrets, and none that is needed.
    let hash = "$argon2id$v=19$m=65536,t=2,p=1$gZiV/M1gPc22ElAH/Jh1Hw$CWOrkoo7oJBQ/iyh7uJ0LO2aLEfrHwTWllSAxT0zRno";
    let environment = |name: &str| match name {
        "TOKEN_SECRET" | "SHOP_KEY" => Some("0123456789abcdef0123456789abcdef".to_owned()),
        "SHOP_PASSWORD_HASH" => Some(hash.to_owned()),
        "DEMO_SERVICE_PORT" => Some("9000".to_owned()),
        _ => None,
    };
    match path.file_name().unwrap().to_str().unwrap() {
        "tollgate.yaml" => read_process(path, defaults(), &environment).map(Example::Process),
        "plans.yaml" | "consumers.yaml" | "terms.yaml" => {
            read_directory(path.parent().unwrap(), &environment)
                .map(|(config, _)| Example::Directory(config))
        }
        _ => read_api(path, &environment).map(Example::Api),
    }
}

fn defaults() -> ProcessConfig {
    ProcessConfig::default_for(2, "/var/lib/tollgate".into())
}

#[test]
fn every_example_loads() {
    let files = files(&config());
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        if let Err(findings) = load(&file) {
            panic!("{findings:#?}");
        }
    }
}

#[test]
fn the_example_process_is_the_default_process() {
    let file = config().join("gateway/tollgate.yaml");
    let Ok(Example::Process(process)) = load(&file) else {
        panic!("{} does not load", file.display());
    };
    assert_eq!(process, defaults());
}

#[test]
fn the_example_api_is_the_default_api_but_for_its_operations() {
    let file = config().join("gateway/apis/bookstore.yaml");
    let Ok(Example::Api(mut api)) = load(&file) else {
        panic!("{} does not load", file.display());
    };
    assert_eq!(api.operations.len(), 3);
    api.operations.clear();
    let mut plain = ApiConfig::for_spec(
        api.spec.as_ref().unwrap(),
        "http://127.0.0.1:9000",
        SecurityMode::Enforce,
    )
    .unwrap();
    plain.file = file;
    assert_eq!(api.defaults, OperationSettings::default());
    assert_eq!(api, plain);
}

#[test]
fn the_example_directory_names_plans_consumers_and_terms() {
    let Ok(Example::Directory(directory)) = load(&config().join("gateway/plans.yaml")) else {
        panic!("the directory does not load");
    };
    assert_eq!((directory.plans.len(), directory.consumers.len()), (2, 2));
    let shop = directory
        .consumers
        .iter()
        .find(|it| &*it.name == "shop-web")
        .unwrap();
    let plain = ConsumerConfig {
        subscriptions: shop.subscriptions.clone(),
        explains: false,
        ..directory
            .consumers
            .iter()
            .find(|it| &*it.name == "desk")
            .unwrap()
            .clone()
    };
    let (name, project, place) = (shop.name.clone(), shop.project.clone(), shop.place.clone());
    let defaults = ConsumerConfig {
        name,
        project,
        place,
        ..plain
    };
    assert_eq!(*shop, defaults);
    let version = &directory.terms[0].versions[0].0;
    assert!(version.grace.is_zero() && !version.purpose_required && !directory.terms[0].shadow);
}

/// A setting that is off stands behind a `#` without a space.
fn switched_on(text: &str) -> String {
    let line = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        let (before, rest) = line.split_at(indent);
        match rest.strip_prefix('#') {
            Some(setting) if setting.starts_with(|c: char| !c.is_whitespace()) => {
                format!("{before}{setting}")
            }
            _ => line.to_owned(),
        }
    };
    text.lines().map(|it| line(it) + "\n").collect()
}

/// Leaves away what cannot stand beside a setting that was switched on.
fn without_rivals(text: &str) -> String {
    let rivals = [
        "hosts: []\n",
        "limits: []\n",
        "defaults: {}\n",
        "  issuers: {}\n",
        "  schemes: {}\n",
        "  forward_claims: {}\n",
        "acl: []\n",
        "      jwks: discovery\n",
        "      algorithms: [RS256, ES256]\n",
        "  url: http://127.0.0.1:9000\n",
    ];
    let whole = rivals
        .iter()
        .fold(text.to_owned(), |text, rival| text.replace(rival, ""));
    whole.replace(
        "[http://10.0.0.1:9000, http://10.0.0.2:9000]",
        "[https://10.0.0.1]",
    )
}

/// Plans, consumers and terms are read together.
fn copy_directory(from: &Path, to: &Path) {
    if !from.join("plans.yaml").exists() {
        return;
    }
    std::fs::create_dir(to.join("terms")).unwrap();
    let copied = |folder: &str| {
        // Not every directory has terms.
        let entries = std::fs::read_dir(from.join(folder)).into_iter().flatten();
        for entry in entries.flatten() {
            if entry.path().is_file() {
                std::fs::copy(entry.path(), to.join(folder).join(entry.file_name())).unwrap();
            }
        }
    };
    copied("");
    copied("terms");
}

#[test]
fn settings_that_are_off_are_right_too() {
    for file in files(&config()) {
        let text = without_rivals(&switched_on(&std::fs::read_to_string(&file).unwrap()));
        let directory = tempfile::tempdir().unwrap();
        let beside = file.parent().unwrap();
        copy_directory(beside, directory.path());
        let copy = directory.path().join(file.file_name().unwrap());
        let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi-specs");
        let text = text.replace("../../../openapi-specs", spec.to_str().unwrap());
        std::fs::write(&copy, &text).unwrap();
        if let Err(findings) = load(&copy) {
            panic!("{}: {findings:#?}\n{text}", file.display());
        }
    }
}

#[test]
fn tollgate_check_finds_nothing_to_complain_about() {
    let binary = env!("CARGO_BIN_EXE_tollgate");
    let output = Command::new(binary)
        .arg("check")
        .arg(config().join("gateway"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("Bookstore 1.4.0: 15 operations"), "{said}");
    assert!(!said.contains("error["), "{said}");
}
