//! Parameters of a binding: what its path holds, and the fields that are left for the query.

use openapiv3::{
    Parameter, ParameterData, ParameterSchemaOrContent, PathStyle, QueryStyle, ReferenceOr,
};

use super::super::face::{Binding, http_body};
use super::super::{Cardinality, Field, Kind, MessageId, Names, is_bindable};
use super::plain;
use super::schema::{Schemas, Shape};

/// Fields within fields that are written as parameters. Deeper ones are read all the same.
const DEEPEST: usize = 3;

/// Parameters of one operation.
const MOST: usize = 200;

/// The path as OpenAPI has it, and its parameters. A variable of several segments is one parameter for each of them.
pub(super) fn of_path(schemas: &mut Schemas<'_>, binding: &Binding) -> (String, Vec<Parameter>) {
    let (path, places) = binding.template.spelled_out();
    let mut parameters = Vec::new();
    for place in places {
        let field = place.field.and_then(|index| binding.variable(index));
        let field = field.map(|path| path.last(schemas.schema));
        let schema = match field.filter(|_| place.whole) {
            Some(field) => schemas.of(&Shape::Field(field)),
            None => schemas.text(),
        };
        let mut data = data(&place.name, schema);
        data.required = true;
        data.description = field.and_then(|field| field.comment.as_deref()).map(plain);
        if place.rest {
            let yes = serde_json::Value::Bool(true);
            data.extensions.insert("x-multi-segment".to_owned(), yes);
        }
        parameters.push(Parameter::Path {
            parameter_data: data,
            style: PathStyle::Simple,
        });
    }
    (path, parameters)
}

/// The fields a query may name, nested ones with dots.
pub(super) fn of_query(schemas: &mut Schemas<'_>, binding: &Binding) -> Vec<Parameter> {
    let schema = schemas.schema;
    if binding.takes_body() && binding.body_field(schema).is_none() {
        return Vec::new();
    }
    let mut taken: Vec<String> = binding
        .variables()
        .map(|path| path.dotted(schema))
        .collect();
    taken.extend(
        binding
            .body_field(schema)
            .map(|field| field.name.to_string()),
    );
    let mut collector = Collector {
        schemas,
        taken,
        found: Vec::new(),
    };
    collector.message(binding.input_message(), "", "", 0);
    collector.found
}

struct Collector<'c, 's> {
    schemas: &'c mut Schemas<'s>,
    /// Paths by the names of the definition that something else says.
    taken: Vec<String>,
    found: Vec<Parameter>,
}

impl Collector<'_, '_> {
    fn message(&mut self, message: MessageId, before: &str, shown: &str, depth: usize) {
        let schema = self.schemas.schema;
        if http_body::is(schema, message) {
            return;
        }
        for field in schema
            .fields(message)
            .iter()
            .filter(|field| !field.is_extension)
        {
            let path = dotted(before, &field.name);
            let name = match self.schemas.profile.names {
                Names::Json => dotted(shown, &field.json_name),
                Names::Proto => dotted(shown, &field.name),
            };
            if self.taken.contains(&path) || self.found.len() >= MOST {
                continue;
            }
            if is_bindable(schema, field) {
                self.parameter(field, &name);
            } else if let (Kind::Message(child), Cardinality::Singular) =
                (field.kind, field.cardinality)
                && schema.message_of(child).well_known.is_none()
                && depth < DEEPEST
            {
                self.message(child, &path, &name, depth + 1);
            }
        }
    }

    fn parameter(&mut self, field: &Field, name: &str) {
        let schema = self.schemas.of(&Shape::Field(field));
        let mut data = data(name, schema);
        data.description = field.comment.as_deref().map(plain);
        data.deprecated = field.is_deprecated.then_some(true);
        data.explode = (field.cardinality == Cardinality::Repeated).then_some(true);
        self.found.push(Parameter::Query {
            parameter_data: data,
            allow_reserved: false,
            style: QueryStyle::Form,
            allow_empty_value: None,
        });
    }
}

fn dotted(before: &str, name: &str) -> String {
    match before {
        "" => name.to_owned(),
        before => format!("{before}.{name}"),
    }
}

fn data(name: &str, schema: ReferenceOr<openapiv3::Schema>) -> ParameterData {
    ParameterData {
        name: name.to_owned(),
        description: None,
        required: false,
        deprecated: None,
        format: ParameterSchemaOrContent::Schema(schema),
        example: None,
        examples: Default::default(),
        explode: None,
        extensions: Default::default(),
    }
}
