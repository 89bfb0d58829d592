//! What a gateway has before it starts: its sockets and locks, and what it was told to be. Not here: serving.

use std::net::TcpListener;
use std::sync::Arc;

use tollgate_policy::settings::{Direction, ProcessConfig};

use super::sites::{Site, bind_admin, open, predecessor};
use super::{Role, StartError};
use crate::listener::Lock;
use crate::listener::handover::TakenOver;
use crate::live::state_dir;
use crate::node::Mesh;
use crate::node::line::Contact;

/// The sockets and locks of a gateway. Connections wait until it is started.
pub struct Opened {
    pub(super) process: ProcessConfig,
    pub(super) predecessor: Option<TakenOver>,
    pub(super) sites: Vec<Site>,
    pub(super) locks: Vec<Lock>,
    pub(super) admin: TcpListener,
    pub(super) mesh: Mesh,
    pub(super) contact: Option<Arc<Contact>>,
    pub(super) role: Role,
}

impl Opened {
    /// Opens the sockets and locks their addresses, or takes them over from the running process. Before anything else: a second
    /// instance started by accident gets no further than this.
    ///
    /// # Errors
    /// One clear line: what could not be opened or locked.
    pub fn open(mut process: ProcessConfig, take_over: bool) -> Result<Self, StartError> {
        process.state_dir = state_dir::prepare(Some(&process.state_dir), None)?;
        let predecessor = predecessor(&process.state_dir, take_over)?;
        let (sites, locks) = open(&process, predecessor.as_ref())?;
        let admin = bind_admin(&process, take_over)?;
        Ok(Self {
            process,
            predecessor,
            sites,
            locks,
            admin,
            mesh: Mesh::none(),
            contact: None,
            role: Role::default(),
        })
    }

    /// Has it belong to an installation: who it is to others, and where they live.
    #[must_use]
    pub fn within(mut self, mesh: Mesh) -> Self {
        self.mesh = mesh;
        self
    }

    /// Has it judge callers by how long the control plane was not heard.
    #[must_use]
    pub fn hearing(mut self, contact: Arc<Contact>) -> Self {
        self.contact = Some(contact);
        self
    }

    /// The same, to be changed before the engine starts.
    pub fn process_mut(&mut self) -> &mut ProcessConfig {
        &mut self.process
    }

    /// With what a role adds.
    #[must_use]
    pub fn with(mut self, role: Role) -> Self {
        if let Some(mutual) = &role.mutual {
            // What comes from the app beside us has no identity to show.
            let bare = self
                .sites
                .iter_mut()
                .filter(|site| site.tls.is_none() && site.config.direction == Direction::Inbound);
            bare.for_each(|site| site.tls = Some(mutual.keys()));
        }
        self.role = role;
        self
    }

    /// The process, its state directory as it is used.
    pub fn process(&self) -> &ProcessConfig {
        &self.process
    }
}
