//! Why a call is answered as it is: every rule that took part, with its place, its values and its verdict.
//!
//! The very code that decides is asked, with a witness that keeps what it is told. Three ways here: a call described to the admin port, a
//! recent call by its request id, and a header for callers who may see it. Recent calls are kept in a ring of fixed size; their
//! credentials are not.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use pingora_http::RequestHeader;
use serde::{Deserialize, Serialize};
use tollgate_policy::access::{CredentialPlace, Explanation, Identity, Outcome, RuleRef, Witness};
use tollgate_policy::time::Timestamp;

use crate::api::Api;
use crate::denial::Denial;
use crate::door::asked::{raw_host, target_of};
use crate::forward::caller::without_parameter;
use crate::identity::{self, Identified};
use crate::journey::{Asked, Called, Journey, Peer, Shared};
use crate::request::{CurrentPolicy, Exchange, decide};

/// Asks for the explanation, and carries it.
pub const FIELD: &str = "x-tollgate-explain";

/// Calls kept.
const RECENT: usize = 1024;

/// Longest path and query kept of a call.
const LONGEST_PATH: usize = 512;

/// Longest explanation in a header field.
const LONGEST_FIELD: usize = 4096;

/// A witness that keeps what it is told only if somebody asked.
#[derive(Debug, Default)]
pub struct Ear {
    heard: Option<Box<Explanation>>,
    may_see: bool,
}

impl Ear {
    /// Keeps everything.
    pub fn listening() -> Self {
        Self {
            heard: Some(Box::default()),
            may_see: false,
        }
    }

    /// The caller is known: it may see the explanation, or may not.
    pub fn show_to(&mut self, identified: &Identified) {
        let caller = identified.identity.caller.as_ref();
        self.may_see = caller.is_some_and(|caller| caller.consumer.explains);
    }

    /// The explanation as a field value, one line of ASCII, where the caller may see it.
    pub fn shown(&self) -> Option<String> {
        let explanation = self.heard.as_ref().filter(|_| self.may_see)?;
        let lines: Vec<String> = explanation.lines.iter().map(ToString::to_string).collect();
        let mut text = lines.join("; ");
        text.retain(|c| c == ' ' || c.is_ascii_graphic());
        text.truncate(LONGEST_FIELD);
        Some(text)
    }

    /// What was heard.
    pub fn heard(&self) -> Option<&Explanation> {
        self.heard.as_deref()
    }
}

impl Witness for Ear {
    fn rule(&mut self, rule: &RuleRef, outcome: Outcome, detail: std::fmt::Arguments<'_>) {
        if let Some(explanation) = &mut self.heard {
            explanation.rule(rule, outcome, detail);
        }
    }
}

/// A call as it is described.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Described {
    /// Method.
    pub method: String,
    /// `http://host/path?query`, or a path alone.
    pub url: String,
    /// Header fields.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Client address.
    pub client: Option<IpAddr>,
}

/// What became of it, and why.
#[derive(Debug, Default, Serialize)]
pub struct Explained {
    /// API; empty for none.
    pub api: String,
    /// Generation of the API's snapshot.
    pub generation: u64,
    /// Operation; empty for none.
    pub operation: String,
    /// Consumer; empty for none.
    pub consumer: String,
    /// Credential by public identifier; empty for none.
    pub credential: String,
    /// Plan; empty for none.
    pub plan: String,
    /// How old the directory's answer about the credential is, in milliseconds.
    pub held_for_ms: Option<u64>,
    /// `allow`, or the denial's code.
    pub verdict: String,
    /// HTTP status of the denial; 0 for none.
    pub status: u16,
    /// What the log keeps of the reason.
    pub reason: String,
    /// Every rule that took part.
    pub rules: Explanation,
    /// When it was decided; for recent calls the original moment.
    pub at: String,
    /// What the explanation cannot know.
    pub note: String,
}

/// Explains a call as if it came now. Nothing is forwarded, counted or logged.
///
/// # Errors
/// The description is no request.
pub async fn described(shared: &Arc<Shared>, call: &Described) -> Result<Explained, String> {
    let head = call.head()?;
    let peer = Peer {
        client: call.client,
        ..Peer::default()
    };
    let (journey, ear, reason) = Exchange::explain(shared.clone(), &head, &peer).await;
    let mut explained = Explained {
        reason,
        rules: ear.heard().cloned().unwrap_or_default(),
        at: identity::clock::now().to_string(),
        ..Explained::default()
    };
    explained.ended(&journey);
    Ok(explained)
}

impl Described {
    /// The head of such a call.
    fn head(&self) -> Result<RequestHeader, String> {
        let (host, target) = match self.url.split_once("://") {
            Some((_, rest)) => {
                let at = rest.find(['/', '?']).unwrap_or(rest.len());
                rest.split_at(at)
            }
            None => ("localhost", self.url.as_str()),
        };
        let target = if target.starts_with('/') {
            target.to_owned()
        } else {
            format!("/{target}")
        };
        let mut head = RequestHeader::build(&*self.method, target.as_bytes(), None)
            .map_err(|error| format!("`{} {target}` is no request: {error}", self.method))?;
        let wrong = |name: &str| format!("`{name}` is no header field");
        head.insert_header("host", host)
            .map_err(|_| wrong("host"))?;
        for (name, value) in &self.headers {
            head.append_header(name.to_ascii_lowercase(), value)
                .map_err(|_| wrong(name))?;
        }
        Ok(head)
    }
}

impl Explained {
    /// Takes in how the journey ended.
    fn ended(&mut self, journey: &Journey) {
        match journey {
            Journey::Admitted(admitted) => {
                self.about(&admitted.api, Some(admitted.operation));
                self.by(&admitted.identified.identity, &admitted.api);
                self.held_for_ms = admitted.identified.held_for_ms();
                "allow".clone_into(&mut self.verdict);
            }
            Journey::Own(own) => {
                self.about(&own.api, None);
                self.by(&own.identified.identity, &own.api);
                "allow".clone_into(&mut self.verdict);
            }
            Journey::Refused {
                denial,
                api,
                operation,
                identified,
            } => {
                if let Some(api) = api {
                    self.about(api, *operation);
                    if let Some(identified) = identified {
                        self.by(&identified.identity, api);
                        self.held_for_ms = identified.held_for_ms();
                    }
                }
                self.refused(denial);
            }
            Journey::Arrived => {}
        }
    }

    fn about(&mut self, api: &Api, operation: Option<usize>) {
        self.api = api.config.name.to_string();
        self.generation = api.generation;
        let operation = operation.and_then(|index| api.operations.get(index));
        self.operation = operation.map_or_else(String::new, |it| it.name.to_string());
    }

    fn by(&mut self, identity: &Identity, api: &Api) {
        let Some(caller) = &identity.caller else {
            return;
        };
        self.consumer = caller.consumer.name.to_string();
        self.credential = caller.credential.id.to_string();
        let held = identity.subscription(&api.config.name);
        self.plan = held.map_or_else(String::new, |held| held.plan.name.to_string());
    }

    fn refused(&mut self, denial: &Denial) {
        denial.code().clone_into(&mut self.verdict);
        self.status = denial.status();
    }
}

/// One call that was decided.
#[derive(Debug)]
struct Kept {
    request_id: String,
    at: Timestamp,
    api: Weak<Api>,
    operation: Option<usize>,
    base_length: usize,
    method: String,
    host: String,
    target: String,
    client: Option<IpAddr>,
    identity: Identity,
    held_for_ms: Option<u64>,
    verdict: &'static str,
    status: u16,
    reason: String,
}

/// What is told about a call for [`Recent`].
#[derive(Debug)]
pub struct Told<'t> {
    /// `x-request-id`.
    pub request_id: &'t str,
    /// The API.
    pub api: &'t Arc<Api>,
    /// The operation.
    pub operation: Option<usize>,
    /// Its head.
    pub head: &'t RequestHeader,
    /// Client address.
    pub client: Option<IpAddr>,
    /// Who called, as far as it was found out.
    pub identified: Option<&'t Identified>,
    /// `allow`, or the denial's code.
    pub verdict: &'static str,
    /// Status of the denial; 0 for none.
    pub status: u16,
    /// For the log.
    pub reason: &'t str,
}

/// The last calls. A slot that is being read is skipped: no call waits for an operator.
#[derive(Debug)]
pub struct Recent {
    slots: Box<[Mutex<Option<Kept>>]>,
    next: AtomicUsize,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            slots: (0..RECENT).map(|_| Mutex::new(None)).collect(),
            next: AtomicUsize::new(0),
        }
    }
}

impl Recent {
    /// Keeps a call; the oldest gives way.
    pub fn keep(&self, told: &Told<'_>) {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % RECENT;
        let Some(mut slot) = self.slots.get(index).and_then(Mutex::try_lock) else {
            return;
        };
        let kept = slot.get_or_insert_with(Kept::empty);
        kept.fill(told);
    }

    /// Explains a call that was kept: by the rules and facts of its time, as far as they are still here.
    pub fn explain(&self, request_id: &str) -> Option<Explained> {
        // Clients choose their request ids, and may choose one twice: the later call is meant.
        let named = self.slots.iter().filter_map(|slot| {
            let kept = slot.lock();
            let kept = kept.as_ref()?;
            let explained = kept.explain(request_id)?;
            Some((kept.at, explained))
        });
        let latest = named.max_by_key(|(at, _)| *at);
        latest.map(|(_, explained)| explained)
    }
}

impl Kept {
    fn empty() -> Self {
        Self {
            request_id: String::new(),
            at: Timestamp::default(),
            api: Weak::new(),
            operation: None,
            base_length: 0,
            method: String::new(),
            host: String::new(),
            target: String::new(),
            client: None,
            identity: Identity::default(),
            held_for_ms: None,
            verdict: "",
            status: 0,
            reason: String::new(),
        }
    }

    /// The texts keep their memory from call to call.
    fn fill(&mut self, told: &Told<'_>) {
        let replace = |text: &mut String, new: &str| {
            text.clear();
            let end = new.floor_char_boundary(LONGEST_PATH.min(new.len()));
            text.push_str(new.get(..end).unwrap_or_default());
        };
        replace(&mut self.request_id, told.request_id);
        replace(&mut self.method, told.head.method.as_str());
        replace(&mut self.host, raw_host(told.head).unwrap_or_default());
        let target = target_of(told.head).unwrap_or_default();
        replace(&mut self.target, &without_keys(target, told.api));
        replace(&mut self.reason, told.reason);
        self.at = identity::clock::now();
        self.api = Arc::downgrade(told.api);
        self.operation = told.operation;
        self.client = told.client;
        self.identity = told
            .identified
            .map(|identified| identified.identity.clone())
            .unwrap_or_default();
        self.held_for_ms = told.identified.and_then(Identified::held_for_ms);
        self.verdict = told.verdict;
        self.status = told.status;
    }

    fn explain(&self, request_id: &str) -> Option<Explained> {
        if self.request_id != request_id {
            return None;
        }
        let mut explained = Explained {
            held_for_ms: self.held_for_ms,
            verdict: self.verdict.to_owned(),
            status: self.status,
            reason: self.reason.clone(),
            at: self.at.to_string(),
            ..Explained::default()
        };
        let Some(api) = self.api.upgrade() else {
            "the API was reloaded since: its rules of that time are gone"
                .clone_into(&mut explained.note);
            return Some(explained);
        };
        explained.about(&api, self.operation);
        explained.by(&self.identity, &api);
        "credentials and header fields of a past call are not kept".clone_into(&mut explained.note);
        if let Some(operation) = self.operation {
            explained.rules = self.judged_again(api, operation).unwrap_or_default();
        }
        Some(explained)
    }

    fn judged_again(&self, api: Arc<Api>, operation: usize) -> Option<Explanation> {
        let mut head = RequestHeader::build(&*self.method, self.target.as_bytes(), None).ok()?;
        head.insert_header("host", &*self.host).ok()?;
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*self.target, None),
        };
        let called = Called {
            api,
            operation,
            // What is judged again does not depend on it.
            route: 0,
            base_length: self.base_length,
        };
        let identified = Identified {
            identity: self.identity.clone(),
            ..Identified::default()
        };
        let asked = Asked {
            request: identity::Request {
                head: &head,
                query,
                client: self.client,
                certificate: None,
                workload: None,
                now: self.at,
            },
            host: &self.host,
            path,
        };
        let mut ear = Ear::listening();
        let policy = CurrentPolicy {
            called: &called,
            identified: &identified,
        };
        let _decided_before = decide(&policy, &asked, &mut ear);
        ear.heard.map(|explanation| *explanation)
    }
}

/// A target without the query parameters in which the API takes credentials.
fn without_keys<'t>(target: &'t str, api: &Api) -> Cow<'t, str> {
    let mut kept = Cow::Borrowed(target);
    if target.contains('?') {
        for scheme in &api.access.schemes {
            if let CredentialPlace::Query(name) = &scheme.place
                && let Some(shorter) = without_parameter(&kept, name)
            {
                kept = Cow::Owned(shorter);
            }
        }
    }
    kept
}

impl Identified {
    /// How old the directory's answer is, in milliseconds.
    pub fn held_for_ms(&self) -> Option<u64> {
        let since: Instant = self.held.as_ref()?.since;
        u64::try_from(since.elapsed().as_millis()).ok()
    }
}
