//! Strictness at the door: what is refused before anything is decided.
//!
//! The head is judged as raw bytes (`head`), the target once for HTTP/1 and HTTP/2 alike (`target`), and what the client says about
//! itself is dropped before the service hears it (`fields`).

pub mod asked;
pub mod fields;
pub mod head;
pub mod target;
