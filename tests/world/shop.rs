//! A shop whose API takes keys in every place a key may stand, and consumers who may do more or less there.
//!
//! | consumer | project | may |
//! |---|---|---|
//! | `desk` | `floor` | everything, and ask for explanations |
//! | `web` | `floor` | `listBooks` and `getBook` |
//! | `guest` | `floor` | nothing: it has no plan |
//! | `banned` | `floor` | nothing: it is suspended |

use std::path::Path;

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
}

impl Key {
    /// From the one answer that shows it.
    pub fn shown(made: &serde_json::Value) -> Self {
        let text = |name: &str| made[name].as_str().expect("a text").to_owned();
        Self {
            id: text("id"),
            secret: text("secret"),
        }
    }
}
