//! What can be told of `docker/` without a container engine: that the program takes each command of the compose file, and that every
//! file and service it names is there. Not that the image builds, nor that its containers find each other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn docker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(docker().join(file)).unwrap()
}

fn tollgate(arguments: &[String]) -> Output {
    let mut command = Command::new("timeout");
    command.arg("20").arg(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).env_clear().output().unwrap()
}

/// The words of `[a, "b", c]`.
fn words(list: &str) -> Vec<String> {
    let inner = list.trim().strip_prefix('[').unwrap().strip_suffix(']');
    let words = inner
        .expect("a list on one line")
        .split(',')
        .map(|word| word.trim().trim_matches('"').to_owned());
    words.filter(|word| !word.is_empty()).collect()
}

/// Each service's settings that stand on one line of their own.
fn services() -> BTreeMap<String, BTreeMap<String, String>> {
    let text = read("compose.yaml");
    let part = text.split("\nservices:\n").nth(1).unwrap();
    let part = part.split("\nvolumes:\n").next().unwrap();
    let mut services: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut name = String::new();
    for line in part.lines() {
        let indent = line.len() - line.trim_start().len();
        match (indent, line.trim().split_once(':')) {
            (2, Some((service, ""))) => service.clone_into(&mut name),
            (4, Some((setting, value))) => {
                let settings = services.entry(name.clone()).or_default();
                settings.insert(setting.to_owned(), value.trim().to_owned());
            }
            _ => {}
        }
    }
    services
}

#[test]
fn every_command_of_the_compose_file_is_one_of_the_program() {
    let mut roles: BTreeMap<String, usize> = BTreeMap::new();
    for (name, settings) in services() {
        let mut command = words(&settings["command"]);
        let Some(role) = command.first().cloned() else {
            continue;
        };
        let state = tempfile::tempdir().unwrap();
        for word in &mut command {
            *word = word
                .replace("/var/lib/tollgate", state.path().to_str().unwrap())
                .replace("0.0.0.0:8080", "127.0.0.1:0");
        }
        let ports: &[&str] = match role.as_str() {
            "gateway" => &["--admin", "127.0.0.1:0"],
            "sidecar" => &["--admin", "127.0.0.1:0", "--inbound", "127.0.0.1:0"],
            // These would serve.
            _ => &["--help"],
        };
        command.extend(ports.iter().map(ToString::to_string));
        let done = tollgate(&command);
        let said = String::from_utf8_lossy(&done.stderr);
        if ports == ["--help"] {
            assert!(done.status.success(), "{name}: {said}");
        } else {
            // Its arguments are taken as a whole, and then there is no token to join with.
            assert_eq!(done.status.code(), Some(1), "{name}: {said}");
            assert!(said.contains("has not joined yet"), "{name}: {said}");
        }
        *roles.entry(role).or_default() += 1;
    }
    let roles: Vec<(&str, usize)> = roles.iter().map(|(role, n)| (role.as_str(), *n)).collect();
    let all = [
        ("control", 1),
        ("demo-service", 3),
        ("gateway", 2),
        ("sidecar", 3),
    ];
    assert_eq!(roles, all);
}

#[test]
fn every_sidecar_shares_the_network_of_its_app() {
    let services = services();
    for name in ["book-1", "book-2", "library-1"] {
        let app = format!("{name}-app");
        assert_eq!(services[name]["network_mode"], format!("service:{app}"));
        let (sidecar, app) = (&services[name]["command"], &services[&app]["command"]);
        let address = words(app).pop().unwrap();
        assert!(
            words(sidecar).iter().any(|word| word.ends_with(&address)),
            "{sidecar}"
        );
    }
}

#[test]
fn every_file_that_is_mounted_or_copied_is_there() {
    let compose = read("compose.yaml");
    let sources = compose
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- "))
        .filter(|mount| mount.starts_with('.'))
        .map(|mount| mount.split(':').next().unwrap());
    let sources: Vec<&str> = sources.collect();
    assert!(sources.len() >= 3, "{sources:?}");
    for source in sources {
        assert!(docker().join(source).exists(), "{source}");
    }
    for volume in ["control", "edge-a", "book-1", "library-1", "tokens"] {
        assert!(compose.contains(&format!("\n  {volume}:")), "{volume}");
    }
    let api = read("../config/fleet/apis/bookstore.yaml");
    assert!(
        api.contains("spec: ../../../openapi-specs/"),
        "compose.yaml mounts it three levels up"
    );
}

#[test]
fn a_token_is_made_for_every_node_that_reads_one() {
    let script = read("tokens.sh");
    for (name, settings) in services() {
        let command = words(&settings["command"]);
        let mut after = command
            .iter()
            .skip_while(|word| *word != "--join-token-file");
        if let Some(file) = after.nth(1) {
            assert_eq!(*file, format!("/run/join/{name}"));
            assert!(script.contains(&name), "{name}");
        }
    }
    let made = ["--gateway edge --quiet", "--service library --quiet"];
    for arguments in made {
        let mut command: Vec<String> = vec!["join-tokens".into(), "create".into()];
        command.extend(arguments.split(' ').map(str::to_owned));
        command.push("--help".into());
        assert!(tollgate(&command).status.success(), "{arguments}");
    }
}

#[test]
fn the_image_has_one_program_no_root_and_no_secret() {
    let file = read("Dockerfile");
    let last = file.rsplit("\nFROM ").next().unwrap();
    for line in [
        "debian:trixie-slim",
        "\nUSER 10001\n",
        "\nSTOPSIGNAL SIGTERM\n",
        "ENTRYPOINT [\"/usr/local/bin/tollgate\"]",
    ] {
        assert!(last.contains(line), "{line}");
    }
    assert!(!last.contains("COPY ."), "nothing of the sources");
    let toolchain = std::fs::read_to_string(docker().join("../rust-toolchain.toml")).unwrap();
    let version = toolchain.split('"').nth(1).unwrap();
    let version = version.rsplit_once('.').unwrap().0;
    assert!(
        file.contains(&format!("FROM rust:{version}-")),
        "the toolchain of the project"
    );
    let ignored = read("../.dockerignore");
    for secret in ["**/*.key", "**/admin-credential", ".git"] {
        assert!(ignored.lines().any(|line| line == secret), "{secret}");
    }
}
