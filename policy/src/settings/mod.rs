//! What people write in configuration files, and what it means.
//!
//! Two shapes: the written one (serde, unknown fields are errors with the nearest right name), and the meant one below:
//! complete and checked before any port opens.

mod api;
mod operation;
mod process;

pub use api::*;
pub use operation::*;
pub use process::*;
