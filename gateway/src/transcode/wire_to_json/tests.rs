//! Answers as JSON.
