//! The sinks, driven without an engine: what they write, in which order, and what a later run makes of it.
#![allow(clippy::unwrap_used, missing_docs)]

mod done;
mod picture;
mod stand;
mod tables;
