//! The authority as a whole, with a clock the tests turn.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::{ServerName, UnixTime};
use tollgate_policy::credentials::certificate;

use super::*;

const DOMAIN: &str = "shop.example";
const BEGIN: u64 = 1_800_000_000;
const HOUR: u64 = 3_600;

/// An authority whose clock the test turns.
struct World {
    state: tempfile::TempDir,
    clock: Arc<AtomicU64>,
}

impl World {
    fn new() -> Self {
        Self {
            state: tempfile::tempdir().unwrap(),
            clock: Arc::new(AtomicU64::new(BEGIN)),
        }
    }

    fn open(&self) -> Arc<Ca> {
        self.try_open(DOMAIN).unwrap()
    }

    fn try_open(&self, domain: &str) -> Result<Arc<Ca>, CaError> {
        let clock = Arc::clone(&self.clock);
        let now =
            move || SystemTime::UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::Relaxed));
        let options = CaOptions {
            clock: Arc::new(now),
            ..CaOptions::default()
        };
        Ca::open(self.state.path(), domain, options)
    }

    fn pass(&self, seconds: u64) {
        self.clock.fetch_add(seconds, Ordering::Relaxed);
    }

    fn path(&self) -> PathBuf {
        roots::path(self.state.path())
    }

    /// Whether someone with these roots believes this leaf now.
    fn believes(&self, roots: &[CertificateDer<'static>], leaf: &CertificateDer<'_>) -> bool {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone()).unwrap();
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(
            Arc::new(store),
            Arc::new(default_provider()),
        );
        let now = Duration::from_secs(self.clock.load(Ordering::Relaxed));
        let name = ServerName::try_from(orders().dns_name()).unwrap();
        let verified = verifier.build().unwrap().verify_server_cert(
            leaf,
            &[],
            &name,
            &[],
            UnixTime::since_unix_epoch(now),
        );
        verified.is_ok()
    }
}

fn orders() -> WorkloadId {
    WorkloadId::new(DOMAIN, Kind::Service, "orders").unwrap()
}

fn request() -> Vec<u8> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    // Names nobody asked about.
    let params = CertificateParams::new(vec!["control.shop.example".to_owned()]).unwrap();
    params.serialize_request(&key).unwrap().der().to_vec()
}

#[test]
fn a_leaf_says_who_it_was_issued_to_whatever_its_request_says() {
    let world = World::new();
    let ca = world.open();
    let issued = ca.issue(&orders(), &request()).unwrap();
    let read = certificate::identity(&issued.chain[0]).unwrap();
    assert_eq!(
        read.spiffe_id.as_deref(),
        Some("spiffe://shop.example/service/orders")
    );
    assert_eq!(
        read.not_after.since(read.not_before),
        LEAF_LIFETIME + Duration::from_secs(60)
    );
    let text = String::from_utf8_lossy(&issued.chain[0]).into_owned();
    assert!(text.contains("orders.service.shop.example"));
    assert!(!text.contains("control.shop.example"));
    assert!(world.believes(&issued.roots, &issued.chain[0]));
    world.pass(HOUR + 1);
    assert!(!world.believes(&issued.roots, &issued.chain[0]), "expired");
}

#[test]
fn what_is_not_given_out_is_refused() {
    let ca = World::new().open();
    let control = WorkloadId::new(DOMAIN, Kind::Control, "").unwrap();
    let foreign = WorkloadId::new("other.example", Kind::Service, "orders").unwrap();
    for id in [control, foreign] {
        assert!(ca.issue(&id, &request()).is_err(), "{id}");
    }
    let mut forged = request();
    // The last byte of its signature.
    *forged.last_mut().unwrap() ^= 1;
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let params = CertificateParams::default();
    let other_key = params.serialize_request(&key).unwrap().der().to_vec();
    for wrong in [forged, other_key, Vec::new(), vec![0x30; 5_000]] {
        let refused = ca.issue(&orders(), &wrong).unwrap_err();
        assert!(matches!(refused, CaError::Request(_)), "{refused}");
    }
}

#[test]
fn the_authority_is_kept_for_its_owner_and_stays_the_same() {
    let world = World::new();
    let made = world.open();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&world.path()), 0o600);
    assert_eq!(mode(world.path().parent().unwrap()), 0o700);
    let again = world.open();
    assert_eq!(again.fingerprint(), made.fingerprint());
    assert_eq!(again.roots(), made.roots());
    let other = world.try_open("other.example").unwrap_err().to_string();
    assert!(other.contains("shop.example"), "{other}");
    assert!(matches!(world.try_open("a b"), Err(CaError::Domain(_))));
    std::fs::write(world.path(), "{}").unwrap();
    let damaged = world.try_open(DOMAIN).unwrap_err();
    assert!(matches!(damaged, CaError::Damaged { .. }), "{damaged}");
    assert!(damaged.to_string().contains("restore it from a backup"));
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(world.path(), open).unwrap();
    assert!(matches!(world.try_open(DOMAIN), Err(CaError::File { .. })));
}

#[test]
fn while_roots_are_exchanged_whoever_renews_in_time_is_believed_by_all() {
    let world = World::new();
    let ca = world.open();
    let first = ca.fingerprint();
    let before = ca.issue(&orders(), &request()).unwrap();
    world.pass(60);
    ca.rotate().unwrap();
    assert!(matches!(ca.rotate(), Err(CaError::Exchanging { .. })));
    // Times survive the process.
    let ca = world.open();
    assert_eq!(ca.fingerprint(), first, "the old one signs still");
    let during = ca.issue(&orders(), &request()).unwrap();
    assert_eq!((before.roots.len(), during.roots.len()), (1, 2));
    assert!(world.believes(&before.roots, &during.chain[0]));
    world.pass(HOUR - 1);
    let during = ca.issue(&orders(), &request()).unwrap();
    // Now whoever knows the old root alone has expired.
    world.pass(1);
    assert_ne!(ca.fingerprint(), first);
    let after = ca.issue(&orders(), &request()).unwrap();
    for (roots, leaf) in [(&during, &after), (&after, &during), (&after, &after)] {
        assert!(world.believes(&roots.roots, &leaf.chain[0]));
    }
    assert!(!world.believes(&before.roots, &after.chain[0]));
    // The last one the old root signed has expired.
    world.pass(HOUR);
    assert!(!world.believes(&during.roots, &during.chain[0]));
    assert_eq!(ca.roots().len(), 1);
    assert!(world.believes(
        &ca.roots(),
        &ca.issue(&orders(), &request()).unwrap().chain[0]
    ));
    let kept = || std::fs::read_to_string(world.path()).unwrap();
    assert_eq!(kept().matches("PRIVATE KEY").count(), 4);
    let ca = world.open();
    assert_eq!(
        kept().matches("PRIVATE KEY").count(),
        2,
        "the old key is gone"
    );
    ca.rotate().unwrap();
}

#[test]
fn the_control_planes_own_certificate_is_exchanged_at_half_its_life() {
    let world = World::new();
    let ca = world.open();
    let first = ca.tls().unwrap();
    assert!(Arc::ptr_eq(&first, &ca.tls().unwrap()));
    world.pass(HOUR / 2);
    let second = ca.tls().unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    ca.rotate().unwrap();
    assert!(
        !Arc::ptr_eq(&second, &ca.tls().unwrap()),
        "two are believed"
    );
}
