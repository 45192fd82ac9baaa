//! Training and evaluation: from slides, a manifest and labels of bags to the two models of a pipeline.
//!
//! | module | what it knows |
//! |---|---|
//! | [`recipe`] | what is trained and how: a TOML file, checked |
//! | [`data`], [`bags`] | slides, manifest, bags, pixels |
//! | [`augment`], [`random`] | how tiles are changed, from (seed, epoch, tile) alone |
//! | [`choose`] | which tiles are trained on: top-k of a bag for A, both ends of it for B |
//! | [`scorer`] | A, by top-k multiple-instance learning |
//! | [`bag`], [`surrogate`], [`pooling`] | B, end to end, by the exact gradient, a chunk of tiles in the network at a time |
//! | [`phase`], [`steps`], [`checkpoint`] | epochs, AdamW, the best weights, going on after a stop |
//! | [`metrics`], [`evaluate`], [`colour`] | how good it is, and beside what |
//! | [`record`], [`chart`] | models, training record, curves |
//!
//! Tile labels never reach a training: they lie in `truth/`, which only [`evaluate`] opens, after both models are done.

pub mod augment;
pub mod bag;
pub mod bags;
pub mod chart;
pub mod checkpoint;
pub mod choose;
pub mod colour;
pub mod data;
mod error;
pub mod evaluate;
pub mod metrics;
pub mod nets;
pub mod phase;
pub mod pooling;
pub mod progress;
pub mod random;
pub mod recipe;
pub mod record;
mod run;
pub mod scorer;
pub mod scoring;
pub mod steps;
pub mod surrogate;

pub use error::TrainError;
pub use progress::{At, Progress};
pub use recipe::Recipe;
pub use run::{Ended, Options, Trained, train};
