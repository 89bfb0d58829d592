//! HTTP rules as written: `google.api.http` on a method, read from the bytes of its options, or an entry of a service configuration.
//!
//! Not here: whether a rule fits the messages (`compile`).

use prost::Message as _;
use tollgate_policy::Place;

/// An HTTP rule with its additional bindings, which are never deeper than one level here.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    /// The binding itself, then the additional ones.
    pub(super) bindings: Vec<WrittenBinding>,
    /// What is wrong with the rule as a whole, for findings.
    pub(super) problems: Vec<String>,
    /// Where it stands.
    pub(super) place: Place,
}

/// One pattern of a rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct WrittenBinding {
    /// Method in upper case, `*` for any.
    pub(super) method: String,
    /// As written.
    pub(super) path: String,
    /// `*`, a field, or empty.
    pub(super) body: String,
    /// A field, or empty.
    pub(super) response_body: String,
}

/// `google.api.http` in serialized method options.
#[derive(Clone, PartialEq, prost::Message)]
struct MethodOptions {
    #[prost(message, optional, tag = "72295728")]
    http: Option<HttpRule>,
}

/// `google.api.HttpRule`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HttpRule {
    #[prost(oneof = "Pattern", tags = "2, 3, 4, 5, 6, 8")]
    pub(super) pattern: Option<Pattern>,
    #[prost(string, tag = "7")]
    pub(super) body: String,
    #[prost(string, tag = "12")]
    pub(super) response_body: String,
    #[prost(message, repeated, tag = "11")]
    pub(super) additional_bindings: Vec<HttpRule>,
}

/// What a rule matches.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Pattern {
    #[prost(string, tag = "2")]
    Get(String),
    #[prost(string, tag = "3")]
    Put(String),
    #[prost(string, tag = "4")]
    Post(String),
    #[prost(string, tag = "5")]
    Delete(String),
    #[prost(string, tag = "6")]
    Patch(String),
    #[prost(message, tag = "8")]
    Custom(Custom),
}

/// `google.api.CustomHttpPattern`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Custom {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(string, tag = "2")]
    pub(super) path: String,
}

/// The rule in a method's options; `None` where it has none.
pub(super) fn annotated(options: &[u8], place: &Place) -> Option<Rule> {
    let unreadable = |why: prost::DecodeError| Rule {
        bindings: Vec::new(),
        problems: vec![format!("`google.api.http` cannot be read: {why}")],
        place: place.clone(),
    };
    match MethodOptions::decode(options) {
        Ok(options) => options.http.map(|rule| rule.written(place.clone())),
        Err(why) => Some(unreadable(why)),
    }
}

impl HttpRule {
    /// The rule taken apart.
    pub(super) fn written(&self, place: Place) -> Rule {
        let mut problems = Vec::new();
        let mut bindings = Vec::new();
        match self.binding() {
            Ok(binding) => bindings.push(binding),
            // A rule with nothing but additional bindings is an odd way to say nothing.
            Err(why) => problems.push(why),
        }
        for additional in &self.additional_bindings {
            if !additional.additional_bindings.is_empty() {
                let what = "`additional_bindings` stand within `additional_bindings`; the inner ones do not count";
                problems.push(what.to_owned());
            }
            match additional.binding() {
                Ok(binding) => bindings.push(binding),
                Err(why) => problems.push(why),
            }
        }
        Rule {
            bindings,
            problems,
            place,
        }
    }

    fn binding(&self) -> Result<WrittenBinding, String> {
        let (method, path) = match &self.pattern {
            Some(Pattern::Get(path)) => ("GET", path),
            Some(Pattern::Put(path)) => ("PUT", path),
            Some(Pattern::Post(path)) => ("POST", path),
            Some(Pattern::Delete(path)) => ("DELETE", path),
            Some(Pattern::Patch(path)) => ("PATCH", path),
            Some(Pattern::Custom(custom)) => (custom.kind.as_str(), &custom.path),
            None => return Err("an HTTP rule has no pattern such as `get`".to_owned()),
        };
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if method.is_empty() || !method.bytes().all(token) {
            return Err(format!("`custom.kind: {method}` is no HTTP method"));
        }
        Ok(WrittenBinding {
            method: method.to_ascii_uppercase(),
            path: path.clone(),
            body: self.body.clone(),
            response_body: self.response_body.clone(),
        })
    }
}
