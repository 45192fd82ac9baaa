//! The texts that a pipeline is made of: the file, and what the command line and the environment say beside it.

use std::path::{Path, PathBuf};

/// A text with places in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// As messages name it: a path, `<--set>`, `<WEIR_VAR_SLIDES>`.
    pub name: String,
    /// What it says.
    pub text: String,
    /// The folder that its relative paths start from.
    pub base: PathBuf,
}

/// All texts of a pipeline; number 0 is the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(Vec<Source>);

/// A piece of a source, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Number of the source.
    pub source: usize,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// Bytes `start..end` of a source.
    pub fn new(source: usize, range: std::ops::Range<usize>) -> Self {
        Span {
            source,
            start: range.start,
            end: range.end.max(range.start),
        }
    }

    /// The empty piece behind this one.
    pub fn after(self) -> Self {
        Span {
            start: self.end,
            ..self
        }
    }

    /// A piece of this one, by bytes from its start.
    pub fn part(self, start: usize, end: usize) -> Self {
        Span {
            source: self.source,
            start: (self.start + start).min(self.end),
            end: (self.start + end).min(self.end),
        }
    }
}

impl Source {
    /// Line and column of a byte, both from 1; columns count characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let offset = self.boundary(offset);
        let before = &self.text[..offset];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        (line, before[start..].chars().count() + 1)
    }

    /// The greatest character boundary that is not behind `offset`.
    pub fn boundary(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }

    /// The text of a span, cut to whole characters.
    pub fn slice(&self, span: Span) -> &str {
        let start = self.boundary(span.start);
        &self.text[start..self.boundary(span.end).max(start)]
    }
}

impl Sources {
    /// Adds a text and says its number.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>, base: &Path) -> usize {
        self.0.push(Source {
            name: name.into(),
            text: text.into(),
            base: base.to_owned(),
        });
        self.0.len() - 1
    }

    /// Takes the last one away again.
    pub(crate) fn pop(&mut self) {
        self.0.pop();
    }

    /// The source of this number.
    pub fn get(&self, number: usize) -> Option<&Source> {
        self.0.get(number)
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }

    /// `name:line:column` of a span's start.
    pub fn place(&self, span: Span) -> String {
        match self.get(span.source) {
            Some(source) => {
                let (line, column) = source.position(span.start);
                format!("{}:{line}:{column}", source.name)
            }
            None => String::from("<unknown>"),
        }
    }

    /// The text of a span.
    pub fn slice(&self, span: Span) -> &str {
        self.get(span.source)
            .map_or("", |source| source.slice(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_never_split_one() {
        let mut sources = Sources::default();
        sources.add("x", "a = \"é\"\nöö = 1", Path::new(""));
        let source = sources.get(0).cloned();
        let place = |offset| source.as_ref().map(|source| source.position(offset));
        assert_eq!(place(0), Some((1, 1)));
        assert_eq!(place(7), Some((1, 7)), "behind the two bytes of é");
        assert_eq!(place(6), Some((1, 6)), "inside é counts as its start");
        assert_eq!(place(14), Some((2, 4)));
        assert_eq!(place(999), Some((2, 7)), "beyond the end is the end");
    }
}
