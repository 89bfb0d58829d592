//! Rules held against messages: from the services of a schema to methods with their bindings and routes, and to operations.
//!
//! A rule that cannot be served is a finding with its line, and costs that binding alone: the method stays reachable by its other
//! bindings and as gRPC.

use std::sync::Arc;

use http::uri::PathAndQuery;
use tollgate_policy::openapi::{Operation, OtherRoute, PathParameter, Security};
use tollgate_policy::settings::{GrpcConfig, PrintUnset, ProfileSettings, nearest};
use tollgate_policy::{Finding, Place, Severity};

use super::super::schema::{Method, Service};
use super::super::{Cardinality, Enums, FieldPath, Kind, MessageId, Names, PathError, Profile};
use super::super::{Schema, Unknown, Unset, Wide};
use super::binding::BodyRule;
use super::descriptors::Places;
use super::rule::{self, Rule, WrittenBinding};
use super::service_config::ServiceConfig;
use super::{BindRules, Binding, FaceMethod, Template, Way, http_body};

/// What the services of an API come to.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    /// Methods and their operations, in the order of the files.
    pub(super) methods: Vec<(FaceMethod, Operation)>,
    pub(super) findings: Vec<Finding>,
}

/// Everything a rule is held against.
pub(super) struct Compiler<'c> {
    pub(super) schema: &'c Schema,
    pub(super) config: &'c GrpcConfig,
    pub(super) rules: &'c ServiceConfig,
    pub(super) places: &'c Places,
    /// What callers show.
    pub(super) security: Security,
}

/// Methods that `*` of a custom pattern stands for. HEAD is served by GET.
const ANY_METHOD: [&str; 6] = ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"];

/// Packages whose services are somebody else's unless they are named: every descriptor set with imports has some.
const FOREIGN: [&str; 2] = ["grpc.", "google."];

impl Compiler<'_> {
    /// Compiles every service that is served.
    pub(super) fn compile(&self) -> Compiled {
        let mut compiled = Compiled::default();
        for service in self.schema.services() {
            if self.is_served(service) {
                for method in &service.methods {
                    self.method(service, method, &mut compiled);
                }
            }
        }
        compiled.findings.extend(self.unknown_names());
        compiled
    }

    fn is_served(&self, service: &Service) -> bool {
        match self.config.services.as_slice() {
            [] => !FOREIGN
                .iter()
                .any(|package| service.name.starts_with(package)),
            named => named.iter().any(|it| *it.name == *service.name),
        }
    }

    fn method(&self, service: &Service, method: &Method, compiled: &mut Compiled) {
        let full = format!("{}/{}", service.name, method.name);
        let Ok(path) = PathAndQuery::try_from(format!("/{full}")) else {
            return;
        };
        let place = self.places.of(&method.file, method.line);
        let selector = format!("{}.{}", service.name, method.name);
        let rule = self.rules.rules.get(&selector).cloned();
        let rule = rule.or_else(|| rule::annotated(&method.options, &place));
        let said = self.config.profile_of(&service.name, &method.name);
        let mut face = FaceMethod {
            path,
            input: method.input,
            output: method.output,
            client_streaming: method.client_streaming,
            server_streaming: method.server_streaming,
            no_side_effects: method.no_side_effects,
            reading: BindRules {
                profile: profile(&said),
                ignore_unknown_query: said.ignore_unknown_query.unwrap_or(false),
                derive_update_mask: said.derive_update_mask.unwrap_or(false),
                decodes_fully: self.rules.decodes_fully,
                ..BindRules::default()
            },
            streams: said.streams.unwrap_or_default(),
            errors: said.errors.unwrap_or_default(),
            ways: Vec::new(),
            bindings: Vec::new(),
        };
        if let Some(rule) = &rule {
            self.bindings(&full, method, rule, &mut face, &mut compiled.findings);
        }
        let served = face.bindings.iter().any(|binding| binding.is_default);
        if rule.is_none() && !served {
            face.bindings.extend(self.default_binding(method, &full));
        }
        let operation = self.operation(&full, place, &mut face);
        compiled.methods.push((face, operation));
    }

    fn bindings(
        &self,
        full: &str,
        method: &Method,
        rule: &Rule,
        face: &mut FaceMethod,
        findings: &mut Vec<Finding>,
    ) {
        let mut warn = |what: String, remedy: String| {
            findings.push(Finding {
                severity: Severity::Warning,
                code: "http-rule",
                place: rule.place.clone(),
                what: format!("{full}: {what}"),
                remedy,
            });
        };
        for problem in &rule.problems {
            warn(problem.clone(), "correct the rule".to_owned());
        }
        for written in &rule.bindings {
            match self.binding(full, method, written) {
                Ok(binding) => face.bindings.push(binding),
                Err(Wrong { what, remedy }) => {
                    let shown = format!("{} {}", written.method, written.path);
                    warn(format!("`{shown}` is not served: {what}"), remedy);
                }
            }
        }
    }

    fn binding(
        &self,
        full: &str,
        method: &Method,
        written: &WrittenBinding,
    ) -> Result<Binding, Wrong> {
        let template = Template::parse(&written.path)
            .map_err(|what| Wrong::new(what, "write a path such as /v1/{name=shelves/*}/books"))?;
        let variables = template
            .variables()
            .map(|field| self.variable(method.input, field))
            .collect::<Result<Vec<_>, _>>()?;
        let body = self.body(method, written, &variables)?;
        let response_body = match written.response_body.as_str() {
            "" => None,
            field => Some(self.top_level(method.output, field, "response_body")?),
        };
        let raw = response_body.as_ref().map_or_else(
            || http_body::is(self.schema, method.output),
            |path| http_body::of_field(self.schema, path),
        );
        let whole = body == BodyRule::Whole;
        Ok(Binding {
            is_default: whole && written.method == "POST" && *written.path == format!("/{full}"),
            method: written.method.as_str().into(),
            template,
            raw_response: raw,
            response_body: response_body.map(|path| path.last(self.schema).id),
            input: method.input,
            variables,
            update_mask: self.update_mask(method.input, &written.method, &body),
            body,
        })
    }

    /// A field that a path may hold: one value, and no message.
    fn variable(&self, input: MessageId, field: &str) -> Result<FieldPath, Wrong> {
        let path = self.path(input, field, &format!("the variable `{{{field}}}`"))?;
        let last = path.last(self.schema);
        let problem = match (last.cardinality, last.kind) {
            (Cardinality::Repeated, _) => "is a list",
            (Cardinality::Map, _) => "is a map",
            (_, Kind::Message(_) | Kind::Group(_)) => "is a message",
            _ => return Ok(path),
        };
        let what = format!("the variable `{{{field}}}` {problem}, and a path holds single values");
        Err(Wrong::new(what, "name a field of a scalar type or an enum"))
    }

    fn body(
        &self,
        method: &Method,
        written: &WrittenBinding,
        variables: &[FieldPath],
    ) -> Result<BodyRule, Wrong> {
        if written.body.is_empty() && method.client_streaming {
            let what = "a client streams its messages in the body, and there is no `body`";
            return Err(Wrong::new(
                what,
                "write `body: \"*\"`, and a method such as POST",
            ));
        }
        if matches!(written.method.as_str(), "GET" | "HEAD") && !written.body.is_empty() {
            let what = format!("{} has no body", written.method);
            return Err(Wrong::new(what, "remove `body`, or write another method"));
        }
        match written.body.as_str() {
            "" => Ok(BodyRule::None),
            "*" => Ok(BodyRule::Whole),
            field => {
                let path = self.top_level(method.input, field, "body")?;
                if variables.contains(&path) {
                    let what = format!("`{field}` is in the path and in `body`");
                    return Err(Wrong::new(what, "take it from one of them"));
                }
                Ok(BodyRule::Field(path))
            }
        }
    }

    fn top_level(&self, message: MessageId, field: &str, of: &str) -> Result<FieldPath, Wrong> {
        if field.contains('.') {
            let what = format!("`{of}: {field}` is no field of the message itself");
            return Err(Wrong::new(what, "name a field at the top of the message"));
        }
        self.path(message, field, &format!("`{of}: {field}`"))
    }

    fn path(&self, message: MessageId, field: &str, shown: &str) -> Result<FieldPath, Wrong> {
        self.schema.path(message, field).map_err(|error| {
            let near = match &error {
                PathError::Unknown { message, part } => self.nearest_field(message, part),
                _ => None,
            };
            let remedy = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => "name a field of the message".to_owned(),
            };
            Wrong::new(format!("{shown}: {error}"), remedy)
        })
    }

    fn nearest_field(&self, message: &str, part: &str) -> Option<String> {
        let fields = self.schema.fields(self.schema.message(message)?);
        nearest(part, fields.iter().map(|field| &*field.name)).map(str::to_owned)
    }

    /// The mask that a PATCH of one field may leave away.
    fn update_mask(&self, input: MessageId, method: &str, body: &BodyRule) -> Option<FieldPath> {
        let BodyRule::Field(field) = body else {
            return None;
        };
        let is_message = matches!(field.last(self.schema).kind, Kind::Message(_))
            && field.last(self.schema).cardinality == Cardinality::Singular;
        let path = self.schema.path(input, "update_mask").ok()?;
        let Kind::Message(mask) = path.last(self.schema).kind else {
            return None;
        };
        let is_mask = &*self.schema.message_of(mask).name == "google.protobuf.FieldMask";
        (method == "PATCH" && is_message && is_mask).then_some(path)
    }

    fn default_binding(&self, method: &Method, full: &str) -> Option<Binding> {
        Some(Binding {
            method: "POST".into(),
            template: Template::parse(&format!("/{full}")).ok()?,
            is_default: true,
            response_body: None,
            raw_response: http_body::is(self.schema, method.output),
            input: method.input,
            variables: Vec::new(),
            update_mask: None,
            body: BodyRule::Whole,
        })
    }

    /// The operation a method is, with all its routes. Fills `face.ways`, in the same order.
    fn operation(&self, full: &str, place: Place, face: &mut FaceMethod) -> Operation {
        let mut routes: Vec<OtherRoute> = Vec::new();
        for (index, binding) in face.bindings.iter().enumerate() {
            if binding.is_default {
                continue;
            }
            let methods: &[&str] = match &*binding.method {
                "*" => &ANY_METHOD,
                one => &[one],
            };
            for route in binding.template.routes() {
                for method in methods {
                    face.ways.push(Way::Rule(index));
                    routes.push(OtherRoute {
                        method: (*method).into(),
                        template: Arc::clone(binding.template.text()),
                        route: Arc::clone(&route.route),
                        path_parameters: route.parameters.clone(),
                    });
                }
            }
        }
        let own: Arc<str> = format!("/{full}").into();
        let safe = face.no_side_effects && !face.client_streaming && !face.server_streaming;
        for method in ["POST", "GET"].iter().take(if safe { 2 } else { 1 }) {
            face.ways.push(Way::Rpc);
            routes.push(OtherRoute {
                method: (*method).into(),
                template: Arc::clone(&own),
                route: Arc::clone(&own),
                path_parameters: Vec::<PathParameter>::new(),
            });
        }
        let mut routes = routes.into_iter();
        let first = routes.next().unwrap_or_else(|| OtherRoute {
            method: "POST".into(),
            template: Arc::clone(&own),
            route: Arc::clone(&own),
            path_parameters: Vec::new(),
        });
        Operation {
            id: Some(full.into()),
            name: full.into(),
            method: first.method,
            template: first.template,
            route: first.route,
            other_routes: routes.collect(),
            grpc: Some(full.into()),
            fragment: false,
            bases: vec!["".into()],
            path_parameters: first.path_parameters,
            headers: Vec::new(),
            security: self.security.clone(),
            settings: Default::default(),
            place,
        }
    }

    /// Services, methods and selectors that the settings name and the descriptors do not have.
    fn unknown_names(&self) -> Vec<Finding> {
        let services: Vec<&str> = self.schema.services().iter().map(|it| &*it.name).collect();
        let mut methods = Vec::new();
        for service in self.schema.services() {
            let of = |method: &Method| format!("{}.{}", service.name, method.name);
            methods.extend(service.methods.iter().map(of));
        }
        let known = |name: &str| {
            methods
                .iter()
                .any(|known| *known == name.replacen('/', ".", 1))
        };
        let mut findings = Vec::new();
        for named in &self.config.services {
            if !services.contains(&&*named.name) {
                let near = nearest(&named.name, services.iter().copied());
                findings.push(unknown("service", &named.name, near, &named.place));
            }
        }
        let profiles = self.config.methods.iter();
        let profiles = profiles.map(|profile| (&*profile.name, &profile.place));
        let selectors = self.rules.rules.iter();
        let selectors = selectors.map(|(name, rule)| (name.as_str(), &rule.place));
        for (name, place) in profiles.chain(selectors).filter(|(name, _)| !known(name)) {
            let near = nearest(name, methods.iter().map(String::as_str));
            findings.push(unknown("method", name, near, place));
        }
        findings.sort_by_key(|finding| (finding.place.line, finding.place.column));
        findings
    }
}

/// What is wrong with a binding, and what to do.
struct Wrong {
    what: String,
    remedy: String,
}

impl Wrong {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

fn unknown(kind: &str, name: &str, near: Option<&str>, place: &Place) -> Finding {
    Finding {
        severity: Severity::Warning,
        code: match kind {
            "service" => "unknown-service",
            _ => "unknown-method",
        },
        place: place.clone(),
        what: format!("the descriptors have no {kind} `{name}`"),
        remedy: match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => "correct the name".to_owned(),
        },
    }
}

fn choose<T>(setting: Option<bool>, off: T, on: T) -> T {
    match setting {
        Some(true) => on,
        Some(false) | None => off,
    }
}

/// What the settings come to.
fn profile(said: &ProfileSettings) -> Profile {
    let is = |setting: Option<bool>| setting.unwrap_or(false);
    Profile {
        unknown: choose(said.ignore_unknown_fields, Unknown::Refuse, Unknown::Ignore),
        unset: match said.print_unset.unwrap_or_default() {
            PrintUnset::None => Unset::Omit,
            PrintUnset::Primitives => Unset::Primitives,
            PrintUnset::All => Unset::All,
        },
        names: choose(said.proto_names, Names::Json, Names::Proto),
        enums: choose(said.enum_numbers, Enums::Name, Enums::Number),
        strip_enum_prefix: is(said.strip_enum_prefix),
        any_case_enums: is(said.enums_any_case),
        wide: choose(said.int64_numbers, Wide::String, Wide::Number),
    }
}
