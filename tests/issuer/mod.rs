//! An issuer of tokens under the test's control: its keys, what it signs with them, and where it publishes them; and a gateway that is
//! configured by a directory.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part of this"
)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends by panicking"
)]

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use aws_lc_rs::{hmac, rsa};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::world::{Client, Plan, Service, Then, World};

/// `iss` of the tokens made here.
pub const ISSUER: &str = "https://id.test";
/// Their `aud`.
pub const AUDIENCE: &str = "books";
/// What HS256 is computed with.
pub const SHARED: &str = "0123456789abcdef0123456789abcdef";

/// The keys of an issuer.
pub struct Keys {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

impl Keys {
    pub fn new() -> Self {
        Self {
            rsa: RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap(),
            p256: EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ed25519: Ed25519KeyPair::generate().unwrap(),
        }
    }

    /// The key set as published, each key named by its kind and `suffix`.
    pub fn jwks(&self, suffix: &str) -> String {
        json!({"keys": [self.rsa_jwk(suffix), self.p256_jwk(suffix), self.ed25519_jwk(suffix)]})
            .to_string()
    }

    pub fn rsa_jwk(&self, suffix: &str) -> Value {
        json!({"kty": "RSA", "kid": format!("rsa{suffix}"), "n": base64(&self.rsa_modulus()), "e": "AQAB"})
    }

    fn p256_jwk(&self, suffix: &str) -> Value {
        let public = self.p256.public_key().as_ref();
        json!({"kty": "EC", "kid": format!("p256{suffix}"), "crv": "P-256",
            "x": base64(&public[1..33]), "y": base64(&public[33..])})
    }

    fn ed25519_jwk(&self, suffix: &str) -> Value {
        json!({"kty": "OKP", "kid": format!("ed{suffix}"), "crv": "Ed25519",
            "x": base64(self.ed25519.public_key().as_ref())})
    }

    /// What would be the secret of who takes a public key for one.
    pub fn rsa_modulus(&self) -> Vec<u8> {
        // `RSAPublicKey` (RFC 8017 appendix A.1.1) of 2048 bits: nine bytes of DER, the modulus, five bytes, the exponent 65537.
        let der = self.rsa.public_key().as_ref();
        der[9..265].to_vec()
    }

    /// A token as this issuer makes them.
    pub fn token(&self, algorithm: &str, claims: &Value) -> String {
        let kid = match algorithm {
            "RS256" | "PS256" => "rsa",
            "ES256" => "p256",
            _ => "ed",
        };
        let header = json!({"alg": algorithm, "kid": kid, "typ": "JWT"});
        self.signed(algorithm, &header, claims)
    }

    /// A token with this header, signed by `algorithm` whatever the header says.
    pub fn signed(&self, algorithm: &str, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let random = SystemRandom::new();
        let rsa = |encoding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            let text = message.as_bytes();
            let signed = self.rsa.sign(encoding, &random, text, &mut signature);
            signed.unwrap();
            signature
        };
        let signature = match algorithm {
            "RS256" => rsa(&signature::RSA_PKCS1_SHA256),
            "PS256" => rsa(&signature::RSA_PSS_SHA256),
            "ES256" => {
                let signed = self.p256.sign(&random, message.as_bytes()).unwrap();
                signed.as_ref().to_vec()
            }
            "EdDSA" => self.ed25519.sign(message.as_bytes()).as_ref().to_vec(),
            other => panic!("{other}"),
        };
        format!("{message}.{}", base64(&signature))
    }
}

/// A token with a code computed from a secret.
pub fn coded(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = message(header, claims);
    let code = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, secret),
        message.as_bytes(),
    );
    format!("{message}.{}", base64(code.as_ref()))
}

/// Header and claims, as they are signed.
pub fn message(header: &Value, claims: &Value) -> String {
    let (header, claims) = (header.to_string(), claims.to_string());
    format!(
        "{}.{}",
        base64(header.as_bytes()),
        base64(claims.as_bytes())
    )
}

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// Claims that are good for five minutes.
pub fn claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now() + 300, "iat": now()})
}

/// The good claims with one changed; `null` takes it away.
pub fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A server that publishes a document, whatever it is asked for.
pub fn publishing(document: &str) -> Service {
    let service = Service::new();
    publish(&service, document);
    service
}

/// From now on it publishes this one.
pub fn publish(service: &Service, document: &str) {
    let document = document.to_owned();
    service.now(move |_, stream| {
        let length = document.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        let _gone = stream.write_all(head.as_bytes());
        let _gone = stream.write_all(document.as_bytes());
        Then::Continue
    });
}

/// What a gateway is configured with.
pub struct Setting<'s> {
    pub spec: &'s str,
    /// Of the API file, beside `spec` and `upstream`.
    pub api: &'s str,
    pub consumers: &'s str,
}

/// A gateway with its configuration directory.
pub struct Gateway {
    pub world: World,
    pub directory: tempfile::TempDir,
}

impl Setting<'_> {
    pub fn start(&self, service: &Service) -> Gateway {
        self.start_with(service, &[])
    }

    /// As [`Self::start`], with files of secrets beside it: `file:` refers to them.
    pub fn start_with(&self, service: &Service, files: &[(&str, &str)]) -> Gateway {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config");
        let file = self.api_file(service);
        let plan = Plan::before(&service.url()).api("books", file);
        plan.write(directory.path());
        std::fs::write(config.join("spec.json"), self.spec).unwrap();
        if !self.consumers.is_empty() {
            std::fs::write(config.join("consumers.yaml"), self.consumers).unwrap();
        }
        for (name, text) in files {
            std::fs::write(config.join(name), text).unwrap();
        }
        Gateway {
            world: plan.start_again(directory.path()),
            directory,
        }
    }

    fn api_file(&self, service: &Service) -> String {
        format!(
            "spec: ../spec.json\nupstream: {}\n{}",
            service.url(),
            self.api
        )
    }
}

impl Gateway {
    /// GET with these fields.
    pub fn get(&self, path: &str, fields: &[(&str, &str)]) -> crate::world::Answer {
        self.world.ask("GET", path, fields, b"")
    }

    /// GET with this token.
    pub fn show(&self, path: &str, token: &str) -> crate::world::Answer {
        self.get(path, &[("authorization", &bearer(token))])
    }

    /// Replaces the API file and waits until it serves.
    pub fn reload(&self, setting: &Setting<'_>, service: &Service) {
        let before = self.world.api("books")["generation"].clone();
        let file = self.directory.path().join("config/apis/books.yaml");
        std::fs::write(file, setting.api_file(service)).unwrap();
        crate::world::eventually("the API is loaded again", || {
            self.world.api("books")["generation"] != before
        });
    }

    /// The number after `series` on the metrics page.
    pub fn metric(&self, series: &str) -> u64 {
        let page = self.world.metrics();
        let line = page.lines().find_map(|line| line.strip_prefix(series));
        let value = line.unwrap_or_else(|| panic!("no {series} in\n{page}"));
        value.trim().parse().unwrap()
    }

    /// POST to the control API with the credential the gateway made.
    pub fn administer(&self, path: &str, body: &Value) -> u16 {
        let log = self.world.log();
        let line = log.lines().find_map(|line| {
            line.split_once("control API on ")?
                .1
                .split_once(", credential in ")
        });
        let (address, file) = line.unwrap_or_else(|| panic!("no control API in\n{log}"));
        let address: SocketAddr = address.parse().unwrap();
        let credential = std::fs::read_to_string(file.trim()).unwrap();
        let body = body.to_string();
        let mut client = Client::connect(address);
        client.send(
            format!(
                "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                credential.trim(),
                body.len()
            )
            .as_bytes(),
        );
        client.answer_to("POST").unwrap().status
    }
}
