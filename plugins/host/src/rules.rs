//! What the machine's owner allows: `/etc/weir/weir.toml`.

use crate::admit::Policy;
use crate::refusal::Refusal;
use std::fmt;
use std::path::{Path, PathBuf};

/// The file.
pub const FILE: &str = "/etc/weir/weir.toml";

/// The environment variable that names one more such file. It can only forbid: of two files the stricter word holds.
pub const VARIABLE: &str = "WEIR_RULES";

/// What is allowed, and who says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Which plugins.
    pub plugins: Policy,
    /// Whether each runs in a process of its own, whatever a pipeline says.
    pub isolate: bool,
    /// Who forbids, as `plugins = "pinned" in /etc/weir/weir.toml`; empty when nothing is forbidden.
    pub said_by: String,
    /// Who asks for processes, as `isolate = "always"` in /etc/weir/weir.toml; empty when nobody does.
    pub isolate_said_by: String,
}

/// A file of rules that cannot be followed. Nothing is allowed then, because nobody knows what was forbidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

impl std::error::Error for RulesError {}

impl Rules {
    /// Of this machine. Where [`FILE`] is not there, everything is allowed.
    pub fn here() -> Result<Rules, RulesError> {
        let machine = Path::new(FILE);
        let mut rules = match machine.try_exists() {
            Ok(false) => Rules::default(),
            Ok(true) | Err(_) => Rules::read(machine)?,
        };
        if let Some(file) = std::env::var_os(VARIABLE) {
            rules = rules.and(Rules::read(Path::new(&file))?);
        }
        Ok(rules)
    }

    /// Of a file.
    pub fn read(file: &Path) -> Result<Rules, RulesError> {
        let wrong = |what: String| RulesError {
            file: file.to_owned(),
            what,
        };
        let text = std::fs::read_to_string(file)
            .map_err(|error| wrong(format!("it cannot be read: {error}")))?;
        Rules::parse(&text, &file.display().to_string()).map_err(wrong)
    }

    fn parse(text: &str, file: &str) -> Result<Rules, String> {
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| format!("it is not TOML: {}", error.message()))?;
        let mut rules = Rules::default();
        for (key, value) in &table {
            match (key.as_str(), value.as_str()) {
                ("plugins", Some("any")) | ("isolate", Some("asked")) => {}
                ("plugins", Some(word @ ("pinned" | "none"))) => {
                    rules.plugins = match word {
                        "none" => Policy::None,
                        _ => Policy::Pinned,
                    };
                    rules.said_by = format!("`plugins = \"{word}\"` in {file}");
                }
                ("isolate", Some("always")) => {
                    rules.isolate = true;
                    rules.isolate_said_by = format!("`isolate = \"always\"` in {file}");
                }
                ("plugins", _) => {
                    return Err(format!(
                        "`plugins` is \"none\", \"pinned\" or \"any\", and here it is {value}"
                    ));
                }
                ("isolate", _) => {
                    return Err(format!(
                        "`isolate` is \"always\" or \"asked\", and here it is {value}"
                    ));
                }
                // A misspelt rule that does nothing is worse than a message.
                _ => {
                    return Err(format!(
                        "there is no rule `{key}`: they are `plugins` and `isolate`"
                    ));
                }
            }
        }
        Ok(rules)
    }

    /// What both allow.
    #[must_use]
    pub fn and(self, other: Rules) -> Rules {
        let isolate = self.isolate || other.isolate;
        let isolate_said_by = match self.isolate {
            true => self.isolate_said_by.clone(),
            false => other.isolate_said_by.clone(),
        };
        let strict = |policy| match policy {
            Policy::Any => 0,
            Policy::Pinned => 1,
            Policy::None => 2,
        };
        let rules = if strict(other.plugins) > strict(self.plugins) {
            other
        } else {
            self
        };
        Rules {
            isolate,
            isolate_said_by,
            ..rules
        }
    }

    /// The same for `weir run --locked`: pinned ones at most.
    #[must_use]
    pub fn locked(self) -> Rules {
        self.and(Rules {
            plugins: Policy::Pinned,
            said_by: "`--locked`".into(),
            ..Rules::default()
        })
    }

    /// Whether code may run of a plugin that no pipeline names, so that none pins it; here, and not in a process of its own, where
    /// `here` says so.
    pub fn unnamed(&self, here: bool) -> Result<(), Refusal> {
        let refuse = |what: &str, said_by: &str| {
            Err(Refusal::new("E0508", what, format!("{said_by} says so")))
        };
        match self.plugins {
            Policy::None => refuse("no plugins are allowed here", &self.said_by),
            Policy::Pinned => refuse(
                "only plugins that a pipeline pins are allowed here, and none is asked",
                &self.said_by,
            ),
            Policy::Any if here && self.isolate => refuse(
                "every plugin has a process of its own here, and this would run it in weir's own",
                &self.isolate_said_by,
            ),
            Policy::Any => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Result<Rules, String> {
        Rules::parse(text, "weir.toml")
    }

    #[test]
    fn of_two_the_stricter_word_holds() {
        let (any, pinned, none) = (
            parse("").unwrap(),
            parse("plugins = \"pinned\"\nisolate = \"always\"").unwrap(),
            parse("plugins = \"none\"").unwrap(),
        );
        assert_eq!(any.plugins, Policy::Any);
        for (one, other) in [(&any, &pinned), (&pinned, &any)] {
            let both = one.clone().and(other.clone());
            assert_eq!((both.plugins, both.isolate), (Policy::Pinned, true));
            assert_eq!(both.isolate_said_by, "`isolate = \"always\"` in weir.toml");
            assert_eq!(both.said_by, "`plugins = \"pinned\"` in weir.toml");
        }
        for (one, other) in [(&none, &pinned), (&pinned, &none)] {
            let both = one.clone().and(other.clone());
            assert_eq!((both.plugins, both.isolate), (Policy::None, true));
        }
        assert_eq!(any.locked().said_by, "`--locked`");
        assert_eq!(none.locked().plugins, Policy::None);
    }

    #[test]
    fn what_no_pipeline_names_is_held_to_the_rules_as_well() {
        for (text, here, apart) in [
            ("", "", ""),
            ("isolate = \"always\"", "`isolate", ""),
            ("plugins = \"pinned\"", "`plugins", "`plugins"),
            ("plugins = \"none\"", "`plugins", "`plugins"),
        ] {
            let rules = parse(text).unwrap();
            for (said, by) in [(rules.unnamed(true), here), (rules.unnamed(false), apart)] {
                let help = said.err().map_or_else(String::new, |refusal| refusal.help);
                assert_eq!(help.is_empty(), by.is_empty(), "{text}: {help}");
                assert!(help.starts_with(by), "{text}: {help}");
            }
        }
    }

    #[test]
    fn a_rule_that_is_not_understood_is_told_not_passed_over() {
        for (text, what) in [
            ("plugin = \"none\"", "there is no rule `plugin`"),
            ("plugins = \"some\"", "\"none\", \"pinned\" or \"any\""),
            ("plugins = true", "here it is true"),
            ("isolate = \"never\"", "\"always\" or \"asked\""),
            ("plugins", "not TOML"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(what), "{text}: {said}");
        }
    }
}
