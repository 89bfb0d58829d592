//! Calls of other protocols than gRPC to services that speak only gRPC: REST with JSON, gRPC-Web, Connect, WebSocket.

pub mod call;
pub mod deadline;
pub mod frame;
pub mod gzip;
pub mod link;
pub mod metadata;
pub mod status;
