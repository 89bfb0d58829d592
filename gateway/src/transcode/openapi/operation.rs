//! One binding of a method as an operation of the document.

use std::collections::HashSet;

use openapiv3::{
    MediaType, Operation, ReferenceOr, RequestBody, Response, Responses, SecurityRequirement,
    StatusCode,
};
use tollgate_policy::openapi;
use tollgate_policy::settings::ErrorShape;

use super::super::face::{Binding, FaceMethod, http_body};
use super::super::schema::{Method, Service};
use super::super::{Field, MessageId};
use super::parameter;
use super::schema::{Schemas, Shape, binary};
use super::{ANY_METHOD, plain, short};

/// Writes the operations of one method.
pub(super) struct Writer<'w, 's> {
    pub(super) schemas: &'w mut Schemas<'s>,
    pub(super) operation: &'w openapi::Operation,
    pub(super) method: &'w FaceMethod,
    pub(super) service: &'w Service,
    pub(super) definition: &'w Method,
    /// Ids that are taken.
    pub(super) ids: &'w mut HashSet<String>,
}

impl Writer<'_, '_> {
    /// Path, method and operation of every binding.
    pub(super) fn operations(&mut self) -> Vec<(String, String, Operation)> {
        let mut written = Vec::new();
        for binding in &self.method.bindings {
            let methods: &[&str] = match &*binding.method {
                "*" => &ANY_METHOD,
                one => &[one],
            };
            for method in methods {
                let (path, operation) = self.binding(binding, method);
                written.push((path, (*method).to_owned(), operation));
            }
        }
        written
    }

    fn binding(&mut self, binding: &Binding, method: &str) -> (String, Operation) {
        let comment = self.definition.comment.as_deref().map(plain);
        let summary = comment.as_deref().and_then(|text| text.lines().next());
        let summary = summary.map_or_else(|| self.definition.name.to_string(), str::to_owned);
        let (path, mut parameters) = parameter::of_path(self.schemas, binding);
        parameters.extend(parameter::of_query(self.schemas, binding));
        let mut description = comment.unwrap_or_default();
        let streams = match (self.method.client_streaming, self.method.server_streaming) {
            (false, false) => "",
            (false, true) => {
                "The answer is a stream: a JSON array, or lines or events by `Accept`."
            }
            (true, false) => "The body is a stream: a JSON array, or lines.",
            (true, true) => "Both sides stream; over a WebSocket at the same time.",
        };
        if !streams.is_empty() {
            if !description.is_empty() {
                description.push_str("\n\n");
            }
            description.push_str(streams);
        }
        let operation = Operation {
            tags: vec![short(&self.service.name).to_owned()],
            summary: Some(summary),
            description: Some(description).filter(|text| !text.is_empty()),
            operation_id: Some(self.id()),
            parameters: parameters.into_iter().map(ReferenceOr::Item).collect(),
            request_body: self.body(binding).map(ReferenceOr::Item),
            responses: self.responses(binding),
            deprecated: self.definition.is_deprecated,
            security: self.security(),
            ..Operation::default()
        };
        // A GET has no body, whatever else a binding for any method has.
        let operation = match method {
            "GET" => Operation {
                request_body: None,
                ..operation
            },
            _ => operation,
        };
        (path, operation)
    }

    /// `Service_Method`; with the package where another service has the name, with a number for further bindings.
    fn id(&mut self) -> String {
        let mut wish = format!("{}_{}", short(&self.service.name), self.definition.name);
        let foreign = self.ids.contains(&wish) && !self.ids.contains(&self.mark());
        if foreign {
            wish = format!(
                "{}_{}",
                self.service.name.replace('.', "_"),
                self.definition.name
            );
        }
        let mark = self.mark();
        self.ids.insert(mark);
        let mut id = wish.clone();
        for number in 2_u32.. {
            if self.ids.insert(id.clone()) {
                break;
            }
            id = format!("{wish}{number}");
        }
        id
    }

    /// Not an id: tells that one of this method's was given.
    fn mark(&self) -> String {
        self.method.path.as_str().to_owned()
    }

    fn body(&mut self, binding: &Binding) -> Option<RequestBody> {
        if !binding.takes_body() {
            return None;
        }
        let mut body = RequestBody::default();
        let shape = match binding.body_field(self.schemas.schema) {
            None => Shape::Message(binding.input_message()),
            Some(field) => Shape::Field(field),
        };
        if self.is_raw(&shape) {
            body.content.insert("*/*".to_owned(), binary());
            return Some(body);
        }
        let item = self.schemas.of(&shape);
        if self.method.client_streaming {
            let lines = media(item.clone());
            body.content
                .insert(JSON.to_owned(), media(self.schemas.list_of(item)));
            body.content.insert(NDJSON.to_owned(), lines);
        } else {
            body.content.insert(JSON.to_owned(), media(item));
        }
        body.required = true;
        Some(body)
    }

    fn is_raw(&self, shape: &Shape<'_>) -> bool {
        let schema = self.schemas.schema;
        match shape {
            Shape::Message(message) => http_body::is(schema, *message),
            Shape::Field(field) => field
                .child()
                .is_some_and(|child| http_body::is(schema, child)),
        }
    }

    fn responses(&mut self, binding: &Binding) -> Responses {
        let mut good = Response {
            description: match self.method.server_streaming {
                true => "The messages of the stream.".to_owned(),
                false => "The answer.".to_owned(),
            },
            ..Response::default()
        };
        if binding.raw_response {
            good.content.insert("*/*".to_owned(), binary());
        } else {
            let schema = self.schemas.schema;
            let field: Option<&Field> = binding.response_body.map(|id| schema.field(id));
            let item = match field {
                Some(field) => self.schemas.of(&Shape::Field(field)),
                None => self.schemas.of(&Shape::Message(self.output())),
            };
            if self.method.server_streaming {
                good.content
                    .insert(JSON.to_owned(), media(self.schemas.list_of(item.clone())));
                good.content.insert(NDJSON.to_owned(), media(item));
                good.content
                    .insert("text/event-stream".to_owned(), media(self.schemas.text()));
            } else {
                good.content.insert(JSON.to_owned(), media(item));
            }
        }
        let bad = match self.method.errors {
            ErrorShape::Status => "Status",
            ErrorShape::Aip193 => "Error",
        };
        self.schemas.errors.insert(self.method.errors);
        let bad = ReferenceOr::ref_(&format!("#/components/responses/{bad}"));
        let mut responses = Responses {
            default: Some(bad.clone()),
            ..Responses::default()
        };
        let code = StatusCode::Code(200);
        responses.responses.insert(code, ReferenceOr::Item(good));
        responses.responses.insert(StatusCode::Range(4), bad);
        responses
    }

    fn output(&self) -> MessageId {
        self.method.output
    }

    fn security(&self) -> Option<Vec<SecurityRequirement>> {
        let alternatives = self.operation.security.alternatives.iter();
        let requirement = |all: &Vec<openapi::SchemeUse>| {
            let scopes = |used: &openapi::SchemeUse| {
                let scopes = used.scopes.iter().map(ToString::to_string).collect();
                (used.name.to_string(), scopes)
            };
            all.iter().map(scopes).collect()
        };
        Some(alternatives.map(requirement).collect())
    }
}

pub(super) const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

pub(super) fn media(schema: ReferenceOr<openapiv3::Schema>) -> MediaType {
    MediaType {
        schema: Some(schema),
        ..MediaType::default()
    }
}
