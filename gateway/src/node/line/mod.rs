//! The line to a control plane in another process: the far end of the channel every data plane speaks to, carried over gRPC.
//!
//! The request path does not know it: it asks the channel as if the control plane were in this process. The line keeps what it was told
//! (callers, what is revoked, where services live), so that a control plane that is away, slow or empty changes nothing for those who are
//! known; whoever is not known gets no answer, which lets nobody in. Streams are opened again after waits that are random. Not here: how
//! TLS is made of the node's identity (`node::tls`).

mod affairs;
mod callers;
mod contact;
mod duplex;
mod frames;
mod lane;
mod memory;
mod places;
mod policy;
mod questions;
mod slots;
mod told;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tollgate_proto::{Announcement, Answer, ControlServer, Question};
use tonic::transport::Channel;

pub use contact::Contact;
pub use places::Registration;
pub use policy::{Counts, Description};

use crate::live::Live;
use crate::node::Services;
use crate::whole_file;
use affairs::Affairs;
use callers::Known;
use memory::Memory;

/// How far a clock may be set back between two starts, in milliseconds, as time services do it.
const SET_BACK: i64 = 300_000;
/// Questions of one kind that wait.
const QUEUE: usize = 4096;
/// Between two writes of what is kept, if it changed: whoever is served now is known after a death a moment later.
const WRITE: Duration = Duration::from_millis(200);
/// The same, for each thousand callers more: the file is written as a whole.
const WRITE_MORE: Duration = Duration::from_millis(100);
/// Writes after which the time of the last contact is written although nothing changed.
const TOUCH: u32 = 300;

/// What the line is made of.
pub struct Line {
    /// To the control plane.
    pub channel: Channel,
    /// Who this is.
    pub description: Description,
    /// The far end of the channel the data plane speaks to.
    pub server: ControlServer,
    /// The services that are followed.
    pub services: Arc<Services>,
    /// Of a sidecar: what it serves.
    pub registration: Option<Registration>,
    /// Where callers are kept.
    pub state_dir: PathBuf,
    /// What is known of the contact.
    pub contact: Arc<Contact>,
}

/// What becomes of a line while it runs.
pub struct Running {
    /// Turned true, nobody shall be sent here any more.
    pub leaving: watch::Sender<bool>,
    /// True once everything this node is to have was received, or was there from before.
    pub complete: watch::Receiver<bool>,
    tasks: JoinSet<()>,
    known: Arc<Known>,
    path: PathBuf,
}

impl Line {
    /// Begins, on the current runtime. `live` takes the policy.
    pub fn start(self, live: Arc<Live>) -> Running {
        let path = self.state_dir.join("callers");
        let memory = Memory::read(&path);
        if let Some(heard) = memory.last_heard() {
            let silence = memory::now().millis().saturating_sub(heard.millis());
            // A clock that was set back far cannot say how long it was: then it was too long.
            if silence >= -SET_BACK {
                let silence = Duration::from_millis(u64::try_from(silence).unwrap_or(0));
                self.contact.resume(silence);
            }
        }
        let known = Arc::new(Known {
            contact: self.contact,
            memory: Mutex::new(memory),
            generations: callers::Generations::default(),
            said_anew: false.into(),
        });
        let mut tasks = JoinSet::new();
        let (leaving, leave) = watch::channel(false);
        let (completed, complete) = watch::channel(false);
        let (channel, node) = (self.channel, self.description.node.to_string());
        let announcements = self.server.announcements;
        tasks.spawn(lane::revocations(
            channel.clone(),
            node.clone(),
            known.clone(),
            announcements.clone(),
        ));
        tasks.spawn(lane::changes(
            channel.clone(),
            node,
            known.clone(),
            announcements.clone(),
        ));
        tasks.spawn(places::follow(
            channel.clone(),
            self.services,
            self.registration,
            leave,
            (self.state_dir.join("services"), known.contact.clone()),
        ));
        tasks.spawn(policy::follow(
            channel.clone(),
            self.description,
            live,
            completed,
            known.contact.clone(),
        ));
        let questions = self.server.questions;
        tasks.spawn(sort(channel, known.clone(), announcements, questions));
        tasks.spawn(keep(known.clone(), path.clone()));
        Running {
            leaving,
            complete,
            tasks,
            known,
            path,
        }
    }
}

impl Running {
    /// Has this done beside it, until it ends.
    pub fn also(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Ends it; what is kept is written.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.known.memory.lock().touch();
        write(&self.known, &self.path).await;
    }
}

/// Hands each question to whoever asks such questions.
async fn sort(
    channel: Channel,
    known: Arc<Known>,
    announcements: broadcast::Sender<Announcement>,
    mut questions: mpsc::Receiver<tollgate_proto::Asked>,
) {
    let (resolve, resolving) = mpsc::channel(QUEUE);
    let (lease, leasing) = mpsc::channel(QUEUE);
    let (usage, using) = mpsc::channel(QUEUE);
    let contact = known.contact.clone();
    let affairs = Affairs::new(channel.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(callers::answer(
        channel.clone(),
        known.clone(),
        announcements,
        resolving,
    ));
    tasks.spawn(frames::leases(channel.clone(), contact.clone(), leasing));
    tasks.spawn(frames::usage(channel, contact, using));
    while let Some((question, back)) = questions.recv().await {
        // A queue that is full drops the question, and with it the way back: nobody answers.
        match question {
            Question::Resolve(reference) => drop(resolve.try_send((reference, back))),
            Question::Lease(holder, asks) => drop(lease.try_send((holder, asks, back))),
            Question::Usage(batch) => drop(usage.try_send((batch, back))),
            Question::Revocations => {
                if let Some(revoked) = known.memory.lock().revoked() {
                    drop(back.send(Answer::Revocations(revoked)));
                }
            }
            affair => affairs.ask(affair, back),
        }
    }
}

/// Writes what is kept, now and then.
async fn keep(known: Arc<Known>, path: PathBuf) {
    let mut rounds = 0;
    loop {
        let thousands = u32::try_from(known.memory.lock().len() / 1000).unwrap_or(u32::MAX);
        tokio::time::sleep(WRITE + WRITE_MORE.saturating_mul(thousands)).await;
        rounds += 1;
        if rounds % TOUCH == 0 {
            known.memory.lock().touch();
        }
        write(&known, &path).await;
    }
}

async fn write(known: &Known, path: &std::path::Path) {
    let Some(bytes) = known.memory.lock().changed() else {
        return;
    };
    let path = path.to_owned();
    let written = tokio::task::spawn_blocking(move || whole_file::write(&path, &bytes)).await;
    match written {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            // Tried again: what is in memory still counts for this process.
            known.memory.lock().touch();
            tracing::warn!(%error, "callers are not kept for the next start");
        }
        Err(error) => tracing::error!(%error, "callers are not kept for the next start"),
    }
}
