//! Services that no gateway stands before report over gRPC what was used: as often as they like, and it counts once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod world;

use std::time::SystemTime;

use serde_json::json;
use tollgate_policy::time::Timestamp;
use tollgate_proto::reports::usage_reports_client::UsageReportsClient;
use tollgate_proto::reports::{Outcome, Record, ReportRequest};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use world::{World, files};

async fn client(world: &World) -> UsageReportsClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", world.address)).unwrap();
    UsageReportsClient::new(endpoint.connect().await.unwrap())
}

fn entry() -> Record {
    Record {
        at: Some(SystemTime::now().into()),
        consumer: "filed".into(),
        api: "jobs".into(),
        operation: "render".into(),
        units: 7,
        units_by_name: [("pages".to_owned(), 2)].into(),
        money: 3,
        currency: "CHF".into(),
        ..Record::default()
    }
}

fn report(first: u64, records: Vec<Record>) -> ReportRequest {
    ReportRequest {
        source: "renderer".into(),
        run: "0123456789abcdef0123456789abcdef".into(),
        shard: 0,
        first,
        records,
        closing: false,
    }
}

/// With the credential of reporters.
fn allowed(world: &World, report: ReportRequest) -> Request<ReportRequest> {
    let credential = world.state.path().join("report-credential");
    shown(&std::fs::read_to_string(credential).unwrap(), report)
}

fn shown(credential: &str, report: ReportRequest) -> Request<ReportRequest> {
    let mut request = Request::new(report);
    let bearer = format!("Bearer {}", credential.trim());
    let bearer: MetadataValue<_> = bearer.parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

#[tokio::test]
async fn what_is_reported_twice_counts_once_and_what_is_skipped_is_missing() {
    let world = World::with_files(files()).await;
    let mut client = client(&world).await;
    for _ in 0..2 {
        let taken = client.report(allowed(&world, report(0, vec![entry(); 3])));
        assert_eq!(taken.await.unwrap().into_inner().next, 3);
    }
    let aborted = Record {
        calls: Some(0),
        outcome: Outcome::Aborted.into(),
        ..entry()
    };
    let taken = client.report(allowed(&world, report(5, vec![aborted])));
    assert_eq!(taken.await.unwrap().into_inner().next, 6);
    let (_, shown) = world.get("/v1/usage?group_by=consumer,api").await;
    let row = &shown["items"][0];
    assert_eq!(
        (row["units"].as_u64(), row["calls"].as_u64()),
        (Some(36), Some(3))
    );
    assert_eq!(row["units_by_name"], json!({ "pages": 8, "units": 28 }));
    assert_eq!(row["money_by_currency"], json!({ "CHF": 12 }));
    let (_, gaps) = world.get("/v1/usage/gaps").await;
    assert_eq!(gaps["items"][0]["node"], "service:renderer", "{gaps}");
}

#[tokio::test]
async fn who_may_not_or_says_nonsense_is_told_so_in_grpc() {
    let world = World::with_files(files()).await;
    let mut client = client(&world).await;
    let stranger = client.report(Request::new(report(0, vec![entry()]))).await;
    assert_eq!(stranger.unwrap_err().code(), Code::Unauthenticated);
    let wrong = |change: fn(&mut Record)| {
        let mut record = entry();
        change(&mut record);
        report(0, vec![record])
    };
    for (report, code) in [
        (wrong(|it| it.at = None), Code::InvalidArgument),
        (wrong(|it| it.outcome = 77), Code::InvalidArgument),
        (
            wrong(|it| it.operation = "a b".into()),
            Code::InvalidArgument,
        ),
        (wrong(|it| it.consumer = "nobody".into()), Code::NotFound),
        (report(u64::MAX, vec![entry()]), Code::InvalidArgument),
        (report(0, vec![entry(); 501]), Code::InvalidArgument),
        (report(0, vec![entry(); 60_000]), Code::OutOfRange),
    ] {
        let refused = client.report(allowed(&world, report)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    let (_, shown) = world.get("/v1/usage?group_by=consumer").await;
    assert_eq!(shown["items"].as_array().unwrap().len(), 0, "{shown}");
}

#[tokio::test]
async fn the_credential_of_reporters_opens_nothing_but_reports() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut world = World::with_files(files()).await;
    let mut client = client(&world).await;
    let file = world.state.path().join("report-credential");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let administers = client.report(shown(&world.credential, report(0, vec![entry()])));
    assert_eq!(administers.await.unwrap().into_inner().next, 1);
    let guessed = client.report(shown("tg_report_guessed", report(1, vec![entry()])));
    assert_eq!(guessed.await.unwrap_err().code(), Code::Unauthenticated);
    world.credential = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    let at = Timestamp::from(SystemTime::now()).to_string();
    let body = json!({
        "source": "renderer", "run": "fedcba9876543210fedcba9876543210", "first": 0,
        "records": [{ "at": at, "consumer": "filed", "api": "jobs", "operation": "render", "units": 1 }],
    });
    let (status, _) = world.post("/v1/usage/records", body).await;
    assert_eq!(status, 200);
    for path in [
        "/v1/usage",
        "/v1/consumers",
        "/v1/usage/records/",
        "/v1/audit",
    ] {
        assert_eq!(world.get(path).await.0, 401, "{path}");
    }
}
