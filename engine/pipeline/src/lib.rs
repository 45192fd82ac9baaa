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
//! | [`model`] | `model.toml`, read far enough that every dimension is known |
//! | [`run`] | the settings of `[run]` |

pub mod model;
pub mod plan;
pub mod run;
pub mod schema;
pub mod values;

pub use model::{HeaderError, ModelHeader, ModelKind};
pub use plan::{Edge, Node, Plan};
pub use run::{OnError, RunSettings};
pub use schema::{
    Deliver, Dim, Kind, Param, ParamKind, Place, Port, Registry, Rows, Schema, StateArgs,
};
pub use values::{Value, ValueError, Values};
