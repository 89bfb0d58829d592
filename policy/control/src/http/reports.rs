//! The same reports over gRPC: `tollgate.usage.v1.UsageReports`, on the port and with the credentials of the HTTP API.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use tollgate_policy::time::Timestamp;
use tollgate_proto::reports as wire;
use tollgate_proto::reports::usage_reports_server::{UsageReports, UsageReportsServer};
use tonic::codegen::Service;
use tonic::{Request, Status};

use super::problem::Problem;
use super::usage::{NewRecord, Report, taken};
use crate::Control;
use crate::refusal::Refusal;

/// Where its methods are.
pub(super) const PATH: &str = "/tollgate.usage.v1.UsageReports/{method}";
/// Bytes of a report.
const LARGEST: usize = 1 << 20;

/// Whether somebody speaks gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// What takes reports in.
pub(super) fn service(
    control: Control,
) -> impl Service<
    axum::extract::Request,
    Response = http::Response<tonic::body::Body>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ Sync
+ 'static {
    UsageReportsServer::new(Intake { control }).max_decoding_message_size(LARGEST)
}

struct Intake {
    control: Control,
}

#[tonic::async_trait]
impl UsageReports for Intake {
    async fn report(
        &self,
        request: Request<wire::ReportRequest>,
    ) -> Result<tonic::Response<wire::ReportResponse>, Status> {
        let report = read(request.into_inner())?;
        let control = self.control.clone();
        // Not cut short where the asker leaves.
        let done = tokio::spawn(async move { taken(&control, report).await }).await;
        match done {
            Ok(Ok(next)) => Ok(tonic::Response::new(wire::ReportResponse { next })),
            Ok(Err(refusal)) => Err(status(&refusal)),
            Err(error) => {
                tracing::error!(%error, "a report of usage failed");
                Err(Status::internal("see the log"))
            }
        }
    }
}

fn status(refusal: &Refusal) -> Status {
    let why = refusal.to_string();
    match refusal {
        Refusal::Missing { .. } => Status::not_found(why),
        Refusal::Unavailable(_) => Status::unavailable(why),
        Refusal::Invalid { .. } => Status::invalid_argument(why),
        Refusal::DefinedInFile { .. }
        | Refusal::Differs { .. }
        | Refusal::InUse { .. }
        | Refusal::Files(_) => Status::failed_precondition(why),
    }
}

fn read(report: wire::ReportRequest) -> Result<Report, Status> {
    let records = report.records.into_iter().map(record);
    Ok(Report {
        source: report.source,
        run: report.run,
        shard: report.shard,
        first: report.first,
        records: records.collect::<Result<_, _>>()?,
        closing: report.closing,
    })
}

fn record(record: wire::Record) -> Result<NewRecord, Status> {
    let outcome = match wire::Outcome::try_from(record.outcome) {
        Ok(wire::Outcome::Unspecified) => None,
        Ok(wire::Outcome::Served) => Some("served"),
        Ok(wire::Outcome::ClientError) => Some("client_error"),
        Ok(wire::Outcome::ServerError) => Some("server_error"),
        Ok(wire::Outcome::Failed) => Some("failed"),
        Ok(wire::Outcome::Aborted) => Some("aborted"),
        Err(_) => return Err(Status::invalid_argument("an outcome nobody knows here")),
    };
    let at = record.at.and_then(|at| {
        let millis = at.seconds.checked_mul(1_000)?;
        millis.checked_add(i64::from(at.nanos) / 1_000_000)
    });
    let at = at.ok_or_else(|| Status::invalid_argument("a record without `at`"))?;
    let named = |name: String| Some(name).filter(|name| !name.is_empty());
    Ok(NewRecord {
        at: Timestamp::from_millis(at).to_string(),
        organisation: named(record.organisation),
        project: named(record.project),
        consumer: record.consumer,
        api: record.api,
        operation: record.operation,
        plan: record.plan,
        price_version: record.price_version,
        currency: named(record.currency),
        outcome: outcome.map(str::to_owned),
        calls: record.calls.unwrap_or(1),
        units: record.units,
        units_by_name: record.units_by_name.into_iter().collect(),
        money: record.money,
        request_bytes: record.request_bytes,
        response_bytes: record.response_bytes,
        cpu_nanos: record.cpu_nanos,
        micros: record.micros,
        stream_seconds: record.stream_seconds,
        request_messages: record.request_messages,
        response_messages: record.response_messages,
    })
}

impl Problem {
    /// As who speaks gRPC understands it.
    pub(super) fn into_grpc(self) -> Response {
        let (status, detail) = self.parts();
        let status = match status.as_u16() {
            401 => Status::unauthenticated(detail),
            403 => Status::permission_denied(detail),
            429 => Status::resource_exhausted(detail),
            _ => Status::unavailable(detail),
        };
        status.into_http::<Body>()
    }
}
