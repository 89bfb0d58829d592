//! What people write in configuration files, and what it means.
//!
//! Two shapes: the written one (serde, unknown fields are errors with the nearest right name), and the meant one below:
//! complete and checked before any port opens.

mod acl_file;
mod amount;
mod api;
mod api_file;
mod auth;
mod auth_file;
mod authoriser_file;
pub mod check;
mod cost_file;
mod decode;
mod directory;
mod directory_file;
mod grpc;
mod grpc_file;
mod limit_check;
mod limit_file;
mod mention;
mod meter_check;
mod mistake;
mod names;
pub mod operation;
mod operation_file;
mod origin;
mod overload;
mod overload_file;
mod override_check;
mod override_file;
mod plain_file;
mod process;
mod process_file;
mod quota;
mod quota_file;
mod reader;
mod reference;
mod roots_file;
mod services_file;
mod upstream_file;
pub(crate) mod url;
mod usage;
mod usage_file;
mod value;

#[cfg(test)]
pub(super) mod tests;

pub use api::*;
pub use api_file::{read_api, read_kept_api};
pub use auth::*;
pub use decode::nearest;
pub use directory::*;
pub use directory_file::read_directory;
pub use grpc::*;
pub(crate) use limit_file::limits_from_node;
pub use limit_file::{parse_window, stored_limits, stored_price, written_limits};
pub use meter_check::too_many_meters;
pub use names::{parse_limit_id, parse_name, parse_operation, parse_subject};
pub use operation::{OperationSettings, Recheck};
pub use origin::OriginPattern;
pub use overload::{OverloadConfig, Priority};
pub use override_file::{
    Grantee, LimitOverride, Override, Quantity, overridden, stored_override, under,
};
pub use process::*;
pub use process_file::read_process;
pub use quota::QuotaConfig;
pub use usage::{Durability, UsageConfig, UsageRetention};
pub use value::{parse_access_log, parse_duration, parse_listen_address};
