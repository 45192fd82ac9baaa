//! Feature files of TRIDENT, CLAM and STAMP: HDF5, one a slide.
//!
//! `features.reader` sends their rows as the engine's own `embedding-reader` sends those of its formats: places in level-0 px, a
//! damaged file fails its slide, a damaged row is a failed tile. `features.writer` writes them, whole or not at all.
//!
//! The format is read and written in Rust alone ([`hdf5_pure`]): no byte of a foreign file reaches code that could take the process
//! down, there is no library to install, and no lock that all files share.

pub mod corners;
pub mod file;
pub mod layout;
pub mod output;
pub mod reader;
pub mod writer;

weir_plugin::export! {
    name: "features",
    stages: [reader::Reader, writer::Writer],
}
