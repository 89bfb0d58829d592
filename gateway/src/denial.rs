//! Refusals: one enum, one public face for HTTP and one for gRPC.
//!
//! What the caller may read is here; the inner reason goes to the access record alone. A new case stops the build until its
//! faces are decided: no match in this file has a catch-all arm.

mod forbidden;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

pub use self::forbidden::Forbidden;

use crate::overload::TurnedAway;
use crate::quota::Unpaid;
use crate::transcode::status::percent_encoded;
use crate::transcode::unfit::Unfit;

/// A request that is answered here instead of by the service, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The request is not well-formed HTTP, or its target is not acceptable. Text for the caller.
    Malformed(Cow<'static, str>),
    /// The head did not arrive in time.
    HeadTimeout,
    /// The head is larger than allowed.
    HeadTooLarge,
    /// The method is never served (CONNECT, TRACE).
    MethodNotServed,
    /// No API serves this host and base path.
    UnknownApi,
    /// The app beside us asked for what is no service of the installation: the host it named.
    UnknownService(Arc<str>),
    /// The host asked for is served under another certificate than the one this TLS connection was made by.
    Misdirected,
    /// No operation of the API matches.
    UnknownOperation,
    /// The path matches, the method does not; these do (for `Allow`).
    MethodNotAllowed(Vec<Arc<str>>),
    /// OPTIONS on a path whose operations declare none: not an error, these methods are the answer.
    MethodsAsked(Vec<Arc<str>>),
    /// The operation demands a credential. Challenges for `WWW-Authenticate`.
    CredentialRequired(Vec<Cow<'static, str>>),
    /// What was shown is not valid. Challenges for `WWW-Authenticate`.
    CredentialInvalid(Vec<Cow<'static, str>>),
    /// The token is genuine and lacks this scope.
    ScopeMissing(Arc<str>),
    /// The caller is known and may not.
    NotPermitted(Forbidden),
    /// The consumer has to accept these terms first.
    TermsNotAccepted {
        /// Name of the terms.
        terms: Arc<str>,
        /// Version to accept.
        version: u32,
        /// Where they are read and accepted: a path on this API.
        link: String,
    },
    /// The call could not be charged.
    Unpaid(Box<Unpaid>),
    /// Too many unknown credentials came from this address.
    TooManyUnknown,
    /// Whether the caller may cannot be known now.
    PolicyUnavailable,
    /// The credential was revoked while the call was under way.
    CredentialRevoked,
    /// The request body is larger than allowed.
    BodyTooLarge,
    /// The request body arrives too slowly.
    BodyTooSlow,
    /// The request is no message of the method called.
    Unfit(Box<Unfit>),
    /// `Expect` with something else than `100-continue`.
    ExpectationFailed,
    /// gRPC cannot be answered on HTTP/1.x: its trailers would be lost.
    GrpcNeedsHttp2,
    /// The guard turned it away: too much from this address, or for this API while the gateway is saturated.
    TurnedAway(TurnedAway),
    /// The gateway lacks what a call needs (descriptors), or is draining.
    Overloaded,
    /// No endpoint of the upstream can be used.
    NoEndpoint,
    /// The upstream could not be reached, reset, or answered garbage.
    UpstreamFailed,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// A fault of ours (a panic): this request alone is lost.
    Internal,
}

/// Methods a refused CONNECT or TRACE is pointed to.
const SERVED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The answer to `OPTIONS *`: what may be asked of this server at all (RFC 9110, section 9.3.7).
pub fn served_methods() -> Vec<Arc<str>> {
    SERVED_METHODS.split(", ").map(Arc::from).collect()
}

/// Seconds a client shall wait after an answer that says "not now". One is enough for an ejected endpoint to be replaced.
const RETRY_AFTER_SECONDS: &str = "1";

impl Denial {
    /// Stable code: the end of the problem's `type`, the metric's `cause`, the access record's `denial`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed_request",
            Self::HeadTimeout => "head_timeout",
            Self::HeadTooLarge => "head_too_large",
            Self::MethodNotServed => "method_not_served",
            Self::UnknownApi => "unknown_api",
            Self::UnknownService(_) => "unknown_service",
            Self::Misdirected => "misdirected",
            Self::UnknownOperation => "unknown_operation",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::MethodsAsked(_) => "methods_asked",
            Self::CredentialRequired(_) => "credential_required",
            Self::CredentialInvalid(_) => "credential_invalid",
            Self::ScopeMissing(_) => "insufficient_scope",
            Self::NotPermitted(why) => match why {
                Forbidden::Suspended => "consumer_suspended",
                Forbidden::NotSubscribed => "not_subscribed",
                Forbidden::NotInPlan => "not_in_plan",
                Forbidden::CredentialRestricted => "credential_restricted",
                Forbidden::Address => "address_not_allowed",
                Forbidden::Rule => "not_permitted",
                Forbidden::Authoriser => "authoriser_refused",
                Forbidden::Origin => "origin_not_allowed",
            },
            Self::TermsNotAccepted { .. } => "terms_not_accepted",
            Self::TooManyUnknown => "too_many_unknown_credentials",
            Self::Unpaid(why) => why.code(),
            Self::TurnedAway(away) => away.code(),
            Self::PolicyUnavailable => "policy_unavailable",
            Self::CredentialRevoked => "credential_revoked",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTooSlow => "body_too_slow",
            Self::Unfit(why) => why.code(),
            Self::ExpectationFailed => "expectation_failed",
            Self::GrpcNeedsHttp2 => "grpc_needs_http2",
            Self::Overloaded => "overloaded",
            Self::NoEndpoint => "no_endpoint",
            Self::UpstreamFailed => "upstream_failed",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::Internal => "internal",
        }
    }

    /// HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::HeadTimeout | Self::BodyTooSlow => 408,
            Self::HeadTooLarge => 431,
            Self::MethodNotServed | Self::MethodNotAllowed(_) => 405,
            Self::Misdirected => 421,
            Self::UnknownApi | Self::UnknownService(_) | Self::UnknownOperation => 404,
            Self::MethodsAsked(_) => 204,
            Self::CredentialRequired(_) | Self::CredentialInvalid(_) | Self::CredentialRevoked => {
                401
            }
            Self::ScopeMissing(_) | Self::NotPermitted(_) | Self::TermsNotAccepted { .. } => 403,
            Self::TooManyUnknown => 429,
            Self::Unpaid(why) => why.status(),
            Self::TurnedAway(away) => away.status(),
            Self::BodyTooLarge => 413,
            Self::Unfit(why) => why.status(),
            Self::ExpectationFailed => 417,
            Self::GrpcNeedsHttp2 => 426,
            Self::Overloaded | Self::NoEndpoint | Self::PolicyUnavailable => 503,
            Self::UpstreamFailed => 502,
            Self::UpstreamTimeout => 504,
            Self::Internal => 500,
        }
    }

    /// gRPC status code (<https://grpc.io/docs/guides/status-codes/>).
    pub fn grpc_status(&self) -> u8 {
        match self {
            Self::Malformed(_) | Self::HeadTooLarge | Self::ExpectationFailed => 3,
            Self::Unfit(why) => why.grpc_status(),
            Self::UpstreamTimeout | Self::HeadTimeout | Self::BodyTooSlow => 4,
            Self::ScopeMissing(_) | Self::NotPermitted(_) | Self::TermsNotAccepted { .. } => 7,
            Self::BodyTooLarge | Self::TooManyUnknown => 8,
            Self::Unpaid(why) => why.grpc_status(),
            Self::TurnedAway(away) => away.grpc_status(),
            Self::MethodNotServed
            | Self::UnknownApi
            | Self::UnknownService(_)
            | Self::Misdirected
            | Self::UnknownOperation
            | Self::MethodNotAllowed(_)
            | Self::MethodsAsked(_)
            | Self::GrpcNeedsHttp2 => 12,
            Self::Internal => 13,
            Self::Overloaded
            | Self::NoEndpoint
            | Self::UpstreamFailed
            | Self::PolicyUnavailable => 14,
            Self::CredentialRequired(_) | Self::CredentialInvalid(_) | Self::CredentialRevoked => {
                16
            }
        }
    }

    /// Whether policy refused: then it belongs to the audit log.
    pub fn is_policy(&self) -> bool {
        match self {
            Self::CredentialRequired(_)
            | Self::CredentialInvalid(_)
            | Self::CredentialRevoked
            | Self::ScopeMissing(_)
            | Self::NotPermitted(_)
            | Self::TermsNotAccepted { .. }
            | Self::Unpaid(_)
            | Self::TooManyUnknown
            | Self::PolicyUnavailable => true,
            Self::Malformed(_)
            | Self::HeadTimeout
            | Self::HeadTooLarge
            | Self::MethodNotServed
            | Self::UnknownApi
            | Self::UnknownService(_)
            | Self::Misdirected
            | Self::UnknownOperation
            | Self::MethodNotAllowed(_)
            | Self::MethodsAsked(_)
            | Self::BodyTooLarge
            | Self::BodyTooSlow
            | Self::Unfit(_)
            | Self::ExpectationFailed
            | Self::GrpcNeedsHttp2
            // A flood would push everything else out of the audit log.
            | Self::TurnedAway(_)
            | Self::Overloaded
            | Self::NoEndpoint
            | Self::UpstreamFailed
            | Self::UpstreamTimeout
            | Self::Internal => false,
        }
    }

    /// Short human title, the same for every occurrence (RFC 9457, section 3.1.3).
    pub fn title(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "Malformed request",
            Self::HeadTimeout => "Request head not received in time",
            Self::HeadTooLarge => "Request head too large",
            Self::MethodNotServed => "Method never served",
            Self::UnknownApi => "No API here",
            Self::UnknownService(_) => "No such service",
            Self::Misdirected => "Misdirected request",
            Self::UnknownOperation => "No such operation",
            Self::MethodNotAllowed(_) => "Method not allowed",
            Self::MethodsAsked(_) => "Methods of this path",
            Self::CredentialRequired(_) => "Credential required",
            Self::CredentialInvalid(_) => "Credential not valid",
            Self::ScopeMissing(_) => "Scope missing",
            Self::NotPermitted(_) => "Not permitted",
            Self::TermsNotAccepted { .. } => "Terms not accepted",
            Self::TooManyUnknown => "Too many unknown credentials",
            Self::Unpaid(why) => why.title(),
            Self::TurnedAway(away) => away.title(),
            Self::PolicyUnavailable => "Policy not known at the moment",
            Self::CredentialRevoked => "Credential revoked",
            Self::BodyTooLarge => "Request body too large",
            Self::BodyTooSlow => "Request body too slow",
            Self::Unfit(why) => why.title(),
            Self::ExpectationFailed => "Expectation not supported",
            Self::GrpcNeedsHttp2 => "gRPC needs HTTP/2",
            Self::Overloaded => "Gateway overloaded",
            Self::NoEndpoint => "Service has no usable endpoint",
            Self::UpstreamFailed => "Service failed to answer",
            Self::UpstreamTimeout => "Service did not answer in time",
            Self::Internal => "Internal fault",
        }
    }

    /// What the caller may read about this occurrence.
    pub fn detail(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::Malformed(text) => text,
            Self::HeadTimeout => "the request line and header fields did not arrive in time",
            Self::HeadTooLarge => "the request line and header fields exceed the limit",
            Self::MethodNotServed => "CONNECT and TRACE are not served",
            Self::UnknownApi => "no API is published for this host and path",
            Self::UnknownService(host) => {
                return Cow::Owned(format!(
                    "`{host}` is no service of this installation, and nothing else is reached from here"
                ));
            }
            Self::Misdirected => {
                "this connection was made for another name; open one for the host asked for"
            }
            Self::UnknownOperation => "no operation of this API has this path",
            Self::MethodNotAllowed(_) => "the path exists, the method does not; see Allow",
            Self::MethodsAsked(_) => "see Allow",
            Self::CredentialRequired(_) => {
                "this operation demands a credential, and none was given"
            }
            Self::CredentialInvalid(_) => {
                "the credential is unknown, expired, revoked or malformed"
            }
            Self::ScopeMissing(scope) => {
                return Cow::Owned(format!("the token lacks the scope `{scope}`"));
            }
            Self::NotPermitted(why) => why.detail(),
            Self::TermsNotAccepted {
                terms,
                version,
                link,
            } => {
                return Cow::Owned(format!(
                    "accept version {version} of the terms `{terms}` first: {link}"
                ));
            }
            Self::TooManyUnknown => "too many unknown credentials came from this address; wait",
            Self::Unpaid(why) => return why.detail(),
            Self::TurnedAway(away) => away.detail(),
            Self::PolicyUnavailable => {
                "whether this call may pass cannot be known now; try again in a moment"
            }
            Self::CredentialRevoked => "the credential was revoked while the call was under way",
            Self::BodyTooLarge => "the request body exceeds the limit of this operation",
            Self::BodyTooSlow => "the request body arrives too slowly",
            Self::Unfit(why) => return Cow::Owned(why.to_string()),
            Self::ExpectationFailed => "only `Expect: 100-continue` is supported",
            Self::GrpcNeedsHttp2 => "gRPC over HTTP/1 loses its trailers; use HTTP/2",
            Self::Overloaded => "try again in a moment",
            Self::NoEndpoint => "no endpoint of the service can be used at the moment",
            Self::UpstreamFailed => "the service could not be reached or broke off",
            Self::UpstreamTimeout => "the service did not answer within its limit",
            Self::Internal => "this request was lost; others were not affected",
        })
    }

    /// Whether the connection is closed after the answer: its framing cannot be trusted any more.
    pub fn closes(&self) -> bool {
        match self {
            Self::Malformed(_)
            | Self::HeadTimeout
            | Self::HeadTooLarge
            | Self::MethodNotServed
            | Self::BodyTooLarge
            | Self::BodyTooSlow
            | Self::ExpectationFailed
            | Self::Overloaded
            | Self::CredentialRevoked
            | Self::Internal => true,
            Self::UnknownApi
            | Self::UnknownService(_)
            | Self::Misdirected
            | Self::UnknownOperation
            | Self::MethodNotAllowed(_)
            | Self::MethodsAsked(_)
            | Self::CredentialRequired(_)
            | Self::CredentialInvalid(_)
            | Self::ScopeMissing(_)
            | Self::NotPermitted(_)
            | Self::TermsNotAccepted { .. }
            | Self::Unpaid(_)
            | Self::TooManyUnknown
            // A new connection would cost more than another refusal on this one.
            | Self::TurnedAway(_)
            | Self::PolicyUnavailable
            | Self::Unfit(_)
            | Self::GrpcNeedsHttp2
            | Self::NoEndpoint
            | Self::UpstreamFailed
            | Self::UpstreamTimeout => false,
        }
    }

    /// Header fields beyond `content-type` and `content-length`.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::MethodNotServed => vec![("allow", SERVED_METHODS.to_owned())],
            Self::MethodNotAllowed(allow) | Self::MethodsAsked(allow) => {
                vec![("allow", allow.join(", "))]
            }
            Self::CredentialRequired(challenges) | Self::CredentialInvalid(challenges) => {
                challenges
                    .iter()
                    .map(|challenge| ("www-authenticate", challenge.clone().into_owned()))
                    .collect()
            }
            Self::GrpcNeedsHttp2 => vec![("upgrade", "h2c".to_owned())],
            Self::ScopeMissing(scope) => vec![(
                "www-authenticate",
                format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\""),
            )],
            Self::TermsNotAccepted { link, .. } => {
                vec![("link", format!("<{link}>; rel=\"terms-of-service\""))]
            }
            Self::CredentialRevoked => vec![("www-authenticate", "Bearer".to_owned())],
            Self::Overloaded
            | Self::NoEndpoint
            | Self::PolicyUnavailable
            | Self::TooManyUnknown => {
                vec![("retry-after", RETRY_AFTER_SECONDS.to_owned())]
            }
            Self::Unpaid(why) => why.fields(),
            Self::TurnedAway(away) => vec![("retry-after", away.retry_after.to_string())],
            Self::Malformed(_)
            | Self::HeadTimeout
            | Self::HeadTooLarge
            | Self::UnknownApi
            | Self::UnknownService(_)
            | Self::Misdirected
            | Self::UnknownOperation
            | Self::BodyTooLarge
            | Self::BodyTooSlow
            | Self::Unfit(_)
            | Self::ExpectationFailed
            | Self::NotPermitted(_)
            | Self::UpstreamFailed
            | Self::UpstreamTimeout
            | Self::Internal => Vec::new(),
        }
    }

    /// The `application/problem+json` document (RFC 9457). Empty for an answer without a body.
    pub fn problem(&self, request_id: &str) -> String {
        if self.status() == 204 {
            return String::new();
        }
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut members = String::new();
        if let Self::Unpaid(why) = self {
            members = why.members();
        }
        if let Self::TermsNotAccepted {
            terms,
            version,
            link,
        } = self
        {
            let (terms, link) = (quoted(terms), quoted(link));
            members =
                format!(",\"terms\":{{\"name\":{terms},\"version\":{version},\"link\":{link}}}");
        }
        format!(
            "{{\"type\":\"urn:tollgate:problem:{}\",\"title\":{},\"status\":{},\"detail\":{},\"instance\":{}{members}}}\n",
            self.code(),
            quoted(self.title()),
            self.status(),
            quoted(&self.detail()),
            quoted(request_id),
        )
    }

    /// A complete HTTP/1.1 answer that closes the connection, for requests that never reached the journey.
    pub fn http1_answer(&self, request_id: &str) -> Vec<u8> {
        let body = self.problem(request_id);
        let reason = http::StatusCode::from_u16(self.status())
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Refused");
        let mut answer = format!("HTTP/1.1 {} {reason}\r\n", self.status());
        for (name, value) in self.fields() {
            let _ = write!(answer, "{name}: {value}\r\n");
        }
        let _ = write!(
            answer,
            "content-type: application/problem+json\r\ncontent-length: {}\r\nx-request-id: {request_id}\r\n\
             connection: close\r\n\r\n{body}",
            body.len(),
        );
        answer.into_bytes()
    }

    /// `grpc-message`: the detail, percent-encoded as gRPC over HTTP/2 demands.
    pub fn grpc_message(&self) -> String {
        percent_encoded(&self.detail())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_json_whatever_the_text() {
        let denial = Denial::Malformed("a \"quote\"\n".into());
        let problem: serde_json::Value = serde_json::from_str(&denial.problem("id")).unwrap();
        assert_eq!(problem["status"], 400);
        assert_eq!(problem["detail"], "a \"quote\"\n");
        assert!(
            problem["type"]
                .as_str()
                .unwrap()
                .ends_with("malformed_request")
        );
    }

    #[test]
    fn a_405_names_the_methods() {
        let denial = Denial::MethodNotAllowed(vec!["GET".into(), "HEAD".into()]);
        assert_eq!(denial.fields(), vec![("allow", "GET, HEAD".to_owned())]);
    }

    #[test]
    fn a_grpc_message_is_percent_encoded() {
        let denial = Denial::Malformed("100% \n".into());
        assert_eq!(denial.grpc_message(), "100%25 %0A");
    }

    #[test]
    fn the_raw_answer_states_its_length() {
        let answer = String::from_utf8(Denial::HeadTimeout.http1_answer("x")).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 408 "));
        assert!(head.contains(&format!("content-length: {}", body.len())));
    }
}
