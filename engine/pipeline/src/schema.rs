//! What a stage type says of itself. From these constants come checking, `weir stages`, the JSON Schema, the reference page
//! and, for plugins, the manifest.

use crate::{ModelKind, Values};

/// A stage type.
#[derive(Debug)]
pub struct Schema {
    /// Name in `use =`, as `tile-reader`.
    pub name: &'static str,
    /// One line for lists.
    pub summary: &'static str,
    /// What it does, in full sentences; Markdown.
    pub doc: &'static str,
    /// What it makes of rows.
    pub rows: Rows,
    /// When a reduce gets rows; meaningless for others.
    pub deliver: Deliver,
    /// In which process a sink's rows arrive; `Home` for everything else.
    pub place: Place,
    /// Parameters, in the order in which they are shown.
    pub params: &'static [Param],
    /// Input ports; the first is the default.
    pub ins: &'static [Port],
    /// Output ports; the first is the default.
    pub outs: &'static [Port],
    /// Of a reduce: it cannot take rows back, so it is refused where slides may change (`run.live`).
    pub batch_only: bool,
    /// Bytes that the stage keeps of an open slide; reserved when it opens.
    pub state_bytes: StateBytes,
    /// A `[stage.X]` table that works, for `weir stages NAME`.
    pub example: &'static str,
}

/// What a stage makes of rows: decides what the runtime counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Opens slides and sends versions.
    Source,
    /// One value for each value.
    Map,
    /// One value or a Skip for each value.
    Filter,
    /// Closes a domain and opens its own.
    Reduce,
    /// Closes a domain.
    Sink,
}

impl Rows {
    /// The name in lists and graphs.
    pub fn name(self) -> &'static str {
        match self {
            Rows::Source => "source",
            Rows::Map => "map",
            Rows::Filter => "filter",
            Rows::Reduce => "reduce",
            Rows::Sink => "sink",
        }
    }
}

/// When a reduce gets rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deliver {
    /// As they come.
    Arrival,
    /// A generation at a time, whole, in order; a generation with a superseded tile waits for the next.
    Generation,
}

/// Where a stage's rows must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the slide's home process.
    Home,
    /// Exchanged to process 0.
    First,
}

/// A parameter.
#[derive(Debug)]
pub struct Param {
    /// Key in the table.
    pub name: &'static str,
    /// Type and range.
    pub kind: ParamKind,
    /// As it would stand in the file, as `0.25` or `"otsu"`; `None` when there is no default.
    pub default: Option<&'static str>,
    /// Whether it must be given. A parameter with neither default nor `required` may be absent.
    pub required: bool,
    /// What it means, with its unit.
    pub doc: &'static str,
}

/// A parameter's type and range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ParamKind {
    /// A whole number in a range, both ends included.
    Integer {
        /// Least.
        min: i64,
        /// Greatest.
        max: i64,
    },
    /// A number in a range, both ends included; a whole number is taken too.
    Float {
        /// Least.
        min: f64,
        /// Greatest.
        max: f64,
    },
    /// true or false.
    Boolean,
    /// Any text.
    Text,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A size as `"64MiB"`, or whole bytes.
    Bytes,
    /// A time as `"20ms"`.
    Duration,
    /// A file or folder, relative to the pipeline file.
    Path {
        /// Whether it must exist when the file is checked.
        exists: bool,
    },
    /// The name of a `[model.X]` of this kind.
    Model(ModelKind),
    /// Slides: a text or a list of texts (paths, folders, globs, manifests), relative to the pipeline file.
    Slides,
    /// A list of texts.
    Texts,
}

/// An input or output.
#[derive(Debug)]
pub struct Port {
    /// Name in `in = { NAME = .. }` and `STAGE.NAME`.
    pub name: &'static str,
    /// What flows.
    pub kind: Kind,
    /// Shape without the batch dimension: what must agree between the two ends of an edge and within a stage.
    pub shape: &'static [Dim],
    /// um/px of pixels, as a dimension that must agree; `None` for everything that is not pixels.
    pub mpp: Option<Dim>,
    /// An input that takes a list of streams of one type.
    pub many: bool,
    /// Whether an input may stay unconnected.
    pub optional: bool,
    /// What it carries.
    pub doc: &'static str,
}

/// What flows through a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// u8, `[h, w, 3]`; stays in its process.
    Pixels,
    /// Scores of tiles.
    Scores,
    /// Selected tiles.
    Picks,
    /// f32, `[d]`.
    Features,
    /// Weights and contributions of a bag's members.
    Attention,
    /// Pooled bags, f32, `[d]`.
    Bag,
    /// Predictions of slides.
    Predictions,
    /// Opaque tables of a plugin.
    Table,
}

impl Kind {
    /// The name in messages and graphs.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Pixels => "pixels",
            Kind::Scores => "scores",
            Kind::Picks => "picks",
            Kind::Features => "features",
            Kind::Attention => "attention",
            Kind::Bag => "bag",
            Kind::Predictions => "predictions",
            Kind::Table => "table",
        }
    }

    /// Whether it never leaves its process.
    pub fn stays_home(self) -> bool {
        self == Kind::Pixels
    }
}

/// A dimension (or an um/px) of a port.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dim {
    /// This number.
    Fixed(f64),
    /// The value of the stage's parameter of this name.
    Param(&'static str),
    /// A number of the model that the stage's parameter `param` names.
    Model {
        /// Parameter, usually `model`.
        param: &'static str,
        /// Which number.
        field: ModelField,
    },
    /// Whatever it is, the same for every port of the stage that says this name.
    Same(&'static str),
}

/// Numbers of a model that ports speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelField {
    /// Width and height of an input tile, px.
    InputSize,
    /// um/px of an input tile.
    InputMpp,
    /// Width of the feature vector.
    Feature,
    /// Number of classes.
    Classes,
}

/// What [`Schema::state_bytes`] may know.
#[derive(Debug)]
pub struct StateArgs<'a> {
    /// The stage's parameters.
    pub values: &'a Values,
    /// Tiles of the slide that can reach the stage: all of them, or as many as a selection before it lets through.
    pub tiles: u64,
    /// Width of the features that reach the stage, when it takes features.
    pub feature: u64,
}

/// Bytes that a stage keeps of an open slide.
#[derive(Clone, Copy, Debug)]
pub enum StateBytes {
    /// None.
    Nothing,
    /// What a built-in stage computes.
    Of(fn(&StateArgs) -> u64),
    /// What a plugin's manifest says: `slide + tiles * (tile + feature * d)`, since nothing of it may run before it is loaded.
    Linear {
        /// A slide.
        slide: u64,
        /// A tile.
        tile: u64,
        /// A number of a tile's feature vector.
        feature: u64,
    },
}

impl StateBytes {
    /// How many; what is beyond 64 bits is their end, which fits no budget.
    pub fn bytes(&self, args: &StateArgs) -> u64 {
        match self {
            StateBytes::Nothing => 0,
            StateBytes::Of(of) => of(args),
            StateBytes::Linear {
                slide,
                tile,
                feature,
            } => feature
                .saturating_mul(args.feature)
                .saturating_add(*tile)
                .saturating_mul(args.tiles)
                .saturating_add(*slide),
        }
    }
}

/// The stage types that a file may use.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    schemas: Vec<&'static Schema>,
}

impl Registry {
    /// A registry of `schemas`; a later one of the same name replaces an earlier one.
    pub fn new(schemas: impl IntoIterator<Item = &'static Schema>) -> Self {
        let mut registry = Registry::default();
        for schema in schemas {
            registry.schemas.retain(|known| known.name != schema.name);
            registry.schemas.push(schema);
        }
        registry
    }

    /// The stage type of this name.
    pub fn get(&self, name: &str) -> Option<&'static Schema> {
        self.schemas
            .iter()
            .find(|schema| schema.name == name)
            .copied()
    }

    /// All, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &'static Schema> {
        self.schemas.iter().copied()
    }
}
