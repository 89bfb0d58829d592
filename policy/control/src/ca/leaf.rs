//! Leaves: one certificate, for one name, signed by one root.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use tollgate_policy::time::Timestamp;
use tollgate_policy::workload::WorkloadId;

use super::CaError;
use super::roots::Root;
use crate::secret_file::random;

/// Longest request; those of nodes have some 200 bytes.
const REQUEST: usize = 4096;

/// Certificates count from a little earlier, for nodes whose clocks are behind.
const SKEW: Duration = Duration::from_secs(60);

/// The key a request is for. Everything else it says is left aside.
pub(super) fn key_of(request: &[u8]) -> Result<rcgen::PublicKey, CaError> {
    let wrong = |why: &str| CaError::Request(why.to_owned());
    if request.len() > REQUEST {
        return Err(wrong("it is too long"));
    }
    let request = CertificateSigningRequestDer::from(request);
    // This verifies that whoever asks has the key.
    let read = CertificateSigningRequestParams::from_der(&request);
    let key = read.map_err(|error| wrong(&error.to_string()))?.public_key;
    if *key.algorithm() != rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(wrong("its key is not of P-256"));
    }
    Ok(key)
}

/// Signs. `more` are names and addresses beside those of the identity.
pub(super) fn sign(
    root: &Root,
    id: &WorkloadId,
    more: &[String],
    key: &impl PublicKeyData,
    (now, lifetime): (Timestamp, Duration),
) -> Result<CertificateDer<'static>, CaError> {
    let mut names = vec![
        SanType::URI(id.to_string().try_into()?),
        SanType::DnsName(id.dns_name().try_into()?),
    ];
    for name in more {
        names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    let mut subject = DistinguishedName::new();
    // At most 63 bytes, where a common name may have 64; nobody reads it.
    let common = if id.name().is_empty() {
        "control"
    } else {
        id.name()
    };
    subject.push(DnType::CommonName, common);
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.distinguished_name = subject;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial()?);
    params.not_before = (system_time(now) - SKEW).into();
    params.not_after = (system_time(now) + lifetime).into();
    let signed = params.signed_by(key, &root.issuer)?;
    Ok(signed.der().clone())
}

/// A positive number of 127 random bits (RFC 5280 section 4.1.2.2).
pub(super) fn serial() -> Result<SerialNumber, CaError> {
    let failed = |_| CaError::Request("there are no random numbers".to_owned());
    let mut bytes = random::<16>().map_err(failed)?;
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

/// A time as certificates take it; the clock is never before 1970.
pub(super) fn system_time(at: Timestamp) -> SystemTime {
    let since = u64::try_from(at.millis()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_millis(since)
}
