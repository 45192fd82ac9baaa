//! The stages of the plugin, one a file: parameters, then rows.

pub mod measure;
pub mod normalise;
pub mod scratches;
pub mod separate;
pub mod vectors;
