//! Stain normalisation and separation of H&E tiles.
//!
//! The arithmetic stands first and knows nothing of plugins: [`density`], [`moments`], [`percentile`] and [`eigen`] carry
//! [`macenko`]; [`lab`] carries [`reinhard`]; [`recolour`] applies a change of densities; [`normaliser`] is either method with its
//! target; [`separate`] splits a tile; [`sample`] thins it out. [`statistics`], [`picture`] and [`mod@reference`] are the files.
//! [`stages`] are what weir sees.

pub mod degenerate;
pub mod density;
pub mod eigen;
pub mod lab;
pub mod macenko;
pub mod moments;
pub mod normaliser;
pub mod numbers;
pub mod percentile;
pub mod picture;
pub mod recolour;
pub mod reference;
pub mod reinhard;
pub mod sample;
pub mod separate;
pub mod slide_folder;
pub mod stages;
pub mod statistics;
pub mod vector;

weir_plugin::export! {
    name: "stain",
    summary: "Stain normalisation and separation of H&E tiles",
    stages: [stages::normalise::Normalise, stages::separate::Separate, stages::measure::Measure],
}
