//! The control plane: who the consumers are, what was sold to them, what they accepted and what was revoked; kept in a store,
//! administered over HTTP, answered to data planes.
//!
//! Promises: known callers go on being answered from memory whatever the store does; a change that was answered is committed
//! and announced; what a file defines is changed in the file alone; secrets are shown once and never stored. Not here: judging
//! credentials and calls (`tollgate-policy`), and serving traffic (`tollgate-gateway`).

mod api_limits;
mod audit;
pub mod bundles;
pub mod ca;
mod change;
mod control;
mod expiry;
mod follow;
pub mod http;
mod index;
pub mod nodes;
mod quota;
mod refusal;
mod secret_file;
mod service;
mod store;
mod text;
mod usage;

pub use api_limits::ApiLimits;
pub use audit::{Broken, Verdict};
pub use ca::{Ca, CaError, CaOptions};
pub use control::{Control, FileReader, Options, ReloadError, Reloaded, StartError};
pub use secret_file::load_or_make_pepper;
pub use store::{Store, StoreError};
pub use usage::{MAX_BATCH as MAX_USAGE_BATCH, UsageFigures, UsageSettings};
