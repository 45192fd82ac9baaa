//! How the program speaks: results on standard output, everything else on standard error, each error once.

use crate::args::{Arguments, Color, Format};
use serde_json::json;
use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use weir_runtime::exit;

/// How messages are printed: what the global flags and the terminal say.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// For people, one line each, or JSON.
    pub format: Format,
    /// Whether standard error is coloured.
    pub color: bool,
    /// No progress, no summary.
    pub quiet: bool,
}

impl Manner {
    /// What the command line and the terminal ask for.
    pub fn of(arguments: &Arguments) -> Self {
        let color = match arguments.color {
            Color::Always => true,
            Color::Never => false,
            // NO_COLOR: https://no-color.org
            Color::Auto => io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        };
        Manner {
            format: arguments.format,
            color,
            quiet: arguments.quiet,
        }
    }

    /// Prints an error with its remedy on standard error.
    pub fn error(&self, what: &str, help: &str) {
        self.say("error", "\x1b[1;31m", what, help);
    }

    /// Prints a warning with its remedy on standard error.
    pub fn warning(&self, what: &str, help: &str) {
        self.say("warning", "\x1b[1;33m", what, help);
    }

    /// Prints what is good to know on standard error.
    pub fn note(&self, what: &str, help: &str) {
        self.say("note", "\x1b[1m", what, help);
    }

    fn say(&self, level: &str, colour: &str, what: &str, help: &str) {
        let (what, help) = (&*plain(what), &*plain(help));
        let text = match self.format {
            Format::Json => json!({ "level": level, "message": what, "help": help }).to_string(),
            Format::Short if help.is_empty() => format!("{level}: {what}"),
            Format::Short => format!("{level}: {what}; {help}"),
            Format::Human => {
                let (on, off) = if self.color {
                    (colour, "\x1b[0m")
                } else {
                    ("", "")
                };
                let mut text = format!("{on}{level}{off}: {what}");
                for line in help.lines() {
                    text.push_str(&format!("\n  help: {line}"));
                }
                text
            }
        };
        // Nobody is left to be told when standard error is closed.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// A text with what a terminal acts on as escapes: words of a plugin, of a file or its name are shown, not obeyed (Unicode TR 36, 3.2).
fn plain(text: &str) -> Cow<'_, str> {
    let acts = |c: char| {
        c.is_control() && !matches!(c, '\n' | '\t')
            || matches!(c, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(acts) {
        return text.into();
    }
    let shown = text.chars().map(|c| match acts(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    });
    Cow::Owned(shown.collect())
}

/// Why a command ended without doing what it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody reads standard output any more: no fault.
    Pipe,
    /// Everything was said already: this exit code.
    Told(u8),
    /// An error that is still to be printed.
    Error {
        /// Exit code.
        exit: u8,
        /// What is wrong, where, why.
        what: String,
        /// What to do about it; may be empty.
        help: String,
    },
}

impl Refusal {
    /// What the user asked for cannot be: exit code 2.
    pub fn usage(what: impl Display, help: impl Display) -> Self {
        Refusal::Error {
            exit: exit::USAGE,
            what: what.to_string(),
            help: help.to_string(),
        }
    }

    /// What was asked for did not succeed: exit code 1.
    pub fn failed(what: impl Display, help: impl Display) -> Self {
        Refusal::Error {
            exit: exit::FAILED,
            what: what.to_string(),
            help: help.to_string(),
        }
    }

    /// A fault of weir itself: exit code 70.
    pub fn internal(what: impl Display) -> Self {
        Refusal::Error {
            exit: exit::INTERNAL,
            what: what.to_string(),
            help: "this is a fault of weir: please report it with the command and the file".into(),
        }
    }
}

/// Of standard output: every other file says its name when it fails.
impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Refusal::Pipe
        } else {
            Refusal::failed(format!("standard output cannot be written: {error}"), "")
        }
    }
}

/// What a command comes to: its exit code.
pub type Done = Result<u8, Refusal>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_shown_instead() {
        assert_eq!(plain("tile a\n\tis cursed"), "tile a\n\tis cursed");
        let sly = "red \u{1b}[31m, bell \u{7}, back\r, turned \u{202e}";
        assert_eq!(
            plain(sly),
            "red \\u{1b}[31m, bell \\u{7}, back\\r, turned \\u{202e}"
        );
    }
}
