//! Who a client certificate names: its SPIFFE ID (X.509-SVID), or its subject.
//!
//! The chain, the signature and the proof of possession were verified when the connection was made. Here the end-entity certificate is
//! read again, strictly: a name that two readers could read differently is no name.

use std::sync::Arc;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::{BadCredential, name};
use crate::time::Timestamp;

/// The largest certificate, in bytes of DER.
pub const MAX_CERTIFICATE: usize = 64 * 1024;

/// The longest SPIFFE ID, in bytes (SPIFFE-ID section 2.3).
pub const MAX_SPIFFE_ID: usize = 2048;

/// What a certificate says of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// `spiffe://<trust domain>/<path>`.
    pub spiffe_id: Option<Arc<str>>,
    /// The subject as text (RFC 4514), most specific part first: `CN=shop,O=Example`. May be empty.
    pub subject: Arc<str>,
    /// Not valid before then.
    pub not_before: Timestamp,
    /// Not valid after then.
    pub not_after: Timestamp,
}

impl CertificateIdentity {
    /// What rules and consumers name it by: the SPIFFE ID, else the subject; `None` where it has neither.
    pub fn name(&self) -> Option<&Arc<str>> {
        let subject = Some(&self.subject).filter(|subject| !subject.is_empty());
        self.spiffe_id.as_ref().or(subject)
    }

    /// Whether it counts at `now`: a connection may outlive the certificate it was made with.
    ///
    /// # Errors
    /// [`BadCredential::NotYet`], [`BadCredential::Expired`].
    pub fn check_time(&self, now: Timestamp) -> Result<(), BadCredential> {
        // RFC 5280 section 4.1.2.5: both ends belong to it, in whole seconds.
        if now.seconds() < self.not_before.seconds() {
            Err(BadCredential::NotYet)
        } else if now.seconds() > self.not_after.seconds() {
            Err(BadCredential::Expired)
        } else {
            Ok(())
        }
    }
}

/// Reads an end-entity certificate.
///
/// # Errors
/// [`BadCredential::TooLarge`], or [`BadCredential::Malformed`]: it is no certificate, holds an extension that cannot be read, a name
/// with a NUL, a SPIFFE ID that is not valid or stands beside another URI, or a SPIFFE ID although it may sign certificates.
pub fn identity(der: &[u8]) -> Result<CertificateIdentity, BadCredential> {
    if der.len() > MAX_CERTIFICATE {
        return Err(BadCredential::TooLarge);
    }
    let Ok(([], certificate)) = x509_parser::parse_x509_certificate(der) else {
        return Err(BadCredential::Malformed);
    };
    // One that cannot be read would look as if it were not there.
    let readable = |error: Option<_>| error.is_none();
    if !certificate
        .iter_extensions()
        .all(|extension| readable(extension.parsed_extension().error()))
    {
        return Err(BadCredential::Malformed);
    }
    let spiffe_id = spiffe_id(&certificate)?;
    if spiffe_id.is_some() && may_sign_certificates(&certificate)? {
        return Err(BadCredential::Malformed);
    }
    let validity = certificate.validity();
    Ok(CertificateIdentity {
        spiffe_id,
        subject: name::text(certificate.subject())
            .ok_or(BadCredential::Malformed)?
            .into(),
        not_before: Timestamp::from_seconds(validity.not_before.timestamp()),
        not_after: Timestamp::from_seconds(validity.not_after.timestamp()),
    })
}

/// The one URI among the alternative names, if it is a SPIFFE ID (X509-SVID sections 2 and 5.2).
fn spiffe_id(certificate: &X509Certificate<'_>) -> Result<Option<Arc<str>>, BadCredential> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| BadCredential::Malformed)?;
    let mut uris = Vec::new();
    for alternative in names.iter().flat_map(|names| &names.value.general_names) {
        match alternative {
            GeneralName::URI(text) => uris.push(*text),
            GeneralName::DNSName(text) | GeneralName::RFC822Name(text) if text.contains('\0') => {
                return Err(BadCredential::Malformed);
            }
            GeneralName::Invalid(..) => return Err(BadCredential::Malformed),
            _ => {}
        }
    }
    if uris.iter().any(|uri| uri.contains('\0')) {
        return Err(BadCredential::Malformed);
    }
    let is_spiffe = |uri: &&str| {
        uri.get(..7)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"))
    };
    match uris.as_slice() {
        uris if !uris.iter().any(is_spiffe) => Ok(None),
        [id] if is_spiffe_id(id) => Ok(Some((*id).into())),
        _ => Err(BadCredential::Malformed),
    }
}

/// Whether `text` is the SPIFFE ID of a workload, in the one form that can be compared byte by byte (SPIFFE-ID section 2).
pub fn is_spiffe_id(text: &str) -> bool {
    let parts = text
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once('/'));
    let Some((trust_domain, path)) = parts else {
        return false;
    };
    let plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_');
    let domain_is_valid = !trust_domain.is_empty()
        && trust_domain.len() <= 255
        && trust_domain
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || plain(byte));
    let segment_is_valid = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment
                .bytes()
                .all(|byte| byte.is_ascii_alphabetic() || plain(byte))
    };
    text.len() <= MAX_SPIFFE_ID && domain_is_valid && path.split('/').all(segment_is_valid)
}

fn may_sign_certificates(certificate: &X509Certificate<'_>) -> Result<bool, BadCredential> {
    let constraints = certificate
        .basic_constraints()
        .map_err(|_| BadCredential::Malformed)?;
    let usage = certificate
        .key_usage()
        .map_err(|_| BadCredential::Malformed)?;
    Ok(constraints.is_some_and(|constraints| constraints.value.ca)
        || usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign()))
}

#[cfg(test)]
pub(super) mod tests;
