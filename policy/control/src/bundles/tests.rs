//! Generations, what a node is still told, what is withdrawn, and a control plane that forgot everything.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]

use tollgate_proto::wire::bundle_file::Kind as FileKind;
use tollgate_proto::wire::policy_event::Event;

use super::*;
use crate::{Options, UsageSettings};

async fn control(state: &std::path::Path) -> Control {
    let (_client, server) = tollgate_proto::channel([7; 32]);
    let options = Options {
        state_dir: state.to_owned(),
        pepper: [7; 32],
        files: None,
        key_environment: "test".to_owned(),
        usage: UsageSettings::default(),
    };
    Control::start(options, server).await.unwrap()
}

fn candidate(api: &str, content: &str, service: &str) -> Candidate {
    Candidate {
        api: api.to_owned(),
        files: vec![BundleFile {
            kind: FileKind::Api.into(),
            path: format!("/apis/{api}.yaml"),
            content: content.into(),
        }],
        service: service.to_owned(),
        access: None,
    }
}

fn peer(id: &str) -> WorkloadId {
    format!("spiffe://shop/{id}").parse().unwrap()
}

fn held(api: &str, generation: u64, content: &str) -> Held {
    Held {
        api: api.to_owned(),
        generation,
        hash: content_hash(&candidate(api, content, "").files),
    }
}

/// What is told until nothing more is due: `books@1`, `-books`, `complete`.
async fn told(subscription: &mut Subscription) -> Vec<String> {
    let mut all = Vec::new();
    let patience = Duration::from_millis(200);
    while let Ok(event) = tokio::time::timeout(patience, subscription.next()).await {
        all.push(match event.event.unwrap() {
            Event::Bundle(bundle) => format!("{}@{}", bundle.api, bundle.generation),
            Event::Withdrawn(withdrawn) => format!("-{}", withdrawn.api),
            Event::Complete(_) => "complete".to_owned(),
        });
    }
    all
}

fn verdict(kind: verdict::Kind, api: &str, generation: u64) -> Verdict {
    Verdict {
        kind: kind.into(),
        api: api.to_owned(),
        generation,
        reason: "died".to_owned(),
    }
}

#[tokio::test]
async fn a_change_is_a_higher_generation_also_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let control_plane = control(state.path()).await;
    let publisher = control_plane.bundles();
    let publish = |content: &'static str| {
        let publisher = publisher.clone();
        async move {
            publisher
                .publish(vec![candidate("a", content, "")])
                .await
                .unwrap()
        }
    };
    assert_eq!(publish("one").await, ["a"]);
    assert!(publish("one").await.is_empty());
    assert_eq!(publish("two").await, ["a"]);
    assert_eq!(publish("three").await, ["a"]);
    control_plane.stop().await;
    let control_plane = control(state.path()).await;
    let publisher = control_plane.bundles();
    let mut node = publisher.subscribe(peer("gateway/edge"), vec![held("a", 2, "two")]);
    assert_eq!(told(&mut node).await, ["a@3", "complete"]);
    let mut other = publisher.subscribe(peer("gateway/edge"), vec![held("a", 3, "three")]);
    assert_eq!(told(&mut other).await, ["complete"], "it has it");
    publisher
        .publish(vec![candidate("a", "four", "")])
        .await
        .unwrap();
    assert_eq!(told(&mut other).await, ["a@4"]);
    assert!(
        publisher
            .publish(vec![candidate("../a", "x", "")])
            .await
            .is_err()
    );
    let mut nothing = candidate("b", "x", "");
    nothing.files.clear();
    assert!(publisher.publish(vec![nothing]).await.is_err());
    control_plane.stop().await;
}

#[tokio::test]
async fn a_sidecar_is_told_what_stands_before_its_service() {
    let state = tempfile::tempdir().unwrap();
    let control_plane = control(state.path()).await;
    let publisher = control_plane.bundles();
    let all = vec![
        candidate("a", "a", "orders"),
        candidate("b", "b", ""),
        candidate("c", "c", "stock"),
    ];
    publisher.publish(all).await.unwrap();
    let mut gateway = publisher.subscribe(peer("gateway/edge"), Vec::new());
    assert_eq!(told(&mut gateway).await, ["a@1", "b@1", "c@1", "complete"]);
    let mut sidecar = publisher.subscribe(peer("service/orders"), Vec::new());
    assert_eq!(told(&mut sidecar).await, ["a@1", "complete"]);
    publisher
        .publish(vec![candidate("a", "moved", "stock")])
        .await
        .unwrap();
    assert_eq!(told(&mut sidecar).await, ["-a"]);
    control_plane.stop().await;
}

#[tokio::test]
async fn only_what_was_removed_is_withdrawn() {
    let state = tempfile::tempdir().unwrap();
    let control_plane = control(state.path()).await;
    let publisher = control_plane.bundles();
    publisher
        .publish(vec![candidate("a", "a", "")])
        .await
        .unwrap();
    let unknown = vec![held("a", 1, "a"), held("ghost", 9, "x")];
    let mut node = publisher.subscribe(peer("gateway/edge"), unknown.clone());
    assert_eq!(told(&mut node).await, ["complete"]);
    assert!(publisher.withdraw("a").await.unwrap());
    assert!(!publisher.withdraw("a").await.unwrap());
    assert!(!publisher.withdraw("ghost").await.unwrap());
    assert_eq!(told(&mut node).await, ["-a"]);
    control_plane.stop().await;
    let control_plane = control(state.path()).await;
    let publisher = control_plane.bundles();
    let mut late = publisher.subscribe(peer("gateway/edge"), unknown);
    assert_eq!(told(&mut late).await, ["-a", "complete"]);
    publisher
        .publish(vec![candidate("a", "a", "")])
        .await
        .unwrap();
    assert_eq!(told(&mut late).await, ["a@2"], "it counts on");
    control_plane.stop().await;
}

#[tokio::test]
async fn a_control_plane_that_forgot_everything_counts_above_what_nodes_hold() {
    let state = tempfile::tempdir().unwrap();
    let control_plane = control(state.path()).await;
    let publisher = control_plane.bundles();
    publisher
        .publish(vec![
            candidate("same", "s", ""),
            candidate("other", "new", ""),
        ])
        .await
        .unwrap();
    let holds = vec![
        held("same", 7, "s"),
        held("other", 5, "old"),
        held("unknown", 3, "u"),
        held("mad", u64::MAX, "m"),
    ];
    let mut node = publisher.subscribe(peer("gateway/edge"), holds);
    assert_eq!(told(&mut node).await, ["other@6", "complete"]);
    assert_eq!(publisher.generations()["same"].0, 7);
    publisher
        .publish(vec![
            candidate("unknown", "v", ""),
            candidate("mad", "n", ""),
        ])
        .await
        .unwrap();
    assert_eq!(told(&mut node).await, ["unknown@4"]);
    control_plane.stop().await;
}

#[tokio::test]
async fn what_killed_a_node_reaches_no_further_one_until_it_is_changed() {
    let state = tempfile::tempdir().unwrap();
    let control_plane = control(state.path()).await;
    let publisher = control_plane.bundles();
    publisher
        .publish(vec![candidate("a", "good", "")])
        .await
        .unwrap();
    publisher
        .publish(vec![candidate("a", "fatal", "")])
        .await
        .unwrap();
    publisher.verdict("first", &verdict(verdict::Kind::Ack, "a", 2));
    publisher.verdict("first", &verdict(verdict::Kind::RolledBack, "a", 2));
    assert_eq!(publisher.shown()[0]["state"], "quarantined");
    let mut second = publisher.subscribe(peer("gateway/b"), vec![held("a", 1, "good")]);
    assert_eq!(told(&mut second).await, ["complete"]);
    let mut fresh = publisher.subscribe(peer("gateway/c"), Vec::new());
    assert_eq!(told(&mut fresh).await, ["a@1", "complete"]);
    publisher
        .publish(vec![candidate("a", "better", "")])
        .await
        .unwrap();
    assert_eq!(told(&mut second).await, ["a@3"]);
    assert_eq!(told(&mut fresh).await, ["a@3"]);
    publisher.found(vec![(
        "a".to_owned(),
        false,
        vec!["apis/a.yaml:1: wrong".to_owned()],
    )]);
    assert_eq!(publisher.shown()[0]["state"], "broken");
    publisher.found(Vec::new());
    assert_eq!(publisher.shown()[0]["state"], "no_file");
    control_plane.stop().await;
}
