//! From what `identify` and `decide` found to the answer a caller gets, and to the words the log keeps.

use std::borrow::Cow;

use pingora_http::RequestHeader;
use tollgate_policy::access::{Circumstances, Refusal, Values, WhyNot};
use tollgate_policy::credentials::BadCredential;

use crate::api::Api;
use crate::denial::{Denial, Forbidden};
use crate::identity::Unidentified;
use crate::identity::shown::decoded;
use crate::journey::Asked;
use crate::own;

/// The answer to a caller who was not identified.
pub(crate) fn unidentified(api: &Api, operation: usize, why: Unidentified) -> Denial {
    let settings = api.operations.get(operation).map(|it| &it.settings);
    let challenges = settings.map(|settings| settings.challenges.clone());
    answer(challenges.unwrap_or_default(), why)
}

/// The same for what Tollgate itself answers.
pub(crate) fn unidentified_own(api: &Api, why: Unidentified) -> Denial {
    let demanding = api
        .operations
        .iter()
        .find(|operation| operation.settings.demands);
    let challenges = demanding.map(|operation| operation.settings.challenges.clone());
    answer(
        challenges.unwrap_or_else(|| vec![Cow::Borrowed("Bearer")]),
        why,
    )
}

fn answer(challenges: Vec<Cow<'static, str>>, why: Unidentified) -> Denial {
    match why {
        Unidentified::Nothing => Denial::CredentialRequired(challenges),
        Unidentified::Bad(_) => Denial::CredentialInvalid(
            challenges
                .into_iter()
                .map(|challenge| match &*challenge {
                    // RFC 6750 section 3.1
                    "Bearer" => Cow::Borrowed("Bearer error=\"invalid_token\""),
                    _ => challenge,
                })
                .collect(),
        ),
        Unidentified::Scope(scope) => Denial::ScopeMissing(scope),
        Unidentified::Unknowable => Denial::PolicyUnavailable,
        Unidentified::TooManyUnknown => Denial::TooManyUnknown,
    }
}

/// Why nobody was identified, for the log.
pub(crate) fn reason_of(why: &Unidentified) -> Cow<'static, str> {
    match why {
        Unidentified::Nothing => Cow::Borrowed(""),
        Unidentified::Bad(bad) => Cow::Owned(format!("the credential is refused: {bad}")),
        Unidentified::Scope(scope) => Cow::Owned(format!("the scope `{scope}` is missing")),
        Unidentified::Unknowable => {
            Cow::Borrowed("the credential cannot be verified: keys or directory do not answer")
        }
        Unidentified::TooManyUnknown => {
            Cow::Borrowed("the source's budget of unknown credentials is used up")
        }
    }
}

/// The answer to a caller whom a rule refused.
pub(crate) fn refused(api: &Api, base_length: usize, refusal: Refusal) -> Denial {
    match refusal.why {
        WhyNot::Suspended => Denial::NotPermitted(Forbidden::Suspended),
        WhyNot::NotSubscribed => Denial::NotPermitted(Forbidden::NotSubscribed),
        WhyNot::NotInPlan => Denial::NotPermitted(Forbidden::NotInPlan),
        WhyNot::CredentialRestricted => Denial::NotPermitted(Forbidden::CredentialRestricted),
        WhyNot::CredentialExpired => answer(
            vec![Cow::Borrowed("Bearer")],
            Unidentified::Bad(BadCredential::Expired),
        ),
        WhyNot::Scope(scope) => Denial::ScopeMissing(scope),
        WhyNot::Network => Denial::NotPermitted(Forbidden::Address),
        WhyNot::Acl => Denial::NotPermitted(Forbidden::Rule),
        WhyNot::Authoriser => Denial::NotPermitted(Forbidden::Authoriser),
        WhyNot::Terms { terms, version } => Denial::TermsNotAccepted {
            link: own::terms_link(api, base_length, &terms),
            terms,
            version,
        },
        WhyNot::Undecidable => Denial::PolicyUnavailable,
    }
}

/// Which rule refused, with its place, for the log.
pub(crate) fn reason_of_refusal(refusal: &Refusal) -> Cow<'static, str> {
    let rule = &refusal.rule;
    Cow::Owned(match &rule.place {
        Some(place) => format!("{} {} ({place})", rule.kind, rule.name),
        None => format!("{} {}", rule.kind, rule.name),
    })
}

/// What rules may look at besides the identity.
pub(crate) fn circumstances<'c>(
    asked: &Asked<'c>,
    values: &'c RequestValues<'c>,
) -> Circumstances<'c> {
    let head = asked.request.head;
    Circumstances {
        now: asked.request.now,
        client: asked.request.client,
        method: head.method.as_str(),
        host: asked.host,
        path: asked.path,
        referrer: referrer(head),
        values,
    }
}

/// `Origin`, else `Referer`.
fn referrer(head: &RequestHeader) -> Option<&str> {
    let origin = head.headers.get(http::header::ORIGIN);
    let shown = origin.or_else(|| head.headers.get(http::header::REFERER));
    shown.and_then(|value| value.to_str().ok())
}

/// Values of the request, looked up by rules that ask.
pub(crate) struct RequestValues<'r> {
    /// The API.
    pub(crate) api: &'r Api,
    /// The request.
    pub(crate) asked: &'r Asked<'r>,
}

/// Fields that hold credentials; no rule sees them.
const SECRET_FIELDS: [&str; 4] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "x-api-key",
];

impl<'r> RequestValues<'r> {
    /// Every value of a query parameter, in their order.
    pub(crate) fn query_all<'n>(&self, name: &'n str) -> impl Iterator<Item = Cow<'r, str>> + 'n
    where
        'r: 'n,
    {
        let query = self.asked.request.query.unwrap_or_default();
        query.split('&').filter_map(move |pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key)? == name).then(|| decoded(value)).flatten()
        })
    }

    /// Every line of a header field, in their order; none of those that hold credentials.
    pub(crate) fn header_all(&self, name: &str) -> impl Iterator<Item = &'r str> {
        let head: &'r RequestHeader = self.asked.request.head;
        let shown = (!SECRET_FIELDS.contains(&name)).then(|| head.headers.get_all(name).iter());
        let lines = shown.into_iter().flatten();
        lines.filter_map(|value| value.to_str().ok())
    }
}

impl Values for RequestValues<'_> {
    fn path(&self, name: &str) -> Option<Cow<'_, str>> {
        let method = self.asked.request.head.method.as_str();
        let classifier = &self.api.classifier;
        let matched = classifier.classify(method, self.asked.path).ok()?;
        let mut parameters = matched.parameters.into_iter();
        let (_, value) = parameters.find(|(known, _)| *known == name)?;
        Some(Cow::Owned(value.into_owned()))
    }

    fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        self.query_all(name).next()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.header_all(name).next().map(Cow::Borrowed)
    }
}
