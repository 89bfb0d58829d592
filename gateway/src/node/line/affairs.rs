//! Consumers' own affairs and the audit log: asked one by one, a bounded number at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tollgate_proto::wire::{self, control_client::ControlClient as Wire};
use tollgate_proto::{Answer, Question, convert};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Questions at once; more are not answered.
const AT_ONCE: usize = 64;
/// Bytes of an answer: texts of several terms.
const LARGEST: usize = 32 << 20;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks, each question in a task of its own.
#[derive(Debug, Clone)]
pub(super) struct Affairs {
    channel: Channel,
    places: Arc<Semaphore>,
}

impl Affairs {
    pub(super) fn new(channel: Channel) -> Self {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        Self { channel, places }
    }

    /// Asks. Where nobody answers, the way back is dropped.
    pub(super) fn ask(&self, question: Question, back: oneshot::Sender<Answer>) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return;
        };
        let wire = Wire::new(self.channel.clone()).max_decoding_message_size(LARGEST);
        tokio::spawn(async move {
            match timeout(PATIENCE, asked(wire, question)).await {
                Ok(Ok(answer)) => drop(back.send(answer)),
                Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
                    drop(back.send(Answer::Refused(status.message().to_owned())));
                }
                Ok(Err(_)) | Err(_) => {}
            }
            drop(place);
        });
    }
}

async fn asked(mut wire: Wire<Channel>, question: Question) -> Result<Answer, Status> {
    let about = |consumer: Arc<str>, api: Arc<str>| wire::AboutConsumer {
        consumer: consumer.to_string(),
        api: api.to_string(),
        limits: Vec::new(),
    };
    Ok(match question {
        Question::Terms { consumer, api } => {
            let response = wire.terms(about(consumer, api)).await?.into_inner();
            Answer::Terms(convert::terms_texts(response).map_err(strange)?)
        }
        Question::Accept(acceptance) => {
            let response = wire.accept(wire::Acceptance::from(&acceptance)).await?;
            match response.into_inner().refused {
                why if why.is_empty() => Answer::Accepted,
                why => Answer::Refused(why),
            }
        }
        Question::Overview { consumer } => {
            let response = wire.overview(about(consumer, "".into())).await?;
            Answer::Overview(convert::document(response.into_inner()).map_err(strange)?)
        }
        Question::OwnUsage {
            consumer,
            api,
            limits,
        } => {
            let mut asked = about(consumer, api);
            asked.limits = convert::written_counters(&limits);
            let response = wire.own_usage(asked).await?;
            Answer::OwnUsage(convert::document(response.into_inner()).map_err(strange)?)
        }
        Question::Audit(records) => {
            wire.audit(convert::audit_request(&records)).await?;
            Answer::Noted
        }
        Question::Resolve(_) | Question::Revocations | Question::Lease(..) | Question::Usage(_) => {
            return Err(Status::internal("asked by another way"));
        }
    })
}

fn strange(error: convert::Malformed) -> Status {
    Status::data_loss(error.to_string())
}
