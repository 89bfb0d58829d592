//! A data plane whose control plane runs elsewhere: it joins, keeps its certificate, and holds the line on a thread of its own.
//!
//! Nothing here waits for the control plane but the first join: a node that joined once starts, and serves, without it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow, bail};
use tokio::sync::{oneshot, watch};
use tollgate_gateway::live::Live;
use tollgate_gateway::node::line::{Contact, Counts, Description, Line, Registration};
use tollgate_gateway::node::{ControlAddress, Membership, Mesh, NodeIdentity, Services, channel};
use tollgate_gateway::node::{join, membership, renewal};
use tollgate_policy::settings::ProcessConfig;
use tollgate_policy::workload::Kind;
use tollgate_proto::{ControlClient, ControlServer};

/// Where the control plane is, and how to join it.
#[derive(Clone, Debug)]
pub(crate) struct Membering {
    /// `https://HOST:PORT`.
    pub(crate) control: ControlAddress,
    /// Used at the first start.
    pub(crate) token: Token,
    /// What this node is called; else the machine's name with something random.
    pub(crate) node: Option<String>,
}

/// What a node joins with.
#[derive(Clone, Debug)]
pub(crate) enum Token {
    /// The token.
    Given(String),
    /// The file it was to be in is not there.
    Missing(PathBuf),
    /// Nothing was said.
    None,
}

impl Membering {
    /// Says before anything is opened that this process could not join.
    ///
    /// # Errors
    /// It never joined and has no token, or its membership is damaged.
    pub(super) fn check(&self, state_dir: &Path) -> anyhow::Result<()> {
        match Membership::load(state_dir)? {
            Some(_) => Ok(()),
            None => self.token().map(drop),
        }
    }

    fn token(&self) -> anyhow::Result<&str> {
        let remedy = "make a token with `tollgate join-tokens create` at the control plane, and give it with --join-token-file";
        match &self.token {
            Token::Given(token) => Ok(token),
            Token::Missing(file) => {
                let file = file.display();
                bail!("this process has not joined yet, and {file} is not there: {remedy}")
            }
            Token::None => bail!("this process has not joined yet: {remedy}"),
        }
    }
}

/// A node that joined, before its engine starts.
pub(super) struct Joined {
    /// The data plane's end of the conversation.
    pub(super) client: ControlClient,
    /// Who it is, and where others live.
    pub(super) mesh: Mesh,
    /// Whether the control plane is there.
    pub(super) contact: Arc<Contact>,
    membership: Membership,
    server: ControlServer,
    state_dir: PathBuf,
}

/// The line, once it runs.
pub(super) struct Remote {
    /// Turned true, nobody shall be sent here any more.
    pub(super) leaving: watch::Sender<bool>,
    /// True once all policy of this node is there.
    pub(super) complete: watch::Receiver<bool>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Joined {
    /// Joins, or takes up the membership of a former start. Blocks.
    ///
    /// # Errors
    /// There is no membership and no token, or the control plane refuses; a membership that is damaged.
    pub(super) fn join(process: &mut ProcessConfig, how: &Membering) -> anyhow::Result<Self> {
        let state_dir = &process.state_dir;
        let mut membership = match Membership::load(state_dir)? {
            Some(membership) => membership,
            None => first(state_dir, how)?,
        };
        if membership.control != how.control {
            membership.control = how.control.clone();
            membership.save(state_dir)?;
        }
        let identity = NodeIdentity::none();
        identity.replace(membership.held().map_err(|why| anyhow!(why))?);
        // Of two nodes on one machine each has its own records.
        process.usage.node = Some(membership.node.as_str().into());
        let (client, server) = tollgate_proto::channel(membership.pepper);
        Ok(Self {
            client,
            mesh: Mesh {
                identity,
                services: Arc::new(Services::default()),
            },
            contact: Arc::default(),
            membership,
            server,
            state_dir: process.state_dir.clone(),
        })
    }

    /// Refuses to be somebody else than the command line says.
    ///
    /// # Errors
    /// It is.
    pub(super) fn must_be(&self, kind: Kind, name: &str) -> anyhow::Result<()> {
        let held = self.mesh.identity.current();
        let id = held.map(|held| held.id.clone()).context("no identity")?;
        if id.kind() == kind && **id.name() == *name {
            return Ok(());
        }
        let path = membership::path(&self.state_dir);
        bail!(
            "this state directory belongs to {id}, not to {} `{name}`: name another --state-dir, or remove {} and join anew",
            kind.as_str(),
            path.display()
        )
    }

    /// Who it is, for the start-up lines.
    pub(super) fn introduction(&self) -> String {
        let held = self.mesh.identity.current();
        let id = held.map_or_else(String::new, |held| held.id.to_string());
        let Membership { node, control, .. } = &self.membership;
        format!("node {node} is {id}, with the control plane at {control}")
    }

    /// Holds the line from now on.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(
        self,
        live: Arc<Live>,
        registration: Option<Registration>,
        counts: Counts,
        process: &ProcessConfig,
    ) -> anyhow::Result<Remote> {
        let state_dir = process.state_dir.clone();
        let (stop, stopped) = oneshot::channel();
        let (started, starting) = mpsc::channel();
        let thread = std::thread::Builder::new().name("control-line".to_owned());
        let thread = thread.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(anyhow!(error)))),
            };
            runtime.block_on(async {
                let identity = Arc::clone(&self.mesh.identity);
                let channel = match channel(&self.membership.control, Arc::clone(&identity)) {
                    Ok(channel) => channel,
                    Err(why) => return drop(started.send(Err(anyhow!(why)))),
                };
                let line = Line {
                    channel,
                    description: Description {
                        node: self.membership.node.as_str().into(),
                        run: random().into(),
                        counts,
                    },
                    server: self.server,
                    services: self.mesh.services,
                    registration,
                    state_dir: state_dir.clone(),
                    contact: self.contact,
                };
                let mut running = line.start(live);
                let leaving = running.leaving.clone();
                let complete = running.complete.clone();
                drop(started.send(Ok((leaving, complete))));
                running.also(renewal::keep_renewing(identity, self.membership, state_dir));
                let _sender_gone = stopped.await;
                running.stop().await;
            });
        });
        let thread = thread.context("the thread of the line to the control plane")?;
        let (leaving, complete) = starting
            .recv()
            .map_err(|_| anyhow!("the line to the control plane ended at its start"))??;
        Ok(Remote {
            leaving,
            complete,
            stop,
            thread,
        })
    }
}

impl Remote {
    /// Ends it, with what is to be kept.
    pub(super) fn stop(self) {
        let _ended_already = self.stop.send(());
        let _panicked = self.thread.join();
    }
}

fn first(state_dir: &Path, how: &Membering) -> anyhow::Result<Membership> {
    let token = how.token()?;
    let named = || {
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let machine: String = machine.trim().chars().take(40).collect();
        let random: String = random().chars().take(8).collect();
        format!("{machine}-{random}")
    };
    let node = how.node.clone().unwrap_or_else(named);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let joined = runtime.block_on(join(&how.control, token, &node));
    let membership = joined.with_context(|| format!("cannot join at {}", how.control))?;
    membership.save(state_dir)?;
    Ok(membership)
}

/// 32 hexadecimal digits.
fn random() -> String {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    let one = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", one(), one())
}
