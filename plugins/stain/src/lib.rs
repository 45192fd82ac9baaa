//! Stain normalisation and separation of H&E tiles.
//!
//! The arithmetic stands first and knows nothing of plugins: [`density`], [`moments`], [`percentile`] and [`eigen`] carry
//! [`macenko`]; [`lab`] carries [`reinhard`]; [`recolour`] applies a change of densities; [`separate`] splits a tile;
//! [`statistics`] and [`picture`] are the files.

pub mod degenerate;
pub mod density;
pub mod eigen;
pub mod lab;
pub mod macenko;
pub mod moments;
pub mod percentile;
pub mod picture;
pub mod recolour;
pub mod reinhard;
pub mod separate;
pub mod statistics;
pub mod vector;
