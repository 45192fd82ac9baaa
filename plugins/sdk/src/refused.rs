//! What the macros refuse when a plugin is compiled; each example is a test that it does.
//!
//! A parameter of a type that is none:
//! ```compile_fail,E0277
//! /// S.
//! #[derive(weir_plugin::Stage)]
//! #[stage(map, id = "a.b")]
//! #[input(tiles: pixels)]
//! #[output(features: features[1])]
//! struct S {
//!     /// P.
//!     #[param]
//!     p: std::time::Instant,
//! }
//! # impl weir_plugin::Map for S { fn map(&self, _: &weir_plugin::Batch, _: &weir_plugin::Call) -> weir_plugin::Result<()> { Ok(()) } }
//! ```
//! A default of another type:
//! ```compile_fail,E0308
//! /// S.
//! #[derive(weir_plugin::Stage)]
//! #[stage(map, id = "a.b")]
//! #[input(tiles: pixels)]
//! #[output(features: features[1])]
//! struct S {
//!     /// P.
//!     #[param(default = "much")]
//!     p: f64,
//! }
//! # impl weir_plugin::Map for S { fn map(&self, _: &weir_plugin::Batch, _: &weir_plugin::Call) -> weir_plugin::Result<()> { Ok(()) } }
//! ```
//! A kind whose trait is not implemented:
//! ```compile_fail,E0277
//! /// S.
//! #[derive(weir_plugin::Stage)]
//! #[stage(filter, id = "a.b")]
//! #[input(tiles: pixels[height, width, 3])]
//! #[output(tiles: pixels[height, width, 3])]
//! struct S;
//! ```
//! A filter with an output of another kind than its input:
//! ```compile_fail
//! /// S.
//! #[derive(weir_plugin::Stage)]
//! #[stage(filter, id = "a.b")]
//! #[input(tiles: pixels)]
//! #[output(tiles: scores[1, 1, 2])]
//! struct S;
//! # impl weir_plugin::Filter for S { fn filter(&self, _: &weir_plugin::Batch, _: &weir_plugin::Call) -> weir_plugin::Result<()> { Ok(()) } }
//! ```
//! Rows that have not the shape of their kind:
//! ```compile_fail
//! /// S.
//! #[derive(weir_plugin::Stage)]
//! #[stage(map, id = "a.b")]
//! #[input(tiles: pixels[height, width, 3])]
//! #[output(scores: scores[2])]
//! struct S;
//! # impl weir_plugin::Map for S { fn map(&self, _: &weir_plugin::Batch, _: &weir_plugin::Call) -> weir_plugin::Result<()> { Ok(()) } }
//! ```
//! A size that is a parameter that is not there:
//! ```compile_fail
//! /// S.
//! #[derive(weir_plugin::Stage)]
//! #[stage(map, id = "a.b")]
//! #[input(tiles: pixels["$size", "$size", 3])]
//! #[output(features: features[1])]
//! struct S;
//! # impl weir_plugin::Map for S { fn map(&self, _: &weir_plugin::Batch, _: &weir_plugin::Call) -> weir_plugin::Result<()> { Ok(()) } }
//! ```
//! A choice whose default is none of its values:
//! ```compile_fail,E0080
//! #[derive(weir_plugin::Choice)]
//! enum C { One }
//! /// S.
//! #[derive(weir_plugin::Stage)]
//! #[stage(map, id = "a.b")]
//! #[input(tiles: pixels)]
//! #[output(features: features[1])]
//! struct S {
//!     /// P.
//!     #[param(default = "two")]
//!     p: C,
//! }
//! # impl weir_plugin::Map for S { fn map(&self, _: &weir_plugin::Batch, _: &weir_plugin::Call) -> weir_plugin::Result<()> { Ok(()) } }
//! ```
//! A stage of another plugin's namespace:
//! ```compile_fail,E0080
//! /// S.
//! #[derive(weir_plugin::Stage)]
//! #[stage(map, id = "a.b")]
//! #[input(tiles: pixels)]
//! #[output(features: features[1])]
//! struct S;
//! # impl weir_plugin::Map for S { fn map(&self, _: &weir_plugin::Batch, _: &weir_plugin::Call) -> weir_plugin::Result<()> { Ok(()) } }
//! weir_plugin::export! { name: "c", summary: "C", stages: [S] }
//! # fn main() {}
//! ```
