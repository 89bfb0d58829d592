//! Why an administrative act is refused, for whoever asked for it.

use tollgate_policy::finding::Place;

use crate::store::StoreError;

/// A refusal. Texts name the remedy where there is one; none holds a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// There is no such thing.
    #[error("there is no {kind} `{name}`")]
    Missing { kind: &'static str, name: String },
    /// A file says so; only the file can say otherwise.
    #[error("{kind} `{name}` is defined in {place}; change it there")]
    DefinedInFile {
        kind: &'static str,
        name: String,
        place: Place,
    },
    /// One of this name exists, and is different.
    #[error("{kind} `{name}` exists and differs")]
    Differs { kind: &'static str, name: String },
    /// Others refer to it.
    #[error("{kind} `{name}` is in use by {by}")]
    InUse {
        kind: &'static str,
        name: String,
        by: String,
    },
    /// A value is not one that may be.
    #[error("{field}: {why}")]
    Invalid { field: &'static str, why: String },
    /// The store cannot be used now.
    #[error("nothing can be changed now: {0}")]
    Unavailable(String),
    /// Files could not be read.
    #[error("the files were not taken over: {0}")]
    Files(String),
}

impl Refusal {
    /// A value that may not be.
    pub(crate) fn invalid(field: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            why: why.into(),
        }
    }

    /// Something that does not exist.
    pub(crate) fn missing(kind: &'static str, name: &str) -> Self {
        Self::Missing {
            kind,
            name: name.to_owned(),
        }
    }

    /// Something that differs from what is asked for.
    pub(crate) fn differs(kind: &'static str, name: &str) -> Self {
        Self::Differs {
            kind,
            name: name.to_owned(),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = %chain(&error), "the store refused");
        Self::Unavailable(error.to_string())
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
