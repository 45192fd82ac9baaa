//! What went wrong.

use crate::abi::status::{self, Status};
use std::fmt;

/// What a plugin's functions return.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, for a user: what, which parameter's fault it is, and what to do.
///
/// Messages are one sentence in lower case without a full stop. Any other error becomes one by `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    status: Status,
    message: String,
    param: String,
    help: String,
}

impl Error {
    /// This cannot be done: the rows are tried alone, and what fails then is a failed tile.
    pub fn new(message: impl Into<String>) -> Error {
        Error::of(status::FAIL, message)
    }

    /// The same call may succeed later: a busy device, a lost link. Of a reader's region hosts of 1.0 try it again; of a map or a filter
    /// it is as [`Error::new`]: the rows alone, and again as often as `run.retries` says; of anything else it fails.
    pub fn retry(message: impl Into<String>) -> Error {
        Error::of(status::RETRY, message)
    }

    /// A parameter is unusable; only while a stage starts. The host marks it in the user's file.
    pub fn param(name: impl Into<String>, message: impl Into<String>) -> Error {
        Error {
            param: name.into(),
            ..Error::of(status::PARAM, message)
        }
    }

    /// Out of memory, the host's or a device's.
    pub fn memory(message: impl Into<String>) -> Error {
        Error::of(status::MEMORY, message)
    }

    /// The run is being stopped.
    pub fn cancelled() -> Error {
        Error::of(status::CANCELLED, "the run is being stopped")
    }

    /// This slide has no such thing: of a reader.
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::of(status::UNSUPPORTED, message)
    }

    /// The same, with what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Error {
        self.help = help.into();
        self
    }

    /// The same, by this parameter's fault.
    pub fn of_param(mut self, name: impl Into<String>) -> Error {
        self.param = name.into();
        self
    }

    pub(crate) fn of(status: Status, message: impl Into<String>) -> Error {
        Error {
            status,
            message: message.into(),
            param: String::new(),
            help: String::new(),
        }
    }

    /// The status that the host gets.
    pub fn status(&self) -> Status {
        self.status
    }

    /// What.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The parameter at fault, or empty.
    pub fn of_which_param(&self) -> &str {
        &self.param
    }

    /// What to do about it, or empty.
    pub fn what_to_do(&self) -> &str {
        &self.help
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.param.is_empty() {
            write!(f, "parameter `{}`: ", self.param)?;
        }
        f.write_str(&self.message)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

// No std::error::Error: that is what lets every other error become one by `?`.
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Error {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            message.push_str(": ");
            message.push_str(&inner.to_string());
            cause = inner.source();
        }
        Error::new(message)
    }
}
