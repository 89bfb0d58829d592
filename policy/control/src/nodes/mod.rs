//! Data planes elsewhere: how they become nodes of the installation, the port they are served at, and their questions over gRPC, answered
//! as those of the data plane in this process.

mod check;
pub(crate) mod claims;
pub(crate) mod endpoints;
mod identity;
pub mod port;
pub mod registry;
mod service;
mod streams;
pub(crate) mod tokens;

use std::future::Future;
use std::io;
use std::sync::Arc;

use tollgate_proto::ControlClient;

use crate::Control;
use crate::ca::Ca;

/// Serves nodes until `shutdown` completes. `client` is how the data plane of this process asks.
///
/// # Errors
/// The listener cannot be used by the runtime, or the authority can make no certificate.
pub async fn serve(
    listener: std::net::TcpListener,
    control: Control,
    ca: Arc<Ca>,
    client: ControlClient,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let grpc = service::router(control.clone(), client);
    port::serve(listener, control, ca, grpc, shutdown).await
}
