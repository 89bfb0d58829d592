//! A request that is no message of the method it calls: which field, and what is wrong with it.

use std::borrow::Cow;
use std::fmt;

use super::CodecError;
use super::face::BindError;
use super::frame::FrameError;

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// The field, as `book.items[3].price`, or the parameter; empty where the request as a whole is meant.
    pub field: String,
    /// For the caller.
    pub what: Cow<'static, str>,
    /// The form of the body is at fault (its type or coding), not what it says.
    pub form: bool,
}

impl Unfit {
    /// The whole request.
    pub fn whole(what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            field: String::new(),
            what: what.into(),
            form: false,
        }
    }

    /// Its form.
    pub fn form(what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            form: true,
            ..Self::whole(what)
        }
    }

    /// See [`crate::denial::Denial::code`].
    pub fn code(&self) -> &'static str {
        match self.form {
            true => "unsupported_media_type",
            false => "invalid_message",
        }
    }

    /// HTTP status.
    pub fn status(&self) -> u16 {
        match self.form {
            true => 415,
            false => 400,
        }
    }

    /// Short human title.
    pub fn title(&self) -> &'static str {
        match self.form {
            true => "Body in a form that is not served",
            false => "Not a message of this method",
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.what),
            field => write!(f, "{field}: {}", self.what),
        }
    }
}

impl From<BindError> for Unfit {
    fn from(error: BindError) -> Self {
        Self {
            field: error.field,
            what: error.what.into(),
            form: false,
        }
    }
}

impl From<CodecError> for Unfit {
    fn from(error: CodecError) -> Self {
        Self {
            field: error.path,
            what: error.what,
            form: false,
        }
    }
}

impl From<FrameError> for Unfit {
    fn from(error: FrameError) -> Self {
        Self::whole(error.to_string())
    }
}
