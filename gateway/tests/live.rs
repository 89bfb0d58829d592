//! Promises of live configuration: one API's mistake stays its own, and what was good once is served again.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    missing_docs,
    reason = "tests"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tollgate_gateway::live::{ApiStatus, Live, Origin};
use tollgate_gateway::telemetry::Metrics;

/// A configuration directory and a state directory of its own.
struct World {
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        for part in ["config/apis", "config/specs", "state"] {
            fs::create_dir_all(world.path(part)).unwrap();
        }
        world
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join(relative)
    }

    fn write(&self, relative: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(relative), text).unwrap();
    }

    /// An API `name` under `base`, with one operation `GET /<operation>`.
    fn api(&self, name: &str, base: &str, operation: &str) {
        self.write(&format!("config/specs/{name}.yaml"), spec(operation));
        self.write(&format!("config/apis/{name}.yaml"), api_file(name, base));
    }

    fn load(&self) -> Arc<Live> {
        let origin = Origin::Directory(self.path("config"));
        Live::load(origin, Some(self.path("state")), Metrics::new()).unwrap()
    }
}

fn spec(operation: &str) -> String {
    format!(
        "openapi: 3.0.3\ninfo: {{title: t, version: \"1\"}}\npaths:\n  /{operation}:\n    get:\n      \
         operationId: {operation}\n      parameters:\n        - $ref: '#/components/parameters/page'\n      \
         responses: {{'200': {{description: ok}}}}\ncomponents:\n  parameters:\n    \
         page: {{name: page, in: query, schema: {{type: integer}}}}\n"
    )
}

fn api_file(name: &str, base: &str) -> String {
    format!("spec: ../specs/{name}.yaml\nbase_path: {base}\nupstream: http://127.0.0.1:9\n")
}

fn status(live: &Live, name: &str) -> ApiStatus {
    live.statuses()
        .into_iter()
        .find(|status| status.name == name)
        .expect(name)
}

fn served(live: &Live, path: &str) -> Option<(String, u64, String)> {
    let apis = live.apis().load();
    let api = apis.select("any.example.com", path)?;
    let operation = api.operations[0]
        .id
        .as_deref()
        .unwrap_or_default()
        .to_owned();
    Some((api.config.name.to_string(), api.generation, operation))
}

fn is(name: &str, generation: u64, operation: &str) -> Option<(String, u64, String)> {
    Some((name.to_owned(), generation, operation.to_owned()))
}

#[test]
fn an_api_is_selected_by_host_before_base_path() {
    let world = World::new();
    let table = [
        ("any", "/v1", ""),
        ("any-deep", "/v1/deep", ""),
        ("wide", "/", "hosts: ['*.example.com']\n"),
        ("narrow", "/v1", "hosts: ['*.eu.example.com']\n"),
        (
            "exact",
            "/v1",
            "hosts: [api.example.com, api.example.org]\n",
        ),
    ];
    for (name, base, hosts) in table {
        world.api(name, base, "list");
        world.write(
            &format!("config/apis/{name}.yaml"),
            api_file(name, base) + hosts,
        );
    }
    let live = world.load();
    let apis = live.apis().load();
    let select = |host: &str, path: &str| {
        apis.select(host, path)
            .map(|api| api.config.name.to_string())
            .unwrap_or_default()
    };
    assert_eq!(apis.all().len(), 5, "{:#?}", live.statuses());
    for (host, path, expected) in [
        ("api.example.com", "/v1/x", "exact"),
        ("api.example.org", "/v1", "exact"),
        ("api.example.com", "/v2", "wide"),
        ("api.example.com", "/v10", "wide"),
        ("a.eu.example.com", "/v1/x", "narrow"),
        ("b.a.eu.example.com", "/v1/x", "narrow"),
        ("a.eu.example.com", "/v2", "wide"),
        ("eu.example.com", "/v1", "wide"),
        ("example.com", "/v1/x", "any"),
        ("notexample.com", "/v1/deep/x", "any-deep"),
        ("", "/v1/deeper", "any"),
        ("other", "/v10", ""),
        ("other", "/", ""),
        (".example.com", "/v1", "any"),
    ] {
        assert_eq!(select(host, path), expected, "{host} {path}");
    }
}

#[test]
fn a_broken_file_keeps_its_api_on_the_previous_version_and_touches_no_other() {
    let world = World::new();
    world.api("a", "/a", "first");
    world.api("b", "/b", "other");
    let live = world.load();
    let other = Arc::downgrade(live.apis().load().select("", "/b").unwrap());

    world.write("config/specs/a.yaml", "openapi: [");
    live.reload();
    assert_eq!(served(&live, "/a"), is("a", 1, "first"));
    let broken = status(&live, "a");
    assert_eq!(broken.state, "serving_previous");
    assert!(
        broken.last_error.contains("specs/a.yaml:"),
        "{}",
        broken.last_error
    );

    world.write(
        "config/apis/a.yaml",
        api_file("a", "/a") + "no_such_field: 1\n",
    );
    live.reload();
    assert_eq!(served(&live, "/a"), is("a", 1, "first"));
    assert!(status(&live, "a").last_error.contains("no_such_field"));

    world.api("a", "/a", "second");
    live.reload();
    assert_eq!(served(&live, "/a"), is("a", 2, "second"));
    let repaired = status(&live, "a");
    assert_eq!(
        (repaired.state.as_str(), repaired.last_error.as_str()),
        ("serving", "")
    );
    let same = Arc::downgrade(live.apis().load().select("", "/b").unwrap());
    assert!(Weak::ptr_eq(&other, &same), "b was not compiled again");
}

#[test]
fn an_api_that_was_never_good_is_refused_alone() {
    let world = World::new();
    world.api("a", "/a", "first");
    world.api("b", "/b", "other");
    world.write(
        "config/specs/a.yaml",
        "openapi: 3.0.3\ninfo: {title: t, version: '1'}\npaths: {}\n",
    );
    let live = world.load();
    assert_eq!(served(&live, "/a"), None);
    assert_eq!(served(&live, "/b"), is("b", 1, "other"));
    let refused = status(&live, "a");
    assert_eq!((refused.state.as_str(), refused.generation), ("refused", 0));
    assert!(
        refused.last_error.contains("no operation can be routed"),
        "{}",
        refused.last_error
    );
    world.api("a", "/a", "first");
    live.reload();
    assert_eq!(served(&live, "/a"), is("a", 1, "first"));
}

#[test]
fn a_restart_with_a_broken_file_serves_the_last_known_good_and_says_so() {
    let world = World::new();
    world.api("a", "/a", "first");
    world.load();
    world.api("a", "/a", "second");
    world.load();

    for (file, text) in [("specs", "openapi: ["), ("apis", "spec: [")] {
        world.api("a", "/a", "second");
        world.write(&format!("config/{file}/a.yaml"), text);
        let live = world.load();
        assert_eq!(
            served(&live, "/a"),
            is("a", 1, "second"),
            "{:#?}",
            live.statuses()
        );
        let state = status(&live, "a");
        assert_eq!(state.state, "serving_last_known_good");
        assert!(
            state.last_error.contains(&format!("{file}/a.yaml")),
            "{}",
            state.last_error
        );
        live.reload();
        assert_eq!(status(&live, "a").state, "serving_last_known_good");
    }

    // The newer copy rots: the older one serves.
    let manifest = world.path("state/known-good/a/1/manifest");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("spec ", "spec 0")).unwrap();
    let live = world.load();
    assert_eq!(served(&live, "/a"), is("a", 1, "first"));

    world.api("a", "/a", "third");
    live.reload();
    assert_eq!(served(&live, "/a"), is("a", 2, "third"));
    assert_eq!(status(&live, "a").state, "serving");
}

#[test]
fn who_serves_a_base_path_keeps_it_and_the_newcomer_waits() {
    let world = World::new();
    world.api("b", "/same", "old");
    let live = world.load();
    world.api("a", "/same", "new");
    live.reload();
    assert_eq!(served(&live, "/same"), is("b", 1, "old"));
    let newcomer = status(&live, "a");
    assert_eq!(newcomer.state, "conflicting");
    assert!(
        newcomer
            .last_error
            .contains("`b` already serves any host and base path /same")
    );

    fs::remove_file(world.path("config/apis/b.yaml")).unwrap();
    live.reload();
    assert_eq!(served(&live, "/same"), is("a", 1, "new"));
    assert_eq!(live.statuses().len(), 1);
    assert!(!world.path("state/known-good/b").exists());
}

#[test]
fn at_start_the_older_file_wins() {
    let world = World::new();
    world.api("a", "/same", "young");
    world.api("b", "/same", "old");
    let file = fs::File::open(world.path("config/apis/b.yaml")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(60))
        .unwrap();
    let live = world.load();
    assert_eq!(served(&live, "/same"), is("b", 1, "old"));
    assert_eq!(status(&live, "a").state, "conflicting");
}

#[test]
fn a_directory_that_cannot_be_read_changes_nothing() {
    let world = World::new();
    world.api("a", "/a", "first");
    let live = world.load();
    fs::rename(world.path("config/apis"), world.path("config/gone")).unwrap();
    live.reload();
    assert_eq!(served(&live, "/a"), is("a", 1, "first"));
    let origin = Origin::Directory(world.path("config"));
    assert!(
        Live::load(origin, None, Metrics::new())
            .unwrap_err()
            .contains("config/apis")
    );
}

#[test]
fn two_hundred_reloads_leave_one_generation() {
    let world = World::new();
    world.api("a", "/a", "first");
    let live = world.load();
    let mut generations = Vec::new();
    for round in 0..200 {
        world.write("config/specs/a.yaml", spec(&format!("operation{round}")));
        live.reload();
        generations.push(Arc::downgrade(live.apis().load().select("", "/a").unwrap()));
    }
    assert_eq!(served(&live, "/a"), is("a", 201, "operation199"));
    assert_eq!(
        generations
            .iter()
            .filter(|api| api.strong_count() > 0)
            .count(),
        1
    );
}

#[test]
fn however_many_reloads_are_asked_for_at_once_the_last_change_is_seen() {
    let world = World::new();
    world.api("a", "/a", "first");
    let live = world.load();
    let written = std::sync::Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let mut last = written.lock().unwrap();
                    *last += 1;
                    world.write("config/specs/a.yaml", spec(&format!("operation{last}")));
                    drop(last);
                    live.reload();
                }
            });
        }
    });
    let (_, generation, operation) = served(&live, "/a").unwrap();
    assert_eq!(operation, "operation320");
    assert!(generation <= 321, "{generation}");
}

#[test]
fn no_garbage_in_a_file_panics_or_touches_another_api() {
    let world = World::new();
    world.api("a", "/a", "first");
    world.api("b", "/b", "other");
    let live = world.load();
    let other = Arc::downgrade(live.apis().load().select("", "/b").unwrap());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..300 {
        world.api("a", "/a", "first");
        let file = if round % 2 == 0 {
            "config/apis/a.yaml"
        } else {
            "config/specs/a.yaml"
        };
        let mut bytes = fs::read(world.path(file)).unwrap();
        mutate(&mut bytes, &mut random);
        world.write(file, &bytes);
        live.reload();
        let state = status(&live, "a");
        let shown = String::from_utf8_lossy(&bytes);
        assert!(
            !state.last_error.contains("error[internal]"),
            "{}\n{shown}",
            state.last_error
        );
        assert!(
            state.generation > 0,
            "round {round} lost the previous version:\n{shown}"
        );
        let apis = live.apis().load();
        let same = apis
            .all()
            .iter()
            .find(|api| &*api.config.name == "b")
            .expect("b serves");
        assert!(
            Weak::ptr_eq(&other, &Arc::downgrade(same)),
            "round {round} touched b"
        );
    }
    world.api("a", "/a", "last");
    live.reload();
    assert_eq!(
        served(&live, "/a")
            .map(|(_, _, operation)| operation)
            .as_deref(),
        Some("last")
    );
}

/// SplitMix64: the same mutations in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(6) {
        0 => bytes.truncate(at),
        1 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
        2 => drop(bytes.drain(at..(at + 1 + random.below(20)).min(bytes.len()))),
        3 => {
            let piece = bytes[at..].to_vec();
            bytes.splice(at..at, piece);
        }
        4 => {
            let pieces: [&[u8]; 8] = [
                b"[",
                b"{",
                b"&a *a",
                b"null",
                b"\n- ",
                b"\0",
                b"!!int ",
                b"'\xff\xfe",
            ];
            bytes.splice(at..at, pieces[random.below(pieces.len())].iter().copied());
        }
        _ => bytes.splice(at..at, b"[".repeat(10_000)).for_each(drop),
    }
}

/// Waits for reloads until the served operation is the expected one.
async fn becomes(live: &Live, expected: &str) {
    let mut reloads = live.reloads();
    let changed = async {
        while served(live, "/a").is_none_or(|(_, _, operation)| operation != expected) {
            reloads.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), changed)
        .await
        .expect(expected);
}

fn on_a_runtime(work: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(work);
}

fn replace(file: &Path, text: &str) {
    let beside = file.with_extension("tmp");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, file).unwrap();
}

#[test]
fn a_change_is_noticed_however_and_whenever_the_file_is_written() {
    let world = World::new();
    world.api("a", "/a", "first");
    on_a_runtime(async {
        let live = world.load();
        world.write("config/specs/a.yaml", spec("unwatched"));
        live.watch().unwrap();
        becomes(&live, "unwatched").await;
        world.write("config/specs/a.yaml", spec("inplace"));
        becomes(&live, "inplace").await;
        replace(&world.path("config/specs/a.yaml"), &spec("renamed"));
        becomes(&live, "renamed").await;
    });
}

#[test]
fn a_turned_symbolic_link_is_noticed() {
    let world = World::new();
    world.api("a", "/a", "first");
    let specs = world.path("config/specs");
    for version in ["one", "two"] {
        fs::create_dir(specs.join(version)).unwrap();
        fs::write(specs.join(version).join("a.yaml"), spec(version)).unwrap();
    }
    // As Kubernetes mounts a ConfigMap: the file is a link through `..data`, which is replaced by renaming.
    fs::remove_file(specs.join("a.yaml")).unwrap();
    std::os::unix::fs::symlink("one", specs.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", specs.join("a.yaml")).unwrap();
    on_a_runtime(async {
        let live = world.load();
        live.watch().unwrap();
        becomes(&live, "one").await;
        std::os::unix::fs::symlink("two", specs.join("..tmp")).unwrap();
        fs::rename(specs.join("..tmp"), specs.join("..data")).unwrap();
        becomes(&live, "two").await;
    });
}
