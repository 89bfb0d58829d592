//! Usage of services that no gateway stands before, on the wire: `proto/tollgate/usage/v1/usage.proto`.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "made of the file, which has the comments"
)]

tonic::include_proto!("tollgate.usage.v1");
