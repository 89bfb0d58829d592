//! One public key or shared secret, ready to verify, together with the algorithms it serves.
//!
//! An algorithm is bound to its key when the key is read: a token can only choose among the pairs there are. An RSA key has no HMAC
//! verifier, so that no token can make its public text a secret (RS→HS confusion).

use std::fmt;

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};
use aws_lc_rs::{digest, hmac};

use crate::settings::Algorithm;

/// A key with its verifiers.
pub(super) struct VerifyingKey {
    /// Its name within its set (`kid`).
    pub(super) id: Option<Box<str>>,
    /// SHA-256 of what it was made of.
    fingerprint: [u8; 32],
    verifiers: Vec<(Algorithm, Verifier)>,
}

enum Verifier {
    Public(ParsedPublicKey),
    Shared(Box<hmac::Key>),
}

/// An algorithm of ours, and the library's name for how an RSA key serves it.
type RsaRow = (Algorithm, &'static RsaParameters);

const RSA: [RsaRow; 6] = [
    (Algorithm::Rs256, &signature::RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::Rs384, &signature::RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::Rs512, &signature::RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::Ps256, &signature::RSA_PSS_2048_8192_SHA256),
    (Algorithm::Ps384, &signature::RSA_PSS_2048_8192_SHA384),
    (Algorithm::Ps512, &signature::RSA_PSS_2048_8192_SHA512),
];

/// RFC 7518 section 3.2: a secret is at least as long as the hash. (algorithm, hash, its length in bytes)
const HMAC: [(Algorithm, hmac::Algorithm, usize); 3] = [
    (Algorithm::Hs256, hmac::HMAC_SHA256, 32),
    (Algorithm::Hs384, hmac::HMAC_SHA384, 48),
    (Algorithm::Hs512, hmac::HMAC_SHA512, 64),
];

impl VerifyingKey {
    /// An RSA key of modulus and exponent, big endian. The error says why it is refused.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        let (n, e) = (without_zeros(modulus), without_zeros(exponent));
        let bits = n.len() * 8
            - n.first().map_or(0, |first| {
                usize::try_from(first.leading_zeros()).unwrap_or(0)
            });
        if !(2048..=8192).contains(&bits) {
            return Err(format!("an RSA key has 2048 to 8192 bits, this one {bits}"));
        }
        let odd = e.last().is_some_and(|last| last % 2 == 1);
        if e == [1] || !odd || e.len() > 4 {
            return Err("its public exponent is not one of an RSA key".to_owned());
        }
        if has_roca_fingerprint(n) {
            return Err("it was made by a faulty generator (ROCA, CVE-2017-15361)".to_owned());
        }
        let components = RsaPublicKeyComponents { n, e };
        let verifiers = RSA
            .iter()
            .map(|(algorithm, row)| {
                Ok((
                    *algorithm,
                    Verifier::Public(components.to_parsed_public_key(row)?),
                ))
            })
            .collect::<Result<Vec<_>, aws_lc_rs::error::KeyRejected>>()
            .map_err(|_| "it is not an RSA key".to_owned())?;
        Ok(Self::of(&[n, e].concat(), verifiers))
    }

    /// A point of an elliptic curve in SEC 1 form, named by its JOSE name.
    pub(super) fn elliptic(curve: &str, point: &[u8]) -> Result<Self, String> {
        let (algorithm, parameters) = match curve {
            "P-256" => (Algorithm::Es256, &signature::ECDSA_P256_SHA256_FIXED),
            "P-384" => (Algorithm::Es384, &signature::ECDSA_P384_SHA384_FIXED),
            _ => return Err(format!("its curve {curve:.20} is not supported")),
        };
        let key = ParsedPublicKey::new(parameters, point)
            .map_err(|_| format!("it is no point of {curve}"))?;
        Ok(Self::of(point, vec![(algorithm, Verifier::Public(key))]))
    }

    /// An Ed25519 key of 32 bytes.
    pub(super) fn ed25519(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() != 32 {
            return Err(format!(
                "an Ed25519 key has 32 bytes, this one {}",
                bytes.len()
            ));
        }
        let key = ParsedPublicKey::new(&signature::ED25519, bytes)
            .map_err(|_| "it is not an Ed25519 key".to_owned())?;
        Ok(Self::of(
            bytes,
            vec![(Algorithm::EdDsa, Verifier::Public(key))],
        ))
    }

    /// A secret; it serves the HS algorithms it is long enough for.
    pub(super) fn shared(secret: &[u8]) -> Result<Self, String> {
        let long_enough = HMAC.iter().filter(|(_, _, length)| secret.len() >= *length);
        let verifiers: Vec<_> = long_enough
            .map(|(algorithm, hash, _)| {
                (
                    *algorithm,
                    Verifier::Shared(Box::new(hmac::Key::new(*hash, secret))),
                )
            })
            .collect();
        if verifiers.is_empty() {
            return Err(format!(
                "a secret for HS256 has at least 32 bytes, for HS384 48, for HS512 64; this one has {}",
                secret.len()
            ));
        }
        Ok(Self::of(secret, verifiers))
    }

    fn of(material: &[u8], verifiers: Vec<(Algorithm, Verifier)>) -> Self {
        let mut fingerprint = [0; 32];
        let hash = digest::digest(&digest::SHA256, material);
        for (to, from) in fingerprint.iter_mut().zip(hash.as_ref()) {
            *to = *from;
        }
        Self {
            id: None,
            fingerprint,
            verifiers,
        }
    }

    /// Keeps one algorithm; false when the key cannot serve it.
    pub(super) fn pin(&mut self, algorithm: Algorithm) -> bool {
        self.verifiers.retain(|(served, _)| *served == algorithm);
        !self.verifiers.is_empty()
    }

    /// Whether it is a secret that signs as well as it verifies.
    pub(super) fn is_shared(&self) -> bool {
        self.verifiers
            .iter()
            .any(|(_, verifier)| matches!(verifier, Verifier::Shared(_)))
    }

    /// Whether it is the same key, whatever it is called.
    pub(super) fn same_material(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }

    /// Whether both can verify a token of some algorithm.
    pub(super) fn shares_algorithm(&self, other: &Self) -> bool {
        self.verifiers
            .iter()
            .any(|(algorithm, _)| other.serves(*algorithm))
    }

    /// Whether it can verify tokens of `algorithm`.
    pub(super) fn serves(&self, algorithm: Algorithm) -> bool {
        self.verifiers
            .iter()
            .any(|(served, _)| *served == algorithm)
    }

    /// Whether `signature` is this key's over `message`.
    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let verifier = self
            .verifiers
            .iter()
            .find(|(served, _)| *served == algorithm);
        match verifier {
            Some((_, Verifier::Public(key))) => key.verify_sig(message, signature).is_ok(),
            Some((_, Verifier::Shared(key))) => hmac::verify(key, message, signature).is_ok(),
            None => false,
        }
    }
}

/// Shows its name and what it serves, nothing of the key.
impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<_> = self
            .verifiers
            .iter()
            .map(|(algorithm, _)| algorithm)
            .collect();
        f.debug_struct("VerifyingKey")
            .field("id", &self.id)
            .field("algorithms", &algorithms)
            .finish_non_exhaustive()
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// Whether a modulus has the mark of the generator of CVE-2017-15361: modulo each of these primes it is a power of 65537. Another
/// modulus has it once in 2²⁷.
fn has_roca_fingerprint(modulus: &[u8]) -> bool {
    const PRIMES: [u32; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89,
        97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    PRIMES.iter().all(|prime| {
        let rest = modulus
            .iter()
            .fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let generator = 65_537 % prime;
        std::iter::successors(Some(1), |power| {
            Some(power * generator % prime).filter(|next| *next != 1)
        })
        .any(|power| power == rest)
    })
}
