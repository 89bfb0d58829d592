//! Connections: accepted, limited, decrypted, told apart (HTTP/1.1 or HTTP/2), handed to the journey.
//!
//! Promises: nothing is allocated for a connection that is silent, everything a stranger can grow has a limit, a drain or a
//! hand-over loses no request. Not here: judging a head (`door`), answering a request (the application behind
//! `HttpServerApp`), starting threads.

mod accept;
mod clients;
mod drain;
pub mod fence;
mod flood;
mod h1;
mod h2;
mod h2_session;
pub mod handover;
pub mod head;
mod mutual;
mod permits;
pub mod proxy_protocol;
mod socket;
mod stream;
mod tls;

pub use accept::{Door, RefusalHook, serve};
pub use drain::{ConnectionGuard, Drain};
pub use h2::h2_options;
pub use mutual::{Mutual, Node};
pub use socket::{Bound, Listener, Lock, bind_shared, lock};
pub use stream::Connection;
pub use tls::{Handshake, ServedName, TlsKeys, load, watch};
