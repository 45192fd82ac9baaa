//! # weir-stages: the built-in stages
//!
//! One file a stage: its schema, its parameters, its pure function, its glue, in that order.

pub mod geojson_sink;
pub mod heatmap_sink;
pub mod predictions_sink;
mod tiles;
pub mod tiles_sink;
