//! Why a plugin is not used, and what to do about it.

use std::fmt;
use std::path::PathBuf;

/// A plugin that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// As `E0506`; `weir explain` tells more.
    pub code: &'static str,
    /// The file, where there is one.
    pub path: Option<PathBuf>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub help: String,
}

impl Refusal {
    /// A refusal without a file yet.
    pub fn new(code: &'static str, what: impl Into<String>, help: impl Into<String>) -> Refusal {
        Refusal {
            code,
            path: None,
            what: what.into(),
            help: help.into(),
        }
    }

    /// Of that file.
    pub fn of(mut self, path: impl Into<PathBuf>) -> Refusal {
        self.path = Some(path.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] ", self.code)?;
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        f.write_str(&self.what)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}
