//! `weir plugin pin`: hashes into a pipeline file.

use crate::message::{Done, Manner, Refusal};
use crate::pipeline;
use std::io::{self, Write};
use std::path::Path;
use toml_edit::{DocumentMut, Item, TableLike, Value};
use weir_pipeline::{Diagnostic, Overrides, Plugin};
use weir_runtime::exit;

/// Writes `sha256` into the `[plugin.X]` tables of `file`: of all, or of `name` alone. Everything else in it stays as it is,
/// and it is written whole or not at all.
pub fn pin(file: &Path, name: Option<&str>, manner: &Manner, out: &mut dyn Write) -> Done {
    let plugins = super::catalogue(false)?.pinning();
    let registry = weir_stages::registry();
    let checked = weir_pipeline::check(file, &Overrides::default(), &registry, &plugins);
    // Variables that have no value yet, and whatever else is not about plugins, do not matter here.
    let about_plugins: Vec<Diagnostic> = checked
        .diagnostics
        .iter()
        .filter(|found| matches!(&found.code.id[1..3], "01" | "05") && found.code.id != "E0502")
        .cloned()
        .collect();
    pipeline::print(&about_plugins, &checked.sources, manner);
    if about_plugins.iter().any(Diagnostic::is_error) {
        return Err(Refusal::Told(exit::USAGE));
    }
    let wanted = |plugin: &&Plugin| name.is_none_or(|name| plugin.name == name);
    let wanted: Vec<&Plugin> = checked.plugins.iter().filter(wanted).collect();
    if wanted.is_empty() {
        return Err(match name {
            Some(name) => Refusal::usage(
                format!("{} has no sound table [plugin.{name}]", file.display()),
                "`weir validate` says what is wrong with the file",
            ),
            None => Refusal::usage(
                format!("{} names no plugins", file.display()),
                "there is nothing to pin: the stages that it uses are built in",
            ),
        });
    }
    let cannot = |error: io::Error| {
        Refusal::failed(
            format!("{} cannot be written: {error}", file.display()),
            "check the permissions of the file and of its folder",
        )
    };
    let text = std::fs::read_to_string(file).map_err(cannot)?;
    let pinned = edit(&text, &wanted).map_err(|what| {
        Refusal::usage(
            format!("{}: {what}", file.display()),
            "write the hash that `weir plugin inspect` shows where it belongs",
        )
    })?;
    if pinned != text {
        replace(file, &pinned).map_err(cannot)?;
    }
    if !manner.quiet {
        for plugin in wanted {
            let (name, version) = (&plugin.name, &plugin.version);
            let of = plugin.file.display();
            writeln!(out, "{name} {version}  {}  {of}", plugin.sha256)?;
        }
    }
    Ok(exit::DONE)
}

/// The text with the hashes of `plugins`.
fn edit(text: &str, plugins: &[&Plugin]) -> Result<String, String> {
    let mut document: DocumentMut = text
        .parse()
        .map_err(|error: toml_edit::TomlError| error.message().to_owned())?;
    for plugin in plugins {
        let name = &plugin.name;
        let table = document
            .get_mut("plugin")
            .and_then(Item::as_table_like_mut)
            .and_then(|tables| tables.get_mut(name))
            .and_then(Item::as_table_like_mut)
            .ok_or_else(|| format!("there is no table [plugin.{name}] to write into"))?;
        set(table, &plugin.sha256).map_err(|what| format!("[plugin.{name}] {what}"))?;
    }
    let pinned = document.to_string();
    // Lines that are added end as the file's own lines do.
    let ending = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let pinned = pinned.replace("\r\n", "\n").replace('\n', ending);
    // A mark at the beginning is no part of the text, and stays.
    match text.strip_prefix('\u{feff}') {
        Some(_) if !pinned.starts_with('\u{feff}') => Ok(format!("\u{feff}{pinned}")),
        _ => Ok(pinned),
    }
}

fn set(table: &mut dyn TableLike, sha256: &str) -> Result<(), String> {
    let Some(item) = table.get_mut("sha256") else {
        table.insert("sha256", toml_edit::value(sha256));
        return Ok(());
    };
    let Some(Value::String(old)) = item.as_value_mut() else {
        return Err("has a `sha256` that is no text".into());
    };
    if old.value().contains("${") {
        return Err("takes `sha256` from a variable".into());
    }
    if old.value().eq_ignore_ascii_case(sha256) {
        return Ok(());
    }
    // What stands beside the value, as a comment, stays.
    let around = old.decor().clone();
    let mut new = toml_edit::Formatted::new(sha256.to_owned());
    *new.decor_mut() = around;
    *old = new;
    Ok(())
}

/// Puts `text` in the place of the file's, whole or not at all; a link stays a link, and the permissions stay.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let file = file.canonicalize()?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.as_file()
        .set_permissions(file.metadata()?.permissions())?;
    new.as_file().sync_all()?;
    new.persist(&file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plugin(name: &str, sha256: &str) -> Plugin {
        Plugin {
            name: name.into(),
            version: "1.0.0".into(),
            sha256: sha256.into(),
            file: "lib.so".into(),
            isolate: false,
            schemas: &[],
            readers: Vec::new(),
            extensions: Vec::new(),
            cache: 0,
            memory: Vec::new(),
            shadowed: Vec::new(),
            unsearched: Vec::new(),
        }
    }

    #[test]
    fn only_the_hash_changes_whatever_the_layout() {
        let (a, b) = (plugin("a", "00ff"), plugin("b-c", "11ee"));
        for (text, pinned) in [
            (
                "weir = 1 # one\n\n# the plugin\n[plugin.a]\npath   = 'x'  # here\n\n# a stage\n[stage.s]\n",
                "weir = 1 # one\n\n# the plugin\n[plugin.a]\npath   = 'x'  # here\nsha256 = \"00ff\"\n\n# a stage\n[stage.s]\n",
            ),
            (
                "[plugin.a]\r\n[stage.s]\r\n",
                "[plugin.a]\r\nsha256 = \"00ff\"\r\n[stage.s]\r\n",
            ),
            (
                "[plugin.a]\nsha256='old'   # why\nisolate = true\n",
                "[plugin.a]\nsha256=\"00ff\"   # why\nisolate = true\n",
            ),
            (
                "[plugin]\na = { path = 'x' }\nb-c.version = '1'\n",
                "[plugin]\na = { path = 'x' , sha256 = \"00ff\" }\nb-c.version = '1'\nb-c.sha256 = \"11ee\"\n",
            ),
            (
                "[plugin.a]\nsha256 = '00FF'\n",
                "[plugin.a]\nsha256 = '00FF'\n",
            ),
        ] {
            let wanted = [&a, &b];
            let wanted = if text.contains("b-c") {
                &wanted[..]
            } else {
                &wanted[..1]
            };
            assert_eq!(edit(text, wanted).unwrap(), pinned);
            assert_eq!(edit(pinned, wanted).unwrap(), pinned, "twice is once");
        }
        for text in [
            "[plugin.a]\nsha256 = '${x}'\n",
            "[plugin.a]\nsha256 = 1\n",
            "weir = 1\n",
        ] {
            assert!(edit(text, &[&a]).is_err(), "{text}");
        }
    }

    #[test]
    fn a_link_stays_a_link_and_permissions_stay() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();
        replace(&link, "new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
