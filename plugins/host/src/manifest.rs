//! A plugin's own description: JSON in the ELF section `.weir.manifest`.
//!
//! It says of a stage what the engine's own stages say of themselves in their schema: what it makes of rows, its ports and its
//! parameters; so a pipeline file is checked, drawn and explained without running anything of the plugin.

use crate::refusal::Refusal;
use semver::Version;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
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
    /// An instance a worker.
    PerWorker,
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
}

/// Keys of a stage's table that are weir's own.
const RESERVED: &[&str] = &["use", "in", "run", "doc"];

impl Manifest {
    /// From the section's text; a C string's end is not part of it.
    pub fn parse(section: &[u8]) -> Result<Manifest, Refusal> {
        let text = section.split(|byte| *byte == 0).next().unwrap_or_default();
        let invalid = |what: String| {
            Refusal::new(
                "E0504",
                format!("its manifest is invalid: {what}"),
                "the plugin's author must mend it; plugins/README.md describes the format",
            )
        };
        if text.iter().all(u8::is_ascii_whitespace) {
            return Err(invalid("it is empty".into()));
        }
        let manifest: Manifest =
            serde_json::from_slice(text).map_err(|error| invalid(error.to_string()))?;
        manifest.check().map_err(invalid)?;
        Ok(manifest)
    }

    /// Major and minor version of the ABI that it was built against.
    pub fn abi(&self) -> Option<(u32, u32)> {
        let (major, minor) = self.weir_abi.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }

    fn check(&self) -> Result<(), String> {
        if self.abi().is_none() {
            return Err(format!(
                "`weir-abi` is {:?}, not two numbers as \"1.0\"",
                self.weir_abi
            ));
        }
        if !is_name(&self.name) {
            return Err(format!(
                "the name {:?} is not of the form {NAME}",
                self.name
            ));
        }
        if self.stages.is_empty() && self.readers.is_empty() {
            return Err("it has neither stages nor readers".into());
        }
        unique("stage", self.stages.iter().map(|stage| stage.id.as_str()))?;
        unique(
            "reader",
            self.readers.iter().map(|reader| reader.id.as_str()),
        )?;
        for stage in &self.stages {
            stage
                .check(&self.name)
                .map_err(|what| format!("stage `{}`: {what}", stage.id))?;
        }
        if let Some(reader) = self.readers.iter().find(|reader| !is_name(&reader.id)) {
            return Err(format!(
                "the reader's id {:?} is not of the form {NAME}",
                reader.id
            ));
        }
        Ok(())
    }
}

const NAME: &str = "[a-z][a-z0-9-]*";

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("{what} `{name}` stands there twice"));
        }
    }
    Ok(())
}

impl Stage {
    fn check(&self, namespace: &str) -> Result<(), String> {
        let own = self
            .id
            .strip_prefix(namespace)
            .and_then(|rest| rest.strip_prefix('.'));
        if !own.is_some_and(is_name) {
            return Err(format!(
                "its id is not `{namespace}.` and a name of the form {NAME}"
            ));
        }
        let (ins, outs) = (self.ins.len(), self.outs.len());
        let fits = match self.rows {
            Rows::Source => ins == 0 && outs > 0,
            Rows::Map | Rows::Reduce => ins > 0 && outs > 0,
            Rows::Filter => ins == 1 && outs == 1 && self.ins[0].kind == self.outs[0].kind,
            Rows::Sink => ins > 0 && outs == 0,
        };
        if !fits {
            return Err(format!(
                "a {} has {}, and this has {ins} inputs and {outs} outputs",
                self.rows.name(),
                match self.rows {
                    Rows::Source => "no input and at least one output",
                    Rows::Map | Rows::Reduce => "at least one input and one output",
                    Rows::Filter => "one input and one output of the same kind",
                    Rows::Sink => "at least one input and no output",
                }
            ));
        }
        if self.batch_only && self.rows != Rows::Reduce {
            return Err("`batch-only` is for a reduce".into());
        }
        unique(
            "parameter",
            self.params.iter().map(|param| param.name.as_str()),
        )?;
        unique("input", self.ins.iter().map(|port| port.name.as_str()))?;
        unique("output", self.outs.iter().map(|port| port.name.as_str()))?;
        for param in &self.params {
            param
                .check()
                .map_err(|what| format!("parameter `{}`: {what}", param.name))?;
        }
        for port in self.ins.iter().chain(&self.outs) {
            self.check_port(port)
                .map_err(|what| format!("port `{}`: {what}", port.name))?;
        }
        Ok(())
    }

    fn check_port(&self, port: &Port) -> Result<(), String> {
        if !is_name(&port.name) {
            return Err(format!("its name is not of the form {NAME}"));
        }
        if port.mpp.is_some() && port.kind != Kind::Pixels {
            return Err("only pixels have an `mpp`".into());
        }
        for dim in port.shape.iter().chain(&port.mpp) {
            match dim {
                Dim::Fixed(number) if !(number.is_finite() && *number > 0.0) => {
                    return Err(format!("a dimension is {number}"));
                }
                Dim::Name(name) => {
                    if let Some(param) = name.strip_prefix('$')
                        && !self.params.iter().any(|known| known.name == param)
                    {
                        return Err(format!("there is no parameter `{param}` for `{name}`"));
                    }
                }
                Dim::Fixed(_) => {}
            }
        }
        Ok(())
    }
}

impl Param {
    fn check(&self) -> Result<(), String> {
        if !is_name(&self.name) {
            return Err(format!("its name is not of the form {NAME}"));
        }
        if RESERVED.contains(&self.name.as_str()) {
            return Err("that key is weir's own in every stage's table".into());
        }
        let number = matches!(self.kind, ParamKind::Int | ParamKind::Float);
        if !number && (self.min.is_some() || self.max.is_some()) {
            return Err("`min` and `max` are for numbers".into());
        }
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            return Err(format!(
                "its least number {min} is above its greatest {max}"
            ));
        }
        if (self.kind == ParamKind::Choice) == self.values.is_empty() {
            return Err("`values` are for a choice, which has at least one".into());
        }
        if self.exists && self.kind != ParamKind::Path {
            return Err("`exists` is for a path".into());
        }
        match &self.default {
            Some(_) if self.required => Err("it is required and has a default".into()),
            Some(default) => self.check_default(default),
            None => Ok(()),
        }
    }

    fn check_default(&self, default: &serde_json::Value) -> Result<(), String> {
        let in_range = |number: f64| {
            self.min.is_none_or(|min| number >= min) && self.max.is_none_or(|max| number <= max)
        };
        let fits = match self.kind {
            ParamKind::Int => default
                .as_i64()
                .is_some_and(|number| in_range(number as f64)),
            ParamKind::Float => default.as_f64().is_some_and(in_range),
            ParamKind::Bool => default.is_boolean(),
            ParamKind::Choice => self
                .values
                .iter()
                .any(|value| default.as_str() == Some(value)),
            ParamKind::Strings | ParamKind::Slides => default
                .as_array()
                .is_some_and(|items| items.iter().all(serde_json::Value::is_string)),
            ParamKind::String | ParamKind::Bytes | ParamKind::Duration | ParamKind::Path => {
                default.is_string()
            }
        };
        if fits {
            return Ok(());
        }
        Err(format!("its default {default} is none of its own values"))
    }
}

/// The engine's own words for what the engine's own types say.
mod names {
    use super::{Deliver, Kind, Place, Rows};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn arrival() -> Deliver {
        Deliver::Arrival
    }

    pub fn home() -> Place {
        Place::Home
    }

    /// A module that reads and writes one of `values` by its name.
    macro_rules! by_name {
        ($module:ident, $type:ty, $name:expr, [$($value:expr),*]) => {
            pub mod $module {
                use super::*;

                pub fn serialize<S: Serializer>(value: &$type, to: S) -> Result<S::Ok, S::Error> {
                    let name: fn($type) -> &'static str = $name;
                    to.serialize_str(name(*value))
                }

                pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                    let text = String::deserialize(from)?;
                    let name: fn($type) -> &'static str = $name;
                    let all = [$($value),*];
                    all.into_iter().find(|value| name(*value) == text).ok_or_else(|| {
                        let all = all.map(name).join(", ");
                        D::Error::custom(format!("{text:?} is none of {all}"))
                    })
                }
            }
        };
    }

    by_name!(
        rows,
        Rows,
        Rows::name,
        [
            Rows::Source,
            Rows::Map,
            Rows::Filter,
            Rows::Reduce,
            Rows::Sink
        ]
    );
    by_name!(
        kind,
        Kind,
        Kind::name,
        [
            Kind::Pixels,
            Kind::Scores,
            Kind::Picks,
            Kind::Features,
            Kind::Attention,
            Kind::Bag,
            Kind::Predictions,
            Kind::Table
        ]
    );
    by_name!(
        deliver,
        Deliver,
        |value| match value {
            Deliver::Arrival => "arrival",
            Deliver::Generation => "generation",
        },
        [Deliver::Arrival, Deliver::Generation]
    );
    by_name!(
        place,
        Place,
        |value| match value {
            Place::Home => "home",
            Place::First => "first",
        },
        [Place::Home, Place::First]
    );
}
