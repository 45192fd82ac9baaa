//! A stage's parameters after checking.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A checked value. Paths are absolute or relative to the working directory by now.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// true or false.
    Boolean(bool),
    /// Text, also of a choice or the name of a model.
    Text(String),
    /// Bytes.
    Bytes(u64),
    /// A time.
    Duration(Duration),
    /// A file or folder.
    Path(PathBuf),
    /// A list of texts; of slides, with paths resolved.
    Texts(Vec<String>),
}

/// Parameters by name; defaults are filled in. What the schema promises is there: a getter fails only when a stage asks for
/// what its schema does not have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values(pub BTreeMap<String, Value>);

/// A stage asked for a parameter that its schema does not have, or as another type: a fault of the stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError {
    /// The parameter.
    pub name: String,
    /// The type that was asked for.
    pub wanted: &'static str,
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the stage asks for the parameter `{}` as {}, which its schema does not promise",
            self.name, self.wanted
        )
    }
}

impl std::error::Error for ValueError {}

macro_rules! getter {
    ($(#[$doc:meta])* $name:ident, $variant:pat => $out:expr, $ty:ty, $wanted:literal) => {
        $(#[$doc])*
        pub fn $name(&self, name: &str) -> Result<$ty, ValueError> {
            match self.0.get(name) {
                Some($variant) => Ok($out),
                _ => Err(ValueError { name: name.to_owned(), wanted: $wanted }),
            }
        }
    };
}

impl Values {
    getter!(/// A whole number.
        integer, Value::Integer(v) => *v, i64, "a whole number");
    getter!(/// true or false.
        boolean, Value::Boolean(v) => *v, bool, "true or false");
    getter!(/// Text, a choice, or the name of a model.
        text, Value::Text(v) => v, &str, "text");
    getter!(/// Bytes.
        bytes, Value::Bytes(v) => *v, u64, "bytes");
    getter!(/// A time.
        duration, Value::Duration(v) => *v, Duration, "a duration");
    getter!(/// A file or folder.
        path, Value::Path(v) => v, &Path, "a path");
    getter!(/// A list of texts.
        texts, Value::Texts(v) => v, &[String], "a list of texts");

    /// A number; a whole number counts.
    pub fn float(&self, name: &str) -> Result<f64, ValueError> {
        match self.0.get(name) {
            Some(Value::Float(v)) => Ok(*v),
            Some(Value::Integer(v)) => Ok(*v as f64),
            _ => Err(ValueError {
                name: name.to_owned(),
                wanted: "a number",
            }),
        }
    }

    /// Whether the parameter was given or has a default.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}
