//! A shop whose API takes keys in every place a key may stand, and consumers who may do more or less there.
//!
//! | consumer | project | may |
//! |---|---|---|
//! | `desk` | `floor` | everything, and ask for explanations |
//! | `web` | `floor` | `listBooks` and `getBook` |
//! | `guest` | `floor` | nothing: it has no plan |
//! | `banned` | `floor` | nothing: it is suspended |

use std::path::Path;

use serde_json::Value;

use super::{Answer, Plan, Service, World, api_file};

/// `listBooks` takes a key wherever a key may stand, the others in `X-API-Key`.
pub const SPEC: &str = r#"openapi: 3.1.0
info: { title: Shop, version: "1" }
servers: [{ url: /v1 }]
security: [{ header: [] }]
paths:
  /books:
    get:
      operationId: listBooks
      security: [{ header: [] }, { bearer: [] }, { basic: [] }, { query: [] }, { cookie: [] }]
      responses: { "200": { description: fine } }
    post: { operationId: createBook, responses: { "201": { description: fine } } }
  /books/{book}:
    parameters: [{ name: book, in: path, required: true, schema: { type: string } }]
    get: { operationId: getBook, responses: { "200": { description: fine } } }
    delete: { operationId: deleteBook, responses: { "204": { description: fine } } }
  /public:
    get: { operationId: readPublic, security: [], responses: { "200": { description: fine } } }
  /events:
    get: { operationId: streamEvents, responses: { "200": { description: fine } } }
  /chat:
    get:
      operationId: chat
      security: [{ header: [] }, { basic: [] }, { cookie: [] }]
      x-tollgate: { upgrade: [websocket] }
      responses: { "101": { description: fine } }
components:
  securitySchemes:
    header: { type: apiKey, in: header, name: X-API-Key }
    query: { type: apiKey, in: query, name: api_key }
    cookie: { type: apiKey, in: cookie, name: session }
    bearer: { type: http, scheme: bearer }
    basic: { type: http, scheme: basic }
"#;

pub const PLANS: &str = "\
plans:
  all:
    apis: { shop: all }
  reader:
    apis: { shop: [listBooks, getBook] }
";

pub const CONSUMERS: &str = "\
organisations:
  bookshop:
    projects:
      floor:
        consumers:
          desk:
            explains: true
            subscriptions: { shop: all }
          web:
            subscriptions: { shop: reader }
          guest: {}
          banned:
            suspended: true
            subscriptions: { shop: all }
";

/// Four consumers of the plan `all`.
///
/// | consumer | project | organisation |
/// |---|---|---|
/// | `desk` | `floor` | `bookshop` |
/// | `till` | `floor` | `bookshop` |
/// | `loft` | `attic` | `bookshop` |
/// | `lender` | `hall` | `library` |
pub const ORGANISATIONS: &str = "\
organisations:
  bookshop:
    projects:
      floor:
        consumers:
          desk: { subscriptions: { shop: all } }
          till: { subscriptions: { shop: all } }
      attic:
        consumers:
          loft: { subscriptions: { shop: all } }
  library:
    projects:
      hall:
        consumers:
          lender: { subscriptions: { shop: all } }
";

/// The plans, of which `all` has these limits.
pub fn plans(limits: &str) -> String {
    let all = "    apis: { shop: all }\n";
    PLANS.replace(all, &format!("{all}    limits: {limits}\n"))
}

/// The shop before this service, with the consumers above.
pub fn shop(service: &Service) -> Plan {
    shop_with(service, "")
}

/// The same, with more in the API file.
pub fn shop_with(service: &Service, more: &str) -> Plan {
    bare(&service.url(), more)
        .file("plans.yaml", PLANS)
        .file("consumers.yaml", CONSUMERS)
}

/// The shop's API before whatever is at this URL, without plans and consumers.
pub fn bare(upstream: &str, more: &str) -> Plan {
    let spec = Path::new("../../shop.yaml");
    Plan::before(upstream)
        .api("shop", api_file(spec, upstream, more))
        .file("../shop.yaml", SPEC)
}

/// A key and its public identifier.
#[derive(Clone, Debug)]
pub struct Key {
    pub id: String,
    pub secret: String,
}

impl World {
    /// A new key of this consumer, made by the command line.
    pub fn key(&self, consumer: &str) -> Key {
        self.key_with(consumer, &[])
    }

    /// The same, with restrictions.
    pub fn key_with(&self, consumer: &str, flags: &[&str]) -> Key {
        let made = self.cli(&[&["keys", "create", consumer, "--json"], flags].concat());
        Key::shown(&made.json())
    }

    /// GET with this key in `X-API-Key`.
    pub fn get_with(&self, key: &Key, path: &str) -> Answer {
        self.ask("GET", path, &[("x-api-key", &key.secret)], b"")
    }

    /// What a caller with these fields is told of its quota at the API under `base`: limit, whose, used, left.
    pub fn own_quota(
        &self,
        base: &str,
        fields: &[(&str, &str)],
    ) -> Vec<(String, String, u64, u64)> {
        let answer = self.ask("GET", &format!("{base}/.tollgate/quota"), fields, b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        let number = |row: &Value, name: &str| row[name].as_u64().unwrap();
        let all = answer.json();
        let rows = all["quota"].as_array().unwrap().iter();
        rows.map(|row| {
            let (limit, subject) = (text(row, "limit"), text(row, "subject"));
            (limit, subject, number(row, "used"), number(row, "left"))
        })
        .collect()
    }
}

impl Key {
    /// From the one answer that shows it.
    pub fn shown(made: &Value) -> Self {
        let text = |name: &str| made[name].as_str().expect("a text").to_owned();
        Self {
            id: text("id"),
            secret: text("secret"),
        }
    }
}
