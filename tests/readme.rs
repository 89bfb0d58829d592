//! What the README and the demo tell people to type works.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use world::{Plan, Service};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn has_curl() -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v curl"])
        .stdout(Stdio::null())
        .status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        println!("skipped: no curl on this machine");
    }
    found
}

/// Runs shell lines as a reader would, with the binary of this build on the path.
fn shell(script: &str) -> (bool, String) {
    let bin = Path::new(world::binary()).parent().unwrap();
    let path = format!(
        "{}:{}",
        bin.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut command = Command::new("timeout");
    command
        .args(["15", "sh", "-ec", script])
        .current_dir(root())
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (status, out, err) = world::run_command(command);
    (status.success(), out + &err)
}

#[test]
fn runnable_commands_of_the_readme_succeed() {
    if !has_curl() {
        return;
    }
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let service = Service::new();
    let world = Plan::bookstore(&service).start();
    let mut blocks = 0;
    for block in readme.split("```sh runnable\n").skip(1) {
        let block = block.split("```").next().unwrap();
        blocks += 1;
        for line in block.lines() {
            let command = line
                .replace("127.0.0.1:8080", &world.address.to_string())
                .replace("127.0.0.1:9900", &world.admin.to_string());
            let (succeeded, output) = shell(&command);
            assert!(succeeded, "{command}\n{output}");
        }
    }
    assert!(blocks >= 4, "the README has runnable blocks");
}

/// A port that is free now. Another process may take it; the demo wants to be told one.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

#[test]
fn the_demo_starts_and_what_it_prints_works() {
    if !has_curl() {
        return;
    }
    let mut demo = Command::new("sh")
        .arg("scripts/demo.sh")
        .current_dir(root())
        .env("TOLLGATE", world::binary())
        .env("DEMO_PORT", free_port())
        .env("DEMO_ADMIN_PORT", free_port())
        .env("DEMO_SERVICE_PORT", free_port())
        .env("DEMO_SECONDS", "120")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut tried = Vec::new();
    // It prints within ten seconds or ends, so that reading its lines comes to an end.
    for line in BufReader::new(demo.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains("Ctrl-C") {
            break;
        }
        if line.starts_with("  ") && !line.trim().is_empty() {
            let (succeeded, output) = shell(&line);
            tried.push((line, succeeded, output));
        }
    }
    let stopped = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -TERM {}", demo.id()))
        .status();
    let ended = demo.wait().unwrap();
    assert!(stopped.unwrap().success() && ended.success(), "{ended:?}");
    let failed: Vec<_> = tried
        .iter()
        .filter(|(_, succeeded, _)| !succeeded)
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(
        tried
            .iter()
            .filter(|(line, ..)| line.contains("curl"))
            .count()
            >= 10,
        "{tried:?}"
    );
    let refused = tried
        .iter()
        .find(|(line, ..)| line.contains("/admin/stats"));
    assert!(refused.unwrap().2.contains("401"), "{refused:?}");
}
