//! Which certificates end a handshake, and which count as none shown.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType, SigningKey, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;

use super::*;

/// A certificate authority whose certificate lies in a file.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: tempfile::NamedTempFile,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = parameters.self_signed(&key).unwrap().pem();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem).unwrap();
        Self {
            issuer: Issuer::new(parameters, key),
            file,
        }
    }

    /// A client's certificate for the name `shop` and these URIs.
    fn issue(&self, uris: &[&str]) -> CertificateDer<'static> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters
            .distinguished_name
            .push(DnType::CommonName, "shop");
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
        parameters.subject_alt_names = uris.iter().map(uri).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        certificate.der().clone()
    }

    /// A certificate as [`Self::issue`] gives it, with `from` replaced by `to` and signed again.
    fn issue_changed(&self, from: &[u8], to: &[u8]) -> CertificateDer<'static> {
        let whole = self.issue(&[]);
        let (_, parsed) = parse_x509_certificate(&whole).unwrap();
        let mut signed = parsed.tbs_certificate.as_ref().to_vec();
        let at = signed
            .windows(from.len())
            .rposition(|part| part == from)
            .unwrap();
        signed[at..at + to.len()].copy_from_slice(to);
        let signature = self.issuer.key().sign(&signed).unwrap();
        // ecdsa-with-SHA256
        let algorithm = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
        let bits = [&[0], signature.as_slice()].concat();
        let body = [signed.as_slice(), algorithm, &tagged(0x03, &bits)].concat();
        CertificateDer::from(tagged(0x30, &body))
    }

    fn verifier(&self, required: bool) -> Arc<dyn ClientCertVerifier> {
        let settings = ClientCertificates {
            roots: self.file.path().to_owned(),
            required,
        };
        verifier(&settings, &Arc::new(aws_lc_rs::default_provider())).unwrap()
    }

    fn judge(
        &self,
        required: bool,
        certificate: &CertificateDer<'_>,
    ) -> Result<(), CertificateError> {
        match self
            .verifier(required)
            .verify_client_cert(certificate, &[], now())
        {
            Ok(_) => Ok(()),
            Err(Error::InvalidCertificate(error)) => Err(error),
            Err(error) => panic!("{error}"),
        }
    }
}

fn now() -> UnixTime {
    let now = date_time_ymd(2026, 1, 1).unix_timestamp();
    UnixTime::since_unix_epoch(Duration::from_secs(now.unsigned_abs()))
}

fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    match value.len() {
        0..128 => [&[tag, length[1]], value].concat(),
        128..256 => [&[tag, 0x81, length[1]], value].concat(),
        _ => [&[tag, 0x82, length[0], length[1]], value].concat(),
    }
}

const TWO: &[&str] = &["spiffe://example.org/a", "spiffe://example.org/b"];

#[test]
fn a_certificate_of_the_roots_names_its_owner() {
    let authority = Authority::new();
    let certificate = authority.issue(&TWO[..1]);
    for required in [false, true] {
        assert_eq!(authority.judge(required, &certificate), Ok(()));
        let verifier = authority.verifier(required);
        assert!(verifier.offer_client_auth());
        assert_eq!(verifier.client_auth_mandatory(), required);
    }
    let named = named(&certificate).unwrap();
    assert_eq!(named.spiffe_id.as_deref(), Some(TWO[0]));
    let unchanged = authority.issue_changed(b"shop", b"shoe");
    assert_eq!(authority.judge(true, &unchanged), Ok(()));
}

#[test]
fn one_of_another_authority_is_refused_either_way() {
    let authority = Authority::new();
    let stranger = Authority::new().issue(&TWO[..1]);
    for required in [false, true] {
        assert!(authority.judge(required, &stranger).is_err());
    }
}

#[test]
fn one_that_could_name_two_is_refused_where_required_and_counts_as_none_where_optional() {
    let authority = Authority::new();
    let certificate = authority.issue(TWO);
    let refused = Err(CertificateError::ApplicationVerificationFailure);
    assert_eq!(authority.judge(true, &certificate), refused);
    assert_eq!(authority.judge(false, &certificate), Ok(()));
    assert_eq!(named(&certificate), None);
}

#[test]
fn one_that_cannot_be_read_is_refused_either_way() {
    let authority = Authority::new();
    // The public key is no bit string any more.
    let certificate = authority.issue_changed(b"\x03\x42\x00\x04", b"\x04\x42\x00\x04");
    for required in [false, true] {
        let refused = Err(CertificateError::BadEncoding);
        assert_eq!(authority.judge(required, &certificate), refused);
    }
}

#[test]
fn a_file_without_roots_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let settings = ClientCertificates {
        roots: file.path().to_owned(),
        required: true,
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let pem =
        |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    for (text, why) in [
        (String::new(), "no certificate in it"),
        ("nothing\n".to_owned(), "no certificate in it"),
        (pem("!"), "base64"),
        (pem("AAAA"), "invalid"),
    ] {
        std::fs::write(file.path(), &text).unwrap();
        let error = verifier(&settings, &provider).unwrap_err();
        let file = file.path().display().to_string();
        assert!(error.contains(&file) && error.contains(why), "{error}");
    }
}
