//! Base paths: what stands before a path key, by `servers` or `basePath`.

use std::sync::Arc;

use super::Dialect;
use super::clip;
use super::finder::Finder;
use super::reference::Spot;
use super::text_of;
use crate::source::Node;

/// Base paths a list of servers may stand for. Variables multiply, and each operation is served under each; real files
/// reach about 20.
const MAX_EXPANSIONS: usize = 100;

/// Bytes of a server's URL with its variables filled in. Without a limit a short file grows to gigabytes: a variable may
/// stand in a URL a thousand times.
const MAX_URL_BYTES: usize = 8 * 1024;

/// Base paths of a 3.x `servers` list, without repeats.
pub(super) fn bases(servers: Spot<'_>, finder: &mut Finder) -> Vec<Arc<str>> {
    let Some(list) = servers.node.as_list() else {
        finder.warn(
            servers.place(),
            "bad-servers",
            format!("`servers` is {} where a list is due", servers.node.kind()),
            "write a list of `url`s; until then the paths are served without a base path",
        );
        return root_only();
    };
    if list.is_empty() {
        return root_only();
    }
    let mut bases: Vec<Arc<str>> = Vec::new();
    for server in list {
        for base in server_bases(servers.at(server), finder) {
            if bases.contains(&base) {
                continue;
            }
            if bases.len() == MAX_EXPANSIONS {
                too_many(servers, finder);
                return bases;
            }
            bases.push(base);
        }
    }
    bases
}

/// The one base path where nothing says another.
pub(super) fn root_only() -> Vec<Arc<str>> {
    vec!["".into()]
}

/// The base path of Swagger 2.0.
pub(super) fn swagger_base(root: Spot<'_>, finder: &mut Finder) -> Vec<Arc<str>> {
    let Some(base) = root.get("basePath") else {
        return root_only();
    };
    let Some(text) = base.node.as_str() else {
        finder.warn(
            base.place(),
            "bad-servers",
            format!("`basePath` is {} where text is due", base.node.kind()),
            "write a path such as `/v1`; until then the paths are served without a base path",
        );
        return root_only();
    };
    vec![tidy(text).into()]
}

/// Server URLs that name a host, with defaults filled in.
pub(super) fn hints(root: &Node, dialect: Dialect) -> Vec<String> {
    if dialect == Dialect::Swagger20 {
        let Some(host) = root.get("host").and_then(Node::as_str) else {
            return Vec::new();
        };
        let schemes = root
            .get("schemes")
            .and_then(Node::as_list)
            .unwrap_or_default();
        let scheme = schemes.first().and_then(Node::as_str).unwrap_or("https");
        let base = root
            .get("basePath")
            .and_then(Node::as_str)
            .map(tidy)
            .unwrap_or_default();
        return vec![format!("{scheme}://{host}{base}")];
    }
    let servers = root
        .get("servers")
        .and_then(Node::as_list)
        .unwrap_or_default();
    let with_defaults = |server: &Node| {
        let url = server.get("url")?.as_str();
        let mut url = url.filter(|url| url.len() <= MAX_URL_BYTES)?.to_owned();
        for name in variables(&url) {
            let default = server
                .get("variables")?
                .get(&name)?
                .get("default")
                .and_then(text_of)?;
            url = filled(&url, &format!("{{{name}}}"), &default)?;
        }
        url.contains("://").then_some(url)
    };
    servers
        .iter()
        .take(MAX_EXPANSIONS)
        .filter_map(with_defaults)
        .collect()
}

fn server_bases(server: Spot<'_>, finder: &mut Finder) -> Vec<Arc<str>> {
    let Some(url) = server.node.get("url").and_then(Node::as_str) else {
        let what = "a server without `url` is ignored";
        finder.warn(server.place(), "bad-servers", what, "give it a `url`");
        return Vec::new();
    };
    let mut bases = Vec::new();
    for url in expanded(server, url, finder) {
        let base = url_path(&url);
        if base.contains('{') {
            finder.warn(
                server.place(),
                "unset-variable",
                format!(
                    "the path of server `{}` has a variable without value; it is ignored",
                    clip(&url)
                ),
                "give the variable a `default`",
            );
        } else {
            bases.push(base.into());
        }
    }
    bases
}

/// Every URL a server stands for, with the values of its variables.
fn expanded(server: Spot<'_>, url: &str, finder: &mut Finder) -> Vec<String> {
    if url.len() > MAX_URL_BYTES {
        too_long(server, finder);
        return Vec::new();
    }
    let mut urls = vec![url.to_owned()];
    for name in variables(url) {
        let Some(values) = values(server.node, &name) else {
            continue;
        };
        let placeholder = format!("{{{name}}}");
        // The host does not matter here, so a region in it must not multiply.
        let only_default = in_host(url, &placeholder) && !values.iter().any(|v| v.contains('/'));
        let values = if only_default {
            values.get(..1).unwrap_or_default()
        } else {
            &*values
        };
        let every = urls.iter().flat_map(|url| {
            let placeholder = &placeholder;
            values
                .iter()
                .map(move |value| filled(url, placeholder, value))
        });
        let mut every: Vec<_> = every.take(MAX_EXPANSIONS + 1).collect();
        if every.len() > MAX_EXPANSIONS {
            every.truncate(MAX_EXPANSIONS);
            too_many(server, finder);
        }
        if every.contains(&None) {
            too_long(server, finder);
        }
        urls = every.into_iter().flatten().collect();
    }
    urls
}

/// A URL with a variable filled in, unless that makes it longer than one may be.
fn filled(url: &str, placeholder: &str, value: &str) -> Option<String> {
    let times = url.matches(placeholder).count();
    let length = times.saturating_mul(value.len()).saturating_add(url.len());
    (length <= MAX_URL_BYTES).then(|| url.replace(placeholder, value))
}

fn too_many(place: Spot<'_>, finder: &mut Finder) {
    finder.warn(
        place.place(),
        "too-many-bases",
        format!("servers stand for more than {MAX_EXPANSIONS} base paths; the rest is not served"),
        "list the base paths that are used",
    );
}

fn too_long(server: Spot<'_>, finder: &mut Finder) {
    finder.warn(
        server.place(),
        "long-server-url",
        format!("a server's URL has more than {MAX_URL_BYTES} bytes and is ignored"),
        "write the URL that clients use",
    );
}

/// Names in braces, in order, each once.
fn variables(url: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut rest = url;
    while let Some((_, after)) = rest.split_once('{') {
        let Some((name, tail)) = after.split_once('}') else {
            break;
        };
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
        rest = tail;
    }
    names
}

/// `default` first, then every other `enum` value.
fn values(server: &Node, name: &str) -> Option<Vec<String>> {
    let variable = server.get("variables")?.get(name)?;
    let listed = variable
        .get("enum")
        .and_then(Node::as_list)
        .unwrap_or_default();
    let mut values: Vec<String> = Vec::new();
    for value in variable
        .get("default")
        .into_iter()
        .chain(listed)
        .filter_map(text_of)
    {
        if values.len() <= MAX_EXPANSIONS && !values.contains(&value) {
            values.push(value);
        }
    }
    (!values.is_empty()).then_some(values)
}

/// Whether the placeholder stands in scheme or host only.
fn in_host(url: &str, placeholder: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    (scheme.contains(placeholder) || host.contains(placeholder)) && !path.contains(placeholder)
}

/// The path of a server URL; a relative one counts from `/`.
fn url_path(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let authority = url
        .split_once("://")
        .map(|(_, rest)| rest)
        .or_else(|| url.strip_prefix("//"));
    match authority {
        Some(rest) => rest
            .split_once('/')
            .map(|(_, path)| tidy(path))
            .unwrap_or_default(),
        None => tidy(url),
    }
}

/// With one `/` before and none behind, without dot segments; empty where nothing is left.
fn tidy(path: &str) -> String {
    let mut tidied = String::new();
    for segment in path.trim().trim_matches('/').split('/') {
        match segment {
            "." | "" => {}
            ".." => tidied.truncate(tidied.rfind('/').unwrap_or(0)),
            segment => {
                tidied.push('/');
                tidied.push_str(segment);
            }
        }
    }
    tidied
}
