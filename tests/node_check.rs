//! `Check` of a control plane: asked for a caller, it decides as the nodes would that hold the policy.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod world;

use std::time::Duration;

use tollgate_gateway::node::{NodeIdentity, channel, join};
use tollgate_policy::credentials::key::Pepper;
use tollgate_proto::wire::control_client::ControlClient;
use tollgate_proto::wire::{
    CheckRequest, CheckResponse, CredentialRef, OnUnavailable, check_request::Phase,
    check_response::Decision, credential_ref,
};
use tonic::transport::Channel;
use world::fleet::Fleet;

/// Who asks, and about which key.
struct Asker {
    client: ControlClient<Channel>,
    credential: CredentialRef,
}

impl Asker {
    fn request(&self, phase: Phase, operation: &str, client: &str) -> CheckRequest {
        CheckRequest {
            phase: phase.into(),
            operation_id: "export-7".to_owned(),
            api: "shop".to_owned(),
            operation: operation.to_owned(),
            credential: Some(self.credential.clone()),
            client: client.to_owned(),
            ..CheckRequest::default()
        }
    }

    /// What is decided as soon as the control plane can.
    async fn ask(&mut self, phase: Phase, operation: &str, client: &str) -> CheckResponse {
        let mut tries = 0;
        loop {
            let request = self.request(phase, operation, client);
            match self.client.check(request).await {
                Ok(answer) => return answer.into_inner(),
                Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable, "{status}"),
            }
            tries += 1;
            assert!(tries < 200, "nobody answers");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The decision, and why.
    async fn decided(&mut self, phase: Phase, operation: &str, client: &str) -> (Decision, String) {
        let answer = self.ask(phase, operation, client).await;
        (answer.decision(), answer.reason)
    }

    /// Waits until what goes on is judged so.
    async fn becomes(&mut self, expected: (Decision, String)) {
        let mut decided = None;
        for _ in 0..200 {
            decided = Some(self.decided(Phase::Continue, "listBooks", HERE).await);
            if decided.as_ref() == Some(&expected) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{decided:?} instead of {expected:?}");
    }
}

async fn asker(fleet: &Fleet, key: &str) -> Asker {
    let token = fleet.token("--gateway", "asker");
    let address = format!("https://{}", fleet.nodes).parse().unwrap();
    let joined = join(&address, &token, "asker-1").await.unwrap();
    let identity = NodeIdentity::none();
    identity.replace(joined.held().unwrap());
    let pepper = tollgate_control::load_or_make_pepper(&fleet.state("control")).unwrap();
    let digest = Pepper::new(pepper).digest(key);
    Asker {
        client: ControlClient::new(channel(&address, identity).unwrap()),
        credential: CredentialRef {
            kind: Some(credential_ref::Kind::Key(digest.0.to_vec())),
        },
    }
}

const HERE: &str = "192.0.2.7";

const RULES: &str = "\
networks: { deny: [198.51.100.0/24] }
acl:
  - { name: no-deleting, effect: deny, operations: [deleteBook], consumers: [web] }
  - { name: odd-books, effect: deny, operations: [getBook], when: \"path.book == 'odd'\" }
";

#[tokio::test(flavor = "multi_thread")]
async fn it_judges_by_the_rules_of_the_api_in_every_phase_and_over_a_restart() {
    let mut fleet = Fleet::start(RULES);
    let (id, key) = fleet.key("web");
    let mut asker = asker(&fleet, &key).await;
    let allowed = (Decision::Allow, String::new());
    // Once it is published.
    asker.becomes(allowed.clone()).await;
    let denied = |why: &str| (Decision::Deny, why.to_owned());
    let table = [
        ("listBooks", HERE, allowed.clone()),
        ("listBooks", "198.51.100.7", denied("not_permitted")),
        ("listBooks", "", denied("not_permitted")),
        ("deleteBook", HERE, denied("not_permitted")),
        ("getBook", HERE, denied("policy_unavailable")),
        ("noSuch", HERE, denied("unknown_operation")),
    ];
    for (operation, client, expected) in &table {
        let decided = asker.decided(Phase::Start, operation, client).await;
        assert_eq!(decided, *expected, "{operation} {client}");
    }
    // What was begun before goes on.
    fleet.control.start_again();
    let decided = asker.ask(Phase::Continue, "listBooks", HERE).await;
    assert_eq!(decided.decision(), Decision::Allow);
    assert_eq!(decided.consumer, "web");
    assert_eq!(decided.failure(), OnUnavailable::FailClosed);
    // A change of the rules ends it, and so does a revocation.
    let api = fleet.config("apis/shop.yaml");
    let rules = std::fs::read_to_string(&api).unwrap();
    std::fs::write(&api, rules.replace("[deleteBook]", "[listBooks]")).unwrap();
    let cut = |why: &str| (Decision::Cut, why.to_owned());
    asker.becomes(cut("not_permitted")).await;
    std::fs::write(&api, &rules).unwrap();
    asker.becomes(allowed.clone()).await;
    // A broken file leaves what holds.
    std::fs::write(&api, "spec: [").unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let decided = asker.decided(Phase::Continue, "listBooks", HERE).await;
    assert_eq!(decided, allowed);
    fleet.cli(&["keys", "revoke", &id]);
    asker.becomes(cut("credential_invalid")).await;
    let ended = asker.decided(Phase::End, "listBooks", HERE).await;
    assert_eq!(ended, cut("credential_invalid"));
    let phase = asker.request(Phase::Unspecified, "listBooks", HERE);
    let unknown = asker.client.check(phase).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::InvalidArgument);
}
