//! What people write in configuration files, and what it means.
//!
//! Two shapes: the written one (serde, unknown fields are errors with the nearest right name), and the meant one below:
//! complete and checked before any port opens.

mod acl_file;
mod api;
mod api_file;
mod auth;
mod auth_file;
mod authoriser_file;
pub mod check;
mod decode;
mod directory;
mod directory_file;
mod mention;
mod mistake;
mod names;
pub mod operation;
mod operation_file;
mod plain_file;
mod process;
mod process_file;
mod reader;
mod reference;
mod roots_file;
mod upstream_file;
pub(crate) mod url;
mod value;

#[cfg(test)]
mod tests;

pub use api::*;
pub use api_file::{read_api, read_kept_api};
pub use auth::*;
pub(crate) use decode::nearest;
pub use directory::*;
pub use directory_file::read_directory;
pub use operation::OperationSettings;
pub use process::*;
pub use process_file::read_process;
pub use value::{parse_access_log, parse_duration, parse_listen_address};
