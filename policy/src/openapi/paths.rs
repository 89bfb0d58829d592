//! From `paths` to operations: which keys and methods are routed, and what each operation inherits.

use std::collections::HashMap;
use std::sync::Arc;

use super::extension;
use super::finder::Finder;
use super::name;
use super::parameter::{self, Declared};
use super::reference::{DeadEnd, Library, Spot};
use super::security::{self, Schemes};
use super::{Dialect, Operation, SchemeKind, Security, clip, server};
use crate::settings::OperationSettings;
use crate::source::{Entry, Node};

/// Methods that are fields of a path item. `trace` is no field in 2.0, and harmless there.
const METHODS: [(&str, &str); 8] = [
    ("get", "GET"),
    ("put", "PUT"),
    ("post", "POST"),
    ("delete", "DELETE"),
    ("options", "OPTIONS"),
    ("head", "HEAD"),
    ("patch", "PATCH"),
    ("trace", "TRACE"),
];

/// What `paths` and the document around it say.
#[derive(Debug)]
pub(super) struct Paths {
    /// Operations that can be routed, in document order.
    pub(super) operations: Vec<Operation>,
    /// Settings of the document.
    pub(super) settings: OperationSettings,
}

/// Reads `paths`. A description may have none (webhooks only).
pub(super) fn read(library: &Library, dialect: Dialect, finder: &mut Finder) -> Paths {
    let root = library.root();
    let own = extension::document(root, finder);
    let google = extension::google(root, finder);
    let bases = if dialect == Dialect::Swagger20 {
        server::swagger_base(root, finder)
    } else {
        root.get("servers")
            .map_or_else(server::root_only, |list| server::bases(list, finder))
    };
    let settings = own.or(&google);
    let schemes = Schemes::read(library, dialect, finder);
    let mut reader = Reader {
        library,
        dialect,
        own,
        google,
        bases,
        schemes,
        finder,
        operations: Vec::new(),
    };
    reader.paths(root);
    let mut operations = reader.operations;
    give_names(&mut operations, finder);
    Paths {
        operations,
        settings,
    }
}

struct Reader<'l, 'f> {
    library: &'l Library,
    dialect: Dialect,
    own: OperationSettings,
    google: OperationSettings,
    bases: Vec<Arc<str>>,
    schemes: Schemes<'l>,
    finder: &'f mut Finder,
    operations: Vec<Operation>,
}

/// What the operations of one path item share.
struct Item<'l> {
    template: Arc<str>,
    route: Arc<str>,
    fragment: bool,
    bases: Vec<Arc<str>>,
    parameters: Vec<Declared<'l>>,
    settings: OperationSettings,
}

/// The place an operation is read from.
struct Definition<'l> {
    spot: Spot<'l>,
    /// Every reference led somewhere; otherwise `spot` is where the first one stands.
    resolved: bool,
}

impl<'l> Reader<'l, '_> {
    fn paths(&mut self, root: Spot<'l>) {
        let Some(paths) = root.get("paths") else {
            return;
        };
        let paths = match self.library.resolve(paths) {
            Ok(paths) => paths,
            Err(end) => return self.unresolved(paths, "`paths` is not served", end),
        };
        if paths.node.is_null() {
            return;
        }
        let Some(map) = paths.node.as_map() else {
            let what = format!("`paths` is {} where a mapping is due", paths.node.kind());
            return self
                .finder
                .warn(paths.place(), "bad-paths", what, "write paths below it");
        };
        for entry in map.iter() {
            if !entry.key.starts_with("x-") {
                self.path(paths, entry);
            }
        }
    }

    fn path(&mut self, paths: Spot<'l>, entry: &'l Entry) {
        let key = &*entry.key;
        let route = key.split_once('#').map_or(key, |(route, _)| route);
        let problem = if !key.starts_with('/') {
            Some("does not begin with `/`")
        } else if route.contains('?') {
            Some("has a query")
        } else {
            None
        };
        if let Some(problem) = problem {
            let mut place = paths.place();
            (place.line, place.column) = (entry.line, entry.column);
            return self.finder.warn(
                place,
                "unroutable-key",
                format!("path `{}` {problem} and is not served", clip(key)),
                "write a path beginning with `/`, and parameters of the query as parameters",
            );
        }
        let written = paths.at(&entry.node);
        let referred = match self.library.resolve(written) {
            Ok(referred) => referred,
            Err(end) => {
                let what = format!("path `{}` is not served", clip(key));
                return self.unresolved(written, &what, end);
            }
        };
        if referred.node.as_map().is_none() {
            let what = format!("path `{}` is {}", clip(key), referred.node.kind());
            let remedy = "write methods below it; it is not served";
            return self.finder.warn(referred.place(), "bad-path", what, remedy);
        }
        // What stands beside a `$ref` is said closer by, and wins.
        let parts: &[Spot<'l>] = if written.node.get("$ref").is_some() {
            &[written, referred]
        } else {
            &[written]
        };
        self.item(key, route, parts);
    }

    fn item(&mut self, key: &str, route: &str, parts: &[Spot<'l>]) {
        let named = parts.iter().find_map(|part| self.bases_of(*part));
        let bases = named.unwrap_or_else(|| self.bases.clone());
        let mut settings = OperationSettings::default();
        let mut parameters: Vec<Declared<'l>> = Vec::new();
        for part in parts {
            settings = settings.or(&extension::tollgate(*part, self.finder));
            let more = parameter::declared(self.library, *part, self.finder);
            parameters = parameter::in_force(&more, &parameters);
        }
        let item = Item {
            template: key.into(),
            route: route.into(),
            fragment: route.len() < key.len(),
            bases,
            parameters,
            settings,
        };
        let before = self.operations.len();
        for part in parts {
            for entry in part
                .node
                .as_map()
                .into_iter()
                .flat_map(crate::source::Map::iter)
            {
                self.field(&item, *part, entry, before);
            }
        }
    }

    /// One field of a path item: an operation, several, or something else.
    fn field(&mut self, item: &Item<'l>, part: Spot<'l>, entry: &'l Entry, before: usize) {
        let key = &*entry.key;
        let at_least_32 = self.dialect == Dialect::OpenApi32;
        let fixed = METHODS
            .iter()
            .find(|(field, _)| *field == key)
            .map(|(_, method)| *method);
        let method = fixed.or_else(|| (at_least_32 && key == "query").then_some("QUERY"));
        if let Some(method) = method {
            return self.operation(item, method, part.at(&entry.node), before);
        }
        if key == "additionalOperations" && at_least_32 {
            return self.additional(item, part.at(&entry.node), before);
        }
        if METHODS
            .iter()
            .any(|(_, method)| key.eq_ignore_ascii_case(method))
        {
            self.finder.warn(
                part.at(&entry.node).place(),
                "bad-operation",
                format!("`{key}` is no method and is not served"),
                format!("write `{}`", key.to_ascii_lowercase()),
            );
        }
    }

    fn additional(&mut self, item: &Item<'l>, all: Spot<'l>, before: usize) {
        let Some(map) = all.node.as_map() else {
            let what = format!("`additionalOperations` is {}", all.node.kind());
            return self
                .finder
                .warn(all.place(), "bad-operation", what, "write methods below it");
        };
        for entry in map.iter() {
            let method = &*entry.key;
            let has_field = method == "QUERY" || METHODS.iter().any(|(_, fixed)| method == *fixed);
            if has_field || !is_token(method) {
                self.finder.warn(
                    all.at(&entry.node).place(),
                    "bad-operation",
                    format!(
                        "`{}` is no additional method and is not served",
                        clip(method)
                    ),
                    "methods that have a field of their own belong there, in lower case",
                );
            } else {
                self.operation(item, method, all.at(&entry.node), before);
            }
        }
    }

    fn operation(&mut self, item: &Item<'l>, method: &str, written: Spot<'l>, before: usize) {
        let mut siblings = self.operations.iter().skip(before);
        if siblings.any(|sibling| *sibling.method == *method) {
            return;
        }
        let label = format!("{method} {}", clip(&item.template));
        let Some(Definition { spot, resolved }) = self.definition(written, &label) else {
            return;
        };
        // A demand that lies behind a reference that leads nowhere is not known, so nobody meets it.
        let security = if resolved {
            self.schemes.of(spot, self.finder)
        } else {
            security::closed()
        };
        let own = parameter::declared(self.library, spot, self.finder);
        let parameters = parameter::in_force(&item.parameters, &own);
        let (path_parameters, undeclared) =
            parameter::path_parameters(&item.route, &parameters, self.finder);
        if resolved {
            self.note_gaps(spot, &label, &undeclared);
        }
        let id = spot
            .node
            .get("operationId")
            .and_then(Node::as_str)
            .filter(|_| resolved);
        let mut headers = parameter::headers(&parameters);
        add_key_headers(&mut headers, &security);
        let bases = self.bases_of(spot).unwrap_or_else(|| item.bases.clone());
        if bases.is_empty() {
            let what = format!("operation `{label}` has no usable server and is not served");
            let remedy = "give it a server whose variables have values";
            return self.finder.warn(spot.place(), "no-base", what, remedy);
        }
        let settings = self.settings_of(spot, item);
        self.operations.push(Operation {
            id: id.map(Arc::from),
            name: "".into(),
            method: method.into(),
            template: item.template.clone(),
            route: item.route.clone(),
            other_routes: Vec::new(),
            grpc: None,
            fragment: item.fragment,
            bases,
            path_parameters,
            headers,
            security,
            settings,
            place: spot.place(),
        });
    }

    /// Where the operation is defined; `None` where nothing there can be served.
    fn definition(&mut self, written: Spot<'l>, label: &str) -> Option<Definition<'l>> {
        let (spot, resolved) = match self.library.resolve(written) {
            Ok(spot) => (spot, true),
            Err(end) => {
                let what = format!(
                    "operation `{label}` is served without id and to nobody while `security` is enforced"
                );
                self.unresolved(written, &what, end);
                (written, false)
            }
        };
        if spot.node.as_map().is_none() {
            let kind = spot.node.kind();
            let what = format!("operation `{label}` is {kind} and is not served");
            self.finder
                .warn(spot.place(), "bad-operation", what, "write an operation");
            return None;
        }
        Some(Definition { spot, resolved })
    }

    /// Its own settings, then those of its path item, then the document's; what is ours wins over what is Google's.
    fn settings_of(&mut self, spot: Spot<'_>, item: &Item<'_>) -> OperationSettings {
        let google = extension::google(spot, self.finder);
        extension::tollgate(spot, self.finder)
            .or(&item.settings)
            .or(&self.own)
            .or(&google)
            .or(&self.google)
    }

    /// The base paths that a path item or operation names itself.
    fn bases_of(&mut self, owner: Spot<'_>) -> Option<Vec<Arc<str>>> {
        let servers = owner
            .get("servers")
            .filter(|_| self.dialect != Dialect::Swagger20)?;
        Some(server::bases(servers, self.finder))
    }

    /// What an operation leaves unsaid that others will miss.
    fn note_gaps(&mut self, spot: Spot<'_>, label: &str, undeclared: &[&str]) {
        for name in undeclared {
            let what = format!(
                "path parameter `{}` of `{label}` is not declared",
                clip(name)
            );
            let remedy = "declare it with `in: path`";
            self.finder
                .note(spot.place(), "undeclared-parameter", what, remedy);
        }
        if spot
            .node
            .get("operationId")
            .and_then(Node::as_str)
            .is_none()
        {
            let what = format!("operation `{label}` has no `operationId`");
            let remedy = "give it one: metrics, quota and logs speak of it by that name";
            self.finder
                .note(spot.place(), "missing-operation-id", what, remedy);
        }
    }

    fn unresolved(&mut self, spot: Spot<'_>, consequence: &str, end: DeadEnd) {
        let what = format!("{consequence}: {}", end.why);
        self.finder
            .warn(spot.place(), "unresolved-ref", what, end.remedy);
    }
}

fn add_key_headers(headers: &mut Vec<Arc<str>>, security: &Security) {
    for used in security.alternatives.iter().flatten() {
        if let SchemeKind::ApiKeyHeader(name) = &used.kind {
            parameter::add_header(headers, name);
        }
    }
}

/// Gives every operation its name, and reports ids that stand twice.
fn give_names(operations: &mut [Operation], finder: &mut Finder) {
    let mut first_lines: HashMap<Arc<str>, u32> = HashMap::new();
    for operation in operations.iter() {
        let Some(id) = &operation.id else { continue };
        if let Some(line) = first_lines.get(id) {
            finder.warn(
                operation.place.clone(),
                "duplicate-operation-id",
                format!(
                    "`operationId: {}` stands twice, first at line {line}",
                    clip(id)
                ),
                "give each operation an id of its own",
            );
        } else {
            first_lines.insert(id.clone(), operation.place.line);
        }
    }
    let wishes: Vec<_> = operations
        .iter()
        .map(|operation| {
            let otherwise = format!("{} {}", operation.method, operation.template);
            (operation.id.as_deref(), otherwise)
        })
        .collect();
    let names = name::names(&wishes);
    for (operation, name) in operations.iter_mut().zip(names) {
        operation.name = name;
    }
}

/// A method as HTTP allows it (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}
