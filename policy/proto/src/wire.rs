//! The conversation with a control plane in another process, on the wire: `proto/tollgate/control/v1/control.proto`.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "made of the file, which has the comments"
)]

tonic::include_proto!("tollgate.control.v1");
