//! # weir-benches: what is measured
//!
//! `make bench` runs every program here and prints what the README's tables say; benches/README.md says what each measures
//! and against what. Benches are no tests: nothing here passes or fails.
//!
//! | module | idea |
//! |---|---|
//! | [`clock`] | CPU time of a thread |
//! | [`free`] | a scorer that costs nothing |
//! | [`generated`] | slides of any size, made of real tissue |

pub mod clock;
pub mod free;
pub mod generated;

/// What every bench returns: errors are printed as they are.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
