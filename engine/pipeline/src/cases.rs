//! `[[test]]`: what a pipeline is fed with, and what must come of it.

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A test of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct TestCase {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub span: Span,
    /// The source that is fed.
    pub stage: String,
    /// With what.
    pub feed: Feed,
    /// What each stage must make of it.
    pub expect: Vec<Expect>,
    /// The class that must be predicted, of every slide.
    pub prediction: Option<(String, Span)>,
}

/// What a source is fed with, instead of its slides.
#[derive(Clone, Debug, PartialEq)]
pub enum Feed {
    /// One slide of `count` tiles of one colour, of the source's tile size and resolution.
    Colour {
        /// Red, green, blue.
        rgb: [u8; 3],
        /// Number of tiles.
        count: u32,
    },
    /// One slide: a PNG that is cut into tiles of the source's size; pixels have the source's resolution.
    Tiles(PathBuf),
    /// Slides, as they would stand in the source's `slides`; paths are resolved.
    Slides(Vec<String>),
    /// The text of the source's parameter `script`.
    Script(String),
}

/// Outcomes that a stage must have made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    /// The stage.
    pub stage: String,
    /// `values`, `skipped`, `failed` or `gone` -> how many, and where that stands.
    pub counts: BTreeMap<&'static str, (u64, Span)>,
}

/// The outcomes that can be counted.
pub const OUTCOMES: [&str; 4] = ["values", "skipped", "failed", "gone"];

impl TestCase {
    /// The message for a count that is another: `what` as `values of stage tiles`.
    pub fn failed(&self, span: Span, what: &str, wanted: &str, got: &str) -> Diagnostic {
        let title = format!("test `{}` failed: {what}", self.name);
        Diagnostic::new(
            &codes::E0609,
            span,
            title,
            format!("{wanted} expected, {got} found"),
        )
    }
}
