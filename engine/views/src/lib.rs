//! # weir-views: what spans slides
//!
//! A worklist of all slides and a roll-up by patient, as collections of differential dataflow over what reaches the sinks: a
//! slide's entry is inserted when it is first known and replaced, as one retraction and one insertion, whenever it changes.
//! So both are right under corrections, whatever the order in which anything arrives and however many workers and processes
//! there are; worker 0 of process 0 holds the result.
//!
//! | module | idea |
//! |---|---|
//! | `slide` | what a view knows of a slide, with an order and no floats |
//! | `register` | rows of a slide to its entry: the greatest revision holds |
//! | `rollup` | a patient's slides as one element of an Abelian group |
//! | `tables` | the entries as `worklist.csv` and `patients.csv` |
//!
//! The only crate that knows differential-dataflow.

mod register;
mod rollup;
mod slide;
mod tables;
mod view;

pub use rollup::Rollup;
pub use slide::{Answer, Number, Owner, SlideEntry, Standing};
pub use tables::Tables;
pub use view::{Answers, Classify, Views};
