//! The control plane: who the consumers are, what was sold to them, what they accepted and what was revoked; kept in a store,
//! administered over HTTP, answered to data planes.
