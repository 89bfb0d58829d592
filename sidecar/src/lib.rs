//! What only a sidecar adds to the engine: the instance of a service it stands beside, whose start it waits for and whose end it
//! outlives.

mod app;
mod drain;
mod memory;

pub use app::{App, Gate};
pub use drain::{AppEnd, Farewell};
pub use memory::release_program;
