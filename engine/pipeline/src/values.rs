//! A stage's parameters after checking.

use crate::units::{show_bytes, show_duration};
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

impl Value {
    /// As it would stand in a file.
    pub fn to_toml(&self) -> String {
        let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
        match self {
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => format!("{number:?}"),
            Value::Boolean(value) => value.to_string(),
            Value::Text(value) => text(value),
            Value::Bytes(bytes) => {
                let shown = show_bytes(*bytes);
                match crate::units::bytes(&shown) {
                    Some(exact) if exact == *bytes => text(&shown),
                    _ => bytes.to_string(),
                }
            }
            Value::Duration(duration) => text(&show_duration(*duration)),
            Value::Path(path) => text(&path.to_string_lossy()),
            Value::Texts(texts) => {
                let texts: Vec<String> = texts.iter().map(|item| text(item)).collect();
                format!("[{}]", texts.join(", "))
            }
        }
    }

    /// For programs: bytes as a number, durations in seconds.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Integer(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Boolean(value) => (*value).into(),
            Value::Text(text) => text.as_str().into(),
            Value::Bytes(bytes) => (*bytes).into(),
            Value::Duration(duration) => duration.as_secs_f64().into(),
            Value::Path(path) => path.to_string_lossy().into(),
            Value::Texts(texts) => texts.as_slice().into(),
        }
    }
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
