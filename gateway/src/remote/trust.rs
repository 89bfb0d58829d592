//! Whom connections to remote parties believe: the system's roots, or those of a file alone.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// Roots. Two are equal that hold the same certificates.
#[derive(Clone, Debug, Default)]
pub struct Trust(Option<Arc<Own>>);

#[derive(Debug)]
struct Own {
    certificates: Vec<CertificateDer<'static>>,
    config: Arc<ClientConfig>,
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        let own = |trust: &Self| trust.0.clone().map(|own| own.certificates.clone());
        own(self) == own(other)
    }
}

impl Trust {
    /// The roots of this file; without one the system's.
    ///
    /// # Errors
    /// In words: what is wrong with the file.
    pub fn of(ca: Option<&Path>) -> Result<Self, String> {
        let Some(path) = ca else {
            return Ok(Self::default());
        };
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| wrong(&error))?;
        if certificates.is_empty() {
            return Err(wrong(&"no certificate in it"));
        }
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots
                .add(certificate.clone())
                .map_err(|error| wrong(&error))?;
        }
        Ok(Self(Some(Arc::new(Own {
            certificates,
            config: believing(roots),
        }))))
    }

    /// How TLS is spoken by it.
    ///
    /// # Errors
    /// The system's roots cannot be read.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, String> {
        match &self.0 {
            Some(own) => Ok(own.config.clone()),
            None => system(),
        }
    }
}

/// The system's roots, read once and only where they are needed.
fn system() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    let made = CONFIG.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs()
            .map_err(|error| format!("the system's root certificates cannot be read: {error}"))?;
        roots.add_parsable_certificates(system);
        Ok(believing(roots))
    });
    made.clone()
}

fn believing(roots: RootCertStore) -> Arc<ClientConfig> {
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
