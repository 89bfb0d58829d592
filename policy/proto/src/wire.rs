//! The conversation with a control plane in another process, on the wire: `proto/tollgate/control/v1/control.proto`.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::too_many_lines,
    reason = "made of the file, which has the comments"
)]

tonic::include_proto!("tollgate.control.v1");
