//! `onnx`: stages that score and encode tiles with any ONNX file, on ONNX Runtime.
//!
//! | module | |
//! |---|---|
//! | [`runtime`] | ONNX Runtime's library: found, opened, or one message that says how to get it |
//! | [`session`] | a model that it has taken, run by as many threads as call |
//! | [`arena`] | what ONNX Runtime allocates for a session, and the end of it |
//! | [`signature`] | what a model takes and gives |
//! | [`form`] | from pixels to a model's numbers |
//! | [`model`] | a model held against what the pipeline says of it, in passes of one size |
//! | [`turns`] | how many passes run at once |
//! | [`describe`] | what an ONNX file takes and gives, for `weir plugin inspect` |
//! | [`encoder`], [`scorer`] | the stages; [`stage`] is what they have in common |
//!
//! README.md beside this crate is the page for users.

pub mod arena;
pub mod describe;
pub mod encoder;
pub mod form;
pub mod model;
pub mod runtime;
pub mod scorer;
pub mod session;
pub mod signature;
pub mod stage;
pub mod turns;

use encoder::Encoder;
use scorer::Scorer;

weir_plugin::export! {
    name: "onnx",
    summary: "Scores and features of tiles from any ONNX file",
    stages: [Scorer, Encoder],
    describe: describe::describe,
}
