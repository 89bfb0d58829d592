//! An OpenAPI file beside descriptors: its operations give gRPC methods their policy, the descriptors say how they are called.
//!
//! Joined by `operationId`, or by method and path. Whatever only one of the two knows is told. An operation that is no gRPC method is not
//! served: there is nobody to call it over HTTP.

use std::collections::HashMap;
use std::sync::Arc;

use tollgate_policy::openapi::{Description, Operation};
use tollgate_policy::{Finding, Severity};

use super::FaceMethod;
use super::compile::Compiled;
use super::describe::name_safely;

/// Joins the two.
pub(super) fn join(
    mut description: Description,
    compiled: Compiled,
) -> (Vec<FaceMethod>, Description) {
    let mut index = Index::of(&compiled.methods);
    let mut waiting: Vec<Option<(FaceMethod, Operation)>> =
        compiled.methods.into_iter().map(Some).collect();
    let mut joined = Joined::default();
    description.findings.extend(compiled.findings);
    for described in std::mem::take(&mut description.operations) {
        let found = index.find(&described);
        match (found, found.and_then(|at| waiting.get_mut(at)?.take())) {
            (Some(_), Some((face, method))) => joined.take(face, method, described),
            (Some(at), None) => joined.again(described, index.names.get(at)),
            (None, _) => joined.findings.push(unmatched(&described)),
        }
    }
    for (face, operation) in waiting.into_iter().flatten() {
        joined
            .findings
            .push(undescribed(&operation, &description.file));
        joined.methods.push(face);
        joined.operations.push(operation);
    }
    description.findings.append(&mut joined.findings);
    description.operations = joined.operations;
    name_safely(&mut description.operations);
    (joined.methods, description)
}

#[derive(Default)]
struct Joined {
    methods: Vec<FaceMethod>,
    operations: Vec<Operation>,
    findings: Vec<Finding>,
}

impl Joined {
    /// The method's ways to be called, with what the file says about the operation.
    fn take(&mut self, face: FaceMethod, method: Operation, described: Operation) {
        let mut operation = Operation {
            id: described.id.clone().or_else(|| method.id.clone()),
            name: described.name.clone(),
            headers: described.headers.clone(),
            security: described.security.clone(),
            settings: described.settings.clone(),
            place: described.place.clone(),
            ..method
        };
        let wanted = routes_of(&described);
        let mut matched = adopt(
            &wanted,
            &operation.method,
            &operation.route,
            &described,
            &mut operation.template,
        );
        for route in &mut operation.other_routes {
            matched |= adopt(
                &wanted,
                &route.method,
                &route.route,
                &described,
                &mut route.template,
            );
        }
        if !matched {
            self.findings.push(differs(&described, &operation));
        }
        self.methods.push(face);
        self.operations.push(operation);
    }

    /// One more operation that is the same method: another of its routes, whose callers and settings have to be the same, for a method
    /// is one operation.
    fn again(&mut self, described: Operation, name: Option<&Arc<str>>) {
        let wanted = routes_of(&described);
        let same = |method: &str, route: &str| {
            *method == *described.method && wanted.contains(&shape(route))
        };
        let known = self
            .operations
            .iter_mut()
            .find(|known| known.grpc.as_ref() == name);
        let Some(known) = known else { return };
        let mut others = known.other_routes.iter();
        let is_route =
            same(&known.method, &known.route) || others.any(|it| same(&it.method, &it.route));
        match is_route {
            true if has_policy_of(known, &described) && known.settings == described.settings => {
                let own = (&known.method, &known.route, &mut known.template);
                let others = known.other_routes.iter_mut();
                let others = others.map(|it| (&it.method, &it.route, &mut it.template));
                for (method, route, template) in std::iter::once(own).chain(others) {
                    if same(method, route) {
                        *template = Arc::clone(&described.template);
                    }
                }
            }
            _ => {
                let finding = repeated(&described, is_route, has_policy_of(known, &described));
                self.findings.push(finding);
            }
        }
    }
}

/// Calls a route as the OpenAPI file does, where it is the same.
fn adopt(
    wanted: &[String],
    method: &str,
    route: &str,
    described: &Operation,
    template: &mut Arc<str>,
) -> bool {
    let same = *method == *described.method && wanted.contains(&shape(route));
    if same {
        *template = Arc::clone(&described.template);
    }
    same
}

/// Where methods are found.
struct Index {
    /// Their full names.
    names: Vec<Arc<str>>,
    by_id: HashMap<String, Option<usize>>,
    by_route: HashMap<String, usize>,
}

impl Index {
    fn of(methods: &[(FaceMethod, Operation)]) -> Self {
        let mut index = Self {
            names: methods
                .iter()
                .map(|(_, it)| it.grpc.clone().unwrap_or_default())
                .collect(),
            by_id: HashMap::new(),
            by_route: HashMap::new(),
        };
        for (at, (_, operation)) in methods.iter().enumerate() {
            let full = operation.grpc.as_deref().unwrap_or_default();
            for id in ids(full) {
                // What several methods could be called is nobody's name.
                let entry = index.by_id.entry(id);
                entry.and_modify(|known| *known = None).or_insert(Some(at));
            }
            let own = (&operation.method, &operation.route);
            let others = operation.other_routes.iter();
            let others = others.map(|route| (&route.method, &route.route));
            for (method, route) in std::iter::once(own).chain(others) {
                let key = format!("{method} {}", shape(route));
                index.by_route.entry(key).or_insert(at);
            }
        }
        index
    }

    fn find(&mut self, described: &Operation) -> Option<usize> {
        let by_id = described
            .id
            .as_deref()
            .and_then(|id| self.by_id.get(id).copied().flatten());
        by_id.or_else(|| {
            let mut routes = routes_of(described).into_iter();
            routes.find_map(|route| {
                self.by_route
                    .get(&format!("{} {route}", described.method))
                    .copied()
            })
        })
    }
}

/// The `operationId`s that tools make of `package.Service/Method`.
fn ids(full: &str) -> Vec<String> {
    let (service, method) = full.split_once('/').unwrap_or(("", full));
    let short = service.rsplit_once('.').map_or(service, |(_, short)| short);
    let mut ids = vec![
        full.to_owned(),
        format!("{service}.{method}"),
        format!("{}_{method}", service.replace('.', "_")),
        format!("{short}_{method}"),
        format!("{short}.{method}"),
        method.to_owned(),
    ];
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The paths of an operation, whatever its variables are called.
fn routes_of(described: &Operation) -> Vec<String> {
    let bases = described.bases.iter();
    bases
        .map(|base| shape(&format!("{base}{}", described.route)))
        .collect()
}

/// A template without the names of its variables.
fn shape(route: &str) -> String {
    let mut shape = String::new();
    let mut rest = route;
    while let Some((before, after)) = rest.split_once('{') {
        let (inner, after) = after.split_once('}').unwrap_or((after, ""));
        // `{name=shelves/*}`, as some files have it, spans what the pattern spells out.
        shape.push_str(before);
        match inner.split_once('=') {
            Some((_, pattern)) => {
                let pattern = pattern.replace("**", "{}").replace('*', "{}");
                shape.push_str(&pattern);
            }
            None => shape.push_str("{}"),
        }
        rest = after;
    }
    shape + rest
}

/// Whether both let the same callers in.
fn has_policy_of(known: &Operation, described: &Operation) -> bool {
    let (one, other) = (&known.settings, &described.settings);
    known.security == described.security
        && (one.acl == other.acl && one.security_off == other.security_off)
}

/// What is demanded of a method must not depend on which of its descriptions comes first: that is an error.
fn repeated(described: &Operation, is_route: bool, same_policy: bool) -> Finding {
    let label = format!("{} {}", described.method, described.template);
    Finding {
        severity: match same_policy {
            true => Severity::Warning,
            false => Severity::Error,
        },
        code: "two-policies",
        place: described.place.clone(),
        what: match is_route {
            _ if !same_policy => format!(
                "`{label}` is a gRPC method that another operation is already, for other callers"
            ),
            true => format!(
                "`{label}` is another way to call a method whose settings differ here; those of the first count"
            ),
            false => format!(
                "`{label}` is a gRPC method that another operation is already, and no way to call it"
            ),
        },
        remedy: "say the same of both, or remove one".to_owned(),
    }
}

fn unmatched(described: &Operation) -> Finding {
    let label = format!("{} {}", described.method, described.template);
    Finding {
        severity: Severity::Warning,
        code: "not-in-descriptors",
        place: described.place.clone(),
        what: format!("operation `{label}` is no gRPC method of the descriptors and is not served"),
        remedy: "give it the method's name as `operationId` (Service_Method), or the path of its HTTP rule".to_owned(),
    }
}

fn undescribed(operation: &Operation, file: &str) -> Finding {
    let name = operation.grpc.as_deref().unwrap_or_default();
    Finding {
        severity: Severity::Warning,
        code: "not-in-openapi",
        place: operation.place.clone(),
        what: format!("`{name}` is not in {file}: `grpc.callers` says who may call it"),
        remedy: format!(
            "describe it there, with `operationId: {}`",
            name.replace('/', ".")
        ),
    }
}

fn differs(described: &Operation, operation: &Operation) -> Finding {
    let others = operation.other_routes.iter();
    let others = others.map(|route| format!("{} {}", route.method, route.template));
    let own = format!("{} {}", operation.method, operation.template);
    let all: Vec<String> = std::iter::once(own).chain(others).collect();
    Finding {
        severity: Severity::Warning,
        code: "path-differs",
        place: described.place.clone(),
        what: format!(
            "`{} {}` is not how `{}` is called: the HTTP rules have {}",
            described.method,
            described.template,
            operation.grpc.as_deref().unwrap_or_default(),
            all.join(", ")
        ),
        remedy: "give the two the same path; those of the HTTP rules are served".to_owned(),
    }
}
