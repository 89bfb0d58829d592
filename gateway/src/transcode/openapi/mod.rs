//! The OpenAPI 3.0 document of a REST face: what callers who never heard of gRPC are given.
//!
//! Everything stands in it that a call may say and an answer may hold, by ProtoJSON as the API's profile has it; comments of the
//! definition become descriptions. Where single methods have a profile of their own, schemas follow that of the API. Not here: a file,
//! and what OpenAPI 3.0 has no word for (methods of custom kinds).

mod operation;
mod parameter;
mod schema;

use std::collections::HashSet;

use openapiv3::{
    APIKeyLocation, Components, Info, OpenAPI, PathItem, ReferenceOr, Response, SecurityScheme,
    Server, Tag,
};
use tollgate_policy::openapi::{Description, Operation, SchemeKind};
use tollgate_policy::settings::{ApiConfig, ErrorShape};

use super::Schema;
use super::face::{Face, FaceMethod};
use super::schema::{Method, Service};
use operation::{JSON, Writer, media};
use schema::Schemas;

/// Methods of custom kind `*`, as far as a path item has them.
const ANY_METHOD: [&str; 6] = ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"];

/// Writes the document of an API with a gRPC service.
pub fn document(config: &ApiConfig, description: &Description, face: &Face) -> OpenAPI {
    let schema = &face.schema;
    let mut schemas = Schemas::new(schema, profile_of(config, face));
    let mut document = OpenAPI {
        openapi: "3.0.3".to_owned(),
        info: Info {
            title: description.title.clone(),
            version: match description.version.as_str() {
                "" => "1.0.0".to_owned(),
                version => version.to_owned(),
            },
            description: about(schema, description),
            ..Info::default()
        },
        servers: vec![Server {
            url: match config.base_path.as_deref() {
                None | Some("") => "/".to_owned(),
                Some(base) => base.to_owned(),
            },
            ..Server::default()
        }],
        ..OpenAPI::default()
    };
    let mut ids = HashSet::new();
    for (operation, method) in description.operations.iter().zip(&face.methods) {
        let Some((method, definition)) = method.as_ref().and_then(|it| defined(schema, it)) else {
            continue;
        };
        let mut writer = Writer {
            schemas: &mut schemas,
            operation,
            method,
            service: definition.0,
            definition: definition.1,
            ids: &mut ids,
        };
        for (path, http_method, written) in writer.operations() {
            put(&mut document, path, &http_method, written);
        }
    }
    document.tags = tags(schema, description);
    let responses = errors(&mut schemas);
    let mut components = Components {
        responses,
        schemas: schemas.into_components(),
        ..Components::default()
    };
    for operation in &description.operations {
        add_schemes(operation, &mut components);
    }
    document.components = Some(components);
    document
}

fn profile_of(config: &ApiConfig, face: &Face) -> super::Profile {
    let Some(grpc) = &config.grpc else {
        return super::Profile::default();
    };
    // That of a method which says nothing of its own, so that it is worked out in one place.
    let methods = face.methods.iter().flatten();
    let plain = methods
        .map(|method| (method.path.as_str(), method))
        .find(|(path, _)| {
            let (service, name) = path
                .trim_start_matches('/')
                .split_once('/')
                .unwrap_or_default();
            grpc.profile_of(service, name) == grpc.profile
        });
    plain.map_or_else(super::Profile::default, |(_, method)| {
        method.reading.profile
    })
}

/// The method and its definition.
fn defined<'s, 'm>(
    schema: &'s Schema,
    method: &'m FaceMethod,
) -> Option<(&'m FaceMethod, (&'s Service, &'s Method))> {
    let (service, name) = method
        .path
        .as_str()
        .trim_start_matches('/')
        .split_once('/')?;
    let service = schema.services().iter().find(|it| *it.name == *service)?;
    let definition = service.methods.iter().find(|it| *it.name == *name)?;
    Some((method, (service, definition)))
}

/// The errors that operations refer to.
fn errors<C: FromIterator<(String, ReferenceOr<Response>)>>(schemas: &mut Schemas<'_>) -> C {
    let mut found = Vec::new();
    for (shape, name) in [
        (ErrorShape::Status, "Status"),
        (ErrorShape::Aip193, "Error"),
    ] {
        if !schemas.errors.contains(&shape) {
            continue;
        }
        let schema = match shape {
            ErrorShape::Status => schemas.status(),
            ErrorShape::Aip193 => schemas.aip193(),
        };
        let mut response = Response {
            description: "An error.".to_owned(),
            ..Response::default()
        };
        response.content.insert(JSON.to_owned(), media(schema));
        found.push((name.to_owned(), ReferenceOr::Item(response)));
    }
    found.into_iter().collect()
}

/// Of two that claim the same call the first is served, and written.
fn put(document: &mut OpenAPI, path: String, method: &str, operation: openapiv3::Operation) {
    let item = document.paths.paths.entry(path);
    let item = item.or_insert_with(|| ReferenceOr::Item(PathItem::default()));
    let ReferenceOr::Item(item) = item else {
        return;
    };
    let slot = match method {
        "GET" => &mut item.get,
        "PUT" => &mut item.put,
        "POST" => &mut item.post,
        "DELETE" => &mut item.delete,
        "PATCH" => &mut item.patch,
        "OPTIONS" => &mut item.options,
        "HEAD" => &mut item.head,
        _ => return,
    };
    slot.get_or_insert(operation);
}

fn about(schema: &Schema, description: &Description) -> Option<String> {
    let served = served(schema, description);
    let comments = served
        .iter()
        .filter_map(|service| service.comment.as_deref());
    let text = comments.map(plain).collect::<Vec<_>>().join("\n\n");
    Some(text).filter(|text| !text.is_empty())
}

fn tags(schema: &Schema, description: &Description) -> Vec<Tag> {
    let tag = |service: &&Service| Tag {
        name: short(&service.name).to_owned(),
        description: service.comment.as_deref().map(plain),
        ..Tag::default()
    };
    let mut tags: Vec<Tag> = served(schema, description).iter().map(tag).collect();
    tags.dedup_by(|later, earlier| later.name == earlier.name);
    tags
}

fn served<'s>(schema: &'s Schema, description: &Description) -> Vec<&'s Service> {
    let of = |operation: &Operation| {
        let full = operation.grpc.as_deref()?;
        Some(full.split_once('/')?.0.to_owned())
    };
    let names: HashSet<String> = description.operations.iter().filter_map(of).collect();
    let services = schema.services().iter();
    services
        .filter(|service| names.contains(&*service.name))
        .collect()
}

fn add_schemes(operation: &Operation, components: &mut Components) {
    for used in operation.security.alternatives.iter().flatten() {
        let key = |location, name: &str| SecurityScheme::APIKey {
            location,
            name: name.to_owned(),
            description: None,
            extensions: Default::default(),
        };
        let http = |scheme: &str, description: Option<&str>| SecurityScheme::HTTP {
            scheme: scheme.to_owned(),
            bearer_format: None,
            description: description.map(str::to_owned),
            extensions: Default::default(),
        };
        let scheme = match &used.kind {
            SchemeKind::ApiKeyHeader(name) => key(APIKeyLocation::Header, name),
            SchemeKind::ApiKeyQuery(name) => key(APIKeyLocation::Query, name),
            SchemeKind::ApiKeyCookie(name) => key(APIKeyLocation::Cookie, name),
            SchemeKind::Basic => http("basic", None),
            SchemeKind::Bearer => http("bearer", None),
            // 3.0 has no word for it; whoever reads this file back lets nobody pass by it.
            SchemeKind::MutualTls | SchemeKind::Unknown => http(
                "mutual",
                Some("A client certificate of the TLS connection."),
            ),
        };
        let schemes = &mut components.security_schemes;
        schemes
            .entry(used.name.to_string())
            .or_insert(ReferenceOr::Item(scheme));
    }
}

/// The name of a service without its package.
fn short(full: &str) -> &str {
    full.rsplit_once('.').map_or(full, |(_, short)| short)
}

/// A comment as text: lines lose the space behind the slashes.
fn plain(comment: &str) -> String {
    let lines = comment
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]
mod tests;
