//! Every diagnostic that this version can raise. A code is never given another meaning; a code that is gone is not used again.
//!
//! | range | about |
//! |---|---|
//! | 01xx | the file and its syntax |
//! | 02xx | its structure, variables, command line |
//! | 03xx | parameters and settings |
//! | 04xx | the graph |
//! | 05xx | plugins |
//! | 06xx | the run |
//! | 07xx | models |

mod graph;
mod models;
mod parameters;
mod plugins;
mod run;
mod structure;
mod syntax;

pub use graph::*;
pub use models::*;
pub use parameters::*;
pub use plugins::*;
pub use run::*;
pub use structure::*;
pub use syntax::*;

/// A kind of mistake.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// As `E0302`.
    pub id: &'static str,
    /// Whether a run can start with it.
    pub severity: Severity,
    /// What is wrong, in general.
    pub title: &'static str,
    /// What `weir explain` prints below the title; Markdown.
    pub explanation: &'static str,
}

/// Whether a run can start with a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but it is probably not what was meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// Declares codes and the list of them.
macro_rules! codes {
    ($($id:ident $severity:ident $title:literal $explanation:literal)*) => {
        $(
            #[doc = $title]
            pub static $id: super::Code = super::Code {
                id: stringify!($id),
                severity: super::Severity::$severity,
                title: $title,
                explanation: $explanation,
            };
        )*
        pub(super) static ALL: &[&super::Code] = &[$(&$id),*];
    };
}
use codes;

/// All codes, in order.
pub fn all() -> impl Iterator<Item = &'static Code> {
    [
        syntax::ALL,
        structure::ALL,
        parameters::ALL,
        graph::ALL,
        plugins::ALL,
        run::ALL,
        models::ALL,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// The code of this name, in either case.
pub fn find(id: &str) -> Option<&'static Code> {
    all().find(|code| code.id.eq_ignore_ascii_case(id))
}

/// What `weir explain CODE` prints.
pub fn explain(id: &str) -> Option<String> {
    let code = find(id)?;
    Some(format!(
        "{}[{}]: {}\n\n{}\n",
        code.severity.name(),
        code.id,
        code.title,
        code.explanation
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_unique_named_by_their_severity_and_explained() {
        let ids: Vec<_> = all().map(|code| code.id).collect();
        assert!(
            ids.windows(2).all(|pair| pair[0][1..] < pair[1][1..]),
            "{ids:?}"
        );
        for code in all() {
            let letter = match code.severity {
                Severity::Error => 'E',
                Severity::Warning => 'W',
            };
            assert!(code.id.starts_with(letter), "{}", code.id);
            assert!(code.explanation.len() > 120, "{} needs more words", code.id);
        }
    }
}
