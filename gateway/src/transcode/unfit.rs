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
    /// What is at fault.
    pub fault: Fault,
}

/// What is at fault with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What it says.
    Content,
    /// The form of its body: type or coding.
    Form,
    /// A message is larger than messages may be.
    Size,
}

impl Unfit {
    /// The whole request.
    pub fn whole(what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            field: String::new(),
            what: what.into(),
            fault: Fault::Content,
        }
    }

    /// Its form.
    pub fn form(what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            fault: Fault::Form,
            ..Self::whole(what)
        }
    }

    /// The size of a message.
    pub fn size(what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            fault: Fault::Size,
            ..Self::whole(what)
        }
    }

    /// See [`crate::denial::Denial::code`].
    pub fn code(&self) -> &'static str {
        match self.fault {
            Fault::Form => "unsupported_media_type",
            Fault::Content => "invalid_message",
            Fault::Size => "message_too_large",
        }
    }

    /// HTTP status.
    pub fn status(&self) -> u16 {
        match self.fault {
            Fault::Form => 415,
            Fault::Content => 400,
            Fault::Size => 413,
        }
    }

    /// gRPC status code.
    pub fn grpc_status(&self) -> u8 {
        match self.fault {
            Fault::Form | Fault::Content => 3,
            Fault::Size => 8,
        }
    }

    /// Short human title.
    pub fn title(&self) -> &'static str {
        match self.fault {
            Fault::Form => "Body in a form that is not served",
            Fault::Content => "Not a message of this method",
            Fault::Size => "Message too large",
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
            fault: Fault::Content,
        }
    }
}

impl From<CodecError> for Unfit {
    fn from(error: CodecError) -> Self {
        Self {
            field: error.path,
            what: error.what,
            fault: Fault::Content,
        }
    }
}

impl From<FrameError> for Unfit {
    fn from(error: FrameError) -> Self {
        let text = error.to_string();
        match error {
            FrameError::TooLarge { .. } => Self::size(text),
            FrameError::Flags(_) | FrameError::Compression(_) | FrameError::Truncated => {
                Self::whole(text)
            }
        }
    }
}
