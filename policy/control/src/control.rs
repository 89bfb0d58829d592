//! The control plane of one installation: its directory in memory, its store, and the way changes go through both.
//!
//! Promises: a change is committed to the store, then seen in memory, then announced, and only then answered; one change at a
//! time; when the store fails later everything known goes on being answered and changes are refused with the reason; as long as the
//! store was never read nobody is identified, because what was revoked is not known. Not here: what may
//! be changed by whom (`http`), and answering data planes (`service`).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use tokio::sync::{Mutex, Notify, broadcast};
use tokio::task::JoinHandle;
use tollgate_policy::credentials::key::{Pepper, is_environment};
use tollgate_policy::directory::Revoked;
use tollgate_policy::finding::Finding;
use tollgate_policy::settings::DirectoryConfig;
use tollgate_policy::time::Timestamp;
use tollgate_proto::{Announcement, ControlServer};

use crate::api_limits::ApiLimits;
use crate::audit::{self, Entry, Head, Verdict};
use crate::bundles::Shelf;
use crate::ca::Ca;
use crate::index::{Effects, Index};
use crate::nodes::claims::Claims;
use crate::nodes::endpoints::Endpoints;
use crate::nodes::registry::Registry;
use crate::quota::Quota;
use crate::refusal::{Refusal, chain};
use crate::store::{Contents, Store, StoreError};
use crate::usage::{Usage, UsageSettings};
use crate::{expiry, follow, secret_file, service, usage};

/// How long a lock of another process on the store is waited for.
const BUSY: Duration = Duration::from_secs(2);

/// Reads the configuration directory afresh: all it says about consumers, plans and terms, or what is wrong with it.
pub type FileReader = Box<dyn Fn() -> Result<DirectoryConfig, Vec<Finding>> + Send + Sync>;

/// What a control plane needs to start.
pub struct Options {
    /// Holds the store, the pepper, the admin credential and the head of the audit log. Must exist, mode 0700.
    pub state_dir: PathBuf,
    /// The installation's pepper, from [`crate::load_or_make_pepper`].
    pub pepper: [u8; 32],
    /// Reads the files; `None`: there are none.
    pub files: Option<FileReader>,
    /// Middle part of keys made here: `tg_<environment>_…`.
    pub key_environment: String,
    /// How usage is kept.
    pub usage: UsageSettings,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}

/// Why a control plane does not start. A store that cannot be used is no reason: see [`Control::store_problem`].
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Keys cannot carry this environment.
    #[error("`{0}` cannot stand in a key as its environment; use a few of a-z and 0-9")]
    Environment(String),
    /// The files are wrong.
    #[error("{}", findings(.0))]
    Files(Vec<Finding>),
    /// The admin credential can be neither read nor made.
    #[error("the admin credential in {} cannot be used", state_dir.display())]
    AdminCredential {
        /// The state directory.
        state_dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A running control plane. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Control {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control")
            .field("state_dir", &self.inner.state_dir)
            .finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) state_dir: PathBuf,
    pub(crate) pepper: Pepper,
    pub(crate) pepper_bytes: [u8; 32],
    /// Signs for nodes; none without a port for them.
    pub(crate) ca: OnceLock<Arc<Ca>>,
    pub(crate) key_environment: String,
    pub(crate) admin_credential: String,
    pub(crate) report_credential: String,
    pub(crate) index: RwLock<Index>,
    files: Option<FileReader>,
    /// Whether the store was ever read: files alone do not know what was revoked.
    facts_known: AtomicBool,
    /// The store, or why there is none.
    store: RwLock<Result<Store, Arc<str>>>,
    /// Hands out quota.
    pub(crate) quota: Quota,
    /// Changes the store had seen when it was last read here, or written.
    pub(crate) seen: AtomicU64,
    /// Held by whoever changes something: the last record of the audit log.
    pub(crate) writer: Mutex<Head>,
    pub(crate) announcements: broadcast::Sender<Announcement>,
    /// Another override may be the next to expire.
    pub(crate) overrides_changed: Notify,
    pub(crate) usage: Usage,
    /// Where limits of APIs are asked for; `None`: nobody loaded any yet.
    pub(crate) api_limits: RwLock<Option<ApiLimits>>,
    /// Where services live.
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) bundles: Shelf,
    pub(crate) nodes: Registry,
    /// Whose the names are that nodes use.
    pub(crate) claims: Claims,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// State of the directory after it.
    pub generation: u64,
    /// Clashes between files and store, and references that lead nowhere.
    pub remarks: Vec<String>,
}

impl Control {
    /// Starts: reads files and store, and answers `server`'s questions on the runtime this is called on. A store that cannot be
    /// used does not stop it; nobody is identified until [`Control::reload`] could read one.
    ///
    /// # Errors
    /// The files are wrong, or the admin credential cannot be used.
    pub async fn start(options: Options, server: ControlServer) -> Result<Self, StartError> {
        if !is_environment(&options.key_environment) {
            return Err(StartError::Environment(options.key_environment));
        }
        let state_dir = options.state_dir;
        let unusable = |source| StartError::AdminCredential {
            state_dir: state_dir.clone(),
            source,
        };
        let admin_credential =
            secret_file::load_or_make_admin_credential(&state_dir).map_err(unusable)?;
        let report_credential =
            secret_file::load_or_make_report_credential(&state_dir).map_err(unusable)?;
        let files = read_files(options.files.as_ref()).map_err(StartError::Files)?;
        let (store, contents, head) = open(&state_dir).await;
        let pepper = Pepper::new(options.pepper);
        let seen = AtomicU64::new(contents.generation);
        let mut index = Index::merge(&files, contents, |secret| pepper.digest(secret));
        index.generation += 1;
        index.expire(now(), &mut Effects::default());
        log_remarks(&index.remarks);
        let (quota, granting) = Quota::new(state_dir.clone(), server.announcements.clone());
        let (taking, waiting) = Usage::new(options.usage);
        let control = Self {
            inner: Arc::new(Inner {
                state_dir,
                pepper,
                pepper_bytes: options.pepper,
                ca: OnceLock::new(),
                key_environment: options.key_environment,
                admin_credential,
                report_credential,
                index: RwLock::new(index),
                files: options.files,
                facts_known: AtomicBool::new(store.is_ok()),
                store: RwLock::new(store),
                quota,
                seen,
                writer: Mutex::new(head),
                announcements: server.announcements,
                overrides_changed: Notify::new(),
                usage: taking,
                api_limits: RwLock::default(),
                endpoints: Arc::default(),
                bundles: Shelf::default(),
                nodes: Registry::default(),
                claims: Claims::default(),
                tasks: parking_lot::Mutex::default(),
            }),
        };
        control.note_truncation().await;
        // Without a store it is tried again when something is published.
        if let Err(error) = control.bundles().load().await {
            tracing::error!(%error, "what was published before is not known; nodes keep what they hold");
        }
        // Who listened before this start may hold answers of an earlier life.
        control.announce_everything();
        let answering = tokio::spawn(service::answer(control.clone(), server.questions));
        let following = tokio::spawn(follow::follow(control.clone()));
        let granting = tokio::spawn(granting);
        let expiring = tokio::spawn(expiry::expire(control.clone()));
        let intake = tokio::spawn(usage::intake(control.clone(), waiting));
        let keeping = tokio::spawn(usage::keep_house(control.clone()));
        let tasks = [answering, following, granting, expiring, intake, keeping];
        control.inner.tasks.lock().extend(tasks);
        Ok(control)
    }

    /// Reads files and store again and announces that everything may have changed. A store that could not be used is tried again.
    ///
    /// # Errors
    /// The files are wrong, or the store cannot be read: nothing has changed then.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let mut head = self.inner.writer.lock().await;
        let files = read_files(self.inner.files.as_ref()).map_err(ReloadError::Files)?;
        let held = self.store().ok();
        let mut opened = held.is_some();
        let contents = match &held {
            Some(store) => read(store).await.map_err(ReloadError::Store)?,
            None => {
                let (store, contents, found) = open(&self.inner.state_dir).await;
                opened = store.is_ok();
                *self.inner.store.write() = store;
                *head = found;
                contents
            }
        };
        let seen = contents.generation;
        let mut merged = Index::merge(&files, contents, |secret| self.inner.pepper.digest(secret));
        merged.expire(now(), &mut Effects::default());
        log_remarks(&merged.remarks);
        let reloaded = {
            let mut index = self.inner.index.write();
            merged.generation = merged.generation.max(index.generation) + 1;
            let reloaded = Reloaded {
                generation: merged.generation,
                remarks: merged.remarks.clone(),
            };
            *index = merged;
            self.inner.seen.store(seen, Ordering::Release);
            reloaded
        };
        // After the index: whoever is answered from now on is judged by what was revoked.
        self.inner.facts_known.fetch_or(opened, Ordering::Release);
        self.inner.overrides_changed.notify_one();
        self.announce_everything();
        drop(head);
        if held.is_none() {
            // An older backup may have been put in place.
            self.note_truncation().await;
        }
        Ok(reloaded)
    }

    /// Whether it is known what was revoked, suspended and accepted. Until then nobody is identified.
    pub(crate) fn facts_known(&self) -> bool {
        self.inner.facts_known.load(Ordering::Acquire)
    }

    /// Why nothing can be changed at the moment; `None`: it can.
    pub fn store_problem(&self) -> Option<Arc<str>> {
        self.inner.store.read().as_ref().err().cloned()
    }

    /// What the last merge of files and store found: clashes, and references that lead nowhere.
    pub fn remarks(&self) -> Vec<String> {
        self.inner.index.read().remarks.clone()
    }

    /// Where the credential for administration stands.
    pub fn admin_credential_path(&self) -> PathBuf {
        self.inner.state_dir.join("admin-credential")
    }

    /// All that was revoked and stays so, for a data plane that begins or fell behind.
    pub fn revoked(&self) -> Vec<Revoked> {
        self.inner.index.read().revoked(now())
    }

    /// Walks the audit log.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn verify_audit(&self) -> Result<Verdict, StoreError> {
        match self.store() {
            Ok(store) => audit::verify(&store, &self.inner.state_dir).await,
            Err(why) => Err(StoreError::Strange(why.to_string())),
        }
    }

    /// Ends: waits for the change under way, answers no more, closes the store.
    pub async fn stop(&self) {
        let _head = self.inner.writer.lock().await;
        for task in self.inner.tasks.lock().drain(..) {
            task.abort();
        }
        let store = {
            let mut held = self.inner.store.write();
            std::mem::replace(&mut *held, Err(Arc::from("the control plane has stopped")))
        };
        if let Ok(store) = store {
            store.close().await;
        }
    }

    /// The store to read from.
    pub(crate) fn store(&self) -> Result<Store, Refusal> {
        let held = self.inner.store.read();
        held.as_ref()
            .cloned()
            .map_err(|why| Refusal::Unavailable(why.to_string()))
    }

    fn announce_everything(&self) {
        let (generation, revoked) = {
            let index = self.inner.index.read();
            (index.generation, index.revoked(now()))
        };
        // Sending fails only when nobody listens.
        let everything = Announcement::Everything { generation };
        let _ = self.inner.announcements.send(everything);
        if !revoked.is_empty() {
            let what = revoked.into();
            let revoked = Announcement::Revoked { generation, what };
            let _ = self.inner.announcements.send(revoked);
        }
    }

    /// A log shorter than it was is said in the log itself, before anything is added.
    async fn note_truncation(&self) {
        let Ok(store) = self.store() else { return };
        let Ok(Some(lost)) = audit::lost(&store, &self.inner.state_dir).await else {
            return;
        };
        tracing::error!(
            record = lost.seq,
            "the audit log lacks a record that audit-head names; see `tollgate audit verify`"
        );
        let entry = Entry {
            at: now(),
            actor: "tollgate".to_owned(),
            action: audit::TRUNCATED,
            subject: lost.seq.to_string(),
            detail: serde_json::json!({ "expected_hash": lost.hash }),
            from: None,
        };
        if let Err(error) = self.note(entry).await {
            tracing::error!(%error, "that could not be noted");
        }
    }
}

/// Why a reload was refused.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The files are wrong.
    #[error("{}", findings(.0))]
    Files(Vec<Finding>),
    /// The store cannot be read.
    #[error(transparent)]
    Store(StoreError),
}

/// The present, as a value.
pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

fn read_files(reader: Option<&FileReader>) -> Result<DirectoryConfig, Vec<Finding>> {
    reader.map_or_else(|| Ok(DirectoryConfig::default()), |read| read())
}

/// The store with its contents; or why there is none, and nothing.
async fn open(state_dir: &Path) -> (Result<Store, Arc<str>>, Contents, Head) {
    match try_open(state_dir).await {
        Ok((store, contents, head)) => (Ok(store), contents, head),
        Err(error) => {
            tracing::error!(error = %chain(&error), "without a store: nobody is identified, because what was revoked is not known");
            let nothing = Head {
                seq: 0,
                hash: String::new(),
            };
            (Err(error.to_string().into()), Contents::default(), nothing)
        }
    }
}

async fn try_open(state_dir: &Path) -> Result<(Store, Contents, Head), StoreError> {
    let store = Store::open(state_dir, BUSY).await?;
    let contents = read(&store).await?;
    let head = Head::stored(&mut *store.read().await?).await?;
    Ok((store, contents, head))
}

/// All of one state, whatever is written meanwhile.
async fn read(store: &Store) -> Result<Contents, StoreError> {
    let mut transaction = store.snapshot().await?;
    let contents = Contents::read(&mut transaction).await?;
    transaction.rollback().await?;
    Ok(contents)
}

fn log_remarks(remarks: &[String]) {
    for remark in remarks {
        tracing::warn!("{remark}");
    }
}

fn findings(found: &[Finding]) -> String {
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
