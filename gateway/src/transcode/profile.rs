//! The choices ProtoJSON leaves to who serves a message.

/// How messages are read from JSON and written as JSON. The default is strict ProtoJSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// What happens to members a message does not have.
    pub unknown: Unknown,
    /// Which fields are written though they are not set.
    pub unset: Unset,
    /// How fields are called in what is written; both names are always read.
    pub names: Names,
    /// How enum values are written; both forms are always read.
    pub enums: Enums,
    /// `STATUS_ACTIVE` of enum `Status` is written as `ACTIVE`; both are read.
    pub strip_enum_prefix: bool,
    /// Enum names are read in any case.
    pub any_case_enums: bool,
    /// How integers of 64 bits are written; both forms are always read.
    pub wide: Wide,
}

/// Members a message does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// The message is refused.
    #[default]
    Refuse,
    /// They are passed over, and so are names an enum does not have.
    Ignore,
}

/// Fields that are not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unset {
    /// Nothing is written.
    #[default]
    Omit,
    /// Fields that cannot be told from unset ones: zeros, empty texts, `[]` and `{}`.
    Primitives,
    /// These, and `null` for every other field that is no member of a oneof.
    All,
}

/// Names of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// `lowerCamelCase`, or the `json_name` of the definition.
    #[default]
    Json,
    /// As in the definition.
    Proto,
}

/// Values of enums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enums {
    /// By name; a number where there is no name.
    #[default]
    Name,
    /// By number.
    Number,
}

/// Integers of 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wide {
    /// As text: JavaScript keeps every digit.
    #[default]
    String,
    /// As numbers.
    Number,
}
