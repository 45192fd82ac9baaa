//! A mistake in a pipeline: which, where, why, and what to do.

use crate::codes::{Code, Severity};
use crate::source::Span;

/// One mistake.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// Which kind of mistake; explained by `weir explain`.
    pub code: &'static Code,
    /// What is wrong, in one line.
    pub title: String,
    /// Where; the first is the place of the mistake, the others say what it collides with. Empty when the mistake has no
    /// place in a text.
    pub labels: Vec<Label>,
    /// What to do.
    pub help: Vec<String>,
    /// An edit that mends it.
    pub fix: Option<Fix>,
}

/// A piece of text and what is to be said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What; may be empty.
    pub text: String,
}

/// An edit that mends a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// What the edit does, as `did you mean`.
    pub title: String,
    /// The edits; all in one source, in order, not overlapping.
    pub edits: Vec<Edit>,
}

/// A replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// What goes.
    pub span: Span,
    /// What comes.
    pub text: String,
}

impl Diagnostic {
    /// A mistake at a place.
    pub fn new(
        code: &'static Code,
        span: Span,
        title: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        let mut diagnostic = Diagnostic::nowhere(code, title);
        diagnostic.labels.push(Label {
            span,
            text: label.into(),
        });
        diagnostic
    }

    /// A mistake that has no place in a text, as a file that is missing.
    pub fn nowhere(code: &'static Code, title: impl Into<String>) -> Self {
        Diagnostic {
            code,
            title: title.into(),
            labels: Vec::new(),
            help: Vec::new(),
            fix: None,
        }
    }

    /// Another place that matters.
    #[must_use]
    pub fn with(mut self, span: Span, label: impl Into<String>) -> Self {
        self.labels.push(Label {
            span,
            text: label.into(),
        });
        self
    }

    /// Something to do.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }

    /// An edit that mends it.
    #[must_use]
    pub fn fix(self, title: impl Into<String>, span: Span, text: impl Into<String>) -> Self {
        let edit = Edit {
            span,
            text: text.into(),
        };
        self.fixes(title, vec![edit])
    }

    /// Edits that mend it together.
    #[must_use]
    pub fn fixes(mut self, title: impl Into<String>, mut edits: Vec<Edit>) -> Self {
        edits.sort_by_key(|edit| edit.span);
        self.fix = Some(Fix {
            title: title.into(),
            edits,
        });
        self
    }

    /// An edit that puts `name` in the place of what was written, when there is such a name.
    #[must_use]
    pub fn did_you_mean(self, span: Span, name: Option<String>) -> Self {
        match name {
            Some(name) => self.fix("did you mean", span, name),
            None => self,
        }
    }

    /// Where the mistake is.
    pub fn span(&self) -> Option<Span> {
        self.labels.first().map(|label| label.span)
    }

    /// Whether nothing can run with it.
    pub fn is_error(&self) -> bool {
        self.code.severity == Severity::Error
    }
}
