//! A plugin's own description: JSON in the ELF section `.weir.manifest`, or in a file beside the library.
//!
//! It says of a stage what the engine's own stages say of themselves in their schema: what it makes of rows, its ports and its
//! parameters; so a pipeline file is checked, drawn and explained without running anything of the plugin.

mod check;
mod names;
mod ports;

use crate::refusal::Refusal;
use crate::version;
use semver::Version;
use serde::{Deserialize, Serialize};
use weir_pipeline::{Deliver, Kind, Place, Rows};

/// The whole description.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// The ABI that it was built against, as `1.0`.
    pub weir_abi: String,
    /// The plugin's name, and the namespace of its stages.
    pub name: String,
    /// The plugin's version.
    pub version: Version,
    /// One line for lists.
    pub summary: String,
    /// An SPDX expression, as `Apache-2.0`.
    #[serde(default)]
    pub licence: String,
    /// Stages.
    #[serde(default)]
    pub stages: Vec<Stage>,
    /// Slide readers.
    #[serde(default)]
    pub readers: Vec<Reader>,
}

/// A stage type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Stage {
    /// As `stain.normalise`: the plugin's name, a dot, a name.
    pub id: String,
    /// One line for lists.
    pub summary: String,
    /// What it does, in full sentences; Markdown.
    #[serde(default)]
    pub doc: String,
    /// What it makes of rows.
    #[serde(with = "names::rows")]
    pub rows: Rows,
    /// When a reduce gets rows.
    #[serde(default = "names::arrival", with = "names::deliver")]
    pub deliver: Deliver,
    /// In which process a sink's rows arrive.
    #[serde(default = "names::home", with = "names::place")]
    pub place: Place,
    /// A reduce without `remove`: it is refused in a live run.
    #[serde(default)]
    pub batch_only: bool,
    /// How its calls may run.
    #[serde(default)]
    pub concurrency: Concurrency,
    /// Bytes that it keeps of an open slide.
    #[serde(default)]
    pub state: State,
    /// The parameter that says how many bytes an instance allocates at most, whatever slides are open. They count as part of
    /// `run.memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Parameters, in the order of the values that `create` gets.
    #[serde(default)]
    pub params: Vec<Param>,
    /// Inputs; the first is the default.
    #[serde(default, rename = "in")]
    pub ins: Vec<Port>,
    /// Outputs; the first is the default.
    #[serde(default, rename = "out")]
    pub outs: Vec<Port>,
    /// A `[stage.X]` table that works.
    #[serde(default)]
    pub example: String,
}

/// How a stage's calls may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Concurrency {
    /// One call at a time, on any thread.
    #[default]
    Serial,
    /// One instance, several calls at a time.
    Parallel,
    /// An instance for each thread that calls: of a map or filter, each helper thread.
    PerWorker,
}

impl Concurrency {
    /// As it stands in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Concurrency::Serial => "serial",
            Concurrency::Parallel => "parallel",
            Concurrency::PerWorker => "per-worker",
        }
    }
}

/// Bytes that a stage keeps of an open slide: `slide + tiles * (tile + feature * d)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct State {
    /// A slide.
    pub slide: u64,
    /// A tile.
    pub tile: u64,
    /// A number of a tile's feature vector.
    pub feature: u64,
}

/// A parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Param {
    /// Key in the table.
    pub name: String,
    /// What it takes.
    #[serde(rename = "type")]
    pub kind: ParamKind,
    /// What it means, with its unit.
    pub doc: String,
    /// As it would stand in the file, in JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<serde_json::Value>,
    /// Whether it must be given.
    #[serde(default)]
    pub required: bool,
    /// Least number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Greatest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Of a `choice`: its texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Of a `path`: whether it must exist when the file is checked.
    #[serde(default)]
    pub exists: bool,
    /// Of `slides`: endings of the files that folders are searched for, without the dot; those of slides where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
}

/// What a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParamKind {
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// true or false.
    Bool,
    /// Any text.
    String,
    /// One of `values`.
    Choice,
    /// A size as `"64MiB"`.
    Bytes,
    /// A time as `"20ms"`.
    Duration,
    /// A file or folder, relative to the pipeline file.
    Path,
    /// Slides: paths, folders, globs, manifests.
    Slides,
    /// A list of texts.
    Strings,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Port {
    /// Name in `in = { NAME = .. }` and `STAGE.NAME`.
    pub name: String,
    /// What flows.
    #[serde(with = "names::kind")]
    pub kind: Kind,
    /// Shape of a row.
    #[serde(default)]
    pub shape: Vec<Dim>,
    /// um/px of pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mpp: Option<Dim>,
    /// An input that takes a list of streams of one type.
    #[serde(default)]
    pub many: bool,
    /// Whether an input may stay unconnected.
    #[serde(default)]
    pub optional: bool,
    /// What it carries.
    #[serde(default)]
    pub doc: String,
}

/// A dimension: a number, `"$param"`, or a name that is the same for all of the stage's ports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dim {
    /// This number.
    Fixed(f64),
    /// `"$NAME"` or `"NAME"`.
    Name(String),
}

/// A slide reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Reader {
    /// As `openslide`.
    pub id: String,
    /// One line for lists.
    pub summary: String,
    /// Endings of files that folders are searched for, as `mrxs`.
    #[serde(default)]
    pub extensions: Vec<String>,
    /// What it keeps of all slides of a process together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
}

/// What a reader keeps of all slides of a process together, as decoded tiles. It counts as part of `run.memory`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cache {
    /// Bytes, where nobody says another size.
    pub bytes: u64,
    /// The environment variable that says another size, as `64MiB`; none when it is empty.
    #[serde(default)]
    pub variable: String,
}

impl Cache {
    /// Bytes, as the environment says or by default.
    ///
    /// # Errors
    /// What stands in the variable and is no size.
    pub fn size(&self) -> Result<u64, String> {
        if self.variable.is_empty() {
            return Ok(self.bytes);
        }
        match std::env::var(&self.variable) {
            Err(std::env::VarError::NotPresent) => Ok(self.bytes),
            Ok(text) if text.is_empty() => Ok(self.bytes),
            Ok(text) => weir_pipeline::units::bytes(&text)
                .ok_or_else(|| format!("{} is `{text}`, which is no size", self.variable)),
            Err(error) => Err(format!("{}: {error}", self.variable)),
        }
    }

    /// Bytes that so many processes have together, each with its [`Cache::share`].
    ///
    /// # Errors
    /// As of [`Cache::size`].
    pub fn size_of(&self, processes: u64) -> Result<u64, String> {
        let size = self.size()?;
        Ok(match self.variable.is_empty() {
            // Nobody can tell it to keep less.
            true => size.saturating_mul(processes),
            false => size,
        })
    }

    /// The variable, and what it must say to each of so many processes for all to keep no more than one.
    pub fn share(&self, processes: u64) -> Option<(&str, String)> {
        let size = self.size().ok().filter(|_| !self.variable.is_empty())?;
        Some((&self.variable, format!("{}B", size / processes.max(1))))
    }
}

impl Manifest {
    /// From the section's text; a C string's end is not part of it.
    pub fn parse(section: &[u8]) -> Result<Manifest, Refusal> {
        let text = section.split(|byte| *byte == 0).next().unwrap_or_default();
        if text.iter().all(u8::is_ascii_whitespace) {
            return Err(invalid("it is empty".into()));
        }
        let manifest: Manifest = serde_json::from_slice(text).map_err(|error| {
            // A later version may have keys that this one does not know: then the version is the reason.
            match serde_json::from_slice::<Spoken>(text) {
                Ok(of) if abi(&of.weir_abi).is_some_and(|of| !version::speaks(of)) => {
                    version::foreign("it", &of.weir_abi)
                }
                _ => invalid(error.to_string()),
            }
        })?;
        match manifest.faults().as_slice() {
            [] => Ok(manifest),
            faults => Err(faulty(faults)),
        }
    }

    /// From the text of a file of its own, which ends where the file does.
    pub fn alone(text: &[u8]) -> Result<Manifest, Refusal> {
        match text.contains(&0) {
            true => Err(invalid("it holds a zero byte".into())),
            false => Manifest::parse(text),
        }
    }

    /// Major and minor version of the ABI that it was built against.
    pub fn abi(&self) -> Option<(u32, u32)> {
        abi(&self.weir_abi)
    }
}

/// What is read of a manifest that this version does not understand.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Spoken {
    weir_abi: String,
}

fn abi(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The refusal of a manifest.
pub(crate) fn invalid(what: String) -> Refusal {
    Refusal::new(
        "E0504",
        format!("its manifest is invalid: {}", check::shown(&what)),
        "the plugin's author must mend it; plugins/README.md describes the format",
    )
}

/// The same of all that is wrong in one that was understood.
pub(crate) fn faulty(faults: &[String]) -> Refusal {
    /// Who mends these sees the rest.
    const TOLD: usize = 12;
    let (told, more) = faults.split_at(faults.len().min(TOLD));
    let more = match more.len() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    invalid(told.join("; also ") + &more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_can_be_told_its_size_is_shared_by_its_processes_and_another_counts_in_each() {
        let told = Cache {
            bytes: 128 << 20,
            variable: "WEIR_NOBODY_SETS_THIS".into(),
        };
        assert_eq!(told.size_of(16), Ok(128 << 20));
        let share = told.share(16);
        assert_eq!(
            share,
            Some(("WEIR_NOBODY_SETS_THIS", "8388608B".to_owned()))
        );
        let fixed = Cache {
            variable: String::new(),
            ..told
        };
        assert_eq!(fixed.size_of(16), Ok(2 << 30));
        assert_eq!(fixed.share(16), None);
    }
}
