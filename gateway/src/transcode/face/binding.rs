//! From a REST call to the message it means: path, query and body, each value decoded once and put into its field.
//!
//! The path beats the query and the body, by refusing what would say a field twice. Bounded by the lengths of what came; never panics.

use std::fmt;
use std::sync::Arc;

use super::super::{CodecError, FieldId, FieldPath, MessageId, Profile, Schema};
use super::Template;

/// One HTTP rule of a method.
#[derive(Debug)]
pub struct Binding {
    /// Method in upper case; `*` for any.
    pub method: Arc<str>,
    /// The path.
    pub template: Template,
    /// Whether this is the rule of a method that has none.
    pub is_default: bool,
    /// `response_body`: the field of the answer that is the whole body; `None`: all of it.
    pub response_body: Option<FieldId>,
    /// Whether what is answered is a `google.api.HttpBody`, whose bytes are the body as they are.
    pub raw_response: bool,
    pub(super) input: MessageId,
    pub(super) variables: Vec<FieldPath>,
    pub(super) body: BodyRule,
    /// The mask that is made from the body where the call has none.
    pub(super) update_mask: Option<FieldPath>,
}

/// What a body means.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum BodyRule {
    /// There is none.
    None,
    /// The whole message.
    Whole,
    /// One field.
    Field(FieldPath),
}

/// The body of a call, whole.
#[derive(Clone, Copy, Debug)]
pub struct Body<'b> {
    /// `content-type`, where there is one: a `google.api.HttpBody` keeps it.
    pub content_type: Option<&'b str>,
    /// Its bytes, without content coding.
    pub bytes: &'b [u8],
}

/// Why a call is no message: 400, INVALID_ARGUMENT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindError {
    /// The field, as `book.items[3].price`, or the query parameter; empty where neither is known.
    pub field: String,
    /// What is wrong: lower case, no full stop.
    pub what: String,
}

impl Binding {
    /// Whether the call has a body that means something.
    pub fn takes_body(&self) -> bool {
        self.body != BodyRule::None
    }

    /// The message of a call, or the first message of a stream. `path` is the canonical path, still encoded, without the base path it
    /// came under; `query` what follows `?`, or nothing.
    ///
    /// # Errors
    /// Whatever the caller got wrong, with the field.
    pub fn request(
        &self,
        _schema: &Schema,
        _rules: &BindRules,
        _path: &str,
        _query: &str,
        _body: Body<'_>,
    ) -> Result<Vec<u8>, BindError> {
        Err(BindError::new("", "not bound"))
    }

    /// A later message of a client's stream: only what the body says.
    ///
    /// # Errors
    /// As for [`Binding::request`].
    pub fn further(
        &self,
        _schema: &Schema,
        _rules: &BindRules,
        _body: Body<'_>,
    ) -> Result<Vec<u8>, BindError> {
        Err(BindError::new("", "not bound"))
    }
}

/// How strictly a method's calls are read.
#[derive(Clone, Debug, Default)]
pub struct BindRules {
    /// Of JSON.
    pub profile: Profile,
    /// Query parameters that are no field are ignored instead of refused.
    pub ignore_unknown_query: bool,
    /// A PATCH without `update_mask` gets one from the fields of its body.
    pub derive_update_mask: bool,
    /// `%2F` is decoded in variables of several segments too.
    pub decodes_fully: bool,
    /// Query parameters that hold credentials: no fields, whatever their names.
    pub credentials: Arc<[Arc<str>]>,
}

impl BindError {
    pub(super) fn new(field: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            what: what.into(),
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.what),
            field => write!(f, "{field}: {}", self.what),
        }
    }
}

impl std::error::Error for BindError {}

impl From<CodecError> for BindError {
    fn from(error: CodecError) -> Self {
        Self::new(error.path, error.what)
    }
}
