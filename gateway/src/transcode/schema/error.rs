//! Why a descriptor set cannot be used.

/// A descriptor set that was refused. `file` is the path of a `.proto` file, as the set has it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The bytes are no descriptor set.
    #[error("{file}: not a descriptor set: {what}")]
    Malformed {
        /// Where, if that far was read.
        file: String,
        /// What was found.
        what: &'static str,
    },
    /// More than is ever needed.
    #[error("the descriptor set is too large: {0}")]
    TooLarge(&'static str),
    /// Two different files of one name.
    #[error("{0}: is there twice, with different content")]
    FileTwice(String),
    /// Two parts of one name.
    #[error("{file}: {name} is defined twice")]
    DefinedTwice {
        /// Where the second is.
        file: String,
        /// The full name.
        name: String,
    },
    /// A name that nothing in the set has: an import is missing.
    #[error("{file}: {user} refers to {name}, which is not in the descriptor set")]
    NotThere {
        /// Where it is referred to.
        file: String,
        /// The field or method that does.
        user: String,
        /// The name.
        name: String,
    },
    /// Neither proto2, proto3 nor an edition that is known.
    #[error("{file}: unknown syntax or edition `{edition}`")]
    Edition {
        /// The file.
        file: String,
        /// What it says.
        edition: String,
    },
    /// What no compiler would have written.
    #[error("{file}: {name}: {what}")]
    Invalid {
        /// The file.
        file: String,
        /// The full name of the part.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
}
