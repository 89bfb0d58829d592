//! Requests from JSON and parameters.
