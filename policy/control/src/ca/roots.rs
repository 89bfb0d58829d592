//! Roots: kept in one file, exchanged in three steps.
//!
//! One file holds all of them with their times, so that a crash leaves the state before a step or after it.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use tollgate_policy::time::Timestamp;

use super::leaf::{serial, system_time};
use super::{CaError, RootView};
use crate::secret_file::{random, replace};
use crate::text::hex;

/// A root outlives what it is built into; it is exchanged by `tollgate ca rotate`.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Nodes' clocks may be behind.
const SKEW: Duration = Duration::from_secs(3600);

/// Longest file read: two roots have some three thousand bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Where roots and their keys stand.
pub(super) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("ca").join("roots.json")
}

/// A root with its key.
pub(super) struct Root {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) fingerprint: [u8; 32],
    pub(super) issuer: Issuer<'static, KeyPair>,
    signs_from: Timestamp,
    dropped_at: Option<Timestamp>,
    kept: KeptRoot,
}

/// All there are, the oldest first. There is always one that is not to be dropped, the last.
pub(super) struct Roots {
    last: Root,
    before: Option<Root>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    domain: String,
    roots: Vec<KeptRoot>,
}

#[derive(Clone, Serialize, Deserialize)]
struct KeptRoot {
    /// PEM.
    certificate: String,
    /// PEM, PKCS #8.
    key: String,
    /// Milliseconds since 1970.
    signs_from: i64,
    dropped_at: Option<i64>,
}

impl Root {
    fn make(domain: &str, now: Timestamp, signs_from: Timestamp) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mark = random::<4>().map_err(|error| CaError::Request(error.to_string()))?;
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, "Tollgate");
        // Roots of one domain must differ in name for verifiers to tell them apart at once.
        subject.push(DnType::CommonName, format!("Root {}", hex(&mark)));
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.serial_number = Some(serial()?);
        params.not_before = (system_time(now) - SKEW).into();
        params.not_after = (system_time(now) + LIFETIME).into();
        let certificate = params.self_signed(&key)?;
        tracing::info!(%domain, mark = hex(&mark), "a root certificate was made");
        Self::read(KeptRoot {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            signs_from: signs_from.millis(),
            dropped_at: None,
        })
        .map_err(CaError::Request)
    }

    fn read(kept: KeptRoot) -> Result<Self, String> {
        let certificate = CertificateDer::from_pem_slice(kept.certificate.as_bytes())
            .map_err(|error| format!("a certificate cannot be read: {error}"))?;
        let key = KeyPair::from_pem(&kept.key).map_err(|_| "a key cannot be read".to_owned())?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| format!("a certificate cannot sign: {error}"))?;
        Ok(Self {
            fingerprint: fingerprint(&certificate),
            certificate,
            issuer,
            signs_from: Timestamp::from_millis(kept.signs_from),
            dropped_at: kept.dropped_at.map(Timestamp::from_millis),
            kept,
        })
    }

    fn again(&self) -> Result<Self, CaError> {
        Self::read(self.kept.clone()).map_err(CaError::Request)
    }

    fn is_believed(&self, now: Timestamp) -> bool {
        self.dropped_at.is_none_or(|at| now < at)
    }
}

impl Roots {
    pub(super) fn load_or_make(path: &Path, domain: &str, now: Timestamp) -> Result<Self, CaError> {
        let failed = |source| CaError::File {
            path: path.to_owned(),
            source,
        };
        let mut roots = match File::open(path) {
            Ok(file) => Self::read(path, domain, &read_owned(path, file).map_err(failed)?)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let made = Self {
                    last: Root::make(domain, now, now)?,
                    before: None,
                };
                made.keep(path, domain)?;
                made
            }
            Err(error) => return Err(failed(error)),
        };
        // The key of a root that nobody believes is of no use but to a thief.
        if roots.before.take_if(|it| !it.is_believed(now)).is_some() {
            roots.keep(path, domain)?;
        }
        Ok(roots)
    }

    fn read(path: &Path, domain: &str, bytes: &[u8]) -> Result<Self, CaError> {
        let damaged = |why: String| CaError::Damaged {
            path: path.to_owned(),
            why,
        };
        let kept: Kept =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if kept.domain != domain {
            return Err(CaError::OtherDomain {
                path: path.to_owned(),
                held: kept.domain,
                wanted: domain.to_owned(),
            });
        }
        let roots = kept.roots.into_iter().map(Root::read);
        let mut roots: Vec<Root> = roots.collect::<Result<_, _>>().map_err(damaged)?;
        let (last, before) = (roots.pop(), roots.pop());
        match last {
            Some(last) if roots.is_empty() => Ok(Self { last, before }),
            _ => Err(damaged("it must hold one root, or two".to_owned())),
        }
    }

    /// Writes them, durably.
    pub(super) fn keep(&self, path: &Path, domain: &str) -> Result<(), CaError> {
        let kept = Kept {
            domain: domain.to_owned(),
            roots: self.all().map(|root| root.kept.clone()).collect(),
        };
        let failed = |source| CaError::File {
            path: path.to_owned(),
            source,
        };
        let text = serde_json::to_vec_pretty(&kept).map_err(|error| failed(error.into()))?;
        write(path, &text).map_err(failed)
    }

    fn all(&self) -> impl Iterator<Item = &Root> {
        self.before.iter().chain([&self.last])
    }

    /// Those that count, the oldest first.
    pub(super) fn believed(&self, now: Timestamp) -> impl Iterator<Item = &Root> {
        self.all().filter(move |root| root.is_believed(now))
    }

    /// The one that signs.
    pub(super) fn signer(&self, now: Timestamp) -> &Root {
        match &self.before {
            Some(before) if now < self.last.signs_from && before.is_believed(now) => before,
            _ => &self.last,
        }
    }

    pub(super) fn certificates(&self, now: Timestamp) -> Vec<CertificateDer<'static>> {
        let certificates = self.believed(now).map(|root| root.certificate.clone());
        certificates.collect()
    }

    pub(super) fn view(&self, now: Timestamp) -> Vec<RootView> {
        let view = |root: &Root| RootView {
            fingerprint: hex(&root.fingerprint),
            signs_from: root.signs_from,
            dropped_at: root.dropped_at,
        };
        self.believed(now).map(view).collect()
    }

    /// These and a new one.
    pub(super) fn rotated(
        &self,
        domain: &str,
        now: Timestamp,
        step: Duration,
    ) -> Result<Self, CaError> {
        let under_way = self.before.as_ref().and_then(|root| root.dropped_at);
        if let Some(until) = under_way.filter(|until| now < *until) {
            return Err(CaError::Exchanging { until });
        }
        let mut before = self.last.again()?;
        let signs_from = now.plus(step);
        let dropped_at = signs_from.plus(step);
        before.dropped_at = Some(dropped_at);
        before.kept.dropped_at = Some(dropped_at.millis());
        Ok(Self {
            last: Root::make(domain, now, signs_from)?,
            before: Some(before),
        })
    }
}

/// What a root is pinned by.
fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
    bytes
}

fn read_owned(path: &Path, file: File) -> std::io::Result<Vec<u8>> {
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        let why = format!(
            "{} is open to others; chmod 600 it, after asking who read it",
            path.display()
        );
        return Err(std::io::Error::new(
            std::io::ErrorKind::PermissionDenied,
            why,
        ));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let Some(folder) = path.parent() else {
        return Err(std::io::Error::other("no folder"));
    };
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    replace(path, text)?;
    // The names themselves: that of the file in its folder, and that of the folder.
    File::open(folder)?.sync_all()?;
    folder
        .parent()
        .map_or(Ok(()), |above| File::open(above)?.sync_all())
}
