//! One hop charges: where a call passes a gateway and then a sidecar, the gateway says whom it admitted, and the sidecar believes it because
//! the connection is the gateway's. It judges access, terms and revocation again, and neither reserves quota nor bills.
//!
//! What came with the call from elsewhere is dropped at the door like every other claim of a client. What is believed: the form, the peer,
//! the API, the operation, the time, and that it was not used before. Not here: the form itself (`tollgate_policy::admission`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::RequestHeader;
use serde_json::{Map, Value, json};
use tollgate_policy::access::{Identity, Outcome, RuleRef, Witness};
use tollgate_policy::admission::{Admission, BadAdmission, FIELD, LIFETIME};
use tollgate_policy::credentials::{BadCredential, Claims};
use tollgate_policy::directory::{
    Caller, Consumer, Credential, Defined, Plan, PlanApi, Price, Subscription,
};
use tollgate_policy::settings::FailureMode;
use tollgate_policy::time::Timestamp;
use tollgate_policy::workload::{Kind, WorkloadId};

use crate::api::Api;
use crate::identity::held::NoAnswer;
use crate::identity::{Identified, Identities, Request, Unidentified, clock};
use crate::journey::Admitted;
use crate::request::Exchange;

/// Says what was admitted, where the call goes to an instance of a service of the installation.
///
/// # Errors
/// None for what was admitted: what does not fit is left out, and the sidecar judges for itself.
pub(crate) fn write(
    head: &mut RequestHeader,
    exchange: &Exchange,
    admitted: &Admitted,
) -> Result<()> {
    if !admitted.api.in_mesh {
        return Ok(());
    }
    let identity = exchange.shared.identity.as_ref();
    let held = identity.and_then(|identity| identity.current());
    let Some(held) = held.filter(|held| held.id.kind() == Kind::Gateway) else {
        return Ok(());
    };
    let mut admission = of(exchange, admitted, held.id.clone());
    let written = admission.encode().or_else(|_| {
        // Rules about single claims then refuse at the sidecar: better than to bill twice.
        admission.claims.retain(|(name, _)| &**name != ALL);
        admission.encode()
    });
    let Ok(written) = written else { return Ok(()) };
    let value = HeaderValue::try_from(written).or_err(ErrorType::InternalError, "admission")?;
    head.insert_header(FIELD, value)
}

/// Every claim of the token, as JSON.
const ALL: &str = "all";

fn of(exchange: &Exchange, admitted: &Admitted, issuer: WorkloadId) -> Admission {
    let identity = &admitted.identified.identity;
    let api = &admitted.api;
    let operation = admitted.operation();
    let plan = identity.subscription(&api.config.name);
    let held = admitted.identified.held.as_ref();
    let in_full = operation.is_some_and(|it| it.settings.on_unavailable != FailureMode::FailClosed);
    Admission {
        issuer,
        audience: Arc::clone(&api.config.name),
        operation: operation.map_or_else(|| "".into(), |it| Arc::clone(&it.name)),
        request_id: exchange.request_id.as_str().into(),
        generation: api.generation,
        issued: clock::now(),
        lifetime: LIFETIME,
        nonce: nonce(),
        credential: held.map(|held| held.reference.clone()),
        end_user: identity.claims.as_ref().map(|it| Arc::clone(&it.subject)),
        plan: plan.map_or_else(|| "".into(), |it| Arc::clone(&it.plan.name)),
        claims: told(identity, &api.config.name, in_full),
    }
}

/// Random, and another one each time: hash maps take theirs from the same source.
fn nonce() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish()
}

/// `in_full`: also what only a sidecar needs that can ask nobody else.
fn told(identity: &Identity, api: &str, in_full: bool) -> Vec<(Arc<str>, Arc<str>)> {
    let mut told: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    let mut put = |name: &str, value: String| told.push((name.into(), value.into()));
    if let Some(certificate) = &identity.certificate {
        put("certificate", certificate.to_string());
    }
    let list = |texts: &mut dyn Iterator<Item = &Arc<str>>| {
        Value::Array(texts.map(|text| Value::from(&**text)).collect()).to_string()
    };
    if let Some(caller) = identity.caller.as_ref().filter(|_| in_full) {
        let consumer = &caller.consumer;
        put("caller.name", consumer.name.to_string());
        put("caller.project", consumer.project.to_string());
        put("caller.organisation", consumer.organisation.to_string());
        put("caller.credential", caller.credential.id.to_string());
        let of_plan = identity.subscription(api).map(|held| &held.plan.roles);
        let roles = consumer.roles.iter().chain(of_plan.into_iter().flatten());
        put("caller.roles", list(&mut { roles }));
    }
    if let Some(claims) = &identity.claims {
        put("iss", claims.issuer.to_string());
        put("client", claims.client.to_string());
        put("jti", claims.id.to_string());
        put("scopes", list(&mut claims.scopes.iter()));
        put("roles", list(&mut claims.roles.iter()));
        for (name, time) in [("exp", claims.expires), ("iat", claims.issued)] {
            if let Some(time) = time {
                put(name, time.millis().to_string());
            }
        }
        put(ALL, json!(claims.all).to_string());
    }
    told
}

/// What a sidecar was told of the call, where its peer is a gateway of the installation. What anybody else says is nothing.
pub(crate) fn shown<'h>(head: &'h RequestHeader, peer: Option<&WorkloadId>) -> Option<&'h [u8]> {
    peer.filter(|peer| peer.kind() == Kind::Gateway)?;
    head.headers.get(FIELD).map(HeaderValue::as_bytes)
}

impl Exchange {
    /// How the client reached the gateway before us.
    pub(crate) fn said_by_gateway(&self, head: &RequestHeader) -> Option<&'static str> {
        let peer = self.workload.as_ref();
        peer.filter(|peer| peer.kind() == Kind::Gateway)?;
        match head.headers.get("x-forwarded-proto")?.as_bytes() {
            b"http" => Some("http"),
            b"https" => Some("https"),
            _ => None,
        }
    }
}

impl Identities {
    /// Who calls, as the gateway before us found out; whether that still stands is looked up here.
    ///
    /// # Errors
    /// The admission does not count, or what it names was revoked; [`Unidentified::Unknowable`] where that cannot be said.
    pub(crate) async fn admitted(
        &self,
        (api, operation): (&Api, usize),
        value: &[u8],
        request: Request<'_>,
    ) -> std::result::Result<Identified, Unidentified> {
        let admission = self.believed(api, operation, value, request);
        let admission = admission.map_err(|why| {
            self.admissions.refused(why);
            Unidentified::Bad(match why {
                BadAdmission::Expired => BadCredential::Expired,
                BadAdmission::OtherApi => BadCredential::Audience,
                _ => BadCredential::Malformed,
            })
        })?;
        let mut identified = Identified {
            admitted_by: Some(admission.issuer.clone()),
            ..Identified::default()
        };
        let text = |name: &str| {
            let mut claims = admission.claims.iter();
            claims.find(|(own, _)| **own == *name).map(|(_, it)| it)
        };
        let settings = api.operations.get(operation).map(|it| &it.settings);
        let closed = settings.is_none_or(|it| it.on_unavailable == FailureMode::FailClosed);
        let stands = |identified: &mut Identified, revoked: Option<bool>| match revoked {
            Some(false) => Ok(()),
            Some(true) => Err(Unidentified::Bad(BadCredential::Revoked)),
            None if closed => Err(Unidentified::Unknowable),
            None => {
                identified.on_word = true;
                Ok(())
            }
        };
        if let Some(name) = text("certificate") {
            stands(&mut identified, self.directory.certificate_revoked(name))?;
            identified.identity.certificate = Some(Arc::clone(name));
        }
        if let Some(claims) = claims(&admission) {
            let claims = Arc::new(claims);
            // In this order: a revocation after the question finds what the call stands on.
            identified.standings.push(self.tokens.stands(&claims));
            stands(&mut identified, self.directory.token_revoked(&claims))?;
            identified.identity.claims = Some(claims);
        }
        self.admitted_caller(&admission, closed, &mut identified)
            .await?;
        if identified.on_word {
            self.admissions.on_word.fetch_add(1, Ordering::Relaxed);
        }
        Ok(identified)
    }

    /// Whose the credential of an admission is. `closed`: where nobody can say, the gateway's word does not suffice.
    async fn admitted_caller(
        &self,
        admission: &Admission,
        closed: bool,
        identified: &mut Identified,
    ) -> std::result::Result<(), Unidentified> {
        let Some(reference) = &admission.credential else {
            return Ok(());
        };
        // The gateway has verified it: no guess.
        let held = match self.directory.find_proven(reference).await {
            Err(NoAnswer::Unavailable) if !closed => {
                identified.on_word = true;
                self.directory.unasked(reference, caller(admission))
            }
            found => found?,
        };
        if held.caller.is_none() && identified.identity.is_anonymous() {
            return Err(match identified.on_word {
                true => Unidentified::Unknowable,
                false => Unidentified::Bad(BadCredential::Unknown),
            });
        }
        identified.stands_on(held)
    }

    fn believed(
        &self,
        api: &Api,
        operation: usize,
        value: &[u8],
        request: Request<'_>,
    ) -> std::result::Result<Admission, BadAdmission> {
        let admission = Admission::decode(value)?;
        let peer = request.workload.ok_or(BadAdmission::Foreign)?;
        let from = &api.config.admissions_from;
        let believed = |peer: &WorkloadId| from.is_empty() || from.contains(peer.name());
        admission.check(peer, believed, &api.config.name, request.now)?;
        let operation = api.operations.get(operation);
        if operation.is_none_or(|it| it.name != admission.operation) {
            return Err(BadAdmission::OtherApi);
        }
        self.admissions.first_use(&admission, request.now)?;
        Ok(admission)
    }
}

/// The caller as the gateway told of it: enough for rules and records. What was sold to it, and what it accepted, that one has judged.
fn caller(admission: &Admission) -> Option<Arc<Caller>> {
    let text = |name: &str| {
        let mut claims = admission.claims.iter();
        claims.find(|(own, _)| **own == *name).map(|(_, it)| it)
    };
    let roles = text("caller.roles").and_then(|it| serde_json::from_str::<Vec<String>>(it).ok());
    let plan = (!admission.plan.is_empty()).then(|| Subscription {
        api: Arc::clone(&admission.audience),
        plan: Arc::new(Plan {
            name: Arc::clone(&admission.plan),
            apis: vec![PlanApi {
                api: Arc::clone(&admission.audience),
                operations: None,
            }],
            roles: Vec::new(),
            terms: Vec::new(),
            limits: Vec::new(),
            price: Price::default(),
            origin: Defined::Store,
        }),
        duties: Vec::new(),
        limits: Vec::new(),
    });
    Some(Arc::new(Caller {
        consumer: Arc::new(Consumer {
            name: Arc::clone(text("caller.name")?),
            project: Arc::clone(text("caller.project")?),
            organisation: Arc::clone(text("caller.organisation")?),
            suspended: false,
            roles: roles?.into_iter().map(Arc::from).collect(),
            explains: false,
            subscriptions: plan.into_iter().collect(),
            overrides: Vec::new(),
            origin: Defined::Store,
        }),
        credential: Credential {
            id: Arc::clone(text("caller.credential")?),
            not_before: None,
            expires: None,
            operations: None,
            networks: Vec::new(),
            referrers: Vec::new(),
            password: None,
        },
    }))
}

/// Tells an explanation on what the caller was believed.
pub(crate) fn explain(identified: &Identified, witness: &mut impl Witness) {
    let gateway = identified.admitted_by.as_ref().map(WorkloadId::to_string);
    let rule = RuleRef {
        kind: "admission",
        name: gateway.unwrap_or_default().into(),
        place: None,
    };
    witness.rule(&rule, Outcome::Passed, format_args!("{ON_WORD}"));
}

/// For the log, where nobody here could say who calls.
pub(crate) const ON_WORD: &str = "on the gateway's word: the control plane is away";

/// The token's claims; `None`: no token was shown.
fn claims(admission: &Admission) -> Option<Claims> {
    let text = |name: &str| {
        let mut claims = admission.claims.iter();
        claims.find(|(own, _)| **own == *name).map(|(_, it)| &**it)
    };
    let list = |name: &str| -> Vec<Arc<str>> {
        let texts: Vec<String> = text(name)
            .and_then(|it| serde_json::from_str(it).ok())
            .unwrap_or_default();
        texts.into_iter().map(Arc::from).collect()
    };
    let time = |name: &str| {
        let millis = text(name)?.parse().ok()?;
        Some(Timestamp::from_millis(millis))
    };
    let all: Option<Map<String, Value>> = text(ALL).and_then(|it| serde_json::from_str(it).ok());
    Some(Claims {
        issuer: text("iss")?.into(),
        subject: admission.end_user.clone().unwrap_or_default(),
        client: text("client")?.into(),
        scopes: list("scopes"),
        roles: list("roles"),
        id: text("jti")?.into(),
        expires: time("exp"),
        not_before: None,
        issued: time("iat"),
        all: all.unwrap_or_default(),
    })
}

/// Admissions that came here: which were used, and why others were not believed.
#[derive(Debug, Default)]
pub(crate) struct Admissions {
    used: parking_lot::Mutex<tollgate_policy::admission::Replays>,
    believed: AtomicU64,
    /// Of these, calls of whose caller nobody here could say anything.
    on_word: AtomicU64,
    refused: parking_lot::Mutex<std::collections::BTreeMap<&'static str, u64>>,
}

impl Admissions {
    fn first_use(
        &self,
        admission: &Admission,
        now: Timestamp,
    ) -> std::result::Result<(), BadAdmission> {
        self.used.lock().first_use(admission, now)?;
        self.believed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn refused(&self, why: BadAdmission) {
        *self.refused.lock().entry(why.as_str()).or_default() += 1;
    }

    /// Adds the numbers to a page of metrics.
    pub(crate) fn write_page(&self, page: &mut String) {
        use std::fmt::Write as _;
        let name = "tollgate_admissions_total";
        let believed = self.believed.load(Ordering::Relaxed);
        let refused = self.refused.lock().clone();
        if believed == 0 && refused.is_empty() {
            return;
        }
        let help = "Calls a gateway before us said it had admitted.";
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} counter");
        let _ = writeln!(page, "{name}{{result=\"believed\"}} {believed}");
        for (why, count) in refused {
            let _ = writeln!(page, "{name}{{result=\"{why}\"}} {count}");
        }
        let name = "tollgate_admissions_on_word_total";
        let help = "Of the believed, calls of whose caller nobody could say more while the control plane was away.";
        let on_word = self.on_word.load(Ordering::Relaxed);
        let _ = writeln!(
            page,
            "# HELP {name} {help}\n# TYPE {name} counter\n{name} {on_word}"
        );
    }
}
