//! # weir-stages: the stages that are built in
//!
//! One file a stage, in this order: schema, parameters, pure function, glue; or a folder, where the pure function is a file of its
//! own. What a stage takes, gives and keeps stands in its schema; the pure function knows no runtime, and the glue knows no
//! mathematics.
//!
//! | stage | rows | idea |
//! |---|---|---|
//! | [`tile_reader`] | source | slides to tiles at an exact resolution |
//! | [`embedding_reader`] | source | files of features, one a slide |
//! | [`tissue_filter`] | filter | drops tiles without tissue |
//! | [`scorer`] | map | tile to score (model A) |
//! | [`top_k`] | reduce | the m highest and the m lowest |
//! | [`tile_fetch`] | map | pixels of what was selected, read again |
//! | [`encoder`] | map | tile to feature (model B) |
//! | [`attention_pool`] | reduce | features to bag and attention |
//! | [`classifier`] | map | bag to prediction |
//! | [`predictions_sink`] | sink | predictions to tables and to a file a slide |
//! | [`tiles_sink`] | sink | scores and attention to a table a slide |
//! | [`heatmap_sink`] | sink | scores and attention to a picture a slide |
//! | [`geojson_sink`] | sink | scores and attention to objects that QuPath opens |
//! | [`image_sink`] | sink | tiles to pictures |
//! | [`null_sink`] | sink | tiles to nothing, at any speed |
//! | [`scripted_source`] | source | plays a script of made-up slides |
//!
//! Scores and picks carry the size (px) and resolution (um/px) of the tiles that they speak of, so that the checker knows what
//! a `tile-fetch` behind them reads: their ports have the shape [height, width, ...].

pub mod attention_pool;
pub mod classifier;
pub mod done;
pub mod embedding_reader;
pub mod encoder;
pub mod executors;
mod feature_file;
pub mod folder;
pub mod font;
pub mod geojson_sink;
mod heatmap_legend;
mod heatmap_pen;
mod heatmap_picture;
pub mod heatmap_sink;
pub mod image_sink;
pub mod inputs;
mod kernels;
pub mod null_sink;
mod palette;
mod prediction_file;
mod prediction_tables;
pub mod predictions_sink;
pub mod scorer;
pub mod scripted_source;
pub mod tile_fetch;
mod tile_file;
pub mod tile_reader;
mod tile_script;
mod tiles;
pub mod tiles_sink;
pub mod tissue_filter;
pub mod top_k;
mod writers;

#[cfg(test)]
mod collected;
#[cfg(test)]
#[path = "../../../tests/program/features.rs"]
mod feature_writer;
#[cfg(test)]
mod refusing;

pub use executors::{Executors, Used};
pub use kernels::{Placement, Placements};

use weir_pipeline::{Registry, Schema};
use weir_runtime::stage::StageType;

/// Schemas of the stages that are built in, in the order in which lists show them.
static SCHEMAS: &[&Schema] = &[
    &tile_reader::SCHEMA,
    &embedding_reader::SCHEMA,
    &tissue_filter::SCHEMA,
    &scorer::SCHEMA,
    &top_k::SCHEMA,
    &tile_fetch::SCHEMA,
    &encoder::SCHEMA,
    &attention_pool::SCHEMA,
    &classifier::SCHEMA,
    &predictions_sink::SCHEMA,
    &tiles_sink::SCHEMA,
    &heatmap_sink::SCHEMA,
    &geojson_sink::SCHEMA,
    &image_sink::SCHEMA,
    &null_sink::SCHEMA,
    &scripted_source::SCHEMA,
];

static TYPES: &[StageType] = &[
    tile_reader::TYPE,
    embedding_reader::TYPE,
    tissue_filter::TYPE,
    scorer::TYPE,
    top_k::TYPE,
    tile_fetch::TYPE,
    encoder::TYPE,
    attention_pool::TYPE,
    classifier::TYPE,
    predictions_sink::TYPE,
    tiles_sink::TYPE,
    heatmap_sink::TYPE,
    geojson_sink::TYPE,
    image_sink::TYPE,
    null_sink::TYPE,
    scripted_source::TYPE,
];

/// The stages that are built in, with their code.
pub fn types() -> &'static [StageType] {
    TYPES
}

/// The schemas of the stages that are built in.
pub fn registry() -> Registry {
    Registry::new(SCHEMAS.iter().copied())
}
