//! A new plugin's project: what `weir plugin new` writes.

use std::fs;
use std::path::{Path, PathBuf};

/// The language of a new plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Rust, on the crate `weir-plugin`.
    Rust,
    /// C11, on `weir_plugin.h`, a copy of which lies in the project; beside it `weir_plugin.hpp`, for who goes on in C++17.
    C,
}

/// A file of a project: its path, in which `NAME` stands for the plugin's name, and its text.
type Template = (&'static str, &'static str);

macro_rules! template {
    ($file:literal) => {
        include_str!(concat!("../../sdk/templates/", $file))
    };
}

const RUST: &[Template] = &[
    ("Cargo.toml", template!("rust/Cargo.toml.in")),
    ("src/lib.rs", template!("rust/src/lib.rs.in")),
    ("NAME.weir.toml", template!("pipeline.weir.toml.in")),
    ("README.md", template!("rust/README.md.in")),
    (".gitignore", template!("rust/gitignore.in")),
];

const C: &[Template] = &[
    ("Makefile", template!("c/Makefile.in")),
    ("NAME.c", template!("c/plugin.c.in")),
    ("weir_plugin.h", weir_abi::HEADER),
    ("weir_plugin.hpp", weir_abi::HEADER_CPP),
    ("NAME.weir.toml", template!("pipeline.weir.toml.in")),
    ("README.md", template!("c/README.md.in")),
    (".gitignore", template!("c/gitignore.in")),
];

/// The file of the new plugin's library, where its build puts it: from the project's folder.
pub fn library(name: &str, language: Language) -> String {
    match language {
        Language::Rust => format!("target/release/lib{}.so", name.replace('-', "_")),
        Language::C => format!("lib{name}.so"),
    }
}

/// The folder of `weir-plugin` in the checkout that this program was built in (target/release/weir), if it lies in one.
pub fn sdk() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let above = program.ancestors().skip(1).take(5);
    let mut folders = above.map(|folder| folder.join("plugins/sdk"));
    folders.find(|folder| folder.join("Cargo.toml").is_file())
}

/// Writes a project that builds, with one stage `NAME.filter` and a pipeline that uses it, into `folder`, which must be new or empty.
/// `sdk` is the folder of `weir-plugin` in a checkout, which a project in Rust needs. The files that were written, in order.
///
/// # Errors
/// One sentence that says what is wrong and what to do, for a user: a name that is none, a folder with something in it, a file that
/// cannot be written.
pub fn project(
    name: &str,
    language: Language,
    folder: &Path,
    sdk: Option<&Path>,
) -> Result<Vec<PathBuf>, String> {
    check_name(name)?;
    // No registry has the crate.
    if language == Language::Rust && sdk.is_none() {
        return Err(
            "a plugin in Rust needs weir-plugin, and this program lies in no checkout of weir that has it: say where with --sdk, \
             as --sdk weir/plugins/sdk"
                .to_owned(),
        );
    }
    // Looked at before anything is written.
    let sdk = match sdk {
        Some(path) if language == Language::Rust => {
            format!("{{ path = {:?} }}", checked_sdk(path)?.to_string_lossy())
        }
        _ => String::new(),
    };
    let shown = folder.display();
    let cannot = |what: &dyn std::fmt::Display| format!("{shown}: cannot be written to: {what}");
    fs::create_dir_all(folder).map_err(|error| cannot(&error))?;
    let mut inside = fs::read_dir(folder).map_err(|error| cannot(&error))?;
    if inside.next().is_some() {
        return Err(format!(
            "{shown}: there is something in this folder already; name a new one, or an empty one"
        ));
    }
    let files = match language {
        Language::Rust => RUST,
        Language::C => C,
    };
    let mut written = Vec::with_capacity(files.len());
    for (file, text) in files {
        let path = folder.join(file.replace("NAME", name));
        let text = text
            .replace("{{name}}", name)
            .replace("{{crate}}", &name.replace('-', "_"))
            .replace("{{library}}", &library(name, language))
            .replace("{{sdk}}", &sdk);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| cannot(&error))?;
        }
        fs::write(&path, text).map_err(|error| cannot(&error))?;
        written.push(path);
    }
    Ok(written)
}

/// The folder as cargo needs it, when the crate `weir-plugin` lies in it.
fn checked_sdk(path: &Path) -> Result<PathBuf, String> {
    let no = |what: &dyn std::fmt::Display| {
        format!(
            "{}: this is not the folder of weir-plugin: {what}; name plugins/sdk of a checkout of weir with --sdk",
            path.display()
        )
    };
    let whole = path.canonicalize().map_err(|error| no(&error))?;
    let text = fs::read_to_string(whole.join("Cargo.toml"))
        .map_err(|error| no(&format_args!("its Cargo.toml cannot be read: {error}")))?;
    let names = |line: &str| {
        let named = line.split_once('=').filter(|(key, _)| key.trim() == "name");
        named.is_some_and(|(_, name)| name.trim() == "\"weir-plugin\"")
    };
    match text.lines().any(names) {
        true => Ok(whole),
        false => Err(no(&"its Cargo.toml is another crate's")),
    }
}

/// Of the form that a manifest's name has, and no word that cargo or Rust refuses as a crate's.
fn check_name(name: &str) -> Result<(), String> {
    const TAKEN: &[&str] = &[
        "test",
        "core",
        "std",
        "alloc",
        "proc-macro",
        "weir-plugin",
        "weir-plugin-derive",
        "weir-abi",
    ];
    const KEYWORDS: &[&str] = &[
        "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate",
        "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl",
        "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub",
        "ref", "return", "self", "static", "struct", "super", "trait", "true", "try", "type",
        "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
    ];
    let formed = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !formed {
        return Err(format!(
            "{name:?} cannot be a plugin's name: that is of the form [a-z][a-z0-9-]*, as `stain`"
        ));
    }
    if TAKEN.contains(&name) || KEYWORDS.contains(&name) {
        return Err(format!(
            "`{name}` cannot be a plugin's name, since cargo cannot build a crate of that name; take another"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_name_that_is_none_and_no_folder_with_something_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| project(name, Language::C, folder.path(), None);
        for name in [
            "",
            "Stain",
            "9a",
            "a_b",
            "../a",
            "match",
            "test",
            "weir-plugin-derive",
        ] {
            assert!(make(name).is_err(), "{name}");
        }
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
        assert_eq!(make("dark-tiles").unwrap().len(), C.len());
        assert!(folder.path().join("dark-tiles.c").is_file());
        assert!(
            make("dark-tiles")
                .unwrap_err()
                .contains("something in this folder")
        );
    }

    #[test]
    fn nothing_of_a_template_is_left_open() {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk");
        for (language, sdk) in [(Language::Rust, Some(&*sdk)), (Language::C, None)] {
            let folder = tempfile::tempdir().unwrap();
            for path in project("dark", language, folder.path(), sdk).unwrap() {
                let text = fs::read_to_string(&path).unwrap();
                for place in ["{{name}}", "{{crate}}", "{{library}}", "{{sdk}}"] {
                    assert!(!text.contains(place), "{}: {place}", path.display());
                }
            }
        }
    }

    #[test]
    fn a_project_in_rust_says_what_it_needs_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("dark");
        let error = project("dark", Language::Rust, &new, None).unwrap_err();
        assert!(error.contains("--sdk weir/plugins/sdk"), "{error}");
        let other = Path::new(env!("CARGO_MANIFEST_DIR"));
        for wrong in [Path::new("/nonexistent"), folder.path(), other] {
            let error = project("dark", Language::Rust, &new, Some(wrong)).unwrap_err();
            assert!(error.contains("not the folder of weir-plugin"), "{error}");
        }
        assert!(!new.exists());
    }
}
