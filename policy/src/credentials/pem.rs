//! Public keys in PEM: `PUBLIC KEY`, `RSA PUBLIC KEY` and `CERTIFICATE`.
//!
//! Of a certificate only its key counts. Who signed it and whether it has expired is not judged: whoever wrote the file, or serves
//! it over TLS, vouches for it. A private key is refused, so that nobody leaves one where a public key would do.

use x509_parser::der_parser::oid::Oid;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519,
};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::verifier::VerifyingKey;

/// The first `limit` keys in a PEM text, each readable or not. The error says that the text as a whole is not PEM.
pub(super) fn keys(text: &str, limit: usize) -> Result<Vec<Result<VerifyingKey, String>>, String> {
    let blocks = Pem::iter_from_buffer(text.as_bytes());
    blocks
        .take(limit)
        .map(|block| match block {
            Ok(block) => Ok(key(&block)),
            Err(error) => Err(format!("it is not PEM: {error}")),
        })
        .collect()
}

fn key(block: &Pem) -> Result<VerifyingKey, String> {
    let der = block.contents.as_slice();
    match block.label.as_str() {
        "PUBLIC KEY" => match SubjectPublicKeyInfo::from_der(der) {
            Ok(([], info)) => public_key(&info),
            _ => Err("it is not a public key".to_owned()),
        },
        "RSA PUBLIC KEY" => rsa(der),
        "CERTIFICATE" => match x509_parser::parse_x509_certificate(der) {
            Ok(([], certificate)) => public_key(certificate.public_key()),
            _ => Err("it is not a certificate".to_owned()),
        },
        label if label.ends_with("PRIVATE KEY") => {
            Err("it is a private key, which has no place here: give its public key".to_owned())
        }
        label => Err(format!("`{label:.40}` is not a kind of public key")),
    }
}

fn public_key(info: &SubjectPublicKeyInfo<'_>) -> Result<VerifyingKey, String> {
    let bytes: &[u8] = &info.subject_public_key.data;
    let kind = &info.algorithm.algorithm;
    if *kind == OID_PKCS1_RSAENCRYPTION {
        rsa(bytes)
    } else if *kind == OID_SIG_ED25519 {
        VerifyingKey::ed25519(bytes)
    } else if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let parameters = info.algorithm.parameters.as_ref();
        let curve = parameters.and_then(|any| Oid::try_from(any.clone()).ok());
        match curve {
            Some(curve) if curve == OID_EC_P256 => VerifyingKey::elliptic("P-256", bytes),
            Some(curve) if curve == OID_NIST_EC_P384 => VerifyingKey::elliptic("P-384", bytes),
            Some(curve) => Err(format!("its curve {curve} is not supported")),
            None => Err("its curve is not named".to_owned()),
        }
    } else {
        Err(format!("keys of kind {kind} are not supported"))
    }
}

fn rsa(der: &[u8]) -> Result<VerifyingKey, String> {
    match RSAPublicKey::from_der(der) {
        Ok(([], key)) if is_positive(key.modulus) && is_positive(key.exponent) => {
            VerifyingKey::rsa(key.modulus, key.exponent)
        }
        _ => Err("it is not an RSA public key".to_owned()),
    }
}

/// A DER integer whose first bit is set is negative.
fn is_positive(integer: &[u8]) -> bool {
    integer.first().is_some_and(|first| *first < 0x80)
}
