//! Printing mistakes: for people, one line each, or as JSON.

use crate::codes::Severity;
use crate::diagnostic::Diagnostic;
use crate::source::{Source, Sources, Span};
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Patch, Renderer, Snippet};
use serde_json::json;

/// How mistakes are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// With the text that they are in.
    Human {
        /// ANSI colours.
        color: bool,
    },
    /// `file:line:column: error[E0302]: ...`.
    Short,
    /// One object a line, with byte spans and edits.
    Json,
}

/// Most mistakes that are printed; a file with more has one that causes the others.
pub const LIMIT: usize = 50;

/// The mistakes as text, with a count of those left out and, for people, of all; ends with a line break unless empty.
pub fn all(diagnostics: &[Diagnostic], sources: &Sources, style: Style) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics.iter().take(LIMIT) {
        text.push_str(&one(diagnostic, sources, style));
        text.push('\n');
        if matches!(style, Style::Human { .. }) {
            text.push('\n');
        }
    }
    if style == Style::Json || diagnostics.is_empty() {
        return text;
    }
    if let Some(more) = diagnostics
        .len()
        .checked_sub(LIMIT)
        .filter(|more| *more > 0)
    {
        text.push_str(&format!("{more} more are not shown\n"));
    }
    if matches!(style, Style::Human { .. }) {
        text.push_str(&count(diagnostics));
        text.push('\n');
    }
    text
}

/// `2 errors, 1 warning; weir explain E0302 says more`.
pub fn count(diagnostics: &[Diagnostic]) -> String {
    let of = |severity| {
        diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.code.severity == severity)
            .count()
    };
    let words = |count: usize, word: &str| match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        count => Some(format!("{count} {word}s")),
    };
    let parts: Vec<String> = [
        words(of(Severity::Error), "error"),
        words(of(Severity::Warning), "warning"),
    ]
    .into_iter()
    .flatten()
    .collect();
    match diagnostics.first() {
        Some(first) => format!(
            "{}; `weir explain {}` says more",
            parts.join(", "),
            first.code.id
        ),
        None => String::from("no mistakes"),
    }
}

/// One mistake as text, without a line break at its end.
pub fn one(diagnostic: &Diagnostic, sources: &Sources, style: Style) -> String {
    match style {
        Style::Human { color } => human(diagnostic, sources, color),
        Style::Short => short(diagnostic, sources),
        Style::Json => object(diagnostic, sources).to_string(),
    }
}

fn short(diagnostic: &Diagnostic, sources: &Sources) -> String {
    let place = match diagnostic.span() {
        Some(span) => format!("{}: ", sources.place(span)),
        None => String::new(),
    };
    format!(
        "{place}{}[{}]: {}",
        diagnostic.code.severity.name(),
        diagnostic.code.id,
        diagnostic.title
    )
}

fn object(diagnostic: &Diagnostic, sources: &Sources) -> serde_json::Value {
    let place = |span: Span| {
        let source = sources.get(span.source);
        let (line, column) = source.map_or((1, 1), |source| source.position(span.start));
        json!({
            "file": source.map_or("", |source| source.name.as_str()),
            "start": span.start,
            "end": span.end,
            "line": line,
            "column": column,
        })
    };
    let labels: Vec<_> = diagnostic
        .labels
        .iter()
        .map(|label| json!({ "at": place(label.span), "text": label.text }))
        .collect();
    let fix = diagnostic.fix.as_ref().map(|fix| {
        let edits: Vec<_> = fix
            .edits
            .iter()
            .map(|edit| json!({ "at": place(edit.span), "text": edit.text }))
            .collect();
        json!({ "title": fix.title, "edits": edits })
    });
    json!({
        "code": diagnostic.code.id,
        "severity": diagnostic.code.severity.name(),
        "title": diagnostic.title,
        "labels": labels,
        "help": diagnostic.help,
        "fix": fix,
    })
}

fn human(diagnostic: &Diagnostic, sources: &Sources, color: bool) -> String {
    let level = match diagnostic.code.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level
        .primary_title(diagnostic.title.as_str())
        .id(diagnostic.code.id);
    let mut group = Group::with_title(title);
    // One snippet for each source, the mistake's own first.
    let mut named: Vec<usize> = Vec::new();
    for label in &diagnostic.labels {
        if !named.contains(&label.span.source) {
            named.push(label.span.source);
        }
    }
    for number in named {
        let Some(source) = sources.get(number) else {
            continue;
        };
        if source.text.is_empty() {
            group = group.element(Origin::path(source.name.as_str()));
            continue;
        }
        let mut snippet = Snippet::source(source.text.as_str()).path(source.name.as_str());
        for (index, label) in diagnostic.labels.iter().enumerate() {
            if label.span.source == number {
                let kind = if index == 0 {
                    AnnotationKind::Primary
                } else {
                    AnnotationKind::Context
                };
                let annotation = kind.span(drawn(source, label.span));
                snippet = snippet.annotation(match label.text.as_str() {
                    "" => annotation,
                    text => annotation.label(text),
                });
            }
        }
        group = group.element(snippet);
    }
    for help in &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    let mut groups = vec![group];
    if let Some(fix) = &diagnostic.fix
        && let Some(source) = fix
            .edits
            .first()
            .and_then(|edit| sources.get(edit.span.source))
    {
        let mut snippet = Snippet::source(source.text.as_str()).path(source.name.as_str());
        for edit in &fix.edits {
            snippet = snippet.patch(Patch::new(range(source, edit.span), edit.text.as_str()));
        }
        groups.push(
            Level::HELP
                .secondary_title(fix.title.as_str())
                .element(snippet),
        );
    }
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    renderer.render(&groups)
}

/// Bytes of a span, within the text and between characters.
fn range(source: &Source, span: Span) -> std::ops::Range<usize> {
    let start = source.boundary(span.start);
    start..source.boundary(span.end).max(start)
}

/// What is underlined of a span: its first line, without the line break.
fn drawn(source: &Source, span: Span) -> std::ops::Range<usize> {
    let range = range(source, span);
    let line = source.text[range.clone()].find('\n').unwrap_or(range.len());
    let mut end = range.start + line;
    if source.text[..end].ends_with('\r') && end > range.start {
        end -= 1;
    }
    range.start..end
}
