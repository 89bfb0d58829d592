//! Bundles taken in, refused, held over a restart, put aside. A process that dies is one that forgets to leave.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]

use std::fs;
use std::path::PathBuf;

use tollgate_policy::settings::ApiConfig;
use tollgate_proto::bundles::content_hash;
use tollgate_proto::wire::BundleFile;
use tollgate_proto::wire::bundle_file::Kind as FileKind;

use super::*;
use crate::live::{ApiStatus, Origin};
use crate::telemetry::Metrics;

struct World {
    state: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self {
            state: tempfile::tempdir().unwrap(),
        }
    }

    fn start(&self) -> Arc<Live> {
        self.start_before(None)
    }

    fn start_before(&self, app: Option<UpstreamConfig>) -> Arc<Live> {
        let origin = Origin::Bundles {
            app: app.map(Box::new),
        };
        let state = Some(self.state.path().to_owned());
        Live::load(origin, state, Metrics::new()).unwrap()
    }

    fn place(&self, rest: &str) -> PathBuf {
        self.state.path().join("bundles").join(rest)
    }
}

/// The process is gone without a word.
fn die(live: Arc<Live>) {
    std::mem::forget(live);
}

fn file(kind: FileKind, path: &str, content: impl Into<Vec<u8>>) -> BundleFile {
    BundleFile {
        kind: kind.into(),
        path: path.to_owned(),
        content: content.into(),
    }
}

/// One operation `GET <base>/<operation>`, the path of which stands in a file of its own.
fn bundle(api: &str, generation: u64, base: &str, operation: &str) -> Bundle {
    let api_file =
        format!("spec: ../specs/{api}.yaml\nbase_path: {base}\nupstream: http://127.0.0.1:9\n");
    let spec = format!(
        "openapi: 3.0.3\ninfo: {{title: t, version: \"1\"}}\npaths:\n  /{operation}:\n    $ref: paths/{api}.yaml\n"
    );
    let path =
        format!("get: {{operationId: {operation}, responses: {{'200': {{description: ok}}}}}}\n");
    of(
        api,
        generation,
        vec![
            file(
                FileKind::Api,
                &format!("/no/such/apis/{api}.yaml"),
                api_file,
            ),
            file(FileKind::Spec, &format!("/no/such/specs/{api}.yaml"), spec),
            file(
                FileKind::Other,
                &format!("/no/such/specs/paths/{api}.yaml"),
                path,
            ),
        ],
    )
}

fn of(api: &str, generation: u64, files: Vec<BundleFile>) -> Bundle {
    Bundle {
        api: api.to_owned(),
        generation,
        hash: content_hash(&files),
        files,
        service: String::new(),
    }
}

fn broken(api: &str, generation: u64) -> Bundle {
    let mut bundle = bundle(api, generation, "/a", "x");
    bundle.files[1].content = b"openapi: [".to_vec();
    of(api, generation, bundle.files)
}

fn served(live: &Live, path: &str) -> Option<(u64, String)> {
    let apis = live.apis().load();
    let api = apis.select("any.example.com", path)?;
    let operation = api.operations[0].id.as_deref().unwrap();
    Some((api.generation, operation.to_owned()))
}

fn is(generation: u64, operation: &str) -> Option<(u64, String)> {
    Some((generation, operation.to_owned()))
}

fn status(live: &Live, name: &str) -> ApiStatus {
    let statuses = live.statuses();
    statuses.into_iter().find(|it| it.name == name).expect(name)
}

fn generations(live: &Live) -> Vec<(String, u64)> {
    let held = live.held().into_iter();
    held.map(|held| (held.api, held.generation)).collect()
}

#[test]
fn a_bundle_is_served_and_held_over_a_restart_with_nobody_to_ask() {
    let world = World::new();
    let live = world.start();
    assert!(live.held().is_empty() && live.apis().load().all().is_empty());
    let first = bundle("a", 1, "/a", "first");
    live.apply(first.clone()).unwrap();
    live.apply(bundle("b", 7, "/b", "other")).unwrap();
    live.apply(bundle("a", 2, "/a", "second")).unwrap();
    assert_eq!(served(&live, "/a"), is(2, "second"));
    // Once more is nothing new.
    live.apply(bundle("a", 2, "/a", "second")).unwrap();
    drop(live);
    let live = world.start();
    assert_eq!(served(&live, "/a"), is(2, "second"));
    assert_eq!(served(&live, "/b"), is(7, "other"));
    assert_eq!(
        generations(&live),
        [("a".to_owned(), 2), ("b".to_owned(), 7)]
    );
    assert_eq!(live.held()[0].hash, bundle("a", 2, "/a", "second").hash);
    assert!(live.verdicts().is_empty());
    assert_eq!(status(&live, "a").state, "serving");
    assert_eq!(status(&live, "a").file, "/no/such/apis/a.yaml");
    let older = live.apply(first).unwrap_err();
    assert!(older.contains("older than what is held"), "{older}");
    live.apply(bundle("a", 3, "/a", "third")).unwrap();
    assert!(!world.place("a/1").exists() && world.place("a/2").exists());
    live.withdraw("a");
    assert_eq!(served(&live, "/a"), None);
    drop(live);
    assert_eq!(generations(&world.start()), [("b".to_owned(), 7)]);
}

#[test]
fn what_is_broken_is_refused_with_its_findings_and_touches_nothing() {
    let world = World::new();
    let live = world.start();
    live.apply(bundle("a", 1, "/a", "first")).unwrap();
    live.apply(bundle("b", 1, "/b", "other")).unwrap();
    let other = Arc::downgrade(live.apis().load().select("", "/b").unwrap());
    let why = live.apply(broken("a", 2)).unwrap_err();
    assert!(why.contains("error["), "{why}");
    let mut cut = bundle("a", 2, "/a", "x");
    cut.files.pop();
    assert!(live.apply(cut.clone()).unwrap_err().contains("damaged"));
    cut = of("a", 2, cut.files);
    assert!(live.apply(cut).is_err(), "a file is missing");
    for blank in [
        Bundle::default(),
        of("a", 2, Vec::new()),
        of(
            "a",
            2,
            vec![file(FileKind::Api, "/no/such/apis/a.yaml", "")],
        ),
        of(
            "a",
            2,
            vec![file(FileKind::Api, "/no/such/../apis/a.yaml", "")],
        ),
        of("a", 2, bundle("b", 2, "/c", "x").files),
        Bundle {
            generation: 0,
            ..bundle("a", 2, "/a", "x")
        },
        Bundle {
            api: "../a".to_owned(),
            ..bundle("a", 2, "/a", "x")
        },
    ] {
        assert!(live.apply(blank).is_err());
    }
    let mut large = bundle("a", 2, "/a", "x").files;
    large[2].content = vec![b'#'; tollgate_proto::bundles::MAX_BUNDLE_BYTES];
    assert!(live.apply(of("a", 2, large)).unwrap_err().contains("bytes"));
    assert_eq!(served(&live, "/a"), is(1, "first"));
    assert_eq!(status(&live, "a").state, "serving_previous");
    live.reload();
    assert_eq!(
        status(&live, "a").state,
        "serving_previous",
        "the finding stays"
    );
    let still = live.apis().load().select("", "/b").map(Arc::downgrade);
    assert!(other.ptr_eq(&still.unwrap()));
    assert!(!world.place("a/2").exists() && !world.place("a/new").exists());
    drop(live);
    let live = world.start();
    assert_eq!(served(&live, "/a"), is(1, "first"));
    live.apply(bundle("a", 2, "/a", "second")).unwrap();
    assert_eq!(status(&live, "a").state, "serving");
}

#[test]
fn a_damaged_generation_on_disk_gives_way_to_the_one_before() {
    let world = World::new();
    let live = world.start();
    live.apply(bundle("a", 1, "/a", "first")).unwrap();
    live.apply(bundle("a", 2, "/a", "second")).unwrap();
    live.apply(bundle("b", 1, "/b", "other")).unwrap();
    drop(live);
    let spec = world.place("a/2/files/no/such/specs/a.yaml");
    fs::write(&spec, "openapi: 3.0.3").unwrap();
    fs::write(world.place("b/1/manifest"), "").unwrap();
    let live = world.start();
    assert_eq!(served(&live, "/a"), is(1, "first"));
    assert_eq!(served(&live, "/b"), None);
    let told = status(&live, "a");
    assert_eq!(told.state, "serving_last_known_good");
    assert!(
        told.last_error.contains("generation 2"),
        "{}",
        told.last_error
    );
    // It is sent again, as it is not held.
    live.apply(bundle("a", 2, "/a", "second")).unwrap();
    live.apply(bundle("b", 1, "/b", "other")).unwrap();
    assert_eq!(served(&live, "/a"), is(2, "second"));
    drop(live);
    let live = world.start();
    assert_eq!(
        generations(&live),
        [("a".to_owned(), 2), ("b".to_owned(), 1)]
    );
}

#[test]
fn what_the_process_dies_of_twice_is_put_aside_and_no_other_api_with_it() {
    let world = World::new();
    let live = world.start();
    live.apply(bundle("a", 1, "/a", "first")).unwrap();
    live.apply(bundle("b", 1, "/b", "other")).unwrap();
    live.end_trials(Instant::now() + TRIAL);
    live.apply(bundle("a", 2, "/a", "fatal")).unwrap();
    die(live);
    let live = world.start();
    assert_eq!(served(&live, "/a"), is(2, "fatal"), "once may be chance");
    die(live);
    let live = world.start();
    assert_eq!(served(&live, "/a"), is(1, "first"));
    assert_eq!(served(&live, "/b"), is(1, "other"));
    let verdicts = live.verdicts();
    assert_eq!(verdicts.len(), 1);
    assert_eq!(
        (verdicts[0].kind(), verdicts[0].generation),
        (Kind::RolledBack, 2)
    );
    assert!(status(&live, "a").last_error.contains("put aside"));
    let again = live.apply(bundle("a", 2, "/a", "fatal")).unwrap_err();
    assert!(again.contains("put aside"), "{again}");
    // What was good before stays so, however often the process dies now.
    for _ in 0..3 {
        die(world.start());
    }
    assert_eq!(
        generations(&live),
        [("a".to_owned(), 1), ("b".to_owned(), 1)]
    );
    live.apply(bundle("a", 3, "/a", "better")).unwrap();
    assert!(live.verdicts().is_empty());
    drop(live);
    let live = world.start();
    assert_eq!(served(&live, "/a"), is(3, "better"));
    assert!(live.verdicts().is_empty() && !world.place("a/aside").exists());
}

#[test]
fn a_minute_of_life_or_an_end_in_order_is_no_death() {
    let world = World::new();
    let live = world.start();
    live.apply(bundle("a", 1, "/a", "first")).unwrap();
    live.apply(bundle("a", 2, "/a", "second")).unwrap();
    for _ in 0..3 {
        drop(world.start());
    }
    die(live);
    let live = world.start();
    live.end_trials(Instant::now() + TRIAL / 2);
    assert!(world.place("a/2/trial").exists());
    live.end_trials(Instant::now() + TRIAL);
    assert!(!world.place("a/2/trial").exists());
    die(live);
    die(world.start());
    assert_eq!(generations(&world.start()), [("a".to_owned(), 2)]);
}

#[test]
fn a_death_while_one_is_compiled_is_held_against_that_one_alone() {
    let world = World::new();
    let live = world.start();
    for api in ["a", "b"] {
        live.apply(bundle(api, 1, &format!("/{api}"), "first"))
            .unwrap();
    }
    live.end_trials(Instant::now() + TRIAL);
    for api in ["a", "b"] {
        live.apply(bundle(api, 2, &format!("/{api}"), "second"))
            .unwrap();
    }
    drop(live);
    // As it stands on disk when the compiler takes the process with it.
    for _ in 0..2 {
        let bundles = Bundles::new(Some(world.state.path()), None);
        bundles.count_deaths();
        bundles.put_to_trial("a", 2, Some(Phase::Serving));
        bundles.put_to_trial("b", 2, Some(Phase::Compiling));
    }
    let live = world.start();
    assert_eq!(served(&live, "/a"), is(2, "second"));
    assert_eq!(served(&live, "/b"), is(1, "first"));
}

#[test]
fn the_first_generation_of_all_that_is_fatal_leaves_nothing_to_serve() {
    let world = World::new();
    let live = world.start();
    live.apply(bundle("a", 1, "/a", "fatal")).unwrap();
    die(live);
    // Somebody else may have ended it: without a generation to go back to it is given more chances.
    for _ in 0..4 {
        let live = world.start();
        assert_eq!(live.held().len(), 1);
        die(live);
    }
    let live = world.start();
    assert!(live.apis().load().all().is_empty() && live.held().is_empty());
    assert_eq!(live.verdicts()[0].kind(), Kind::RolledBack);
    drop(live);
    assert_eq!(world.start().verdicts().len(), 1, "it is remembered");
}

#[test]
fn two_that_exchange_their_base_paths_serve_once_both_are_there() {
    let world = World::new();
    let live = world.start();
    live.apply(bundle("a", 1, "/one", "a")).unwrap();
    live.apply(bundle("b", 1, "/two", "b")).unwrap();
    let why = live.apply(bundle("a", 2, "/two", "a")).unwrap_err();
    assert!(why.contains("already serves"), "{why}");
    live.apply(bundle("b", 2, "/one", "b")).unwrap();
    assert_eq!(
        (served(&live, "/one"), served(&live, "/two")),
        (is(2, "b"), is(2, "a"))
    );
    let late = live.verdicts();
    assert!(
        late.iter()
            .any(|it| it.api == "a" && it.kind() == Kind::Ack && it.generation == 2)
    );
    drop(live);
    assert_eq!(
        generations(&world.start()),
        [("a".to_owned(), 2), ("b".to_owned(), 2)]
    );
}

#[test]
fn a_state_directory_that_refuses_is_no_reason_not_to_serve() {
    let world = World::new();
    // A file where the directory should be: refused whoever asks.
    fs::write(world.place(""), "").unwrap_or_default();
    fs::remove_dir_all(world.state.path().join("bundles")).unwrap_or_default();
    fs::write(world.state.path().join("bundles"), "").unwrap();
    let live = world.start();
    live.apply(bundle("a", 1, "/a", "first")).unwrap();
    live.apply(bundle("a", 2, "/a", "second")).unwrap();
    assert!(live.apply(broken("a", 3)).is_err());
    assert_eq!(served(&live, "/a"), is(2, "second"));
    assert_eq!(generations(&live), [("a".to_owned(), 2)]);
    drop(live);
    assert!(world.start().held().is_empty());
}

#[test]
fn the_app_is_called_instead_of_the_upstream_also_after_a_restart() {
    let world = World::new();
    let app = ApiConfig::for_spec(
        Path::new("app"),
        "http://127.0.0.1:8080",
        Default::default(),
    );
    let app = app.unwrap().upstream;
    let live = world.start_before(Some(app.clone()));
    live.apply(bundle("a", 1, "/a", "first")).unwrap();
    drop(live);
    let live = world.start_before(Some(app.clone()));
    let apis = live.apis().load();
    assert_eq!(apis.all()[0].config.upstream.endpoints, app.endpoints);
}

#[test]
fn what_a_control_plane_packs_is_what_a_node_serves() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let source = bundle("a", 1, "/a", "first");
    for file in &source.files {
        let name = file.path.strip_prefix("/no/such/").unwrap();
        write(name, std::str::from_utf8(&file.content).unwrap());
    }
    let text = fs::read_to_string(home.path().join("apis/a.yaml")).unwrap();
    let keys = "auth: { issuers: { own: { issuer: \"https://own.test\", audiences: [a], jwks: ../keys.json } } }\n";
    write("keys.json", "{\"keys\":[{}]}");
    write("apis/a.yaml", &format!("{text}service: books\n{keys}"));
    write("apis/b.yaml", "spec: none.yaml\n");
    let origin = Origin::Directory(home.path().to_owned());
    let control = Live::load(origin, None, Metrics::new()).unwrap();
    let stamp = control.stamp();
    assert_eq!(control.stamp(), stamp);
    let packed = control.packed();
    assert!(packed[1].files.is_none() && !packed[1].findings.is_empty());
    let files = packed[0].files.clone().unwrap();
    assert_eq!(packed[0].service, "books");
    let names: Vec<_> = files
        .iter()
        .map(|file| file.path.rsplit('/').next().unwrap())
        .collect();
    assert_eq!((files.len(), names[0], names[1]), (4, "a.yaml", "a.yaml"));
    assert_eq!(
        (files[0].kind(), files[1].kind()),
        (FileKind::Api, FileKind::Spec)
    );
    write("keys.json", "{\"keys\":[{}]} ");
    assert_ne!(control.stamp(), stamp);
    write("keys.json", "-----BEGIN PRIVATE KEY-----\n");
    let refused = &control.packed()[0];
    assert!(refused.files.is_none(), "{refused:?}");
    drop((control, home));
    let world = World::new();
    world.start().apply(of("a", 1, files)).unwrap();
    assert_eq!(served(&world.start(), "/a"), is(1, "first"));
}
