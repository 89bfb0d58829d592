//! What serving costs: CPU time, connections and memory, by API.
//!
//! Some polls of the tasks that serve connections are timed, at random; what they took weighs for the API the task serves just then.
//! Once a second the CPU time the process really used is divided by these weights, so that all of it is somebody's: what is used
//! while nobody calls, and what is no API's, is told apart as `none`. The request path makes no system call for it.

mod account;
mod polls;
mod share;

pub use account::Account;
pub use polls::{belongs_to, timed};
pub use share::Costs;
