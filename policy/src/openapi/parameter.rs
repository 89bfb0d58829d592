//! Declared parameters, as far as they matter before a body is read: path parameters and header names.

use std::sync::Arc;

use super::PathParameter;
use super::clip;
use super::finder::Finder;
use super::reference::{Library, Spot};
use crate::source::Node;

/// One declared parameter that could be resolved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Declared<'l> {
    name: &'l str,
    place: &'l str,
    spot: Spot<'l>,
}

/// The parameters of a `parameters` list; what is no parameter is a finding.
pub(super) fn declared<'l>(
    library: &'l Library,
    owner: Spot<'l>,
    finder: &mut Finder,
) -> Vec<Declared<'l>> {
    let Some(list) = owner.get("parameters") else {
        return Vec::new();
    };
    let list = library.resolve(list).unwrap_or(list);
    let Some(elements) = list.node.as_list() else {
        let what = format!("`parameters` is {} where a list is due", list.node.kind());
        finder.warn(
            list.place(),
            "bad-parameter",
            what,
            "write a list of parameters",
        );
        return Vec::new();
    };
    let mut all = Vec::new();
    for element in elements {
        let spot = match library.resolve(list.at(element)) {
            Ok(spot) => spot,
            Err(dead_end) => {
                finder.warn(
                    list.at(element).place(),
                    "unresolved-ref",
                    format!("a parameter is not known: {}", dead_end.why),
                    dead_end.remedy,
                );
                continue;
            }
        };
        let text = |key: &str| spot.node.get(key).and_then(Node::as_str);
        match (text("name"), text("in")) {
            (Some(name), Some(place)) => all.push(Declared { name, place, spot }),
            _ => finder.warn(
                spot.place(),
                "bad-parameter",
                "a parameter without `name` or `in` is ignored",
                "give it both",
            ),
        }
    }
    all
}

/// The parameters in force for an operation: its own, and those of the path item that it does not repeat.
pub(super) fn in_force<'l>(path: &[Declared<'l>], own: &[Declared<'l>]) -> Vec<Declared<'l>> {
    let repeated = |outer: &Declared<'_>| {
        own.iter()
            .any(|inner| inner.name == outer.name && inner.place == outer.place)
    };
    own.iter()
        .chain(path.iter().filter(|outer| !repeated(outer)))
        .copied()
        .collect()
}

/// Lower-case names of declared header parameters.
pub(super) fn headers(parameters: &[Declared<'_>]) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    for parameter in parameters
        .iter()
        .filter(|parameter| parameter.place == "header")
    {
        add_header(&mut names, parameter.name);
    }
    names
}

/// Adds one header name in lower case, once.
pub(super) fn add_header(names: &mut Vec<Arc<str>>, name: &str) {
    let name = name.to_ascii_lowercase();
    if !names.iter().any(|known| **known == name) {
        names.push(name.into());
    }
}

/// The path parameters of a template, in its order, and the expressions that nothing declares.
pub(super) fn path_parameters<'t>(
    template: &'t str,
    parameters: &[Declared<'_>],
    finder: &mut Finder,
) -> (Vec<PathParameter>, Vec<&'t str>) {
    let (mut known, mut undeclared) = (Vec::new(), Vec::new());
    for expression in expressions(template) {
        // `{rest+}` may be declared as `rest+` or as `rest`.
        let bare = expression.trim_matches(['+', '*']);
        let found = parameters
            .iter()
            .filter(|parameter| parameter.place == "path");
        let found = found
            .clone()
            .find(|parameter| parameter.name == expression)
            .or_else(|| found.clone().find(|parameter| parameter.name == bare));
        match found {
            Some(declared) => known.push(path_parameter(expression, declared.spot, finder)),
            None => undeclared.push(expression),
        }
    }
    (known, undeclared)
}

fn path_parameter(name: &str, spot: Spot<'_>, finder: &mut Finder) -> PathParameter {
    let allowed = spot
        .get("x-tollgate")
        .and_then(|own| own.get("allow_encoded"));
    let mut parameter = PathParameter {
        name: name.into(),
        multi_segment: spot.node.get("x-multi-segment").and_then(Node::as_bool) == Some(true),
        matrix: spot.node.get("style").and_then(Node::as_str) == Some("matrix"),
        allow_encoded_slash: false,
        allow_encoded_percent: false,
    };
    let Some(allowed) = allowed else {
        return parameter;
    };
    for element in allowed
        .node
        .as_list()
        .unwrap_or(std::slice::from_ref(allowed.node))
    {
        match element.as_str() {
            Some("slash") => parameter.allow_encoded_slash = true,
            Some("percent") => parameter.allow_encoded_percent = true,
            other => finder.warn(
                allowed.at(element).place(),
                "bad-setting",
                format!(
                    "`allow_encoded` has no value `{}`",
                    clip(other.unwrap_or("?"))
                ),
                "write `[slash]`, `[percent]` or both",
            ),
        }
    }
    parameter
}

/// What stands in braces, in order, each once.
fn expressions(template: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = template;
    while let Some((_, after)) = rest.split_once('{') {
        let Some((name, tail)) = after.split_once('}') else {
            break;
        };
        if !names.contains(&name) {
            names.push(name);
        }
        rest = tail;
    }
    names
}
