//! What all attributes have in common: doc comments, names.

use syn::{Attribute, Error, Expr, ExprLit, Lit, LitStr, Meta, Result};

/// The doc comment: its first paragraph as one line, and the rest as it is.
pub struct Doc {
    pub summary: String,
    pub rest: String,
}

impl Doc {
    pub fn of(attributes: &[Attribute]) -> Doc {
        let mut lines = Vec::new();
        for attribute in attributes {
            if let Meta::NameValue(pair) = &attribute.meta
                && pair.path.is_ident("doc")
                && let Expr::Lit(ExprLit {
                    lit: Lit::Str(text),
                    ..
                }) = &pair.value
            {
                // Not `lines`, which makes no line of an empty one.
                let text = text.value();
                lines.extend(
                    text.split('\n')
                        .map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned()),
                );
            }
        }
        let text = lines.join("\n");
        let (summary, rest) = text.trim().split_once("\n\n").unwrap_or((text.trim(), ""));
        Doc {
            summary: summary.split_whitespace().collect::<Vec<_>>().join(" "),
            rest: rest.trim().to_owned(),
        }
    }

    /// Both, for what has one text.
    pub fn whole(&self) -> String {
        match self.rest.as_str() {
            "" => self.summary.clone(),
            rest => format!("{}\n\n{rest}", self.summary),
        }
    }
}

/// `snake_case` and `CamelCase` as `kebab-case`.
pub fn kebab(name: &str) -> String {
    let name = name.strip_prefix("r#").unwrap_or(name);
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
        out.push(if c == '_' {
            '-'
        } else {
            c.to_ascii_lowercase()
        });
    }
    out
}

/// Refuses what is not of the form `[a-z][a-z0-9-]*`.
pub fn check_name(text: &str, at: &LitStr) -> Result<()> {
    if is_name(text) {
        return Ok(());
    }
    Err(Error::new(
        at.span(),
        format!("{text:?} is not of the form [a-z][a-z0-9-]*"),
    ))
}

/// Whether it is of the form `[a-z][a-z0-9-]*`.
pub fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// The one attribute of this name.
pub fn one<'a>(
    attributes: &'a [Attribute],
    name: &str,
    missing: impl FnOnce() -> Error,
) -> Result<&'a Attribute> {
    let mut found = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident(name));
    let first = found.next().ok_or_else(missing)?;
    match found.next() {
        None => Ok(first),
        Some(second) => Err(Error::new_spanned(
            second,
            format!("#[{name}] stands here twice"),
        )),
    }
}
