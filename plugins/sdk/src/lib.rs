//! Stages and slide readers for weir, in safe Rust.
//!
//! A plugin is a shared library (`crate-type = ["cdylib"]`) that weir loads when a pipeline names it. This crate is its side of the
//! border, `weir_plugin.h`: types instead of pointers, no copies, and no panic that leaves the plugin.
//!
//! ```
//! use weir_plugin::{Batch, Call, Filter, Result, Verdict};
//!
//! /// Leaves bright tiles out.
//! #[derive(weir_plugin::Stage)]
//! #[stage(filter, id = "bright.filter", deterministic)]
//! #[input(tiles: pixels[height, width, 3], mpp = mpp)]
//! #[output(tiles: pixels[height, width, 3], mpp = mpp)]
//! struct Bright {
//!     /// Greatest mean of a tile's values that is kept, 0 to 255.
//!     #[param(default = 220.0, min = 0.0, max = 255.0)]
//!     limit: f64,
//! }
//!
//! impl Filter for Bright {
//!     fn filter(&self, tiles: &Batch, call: &Call) -> Result<()> {
//!         let pixels = tiles.column::<u8>("pixels")?;
//!         call.sift(|i| {
//!             let tile = pixels.row(i);
//!             let sum: u64 = tile.iter().map(|value| u64::from(*value)).sum();
//!             let bright = sum as f64 > self.limit * tile.len() as f64;
//!             Ok(if bright { Verdict::Skip("bright") } else { Verdict::Keep })
//!         })
//!     }
//! }
//!
//! weir_plugin::export! { name: "bright", summary: "Leaves bright tiles out", stages: [Bright] }
//! # fn main() {}
//! ```
//!
//! | | |
//! |---|---|
//! | [`Map`], [`Filter`], [`Reduce`], [`Sink`], [`Source`] | the kinds of stages; [`derive@Stage`] writes the manifest of each |
//! | [`Finish`] | what a sink does when the run is over |
//! | [`Reader`] | slide readers |
//! | [`Batch`], [`Column`], [`Row`], [`Slide`] | what comes in: the host's memory |
//! | [`Call`], [`Output`], [`Draft`] | what goes out |
//! | [`param`] | types that parameters may have |
//! | [`Error`] | what went wrong: a message, the parameter at fault, what to do |
//! | [`harness`] | runs a stage or a reader in a test, without weir |

#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(panic = "abort")]
compile_error!(
    "weir-plugin needs panic = \"unwind\": with \"abort\" a panic of the plugin ends weir. Take `panic` out of the profile."
);

/// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

// The macros name this crate by its name, here as anywhere.
extern crate self as weir_plugin;

#[cfg(doctest)]
mod refused;

mod batch;
mod call;
mod draft;
mod error;
#[doc(hidden)]
pub mod export;
mod guard;
pub mod harness;
mod host;
mod output;
pub mod param;
mod reader;
mod row;
mod shim;
mod source;
mod stage;

pub use batch::{Batch, Column, Element, Held};
pub use call::{Call, Cuda, Detached, Verdict};
pub use draft::{ColumnMut, Draft};
pub use error::{Error, Result};
pub use output::Output;
pub use reader::{Facts, Level, MppOrigin, Picture, Reader, Region};
pub use row::{End, Key, Row, Slide, TILE_SLIDE};
pub use source::{Buffer, SlideInfo, Source, SourceSlide, Step, Tile, Waker};
pub use stage::{Filter, Finish, Map, Reduce, Sink};
pub use weir_abi as abi;
pub use weir_plugin_derive::{Choice, Reader, Stage, export};
