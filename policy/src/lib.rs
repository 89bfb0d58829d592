//! What is allowed: OpenAPI files, the classifier, and the settings people write.
//!
//! Pure: no sockets, no clock, no async runtime, no proxy library. Files are read by [`source`] because an OpenAPI
//! file may refer to its neighbours; nothing here touches the network.

pub mod access;
pub mod admission;
pub mod classify;
pub mod credentials;
pub mod directory;
pub mod finding;
pub mod openapi;
pub mod quota;
pub mod settings;
pub mod source;
pub mod time;
pub mod workload;

pub use finding::{Finding, Place, Severity};
