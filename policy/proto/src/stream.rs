//! A bounded channel as the stream of messages that gRPC takes.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::Stream;

/// What is sent into a channel, until its senders are gone.
#[derive(Debug)]
pub struct Sent<T>(mpsc::Receiver<T>);

/// A channel, and its far end as a stream.
pub fn sent<T>(room: usize) -> (mpsc::Sender<T>, Sent<T>) {
    let (sender, receiver) = mpsc::channel(room);
    (sender, Sent(receiver))
}

impl<T> Stream for Sent<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(context)
    }
}
