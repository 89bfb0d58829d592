//! The data plane engine: listener → journey of a request → upstream, with telemetry and live configuration.
//!
//! Start reading in `request.rs`: what happens to one request, from top to bottom in the order of time.

pub mod admin;
mod admission;
pub mod api;
pub mod apis;
pub mod audit;
pub mod authoriser;
pub mod cost;
pub mod denial;
mod descriptors;
pub mod door;
pub mod engine;
pub mod explain;
pub mod forward;
pub mod identity;
pub mod journey;
pub mod listener;
pub mod live;
pub mod metering;
pub mod node;
pub mod outbound;
pub mod overload;
pub mod own;
pub mod probe;
pub mod quota;
pub mod remote;
pub mod report;
pub mod request;
mod settle;
pub mod shadow;
pub mod telemetry;
pub mod transcode;
pub mod upstream;
pub mod usage;
mod verdict;
mod whole_file;
