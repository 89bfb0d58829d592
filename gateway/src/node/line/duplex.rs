//! A stream in both directions that is opened again whenever it ends, after a wait that grows and is random: nodes that lost the same
//! control plane do not come back in the same moment.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Sleep, sleep, timeout};
use tollgate_proto::stream::{Sent, sent};
use tonic::{Status, Streaming};

use super::contact::Contact;

/// Messages that wait to be sent.
const ROOM: usize = 64;
/// Longest wait after the first and after many failures.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long opening may take.
const OPENING: Duration = Duration::from_secs(3);

type Opening<Down> = Pin<Box<dyn Future<Output = Result<Streaming<Down>, Status>> + Send>>;
type Open<Up, Down> = Box<dyn Fn(Sent<Up>) -> Opening<Down> + Send>;

/// What happened.
pub(super) enum Event<Down> {
    /// It is open: what was under way before is lost.
    Opened,
    /// Something came.
    Message(Down),
    /// It ended.
    Closed,
}

enum State<Up, Down> {
    Waiting(Pin<Box<Sleep>>),
    Opening(mpsc::Sender<Up>, Opening<Down>),
    Open(mpsc::Sender<Up>, Box<Streaming<Down>>),
}

/// The stream.
pub(super) struct Duplex<Up, Down> {
    what: &'static str,
    open: Open<Up, Down>,
    state: State<Up, Down>,
    backoff: Backoff,
    returns: watch::Receiver<u64>,
}

impl<Up: Send + 'static, Down: Send + 'static> Duplex<Up, Down> {
    /// Opened for the first time as soon as [`Duplex::next`] is waited for.
    pub(super) fn new<F>(
        what: &'static str,
        contact: &Contact,
        open: impl Fn(Sent<Up>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<tonic::Response<Streaming<Down>>, Status>> + Send + 'static,
    {
        Self {
            what,
            open: Box::new(move |from| {
                let opening = open(from);
                Box::pin(async move {
                    match timeout(OPENING, opening).await {
                        Ok(opened) => Ok(opened?.into_inner()),
                        Err(_) => Err(Status::unavailable("no answer in time")),
                    }
                })
            }),
            state: State::Waiting(Box::pin(sleep(Duration::ZERO))),
            backoff: Backoff::default(),
            returns: contact.returns(),
        }
    }

    /// Waits for what happens next. Nothing is lost where the wait is given up.
    pub(super) async fn next(&mut self) -> Event<Down> {
        loop {
            match &mut self.state {
                State::Waiting(wait) => {
                    let gone = tokio::select! {
                        () = wait.as_mut() => false,
                        heard = self.returns.changed() => heard.is_err(),
                    };
                    if gone {
                        wait.as_mut().await;
                    }
                    let (sender, from) = sent(ROOM);
                    self.state = State::Opening(sender, (self.open)(from));
                }
                State::Opening(sender, opening) => match opening.as_mut().await {
                    Ok(stream) => {
                        self.state = State::Open(sender.clone(), Box::new(stream));
                        return Event::Opened;
                    }
                    Err(status) => self.wait(&status.to_string()),
                },
                State::Open(_, stream) => match stream.message().await {
                    Ok(Some(message)) => {
                        self.backoff.reset();
                        return Event::Message(message);
                    }
                    Ok(None) => {
                        self.wait("it ended");
                        return Event::Closed;
                    }
                    Err(status) => {
                        self.wait(status.message());
                        return Event::Closed;
                    }
                },
            }
        }
    }

    /// Sends, if it is open and there is room.
    pub(super) fn send(&mut self, message: Up) -> bool {
        match &self.state {
            State::Open(sender, _) => sender.try_send(message).is_ok(),
            State::Waiting(_) | State::Opening(..) => false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(..))
    }

    /// Gives the stream up: whoever is there does not answer.
    pub(super) fn give_up(&mut self, why: &str) {
        self.wait(why);
    }

    fn wait(&mut self, why: &str) {
        let wait = self.backoff.next();
        tracing::debug!(
            what = self.what,
            why,
            ?wait,
            "no stream to the control plane"
        );
        self.state = State::Waiting(Box::pin(sleep(wait)));
    }
}

/// Waits that grow, each of random length up to its bound.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        let bound = WAITS
            .0
            .saturating_mul(1 << self.failures.min(10))
            .min(WAITS.1);
        self.failures += 1;
        let random = RandomState::new().build_hasher().finish();
        let millis = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX).max(1);
        Duration::from_millis(random % millis)
    }

    /// It went well.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}
