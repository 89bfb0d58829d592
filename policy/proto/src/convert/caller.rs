//! Credentials, the callers they lead to, and what was sold to those.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tollgate_policy::directory::{
    Caller, Consumer, Credential, CredentialRef, Plan, PlanApi, Price, Secret, Subscription,
    TermsDuty, TermsVersion,
};
use tollgate_policy::settings::{Grantee, LimitOverride, Network, Quantity};

use super::{
    Common, Malformed, claim, digest, list, name, needed, needed_time, operations, text, texts,
    time, to_millis, to_operations, to_texts, to_time,
};
use crate::wire::{self, credential_ref, limit_override, resolve_response::Answer as Resolution};
use crate::{Answer, Resolved};

/// One frame of questions: who has these credentials? `None` without any. Numbers are the sender's choice and come back with the answers.
pub fn resolve_request<'c>(
    questions: impl IntoIterator<Item = (u64, &'c CredentialRef)>,
) -> Option<wire::ResolveRequest> {
    let mut questions = questions.into_iter();
    let (number, first) = questions.next()?;
    let more = questions.map(|(number, credential)| wire::ResolveQuestion {
        number,
        credential: Some(credential.into()),
    });
    Some(wire::ResolveRequest {
        number,
        credential: Some(first.into()),
        more: more.collect(),
    })
}

/// The questions of a frame, with their numbers.
///
/// # Errors
/// One of them cannot be used, or there are more than a list may have.
pub fn resolve_questions(
    request: wire::ResolveRequest,
) -> Result<Vec<(u64, CredentialRef)>, Malformed> {
    let first = wire::ResolveQuestion {
        number: request.number,
        credential: request.credential,
    };
    let more = list(request.more, "resolve_request.more", question)?;
    let mut questions = vec![question(first)?];
    questions.extend(more);
    Ok(questions)
}

fn question(question: wire::ResolveQuestion) -> Result<(u64, CredentialRef), Malformed> {
    let credential = needed(question.credential, "resolve_request.credential")?;
    Ok((question.number, credential.try_into()?))
}

/// The answer to the question of this number: who it is, or that it is nobody, says the store of `installation`.
pub fn resolve_response(
    number: u64,
    resolved: &Resolved,
    installation: &str,
) -> wire::ResolveResponse {
    let answer = match &resolved.caller {
        Some(caller) => Resolution::Caller(wire::Caller::from(&**caller)),
        None => Resolution::Nobody(wire::Nobody {}),
    };
    wire::ResolveResponse {
        number,
        generation: resolved.generation,
        answer: Some(answer),
        installation: installation.to_owned(),
    }
}

/// The answer to the question of this number: why it cannot be said.
pub fn refused_resolve(number: u64, why: &str) -> wire::ResolveResponse {
    wire::ResolveResponse {
        number,
        generation: 0,
        answer: Some(Resolution::Refused(super::cut(why))),
        installation: String::new(),
    }
}

/// What was answered to [`crate::Question::Resolve`]: [`Answer::Resolved`] or [`Answer::Refused`].
///
/// # Errors
/// There is no answer in it, or none that can be used. It must not be taken for "nobody": that would be remembered.
pub fn resolved(response: wire::ResolveResponse) -> Result<Answer, Malformed> {
    let generation = response.generation;
    text(response.installation, "resolve_response.installation")?;
    let caller = match needed(response.answer, "resolve_response.answer")? {
        Resolution::Caller(caller) => Some(Arc::new(caller.try_into()?)),
        Resolution::Nobody(wire::Nobody {}) => None,
        Resolution::Refused(why) => {
            let why = text(why, "resolve_response.refused")?;
            return Ok(Answer::Refused(why.to_string()));
        }
    };
    Ok(Answer::Resolved(Resolved { caller, generation }))
}

impl From<&CredentialRef> for wire::CredentialRef {
    fn from(credential: &CredentialRef) -> Self {
        let kind = match credential {
            CredentialRef::Key(digest) => credential_ref::Kind::Key(digest.0.to_vec()),
            CredentialRef::Login { issuer, client } => credential_ref::Kind::Login(wire::Login {
                issuer: issuer.to_string(),
                client: client.to_string(),
            }),
            CredentialRef::Certificate(name) => credential_ref::Kind::Certificate(name.to_string()),
            CredentialRef::User(name) => credential_ref::Kind::User(name.to_string()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::CredentialRef> for CredentialRef {
    type Error = Malformed;

    fn try_from(credential: wire::CredentialRef) -> Result<Self, Malformed> {
        match needed(credential.kind, "credential_ref.kind")? {
            credential_ref::Kind::Key(bytes) => digest(bytes, "credential_ref.key").map(Self::Key),
            credential_ref::Kind::Login(login) => Ok(Self::Login {
                issuer: claim(login.issuer, "login.issuer")?,
                client: claim(login.client, "login.client")?,
            }),
            credential_ref::Kind::Certificate(name) => {
                claim(name, "credential_ref.certificate").map(Self::Certificate)
            }
            credential_ref::Kind::User(name) => claim(name, "credential_ref.user").map(Self::User),
        }
    }
}

impl From<&Caller> for wire::Caller {
    fn from(caller: &Caller) -> Self {
        Self {
            consumer: Some(wire::Consumer::from(&*caller.consumer)),
            credential: Some(wire::Credential::from(&caller.credential)),
        }
    }
}

impl TryFrom<wire::Caller> for Caller {
    type Error = Malformed;

    fn try_from(caller: wire::Caller) -> Result<Self, Malformed> {
        Ok(Self {
            consumer: Arc::new(needed(caller.consumer, "caller.consumer")?.try_into()?),
            credential: needed(caller.credential, "caller.credential")?.try_into()?,
        })
    }
}

impl From<&Consumer> for wire::Consumer {
    fn from(consumer: &Consumer) -> Self {
        let subscriptions = consumer.subscriptions.iter();
        Self {
            name: consumer.name.to_string(),
            project: consumer.project.to_string(),
            organisation: consumer.organisation.to_string(),
            suspended: consumer.suspended,
            roles: to_texts(&consumer.roles),
            explains: consumer.explains,
            subscriptions: subscriptions.map(wire::Subscription::from).collect(),
            defined: Some(wire::Defined::from(&consumer.origin)),
            overrides: consumer
                .overrides
                .iter()
                .map(wire::LimitOverride::from)
                .collect(),
        }
    }
}

impl TryFrom<wire::Consumer> for Consumer {
    type Error = Malformed;

    fn try_from(consumer: wire::Consumer) -> Result<Self, Malformed> {
        let mut common = Common::default();
        let subscriptions = consumer.subscriptions;
        Ok(Self {
            name: name(consumer.name, "consumer.name")?,
            project: text(consumer.project, "consumer.project")?,
            organisation: text(consumer.organisation, "consumer.organisation")?,
            suspended: consumer.suspended,
            roles: texts(consumer.roles, "consumer.roles")?,
            explains: consumer.explains,
            subscriptions: list(subscriptions, "consumer.subscriptions", |it| {
                subscription(it, &mut common)
            })?,
            overrides: list(
                consumer.overrides,
                "consumer.overrides",
                LimitOverride::try_from,
            )?,
            origin: needed(consumer.defined, "consumer.defined")?.try_into()?,
        })
    }
}

impl From<&LimitOverride> for wire::LimitOverride {
    fn from(it: &LimitOverride) -> Self {
        let quantity = match &it.quantity {
            Quantity::Amount(text) => limit_override::Quantity::Amount(text.to_string()),
            Quantity::Extra(text) => limit_override::Quantity::Extra(text.to_string()),
        };
        let grantee = match it.grantee {
            Grantee::Organisation => wire::Grantee::Organisation,
            Grantee::Project => wire::Grantee::Project,
            Grantee::Consumer => wire::Grantee::Consumer,
        };
        Self {
            grantee: grantee.into(),
            limit: it.limit.to_string(),
            quantity: Some(quantity),
            cap: it.cap,
        }
    }
}

impl TryFrom<wire::LimitOverride> for LimitOverride {
    type Error = Malformed;

    fn try_from(it: wire::LimitOverride) -> Result<Self, Malformed> {
        let unknown = Malformed("limit_override.grantee");
        let grantee = match wire::Grantee::try_from(it.grantee).map_err(|_| unknown)? {
            wire::Grantee::Unspecified => return Err(unknown),
            wire::Grantee::Organisation => Grantee::Organisation,
            wire::Grantee::Project => Grantee::Project,
            wire::Grantee::Consumer => Grantee::Consumer,
        };
        let quantity = match needed(it.quantity, "limit_override.quantity")? {
            limit_override::Quantity::Amount(amount) => {
                Quantity::Amount(name(amount, "limit_override.amount")?)
            }
            limit_override::Quantity::Extra(extra) => {
                Quantity::Extra(name(extra, "limit_override.extra")?)
            }
        };
        Ok(Self {
            grantee,
            limit: name(it.limit, "limit_override.limit")?,
            quantity,
            cap: it.cap,
        })
    }
}

impl From<&Subscription> for wire::Subscription {
    fn from(subscription: &Subscription) -> Self {
        let limits = subscription.limits.iter();
        Self {
            api: subscription.api.to_string(),
            plan: Some(wire::Plan::from(&*subscription.plan)),
            duties: subscription
                .duties
                .iter()
                .map(wire::TermsDuty::from)
                .collect(),
            limits: limits.map(|limit| wire::Limit::from(&**limit)).collect(),
        }
    }
}

impl TryFrom<wire::Subscription> for Subscription {
    type Error = Malformed;

    fn try_from(it: wire::Subscription) -> Result<Self, Malformed> {
        subscription(it, &mut Common::default())
    }
}

fn subscription(it: wire::Subscription, common: &mut Common) -> Result<Subscription, Malformed> {
    // The plan first: most limits of the subscription are the plan's own.
    let plan = common.plan(needed(it.plan, "subscription.plan")?)?;
    Ok(Subscription {
        api: name(it.api, "subscription.api")?,
        plan,
        duties: list(it.duties, "subscription.duties", TermsDuty::try_from)?,
        limits: list(it.limits, "subscription.limits", |limit| {
            common.limit(limit)
        })?,
    })
}

impl From<&Plan> for wire::Plan {
    fn from(plan: &Plan) -> Self {
        let limits = plan.limits.iter();
        Self {
            name: plan.name.to_string(),
            apis: plan.apis.iter().map(wire::PlanApi::from).collect(),
            roles: to_texts(&plan.roles),
            terms: to_texts(&plan.terms),
            limits: limits.map(|limit| wire::Limit::from(&**limit)).collect(),
            price: Some(wire::Price::from(&plan.price)),
            defined: Some(wire::Defined::from(&plan.origin)),
        }
    }
}

impl TryFrom<wire::Plan> for Plan {
    type Error = Malformed;

    fn try_from(it: wire::Plan) -> Result<Self, Malformed> {
        plan(it, &mut Common::default())
    }
}

pub(super) fn plan(plan: wire::Plan, common: &mut Common) -> Result<Plan, Malformed> {
    Ok(Plan {
        name: name(plan.name, "plan.name")?,
        apis: list(plan.apis, "plan.apis", PlanApi::try_from)?,
        roles: texts(plan.roles, "plan.roles")?,
        terms: texts(plan.terms, "plan.terms")?,
        limits: list(plan.limits, "plan.limits", |limit| common.limit(limit))?,
        price: needed(plan.price, "plan.price")?.try_into()?,
        origin: needed(plan.defined, "plan.defined")?.try_into()?,
    })
}

impl From<&Price> for wire::Price {
    fn from(price: &Price) -> Self {
        Self {
            version: price.version,
            currency: price.currency.to_string(),
        }
    }
}

impl TryFrom<wire::Price> for Price {
    type Error = Malformed;

    fn try_from(price: wire::Price) -> Result<Self, Malformed> {
        Ok(Self {
            version: price.version,
            currency: name(price.currency, "price.currency")?,
        })
    }
}

impl From<&PlanApi> for wire::PlanApi {
    fn from(opened: &PlanApi) -> Self {
        Self {
            api: opened.api.to_string(),
            operations: to_operations(opened.operations.as_deref()),
        }
    }
}

impl TryFrom<wire::PlanApi> for PlanApi {
    type Error = Malformed;

    fn try_from(opened: wire::PlanApi) -> Result<Self, Malformed> {
        Ok(Self {
            api: name(opened.api, "plan_api.api")?,
            operations: operations(opened.operations, "plan_api.operations")?,
        })
    }
}

impl From<&TermsDuty> for wire::TermsDuty {
    fn from(duty: &TermsDuty) -> Self {
        let versions = duty.versions.iter();
        Self {
            terms: duty.terms.to_string(),
            accepted: duty.accepted,
            versions: versions.map(wire::TermsVersion::from).collect(),
            shadow: duty.shadow,
            defined: Some(wire::Defined::from(&duty.origin)),
        }
    }
}

impl TryFrom<wire::TermsDuty> for TermsDuty {
    type Error = Malformed;

    fn try_from(duty: wire::TermsDuty) -> Result<Self, Malformed> {
        Ok(Self {
            terms: name(duty.terms, "terms_duty.terms")?,
            accepted: duty.accepted,
            versions: list(duty.versions, "terms_duty.versions", TermsVersion::try_from)?,
            shadow: duty.shadow,
            origin: needed(duty.defined, "terms_duty.defined")?.try_into()?,
        })
    }
}

impl From<&TermsVersion> for wire::TermsVersion {
    fn from(version: &TermsVersion) -> Self {
        Self {
            version: version.version,
            effective: Some(to_time(version.effective)),
            grace_millis: to_millis(version.grace),
            text_hash: version.text_hash.to_string(),
            purpose_required: version.purpose_required,
        }
    }
}

impl TryFrom<wire::TermsVersion> for TermsVersion {
    type Error = Malformed;

    fn try_from(version: wire::TermsVersion) -> Result<Self, Malformed> {
        Ok(Self {
            version: version.version,
            effective: needed_time(version.effective, "terms_version.effective")?,
            grace: Duration::from_millis(version.grace_millis),
            text_hash: text(version.text_hash, "terms_version.text_hash")?,
            purpose_required: version.purpose_required,
        })
    }
}

impl From<&Credential> for wire::Credential {
    fn from(credential: &Credential) -> Self {
        let networks = credential.networks.iter();
        let password = credential.password.as_ref();
        Self {
            id: credential.id.to_string(),
            not_before: credential.not_before.map(to_time),
            expires: credential.expires.map(to_time),
            operations: to_operations(credential.operations.as_deref()),
            networks: networks
                .map(|network| format!("{}/{}", network.address, network.prefix))
                .collect(),
            referrers: to_texts(&credential.referrers),
            password: password.map(|hash| hash.reveal().to_owned()),
        }
    }
}

impl TryFrom<wire::Credential> for Credential {
    type Error = Malformed;

    fn try_from(it: wire::Credential) -> Result<Self, Malformed> {
        let moment = |part: Option<_>, field| part.map(|part| time(part, field)).transpose();
        let password = it.password;
        if it.id.is_empty() {
            return Err(Malformed("credential.id"));
        }
        Ok(Self {
            // A login's names the client of a token.
            id: claim(it.id, "credential.id")?,
            not_before: moment(it.not_before, "credential.not_before")?,
            expires: moment(it.expires, "credential.expires")?,
            operations: operations(it.operations, "credential.operations")?,
            networks: list(it.networks, "credential.networks", |written| {
                network(&written).ok_or(Malformed("credential.networks"))
            })?,
            referrers: texts(it.referrers, "credential.referrers")?,
            password: password
                .map(|hash| text(hash, "credential.password").map(Secret::new))
                .transpose()?,
        })
    }
}

/// `ADDRESS/BITS`. Bits beyond the prefix are a slip of whoever wrote it; what was meant is not guessed.
fn network(written: &str) -> Option<Network> {
    let (address, bits) = written.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let prefix = bits.parse().ok()?;
    let (value, width) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let beyond = u32::checked_sub(width, u32::from(prefix))?;
    let hosts = u128::MAX.checked_shr(128 - beyond).unwrap_or(0);
    (value & hosts == 0).then_some(Network { address, prefix })
}
