//! A service configuration (`type: google.api.Service`) as far as Tollgate reads it: `http.rules`, by selector.
//!
//! For services whose `.proto` files cannot be changed: a rule here wins over the annotation, and the last of several wins.

use std::collections::HashMap;
use std::path::Path;

use tollgate_policy::source::{Document, Entry, Map, Node};
use tollgate_policy::{Finding, Place, Severity};

use super::rule::{Custom, HttpRule, Pattern, Rule};

/// Bytes of the file.
const LARGEST: u64 = 4 << 20;

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct ServiceConfig {
    /// By selector: `package.Service.Method`.
    pub(super) rules: HashMap<String, Rule>,
    /// `fully_decode_reserved_expansion`: `%2F` is decoded everywhere.
    pub(super) decodes_fully: bool,
    /// Warnings.
    pub(super) findings: Vec<Finding>,
}

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<ServiceConfig, Vec<Finding>> {
    let file = path.display().to_string();
    let unreadable = |why: String| Finding {
        severity: Severity::Error,
        code: "unreadable-file",
        place: Place::file(file.clone()),
        what: format!("`grpc.rules` cannot be read: {why}"),
        remedy: "check that the file exists, is readable and is UTF-8 text".to_owned(),
    };
    let bytes = super::descriptors::read_limited(path, LARGEST);
    let bytes = bytes.map_err(|why| vec![unreadable(why)])?;
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| vec![unreadable("it is no UTF-8".to_owned())])?;
    let document = Document::parse(&file, &text).map_err(|finding| vec![finding])?;
    Ok(Reader::of(&document))
}

struct Reader<'d> {
    document: &'d Document,
    found: ServiceConfig,
}

impl<'d> Reader<'d> {
    fn of(document: &'d Document) -> ServiceConfig {
        let mut reader = Reader {
            document,
            found: ServiceConfig::default(),
        };
        let Some(http) = document.root.get("http") else {
            let what = "it has no `http`, so it says nothing about REST";
            reader.warn(&document.root, what, "write `http: { rules: [...] }`");
            return reader.found;
        };
        let fully = either(
            http,
            "fully_decode_reserved_expansion",
            "fullyDecodeReservedExpansion",
        );
        reader.found.decodes_fully = fully.is_some_and(|it| text_of(it).as_deref() == Some("true"));
        let rules = http
            .get("rules")
            .and_then(Node::as_list)
            .unwrap_or_default();
        for rule in rules {
            reader.selected(rule);
        }
        reader.found
    }

    fn selected(&mut self, node: &'d Node) {
        let selector = node.get("selector").and_then(Node::as_str);
        let Some(selector) = selector else {
            let remedy = "write `selector: package.Service.Method`";
            return self.warn(node, "a rule has no `selector`", remedy);
        };
        let place = self.document.place(node);
        let rule = self.rule(node, true).written(place);
        // The last one wins, as the format has it.
        self.found.rules.insert(selector.to_owned(), rule);
    }

    fn rule(&mut self, node: &'d Node, outer: bool) -> HttpRule {
        let mut rule = HttpRule::default();
        let entries = node.as_map().into_iter().flat_map(Map::iter);
        for entry in entries {
            self.field(entry, &mut rule, outer);
        }
        rule
    }

    fn field(&mut self, entry: &'d Entry, rule: &mut HttpRule, outer: bool) {
        let node = &entry.node;
        let text = || text_of(node).unwrap_or_default();
        let pattern = match &*entry.key {
            "get" => Pattern::Get(text()),
            "put" => Pattern::Put(text()),
            "post" => Pattern::Post(text()),
            "delete" => Pattern::Delete(text()),
            "patch" => Pattern::Patch(text()),
            "custom" => {
                let of = |key| node.get(key).and_then(text_of).unwrap_or_default();
                Pattern::Custom(Custom {
                    kind: of("kind"),
                    path: of("path"),
                })
            }
            other => return self.rest(other, entry, rule, outer),
        };
        if rule.pattern.is_some() {
            let what = format!(
                "`{}` stands beside another pattern; the last one counts",
                entry.key
            );
            self.warn(node, &what, "move it to `additional_bindings`");
        }
        rule.pattern = Some(pattern);
    }

    fn rest(&mut self, key: &str, entry: &'d Entry, rule: &mut HttpRule, outer: bool) {
        let node = &entry.node;
        let text = || text_of(node).unwrap_or_default();
        match key {
            "selector" => {}
            "body" => rule.body = text(),
            "response_body" | "responseBody" => rule.response_body = text(),
            "additional_bindings" | "additionalBindings" if outer => {
                let additional = node.as_list().unwrap_or_default();
                let additional: Vec<_> = additional.iter().map(|it| self.rule(it, false)).collect();
                rule.additional_bindings = additional;
            }
            "additional_bindings" | "additionalBindings" => {
                let what = "`additional_bindings` stand within `additional_bindings`; the inner ones do not count";
                self.warn(node, what, "move them one level up");
            }
            _ => {
                let what = format!("`{key}` is no field of an HTTP rule");
                let remedy = "fields are selector, get, put, post, delete, patch, custom, body, response_body and additional_bindings";
                self.warn(node, &what, remedy);
            }
        }
    }

    fn warn(&mut self, node: &Node, what: &str, remedy: &str) {
        self.found.findings.push(Finding {
            severity: Severity::Warning,
            code: "http-rule",
            place: self.document.place(node),
            what: what.to_owned(),
            remedy: remedy.to_owned(),
        });
    }
}

fn either<'n>(node: &'n Node, one: &str, other: &str) -> Option<&'n Node> {
    node.get(one).or_else(|| node.get(other))
}

/// Text, or a switch as its text.
fn text_of(node: &Node) -> Option<String> {
    match &node.value {
        tollgate_policy::source::Value::String(text) => Some(text.to_string()),
        tollgate_policy::source::Value::Bool(bool) => Some(bool.to_string()),
        _ => None,
    }
}
