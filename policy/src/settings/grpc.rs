//! `grpc` of an API file, as meant: where a service's descriptors come from, and how its methods look as REST.
//!
//! Says nothing about what stands in the descriptors: that is found out where they are read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::finding::Place;

/// The `grpc` section of an API file.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcConfig {
    /// Where the descriptors come from.
    pub source: DescriptorSource,
    /// A service configuration in YAML whose `http.rules` win over the annotations.
    pub rules: Option<PathBuf>,
    /// Services served, by full name; empty: all but those of gRPC itself.
    pub services: Vec<NamedService>,
    /// What callers show where no OpenAPI file says it. Each of them suffices; empty: nothing.
    pub callers: Vec<CallerKind>,
    /// How JSON is read and written, where a method says nothing else.
    pub profile: ProfileSettings,
    /// The same for single methods.
    pub methods: Vec<MethodProfile>,
    /// Where the section stands.
    pub place: Place,
}

impl GrpcConfig {
    /// What holds for one method, by its service and its own name.
    pub fn profile_of(&self, service: &str, method: &str) -> ProfileSettings {
        let own = self.methods.iter().find(|it| it.is(service, method));
        own.map_or(self.profile, |own| own.profile.or(&self.profile))
    }
}

/// Where descriptors come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescriptorSource {
    /// A compiled `google.protobuf.FileDescriptorSet`.
    Set(PathBuf),
    /// `.proto` files, compiled when they are loaded.
    Protos {
        /// At least one.
        files: Vec<PathBuf>,
        /// Directories that imports are relative to.
        include: Vec<PathBuf>,
    },
    /// The service itself, by server reflection.
    Reflection {
        /// How often it is asked again; zero: only once.
        refresh: Duration,
    },
}

/// A service by name, and where the name stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedService {
    /// Full name: `package.Service`.
    pub name: Arc<str>,
    /// Where.
    pub place: Place,
}

/// The profile of one method.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodProfile {
    /// As written: `package.Service/Method`, or with a `.` before the method.
    pub name: Arc<str>,
    /// What it says.
    pub profile: ProfileSettings,
    /// Where the name stands.
    pub place: Place,
}

impl MethodProfile {
    /// Whether this is about the method of that service.
    pub fn is(&self, service: &str, method: &str) -> bool {
        let rest = self.name.strip_prefix(service);
        rest.and_then(|rest| rest.strip_prefix(['/', '.'])) == Some(method)
    }
}

/// What a caller shows where no OpenAPI file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerKind {
    /// A key of Tollgate in `x-api-key`.
    Key,
    /// A token in `authorization`.
    Token,
    /// A user and password.
    Basic,
    /// The certificate of the TLS connection.
    Certificate,
}

/// How JSON is read and written. `None`: not said here, ask one level out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProfileSettings {
    /// `unknown_fields`: fields of a JSON body that the message does not have are ignored instead of refused.
    pub ignore_unknown_fields: Option<bool>,
    /// `unknown_query`: the same for query parameters.
    pub ignore_unknown_query: Option<bool>,
    /// `print_unset`: fields without a value that are printed all the same.
    pub print_unset: Option<PrintUnset>,
    /// `names: proto`: fields are printed under their names in the `.proto` file, not in lowerCamelCase.
    pub proto_names: Option<bool>,
    /// `enums: number`: enum values are printed as numbers.
    pub enum_numbers: Option<bool>,
    /// `strip_enum_prefix`: `STATE_OPEN` of `enum State` is read and printed as `OPEN`.
    pub strip_enum_prefix: Option<bool>,
    /// `enums_any_case`: enum values are read in any case.
    pub enums_any_case: Option<bool>,
    /// `int64: number`: integers of 64 bits are printed as numbers.
    pub int64_numbers: Option<bool>,
    /// `errors`: shape of a JSON error.
    pub errors: Option<ErrorShape>,
    /// `streams`: shape of a stream whose caller did not say one.
    pub streams: Option<StreamShape>,
    /// `update_mask: derive`: a PATCH without a mask gets one from the fields of its body.
    pub derive_update_mask: Option<bool>,
}

impl ProfileSettings {
    /// These settings, with what they leave unsaid taken from `outer`.
    #[must_use]
    pub fn or(&self, outer: &Self) -> Self {
        Self {
            ignore_unknown_fields: self.ignore_unknown_fields.or(outer.ignore_unknown_fields),
            ignore_unknown_query: self.ignore_unknown_query.or(outer.ignore_unknown_query),
            print_unset: self.print_unset.or(outer.print_unset),
            proto_names: self.proto_names.or(outer.proto_names),
            enum_numbers: self.enum_numbers.or(outer.enum_numbers),
            strip_enum_prefix: self.strip_enum_prefix.or(outer.strip_enum_prefix),
            enums_any_case: self.enums_any_case.or(outer.enums_any_case),
            int64_numbers: self.int64_numbers.or(outer.int64_numbers),
            errors: self.errors.or(outer.errors),
            streams: self.streams.or(outer.streams),
            derive_update_mask: self.derive_update_mask.or(outer.derive_update_mask),
        }
    }
}

/// Fields without a value that are printed all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrintUnset {
    /// None.
    #[default]
    None,
    /// Fields that cannot be told from unset ones: zeros, empty texts, lists and maps.
    Primitives,
    /// These, and `null` for every other field that is no member of a oneof.
    All,
}

/// Shape of a JSON error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ErrorShape {
    /// `google.rpc.Status`: `{"code": 5, "message": …, "details": […]}`.
    #[default]
    Status,
    /// AIP-193: `{"error": {"code": 404, "status": "NOT_FOUND", …}}`.
    Aip193,
}

/// Shape of a stream of answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamShape {
    /// One JSON array.
    #[default]
    Array,
    /// One JSON value a line (`application/x-ndjson`).
    Ndjson,
    /// Server-sent events (`text/event-stream`).
    Sse,
}
