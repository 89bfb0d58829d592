//! From a REST call to the message it means: path, query and body, each value decoded once and put into its field.
//!
//! The path beats the query and the body, by refusing what would say a field twice. Bounded by the lengths of what came; never panics.

use std::fmt;
use std::sync::Arc;

use super::super::{
    Bound, CodecError, Field, FieldId, FieldPath, MessageId, Profile, Schema, Writer, is_bindable,
};
use super::{Template, http_body, mask, query};

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

    /// Whether the body is a `google.api.HttpBody`: its bytes as they are, and no JSON.
    pub fn raw_request(&self, schema: &Schema) -> bool {
        match &self.body {
            BodyRule::None => false,
            BodyRule::Whole => http_body::is(schema, self.input),
            BodyRule::Field(path) => http_body::of_field(schema, path),
        }
    }

    /// What a call sends.
    pub fn input_message(&self) -> MessageId {
        self.input
    }

    /// The field that is the whole body; `None` where the body is the message, or there is none.
    pub fn body_field<'s>(&self, schema: &'s Schema) -> Option<&'s Field> {
        match &self.body {
            BodyRule::Field(path) => Some(path.last(schema)),
            BodyRule::None | BodyRule::Whole => None,
        }
    }

    /// The fields of the path's variables, in its order.
    pub fn variables(&self) -> impl Iterator<Item = &FieldPath> {
        self.variables.iter()
    }

    /// The field of one of the path's variables.
    pub fn variable(&self, index: usize) -> Option<&FieldPath> {
        self.variables.get(index)
    }

    /// The message of a call, or the first message of a stream. `path` is the canonical path, still encoded, without the base path it
    /// came under; `query` what follows `?`, or nothing.
    ///
    /// # Errors
    /// Whatever the caller got wrong, with the field.
    pub fn request(
        &self,
        schema: &Schema,
        rules: &BindRules,
        path: &str,
        query: &str,
        body: Body<'_>,
    ) -> Result<Vec<u8>, BindError> {
        let mut writer = Writer::new(schema, self.input, &rules.profile);
        self.put_body(schema, &mut writer, body)?;
        self.put_path(rules, &mut writer, path)?;
        let asked = self.put_query(schema, rules, &mut writer, query)?;
        let mut message = writer.finish()?;
        if let (true, Some(mask), BodyRule::Field(field)) =
            (rules.derive_update_mask, &self.update_mask, &self.body)
            && !asked.mask_given
        {
            mask::append(schema, mask, field, body.bytes, &mut message);
        }
        Ok(message)
    }

    /// A later message of a client's stream: only what the body says.
    ///
    /// # Errors
    /// As for [`Binding::request`].
    pub fn further(
        &self,
        schema: &Schema,
        rules: &BindRules,
        body: Body<'_>,
    ) -> Result<Vec<u8>, BindError> {
        let mut writer = Writer::new(schema, self.input, &rules.profile);
        self.put_body(schema, &mut writer, body)?;
        Ok(writer.finish()?)
    }

    fn put_body(
        &self,
        schema: &Schema,
        writer: &mut Writer<'_>,
        body: Body<'_>,
    ) -> Result<(), BindError> {
        // Nothing is said by an empty body, whatever the rule.
        if body.bytes.is_empty() {
            return Ok(());
        }
        match &self.body {
            BodyRule::None => {
                let what = "a body came, and this call has none";
                return Err(BindError::new("", what));
            }
            BodyRule::Whole if http_body::is(schema, self.input) => {
                let mut wire = Vec::with_capacity(body.bytes.len() + 64);
                http_body::write(body, &mut wire);
                writer.body_wire(wire)?;
            }
            BodyRule::Whole => writer.body(body.bytes)?,
            BodyRule::Field(field) if http_body::of_field(schema, field) => {
                let (mut inner, mut wire) = (Vec::with_capacity(body.bytes.len() + 64), Vec::new());
                http_body::write(body, &mut inner);
                http_body::put_bytes(field.last(schema).number, &inner, &mut wire);
                writer.body_wire(wire)?;
            }
            BodyRule::Field(field) => writer.body_field(field, body.bytes)?,
        }
        Ok(())
    }

    fn put_path(
        &self,
        rules: &BindRules,
        writer: &mut Writer<'_>,
        path: &str,
    ) -> Result<(), BindError> {
        let Some(values) = self.template.values(path) else {
            return Err(BindError::new("", "the path is not that of the call"));
        };
        let names = self.template.variables();
        for (index, ((field, raw), name)) in
            self.variables.iter().zip(values).zip(names).enumerate()
        {
            let text = self.template.decoded(index, raw, rules.decodes_fully);
            let text = text.map_err(|why| BindError::new(name, why))?;
            writer.bind(field, &text, Bound::Path)?;
        }
        Ok(())
    }

    fn put_query(
        &self,
        schema: &Schema,
        rules: &BindRules,
        writer: &mut Writer<'_>,
        query: &str,
    ) -> Result<Asked, BindError> {
        let mut asked = Asked::default();
        for parameter in query::parameters(query) {
            let (name, text) = parameter?;
            if rules.credentials.iter().any(|known| **known == *name) {
                continue;
            }
            let Some(field) = self.query_field(schema, &name) else {
                if rules.ignore_unknown_query {
                    continue;
                }
                return Err(BindError::new(query::shown(&name), self.no_parameter()));
            };
            self.check_query(schema, &field)?;
            let is_mask = self.update_mask.as_ref();
            asked.mask_given |=
                is_mask.is_some_and(|mask| mask.steps().first() == field.steps().first());
            writer.bind(&field, &text, Bound::Query)?;
        }
        Ok(asked)
    }

    /// The field of a query parameter. Where the body is the whole message there is none.
    fn query_field(&self, schema: &Schema, name: &str) -> Option<FieldPath> {
        match self.body {
            BodyRule::Whole => None,
            BodyRule::None | BodyRule::Field(_) => schema.path(self.input, name).ok(),
        }
    }

    fn no_parameter(&self) -> &'static str {
        match self.body {
            BodyRule::Whole => "this call takes no query parameters, only a body",
            BodyRule::None | BodyRule::Field(_) => "there is no such query parameter",
        }
    }

    /// What is a field and yet no query parameter.
    fn check_query(&self, schema: &Schema, field: &FieldPath) -> Result<(), BindError> {
        let refuse = |what: &str| Err(BindError::new(field.dotted(schema), what));
        if let BodyRule::Field(body) = &self.body
            && body.steps().first() == field.steps().first()
        {
            return refuse("it is given by the body");
        }
        // Bytes of a raw body come as a body or not at all.
        let raw = |step: &FieldId| http_body::is(schema, schema.field(*step).message);
        if field.steps().iter().any(raw) || !is_bindable(schema, field.last(schema)) {
            return refuse("it cannot be given as a query parameter");
        }
        Ok(())
    }
}

/// What the query was about.
#[derive(Default)]
struct Asked {
    mask_given: bool,
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
