//! # weir-pipeline: from a file to a checked plan
//!
//! A pipeline file is parsed (recoverably: every syntax fault at once), checked against the [`Schema`]s of a [`Registry`], and
//! becomes a [`Plan`]. This crate knows no stage's code: what a stage takes, gives and keeps stands in its schema.
//!
//! | module | idea |
//! |---|---|
//! | [`schema`] | what a stage type says of itself: parameters, ports, rows |
//! | [`values`] | a stage's parameters after checking |
//! | [`plan`] | the checked graph, ready to run |
//! | [`model`], [`model_file`] | `model.toml`, read far enough that every dimension is known |
//! | [`plugins`] | what a file asks of plugins, and who answers |
//! | [`run`] | the settings of `[run]` |
//! | [`check`](mod@check) | from a file to a plan, or to all its mistakes |
//! | [`codes`], [`diagnostic`], [`source`] | what a mistake is, and its place |
//! | [`render`] | mistakes as text |
//! | [`cases`] | the `[[test]]` tables |
//! | [`graph`], [`reference`](mod@reference), [`show`](fn@show), [`json_schema`](fn@json_schema) | plans and stage types as text |
//! | [`shapes`], [`memory`] | what a plan carries and holds |

pub mod cases;
pub mod check;
pub mod codes;
pub mod diagnostic;
mod doc;
pub mod graph;
mod hash;
mod json_schema;
pub mod memory;
pub mod model;
pub mod model_file;
mod nearest;
pub mod plan;
pub mod plugins;
pub mod reference;
pub mod render;
pub mod run;
pub mod schema;
pub mod shapes;
mod show;
pub mod source;
pub mod units;
pub mod values;

pub use cases::{Expect, Feed, TestCase};
pub use check::{Checked, Overrides, check};
pub use codes::{Code, Severity, explain};
pub use diagnostic::Diagnostic;
pub use json_schema::json_schema;
pub use model::{HeaderError, ModelHeader, ModelInput, ModelKind};
pub use model_file::{ModelFault, check_weights};
pub use plan::{Edge, Node, NodeMemory, Plan, StageRun};
pub use plugins::{
    About, Instances, NoPlugins, Plugin, PluginAsk, PluginRefusal, Plugins, StageMemory,
};
pub use run::{OnError, RunSettings};
pub use schema::{
    Deliver, Dim, Kind, ModelField, Param, ParamKind, Place, Port, Registry, Rows, Schema,
    StateArgs, StateBytes,
};
pub use show::show;
pub use source::{Source, Sources, Span};
pub use values::{Value, ValueError, Values};
