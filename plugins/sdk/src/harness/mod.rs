//! Runs a stage or a reader in a test, without weir.
//!
//! It is the other side of the border: it gives batches, takes what comes out, and holds the plugin to the contract. A call that breaks
//! it is an error that says what was broken:
//!
//! * of a map every row of the input comes out once on every output, or fails; of a filter it may be skipped;
//! * nothing is handed on after the call, and a call that was kept is completed once;
//! * input stays as it was; nothing is written beside a row;
//! * numbers that come out are finite;
//! * every batch that was kept is given back ([`Stage::end`]).
//!
//! ```
//! use weir_plugin::harness::{self, Rows};
//! use weir_plugin::{Batch, Call, Map, Result};
//!
//! /// Mean of each tile's values.
//! #[derive(weir_plugin::Stage)]
//! #[stage(map, id = "mean.features", deterministic)]
//! #[input(tiles: pixels[height, width, 3])]
//! #[output(features: features[1])]
//! struct Mean {
//!     /// What the mean is multiplied by.
//!     #[param(default = 1.0)]
//!     factor: f64,
//! }
//!
//! impl Map for Mean {
//!     fn map(&self, tiles: &Batch, call: &Call) -> Result<()> {
//!         let pixels = tiles.column::<u8>("pixels")?;
//!         let mut means = call.out().make_all()?;
//!         for i in 0..tiles.len() {
//!             let tile = pixels.row(i);
//!             let sum: u64 = tile.iter().map(|value| u64::from(*value)).sum();
//!             let mean = self.factor * sum as f64 / tile.len() as f64;
//!             means.set("features", i, &[mean as f32])?;
//!         }
//!         means.emit()
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! let stage = harness::stage::<Mean>().set("factor", 0.5).start()?;
//! let tiles = Rows::pixels(2, 2).push("a", 0, 0, &[10_u8; 12]).push("b", 512, 0, &[30_u8; 12]);
//! let done = stage.process(tiles)?;
//! assert_eq!(done.row::<f32>("features", 0, "features"), Some(&[5.0][..]));
//! assert_eq!(done.row::<f32>("features", 1, "features"), Some(&[15.0][..]));
//! stage.end()?;
//! # Ok(())
//! # }
//! ```
//!
//! A library that is there already, in any language: [`Library::open`].

mod about;
mod call;
mod columns;
mod done;
mod functions;
mod library;
mod memory;
mod reader;
mod rows;
mod slides;
mod source;
mod stage;
mod value;

pub use done::{Done, Line};
pub use library::Library;
pub use reader::{Opened, Reader, reader};
pub use rows::Rows;
pub use source::{OpenSlide, Sent};
pub use stage::{Setup, Stage, stage};

use crate::error::Error;

/// An error that says what of the contract was broken.
fn breach(faults: &[String]) -> Error {
    Error::new(format!(
        "the plugin broke the contract: {}",
        faults.join("; ")
    ))
}
