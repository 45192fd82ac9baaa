//! Paths: relative to the file that they stand in, or to the working directory when they come from outside.

use super::Cx;
use super::convert::push;
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::doc::Item;
use crate::nearest::nearest;
use std::path::{Component, Path, PathBuf};

/// The path that `text`, the value of `item`, means.
pub(crate) fn resolve(cx: &Cx, item: &Item, text: &str) -> PathBuf {
    let base = cx
        .sources
        .get(item.origin().source)
        .map_or(Path::new(""), |source| &source.base);
    tidy(&base.join(text))
}

/// Takes `a/..` out of a path where `a` is a folder and no link, so that messages are short.
pub(crate) fn tidy(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                let folder = matches!(out.components().next_back(), Some(Component::Normal(_)))
                    && out.symlink_metadata().is_ok_and(|found| found.is_dir());
                if !(folder && out.pop()) {
                    out.push("..");
                }
            }
            part => out.push(part),
        }
    }
    if out.as_os_str().is_empty() {
        out.push(".");
    }
    out
}

/// Whether the path exists; reports when not.
pub(crate) fn check_exists(cx: &mut Cx, item: &Item, written: &str, path: &Path) -> bool {
    if path.exists() {
        return true;
    }
    let title = if written.is_empty() {
        "an empty path".to_owned()
    } else {
        format!("there is no `{}`", path.display())
    };
    let mut diagnostic = Diagnostic::new(&codes::E0308, item.span, title, "no such file or folder");
    if let Some(near) = nearest_file(path) {
        let name = near
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let last = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        match (name, last, cx.sources.slice(item.span).rfind(written)) {
            // The text stands there as it is: only its last part changes.
            (Some(name), Some(last), Some(at))
                if item.via.is_none() && written.ends_with(&last) =>
            {
                let end = at + written.len();
                diagnostic =
                    diagnostic.fix("did you mean", item.span.part(end - last.len(), end), name);
            }
            _ => diagnostic = diagnostic.help(format!("the nearest name is `{}`", near.display())),
        }
    } else {
        let from_file = item.origin().source == 0;
        diagnostic = diagnostic.help(if from_file {
            "paths in the file are relative to the file's folder"
        } else {
            "paths on the command line are relative to the folder that you are in"
        });
    }
    push(cx, item, diagnostic);
    false
}

/// A file beside `path` with nearly the same name.
pub(crate) fn nearest_file(path: &Path) -> Option<PathBuf> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let wanted = path.file_name()?.to_string_lossy().into_owned();
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .ok()?
        .take(10_000)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    let near = nearest(&wanted, names.iter().map(String::as_str))?;
    Some(path.with_file_name(near))
}
