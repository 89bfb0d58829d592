//! From the files an API names to its operations: of its OpenAPI file, of its descriptors, or of both joined.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tollgate_policy::openapi::{
    self, Description, Dialect, Operation, SchemeKind, SchemeUse, Security,
};
use tollgate_policy::settings::{ApiConfig, CallerKind, DescriptorSource, GrpcConfig};
use tollgate_policy::{Finding, Place, Severity};

use super::super::{Schema, SchemaError};
use super::compile::{Compiled, Compiler};
use super::descriptors::{self, Descriptors, Places, Reflected, reflection};
use super::service_config::{self, ServiceConfig};
use super::{Face, FaceMethod, join};

/// An API's operations, and what its gRPC service looks like.
#[derive(Debug)]
pub struct Described {
    /// The operations with everything found on the way. `files` are all that were read.
    pub description: Description,
    /// `None` for an API that speaks HTTP itself.
    pub face: Option<Face>,
}

/// Reads everything an API names. `reflected` is what its service answered to reflection, where it is asked. `files`
/// receives every file that was looked at, also when this fails.
///
/// # Errors
/// Findings that make the API unusable.
pub fn describe(
    config: &ApiConfig,
    reflected: &Reflected<'_>,
    files: &mut Vec<PathBuf>,
) -> Result<Described, Vec<Finding>> {
    files.extend(config.spec.clone());
    let Some(grpc) = &config.grpc else {
        let spec = config.spec.as_deref().unwrap_or(Path::new(""));
        let description = openapi::load(spec)?;
        files.extend(description.files.iter().cloned());
        return Ok(Described {
            description,
            face: None,
        });
    };
    files.extend(grpc.rules.clone());
    let descriptors = descriptors::read(grpc, reflected, files)?;
    let schema = Schema::read(&descriptors.set);
    let schema = schema.map_err(|error| vec![unusable(&error, &descriptors.places)])?;
    let rules = match &grpc.rules {
        Some(path) => service_config::read(path)?,
        None => ServiceConfig::default(),
    };
    let compiled = Compiler {
        schema: &schema,
        config: grpc,
        rules: &rules,
        places: &descriptors.places,
        security: demanded(&grpc.callers),
    };
    let mut compiled = compiled.compile();
    compiled.findings.extend(rules.findings);
    let (methods, mut description) = match &config.spec {
        Some(spec) => join::join(openapi::load(spec)?, compiled),
        None => alone(config, compiled, &descriptors),
    };
    files.extend(description.files.iter().cloned());
    let mut findings = description.findings.iter();
    if findings.any(|it| it.severity == Severity::Error) {
        return Err(description.findings);
    }
    description.files = files.clone();
    description.files.sort();
    description.files.dedup();
    let credentials = query_credentials(&description.operations);
    let methods = methods.into_iter().map(|method| {
        let mut method: FaceMethod = method;
        method.reading.credentials = Arc::clone(&credentials);
        Some(method)
    });
    Ok(Described {
        face: Some(Face {
            methods: methods.collect(),
            schema: Arc::new(schema),
            errors: grpc.profile.errors.unwrap_or_default(),
        }),
        description,
    })
}

/// What callers show, in the words of an OpenAPI file. The names are those of the schemes `tollgate openapi` writes.
fn demanded(callers: &[CallerKind]) -> Security {
    let scheme = |caller: &CallerKind| {
        let (name, kind) = match caller {
            CallerKind::Key => ("key", SchemeKind::ApiKeyHeader("x-api-key".into())),
            CallerKind::Token => ("token", SchemeKind::Bearer),
            CallerKind::Basic => ("basic", SchemeKind::Basic),
            CallerKind::Certificate => ("certificate", SchemeKind::MutualTls),
        };
        vec![SchemeUse {
            name: name.into(),
            scopes: Vec::new(),
            kind,
            issuer: None,
        }]
    };
    Security {
        alternatives: callers.iter().map(scheme).collect(),
        unreadable: false,
    }
}

fn alone(
    config: &ApiConfig,
    compiled: Compiled,
    descriptors: &Descriptors,
) -> (Vec<FaceMethod>, Description) {
    let (methods, mut operations): (Vec<_>, Vec<_>) = compiled.methods.into_iter().unzip();
    name_safely(&mut operations);
    let description = Description {
        file: descriptors.places.whole().file,
        title: config.name.to_string(),
        version: String::new(),
        dialect: Dialect::OpenApi30,
        operations,
        settings: Default::default(),
        limits: Vec::new(),
        servers: Vec::new(),
        findings: compiled.findings,
        files: Vec::new(),
    };
    (methods, description)
}

/// Full names of methods are safe as labels but for their length.
pub(super) fn name_safely(operations: &mut [Operation]) {
    let ids = operations.iter().map(|operation| {
        let id = operation.id.as_ref();
        Arc::clone(id.unwrap_or(&operation.name))
    });
    let ids: Vec<Arc<str>> = ids.collect();
    for (operation, name) in operations.iter_mut().zip(openapi::label_safe_names(&ids)) {
        operation.name = name;
    }
}

/// Query parameters that hold credentials of this API.
fn query_credentials(operations: &[Operation]) -> Arc<[Arc<str>]> {
    let schemes = operations
        .iter()
        .flat_map(|it| it.security.alternatives.iter().flatten());
    let mut names: Vec<Arc<str>> = schemes
        .filter_map(|used| match &used.kind {
            SchemeKind::ApiKeyQuery(name) => Some(Arc::clone(name)),
            SchemeKind::ApiKeyHeader(_)
            | SchemeKind::ApiKeyCookie(_)
            | SchemeKind::Basic
            | SchemeKind::Bearer
            | SchemeKind::MutualTls
            | SchemeKind::Unknown => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into()
}

fn unusable(error: &SchemaError, places: &Places) -> Finding {
    let file = match error {
        SchemaError::Malformed { file, .. }
        | SchemaError::DefinedTwice { file, .. }
        | SchemaError::NotThere { file, .. }
        | SchemaError::Edition { file, .. }
        | SchemaError::Invalid { file, .. }
        | SchemaError::FileTwice(file) => Some(file.as_str()).filter(|file| !file.is_empty()),
        SchemaError::TooLarge(_) => None,
    };
    let remedy = match error {
        SchemaError::NotThere { .. } => {
            "compile the set with all imports: protoc --include_imports"
        }
        _ => "compile the descriptors again",
    };
    let place: Place = file.map_or_else(|| places.whole(), |file| places.of(file, None));
    Finding {
        severity: Severity::Error,
        code: "descriptors",
        place,
        what: error.to_string(),
        remedy: remedy.to_owned(),
    }
}

/// As [`describe`], for a look at an API that nobody serves: where the service is asked for its descriptors, it is asked now. Blocks.
///
/// # Errors
/// As [`describe`]; the service does not answer.
pub fn describe_now(config: &ApiConfig) -> Result<Described, Vec<Finding>> {
    let Some(grpc) = reflects(config) else {
        return describe(config, &Reflected::File(Path::new("")), &mut Vec::new());
    };
    let set = reflection::ask_blocking(&config.upstream, grpc).map_err(|why| {
        vec![Finding {
            severity: Severity::Error,
            code: "reflection",
            place: grpc.place.clone(),
            what: format!("the service's descriptors are not known: {why}"),
            remedy: "start the service with server reflection, or name `descriptors`".to_owned(),
        }]
    })?;
    describe(config, &Reflected::Set(set), &mut Vec::new())
}

/// The settings of an API whose service is asked for its descriptors.
fn reflects(config: &ApiConfig) -> Option<&GrpcConfig> {
    let grpc = config.grpc.as_ref();
    grpc.filter(|grpc| matches!(grpc.source, DescriptorSource::Reflection { .. }))
}
