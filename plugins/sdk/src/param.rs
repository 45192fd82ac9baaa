//! Parameters: types of fields with `#[param]`.
//!
//! | type | in the file |
//! |---|---|
//! | `bool` | `true`, `false` |
//! | `i32`, `i64`, `u8`, `u16`, `u32`, `u64`, `usize` | a whole number |
//! | `f32`, `f64` | a number |
//! | `String` | a text |
//! | an enum with [`derive@crate::Choice`] | one of its texts |
//! | [`Bytes`] | a size, `"64MiB"` |
//! | [`Duration`] | a time, `"20ms"` |
//! | [`PathBuf`] | a path, absolute when it arrives |
//! | [`Slides`] | slides: files, folders, patterns, manifests; files when they arrive |
//! | `Vec<String>` | a list of texts |
//! | `Option` of any of these | the same, or nothing |

use crate::abi;
use crate::abi::value::{BOOL, FLOAT, INT, LIST, STRING, UNSET};
use crate::error::{Error, Result};
use crate::host::slice;
use std::path::PathBuf;
use std::time::Duration;

/// A type that a parameter may have.
pub trait Param: Sized {
    /// The manifest's word for it.
    const KIND: &'static str;
    /// What the manifest says of a parameter without a default.
    const REQUIRED: &'static str = ",\"required\":true";
    /// The type's own least value, as the manifest says it.
    const MIN: &'static str = "";
    /// The type's own greatest value, as the manifest says it.
    const MAX: &'static str = "";
    /// Of a choice, its texts, as the manifest says them.
    const VALUES: &'static str = "";
    /// What `default = ..` takes.
    type Literal;
    /// What `min = ..` and `max = ..` take.
    type Bound;

    /// Of what the host read in the pipeline.
    ///
    /// # Errors
    /// What is wrong with it.
    fn from_value(value: Value<'_>) -> std::result::Result<Self, String>;
}

/// Has no values: of parameters that are no numbers.
#[derive(Clone, Copy, Debug)]
pub enum NoBound {}

/// A value as the host hands it over.
#[derive(Clone, Copy)]
pub struct Value<'a>(&'a abi::value::Value);

impl<'a> Value<'a> {
    /// Whether the parameter was left out.
    pub fn is_unset(self) -> bool {
        self.0.kind == UNSET
    }

    /// A whole number; also a size in bytes and a time in nanoseconds.
    pub fn int(self) -> std::result::Result<i64, String> {
        match self.0.kind {
            INT => Ok(self.0.i),
            other => Err(not("a whole number", other)),
        }
    }

    /// A number.
    pub fn float(self) -> std::result::Result<f64, String> {
        match self.0.kind {
            FLOAT => Ok(self.0.f),
            INT => Ok(self.0.i as f64),
            other => Err(not("a number", other)),
        }
    }

    /// true or false.
    pub fn bool(self) -> std::result::Result<bool, String> {
        match self.0.kind {
            BOOL => Ok(self.0.i != 0),
            other => Err(not("true or false", other)),
        }
    }

    /// A text; also a choice's.
    pub fn text(self) -> std::result::Result<&'a str, String> {
        if !matches!(self.0.kind, STRING | INT) {
            return Err(not("a text", self.0.kind));
        }
        // SAFETY: the host's values live until the function returns, and so does this borrow.
        std::str::from_utf8(unsafe { self.0.s.bytes() }).map_err(|_| "it is no UTF-8".into())
    }

    /// A list.
    pub fn items(self) -> std::result::Result<impl ExactSizeIterator<Item = Value<'a>>, String> {
        match self.0.kind {
            // SAFETY: a list has `n` items, which live as long as the value.
            LIST => Ok(unsafe { slice(self.0.items, self.0.n) }.iter().map(Value)),
            other => Err(not("a list", other)),
        }
    }
}

fn not(what: &str, kind: u32) -> String {
    let is = match kind {
        UNSET => "nothing",
        BOOL => "true or false",
        INT => "a whole number",
        FLOAT => "a number",
        STRING => "a text",
        LIST => "a list",
        _ => "of an unknown kind",
    };
    format!("it is {is}, not {what}")
}

/// The values of a stage's parameters, in the manifest's order.
pub struct Values<'a>(&'a [abi::value::Value]);

impl<'a> Values<'a> {
    /// # Safety
    /// `values` is null or points to `n` values that live for `'a`.
    pub(crate) unsafe fn new(values: *const abi::value::Value, n: u32) -> Values<'a> {
        // SAFETY: the caller's.
        Values(unsafe { slice(values, n) })
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Parameter `place`, called `name`.
    ///
    /// # Errors
    /// When the value is none of its type.
    pub fn get<P: Param>(&self, place: usize, name: &str) -> Result<P> {
        let value = self.0.get(place).unwrap_or(&abi::value::Value::UNSET);
        P::from_value(Value(value)).map_err(|what| Error::param(name, what))
    }
}

macro_rules! integers {
    ($($type:ident $min:literal $max:literal),*) => {$(
        impl Param for $type {
            const KIND: &'static str = "int";
            const MIN: &'static str = $min;
            const MAX: &'static str = $max;
            type Literal = $type;
            type Bound = $type;
            fn from_value(value: Value<'_>) -> std::result::Result<Self, String> {
                let number = value.int()?;
                number.try_into().map_err(|_| {
                    format!("{number} is not between {} and {}", $type::MIN, $type::MAX)
                })
            }
        }
    )*};
}

integers!(
    u8 ",\"min\":0" ",\"max\":255",
    u16 ",\"min\":0" ",\"max\":65535",
    u32 ",\"min\":0" ",\"max\":4294967295",
    u64 ",\"min\":0" "",
    usize ",\"min\":0" "",
    i32 ",\"min\":-2147483648" ",\"max\":2147483647",
    i64 "" ""
);

impl Param for f64 {
    const KIND: &'static str = "float";
    type Literal = f64;
    type Bound = f64;
    fn from_value(value: Value<'_>) -> std::result::Result<Self, String> {
        value.float()
    }
}

impl Param for f32 {
    const KIND: &'static str = "float";
    type Literal = f32;
    type Bound = f32;
    fn from_value(value: Value<'_>) -> std::result::Result<Self, String> {
        Ok(value.float()? as f32)
    }
}

impl Param for bool {
    const KIND: &'static str = "bool";
    type Literal = bool;
    type Bound = NoBound;
    fn from_value(value: Value<'_>) -> std::result::Result<Self, String> {
        value.bool()
    }
}

impl Param for String {
    const KIND: &'static str = "string";
    type Literal = &'static str;
    type Bound = NoBound;
    fn from_value(value: Value<'_>) -> std::result::Result<Self, String> {
        Ok(value.text()?.to_owned())
    }
}

impl Param for PathBuf {
    const KIND: &'static str = "path";
    type Literal = &'static str;
    type Bound = NoBound;
    fn from_value(value: Value<'_>) -> std::result::Result<Self, String> {
        Ok(PathBuf::from(value.text()?))
    }
}

impl Param for Duration {
    const KIND: &'static str = "duration";
    type Literal = &'static str;
    type Bound = NoBound;
    fn from_value(value: Value<'_>) -> std::result::Result<Self, String> {
        let nanoseconds = value.int()?;
        u64::try_from(nanoseconds)
            .map(Duration::from_nanos)
            .map_err(|_| format!("{nanoseconds} ns is no time"))
    }
}

/// A size in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl std::str::FromStr for Bytes {
    type Err = Error;

    /// `64MiB`, `1.5GiB`: a number and a unit, as in a pipeline file.
    fn from_str(text: &str) -> Result<Bytes> {
        const UNITS: [(&str, u64); 9] = [
            ("B", 1),
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("TiB", 1 << 40),
            ("kB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("TB", 1_000_000_000_000),
        ];
        let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.'));
        let (number, unit) = text.split_at(end.unwrap_or(text.len()));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let bytes = || {
            let scale = UNITS.iter().find(|(name, _)| *name == unit)?.1;
            let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
            let digits = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
            let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(scale) / digits;
            whole.checked_add(u64::try_from(part).ok()?)
        };
        bytes()
            .map(Bytes)
            .ok_or_else(|| Error::new(format!("`{text}` is no size")).help("write it as 64MiB"))
    }
}

impl Param for Bytes {
    const KIND: &'static str = "bytes";
    type Literal = &'static str;
    type Bound = NoBound;
    fn from_value(value: Value<'_>) -> std::result::Result<Self, String> {
        let bytes = value.int()?;
        u64::try_from(bytes)
            .map(Bytes)
            .map_err(|_| format!("{bytes} is no size"))
    }
}

/// The files that the user named as slides, sorted by id. weir has found them: whoever asks gets files, whether folders, patterns or
/// manifests were written. `#[param(extensions = ["h5"])]` says which files of a folder are meant; without it, those of slides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slides(pub Vec<SlideFile>);

/// A file that was named as a slide, and what a manifest says of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SlideFile {
    /// Unique in a list: a manifest's name, else the file's stem.
    pub id: String,
    /// Relative to the working folder, or absolute.
    pub path: PathBuf,
    /// Empty where nobody says it, as the next two.
    pub patient: String,
    /// True class.
    pub label: String,
    /// train, val, test.
    pub split: String,
    /// um/px of level 0.
    pub mpp: Option<f64>,
}

impl SlideFile {
    fn of(value: Value<'_>) -> std::result::Result<SlideFile, String> {
        let path = PathBuf::from(value.text()?);
        // SAFETY: the value has `n` items, which live as long as it does.
        let items = unsafe { slice(value.0.items, value.0.n) };
        let text = |at: usize| match items.get(at) {
            Some(item) => Value(item).text().map(str::to_owned),
            None => Ok(String::new()),
        };
        let stem = || {
            let stem = path.file_stem().unwrap_or_default();
            stem.to_string_lossy().into_owned()
        };
        let mpp = value.0.f;
        Ok(SlideFile {
            id: match text(0)? {
                none if none.is_empty() => stem(),
                id => id,
            },
            patient: text(1)?,
            label: text(2)?,
            split: text(3)?,
            mpp: (mpp.is_finite() && mpp > 0.0).then_some(mpp),
            path,
        })
    }
}

impl Param for Slides {
    const KIND: &'static str = "slides";
    type Literal = &'static [&'static str];
    type Bound = NoBound;
    fn from_value(value: Value<'_>) -> std::result::Result<Self, String> {
        let files = value.items()?.map(SlideFile::of);
        files.collect::<std::result::Result<_, _>>().map(Slides)
    }
}

impl Param for Vec<String> {
    const KIND: &'static str = "strings";
    type Literal = &'static [&'static str];
    type Bound = NoBound;
    fn from_value(value: Value<'_>) -> std::result::Result<Self, String> {
        value
            .items()?
            .map(|item| Ok(item.text()?.to_owned()))
            .collect()
    }
}

impl<P: Param> Param for Option<P> {
    const KIND: &'static str = P::KIND;
    const REQUIRED: &'static str = "";
    const MIN: &'static str = P::MIN;
    const MAX: &'static str = P::MAX;
    const VALUES: &'static str = P::VALUES;
    type Literal = P::Literal;
    type Bound = P::Bound;
    fn from_value(value: Value<'_>) -> std::result::Result<Self, String> {
        match value.is_unset() {
            true => Ok(None),
            false => P::from_value(value).map(Some),
        }
    }
}

/// Whether the text `default`, in quotes, is one of `values`; anything is of a type that is no choice.
#[doc(hidden)]
pub const fn is_value(values: &str, default: &str) -> bool {
    let (values, default) = (values.as_bytes(), default.as_bytes());
    if values.is_empty() {
        return true;
    }
    let mut from = 0;
    while from + default.len() <= values.len() {
        let mut i = 0;
        while i < default.len() && values[from + i] == default[i] {
            i += 1;
        }
        if i == default.len() {
            return true;
        }
        from += 1;
    }
    false
}

/// Whether `kind` is a path's.
#[doc(hidden)]
pub const fn is_path(kind: &str) -> bool {
    matches!(kind.as_bytes(), b"path")
}

/// Whether `kind` is that of slides.
#[doc(hidden)]
pub const fn is_slides(kind: &str) -> bool {
    matches!(kind.as_bytes(), b"slides")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_size_is_read_as_in_a_pipeline_file() {
        for (text, bytes) in [
            ("0B", Some(0)),
            ("64MiB", Some(64 << 20)),
            ("1.5GiB", Some(3 << 29)),
            ("2kB", Some(2000)),
            ("64", None),
            ("64 MiB", None),
            (".5MiB", None),
            ("99999999999TiB", None),
            ("", None),
        ] {
            let read = text.parse::<Bytes>().ok();
            assert_eq!(read, bytes.map(Bytes), "{text}");
        }
    }
}
