//! Every operation of the HTTP API, once: the router is built from this table, and the OpenAPI file is held against it.

use http::Method;

use super::{overrides, quotas, usage};

/// What can be asked for. Names are the `operationId`s of `openapi-specs/control.yaml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Health,
    ListOrganisations,
    CreateOrganisation,
    ShowOrganisation,
    DeleteOrganisation,
    ListProjects,
    CreateProject,
    ShowProject,
    DeleteProject,
    ListConsumers,
    CreateConsumer,
    ShowConsumer,
    ChangeConsumer,
    DeleteConsumer,
    SuspendConsumer,
    ResumeConsumer,
    PutSubscription,
    DeleteSubscription,
    ListPlans,
    CreatePlan,
    ShowPlan,
    DeletePlan,
    ListOverrides,
    PutOverride,
    DeleteOverride,
    ListAllOverrides,
    PutSubjectOverride,
    DeleteSubjectOverride,
    ListKeys,
    CreateKey,
    RotateKey,
    RevokeKey,
    DeleteKey,
    ListJoinTokens,
    CreateJoinToken,
    DeleteJoinToken,
    ShowCa,
    RotateCa,
    ListTerms,
    CreateTerms,
    ShowTerms,
    DeleteTerms,
    CreateVersion,
    ListAcceptances,
    RecordAcceptance,
    ListRevocations,
    CreateRevocation,
    ListQuotas,
    ListUsage,
    ListUsageSenders,
    ListUsageGaps,
    ShowUsageBalance,
    ReportUsage,
    ListNodes,
    ShowNode,
    ListBundles,
    WithdrawBundle,
    ListAudit,
    VerifyAudit,
    Backup,
    Reload,
}

impl Operation {
    /// Parameters of its query, besides those that all have.
    pub(super) fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::ListAllOverrides => overrides::PARAMETERS,
            Self::ListQuotas => quotas::PARAMETERS,
            Self::ListUsage => usage::PARAMETERS,
            Self::ListUsageSenders => usage::SENDER_PARAMETERS,
            _ => &[],
        }
    }
}

/// Where an operation is found.
pub(super) struct Route {
    pub(super) operation: Operation,
    pub(super) method: Method,
    pub(super) path: &'static str,
}

const fn route(operation: Operation, method: Method, path: &'static str) -> Route {
    Route {
        operation,
        method,
        path,
    }
}

/// All routes.
pub(super) const ROUTES: &[Route] = &[
    route(Operation::Health, Method::GET, "/v1/health"),
    route(
        Operation::ListOrganisations,
        Method::GET,
        "/v1/organisations",
    ),
    route(
        Operation::CreateOrganisation,
        Method::POST,
        "/v1/organisations",
    ),
    route(
        Operation::ShowOrganisation,
        Method::GET,
        "/v1/organisations/{organisation}",
    ),
    route(
        Operation::DeleteOrganisation,
        Method::DELETE,
        "/v1/organisations/{organisation}",
    ),
    route(Operation::ListProjects, Method::GET, "/v1/projects"),
    route(Operation::CreateProject, Method::POST, "/v1/projects"),
    route(
        Operation::ShowProject,
        Method::GET,
        "/v1/projects/{project}",
    ),
    route(
        Operation::DeleteProject,
        Method::DELETE,
        "/v1/projects/{project}",
    ),
    route(Operation::ListConsumers, Method::GET, "/v1/consumers"),
    route(Operation::CreateConsumer, Method::POST, "/v1/consumers"),
    route(
        Operation::ShowConsumer,
        Method::GET,
        "/v1/consumers/{consumer}",
    ),
    route(
        Operation::ChangeConsumer,
        Method::PATCH,
        "/v1/consumers/{consumer}",
    ),
    route(
        Operation::DeleteConsumer,
        Method::DELETE,
        "/v1/consumers/{consumer}",
    ),
    route(
        Operation::SuspendConsumer,
        Method::POST,
        "/v1/consumers/{consumer}/suspend",
    ),
    route(
        Operation::ResumeConsumer,
        Method::POST,
        "/v1/consumers/{consumer}/resume",
    ),
    route(
        Operation::PutSubscription,
        Method::PUT,
        "/v1/consumers/{consumer}/subscriptions/{api}",
    ),
    route(
        Operation::DeleteSubscription,
        Method::DELETE,
        "/v1/consumers/{consumer}/subscriptions/{api}",
    ),
    route(Operation::ListPlans, Method::GET, "/v1/plans"),
    route(Operation::CreatePlan, Method::POST, "/v1/plans"),
    route(Operation::ShowPlan, Method::GET, "/v1/plans/{plan}"),
    route(Operation::DeletePlan, Method::DELETE, "/v1/plans/{plan}"),
    route(
        Operation::ListOverrides,
        Method::GET,
        "/v1/consumers/{consumer}/overrides",
    ),
    route(
        Operation::PutOverride,
        Method::PUT,
        "/v1/consumers/{consumer}/overrides/{plan}/{limit}",
    ),
    route(
        Operation::DeleteOverride,
        Method::DELETE,
        "/v1/consumers/{consumer}/overrides/{plan}/{limit}",
    ),
    route(Operation::ListAllOverrides, Method::GET, "/v1/overrides"),
    route(
        Operation::PutSubjectOverride,
        Method::PUT,
        "/v1/overrides/{subject}/{owner}/{name}/{limit}",
    ),
    route(
        Operation::DeleteSubjectOverride,
        Method::DELETE,
        "/v1/overrides/{subject}/{owner}/{name}/{limit}",
    ),
    route(
        Operation::ListKeys,
        Method::GET,
        "/v1/consumers/{consumer}/keys",
    ),
    route(
        Operation::CreateKey,
        Method::POST,
        "/v1/consumers/{consumer}/keys",
    ),
    route(Operation::RotateKey, Method::POST, "/v1/keys/{key}/rotate"),
    route(Operation::RevokeKey, Method::POST, "/v1/keys/{key}/revoke"),
    route(Operation::DeleteKey, Method::DELETE, "/v1/keys/{key}"),
    route(Operation::ListJoinTokens, Method::GET, "/v1/join-tokens"),
    route(Operation::CreateJoinToken, Method::POST, "/v1/join-tokens"),
    route(
        Operation::DeleteJoinToken,
        Method::DELETE,
        "/v1/join-tokens/{token}",
    ),
    route(Operation::ShowCa, Method::GET, "/v1/ca"),
    route(Operation::RotateCa, Method::POST, "/v1/ca/rotate"),
    route(Operation::ListTerms, Method::GET, "/v1/terms"),
    route(Operation::CreateTerms, Method::POST, "/v1/terms"),
    route(Operation::ShowTerms, Method::GET, "/v1/terms/{terms}"),
    route(Operation::DeleteTerms, Method::DELETE, "/v1/terms/{terms}"),
    route(
        Operation::CreateVersion,
        Method::POST,
        "/v1/terms/{terms}/versions",
    ),
    route(
        Operation::ListAcceptances,
        Method::GET,
        "/v1/terms/{terms}/acceptances",
    ),
    route(
        Operation::RecordAcceptance,
        Method::POST,
        "/v1/terms/{terms}/acceptances",
    ),
    route(Operation::ListRevocations, Method::GET, "/v1/revocations"),
    route(Operation::CreateRevocation, Method::POST, "/v1/revocations"),
    route(Operation::ListQuotas, Method::GET, "/v1/quotas"),
    route(Operation::ListUsage, Method::GET, "/v1/usage"),
    route(
        Operation::ListUsageSenders,
        Method::GET,
        "/v1/usage/senders",
    ),
    route(Operation::ListUsageGaps, Method::GET, "/v1/usage/gaps"),
    route(
        Operation::ShowUsageBalance,
        Method::GET,
        "/v1/usage/balance",
    ),
    route(Operation::ReportUsage, Method::POST, "/v1/usage/records"),
    route(Operation::ListNodes, Method::GET, "/v1/nodes"),
    route(Operation::ShowNode, Method::GET, "/v1/nodes/{node}"),
    route(Operation::ListBundles, Method::GET, "/v1/bundles"),
    route(
        Operation::WithdrawBundle,
        Method::DELETE,
        "/v1/bundles/{api}",
    ),
    route(Operation::ListAudit, Method::GET, "/v1/audit"),
    route(Operation::VerifyAudit, Method::GET, "/v1/audit/verify"),
    route(Operation::Backup, Method::POST, "/v1/backup"),
    route(Operation::Reload, Method::POST, "/v1/reload"),
];

/// What is served, for comparison with the OpenAPI file: (`operationId`, method, path template).
pub fn served() -> Vec<(String, String, &'static str)> {
    let named = |route: &Route| {
        let name = format!("{:?}", route.operation);
        let mut letters = name.chars();
        let first = letters.next().map(|c| c.to_ascii_lowercase());
        let id: String = first.into_iter().chain(letters).collect();
        (id, route.method.to_string(), route.path)
    };
    ROUTES.iter().map(named).collect()
}
