//! Why a caller who is known may not.

/// Why a known caller may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// The consumer is suspended.
    Suspended,
    /// The consumer has no plan for this API.
    NotSubscribed,
    /// The plan does not open this operation.
    NotInPlan,
    /// The credential is not for this operation, address or referrer.
    CredentialRestricted,
    /// The address is not allowed.
    Address,
    /// A rule of the API forbids it.
    Rule,
    /// The external authoriser said no.
    Authoriser,
    /// A browser asks for a page of another site, with whatever credential it holds for this one.
    Origin,
}

impl Forbidden {
    /// What the caller may read.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::Suspended => "the consumer is suspended",
            Self::NotSubscribed => "the consumer has no plan for this API",
            Self::NotInPlan => "the consumer's plan does not include this operation",
            Self::CredentialRestricted => {
                "the credential is not for this operation, address or referrer"
            }
            Self::Address => "calls from this address are not allowed",
            Self::Rule => "the rules of this API do not permit this call",
            Self::Authoriser => "the authoriser of this API refused the call",
            Self::Origin => "a page of another site may not open a WebSocket here",
        }
    }
}
