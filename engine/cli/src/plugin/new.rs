//! `weir plugin new`: a project to start from.

use crate::message::{Done, Refusal};
use std::io::Write;
use std::path::PathBuf;
use weir_plugin_host::new::{Language, project};

/// What `weir plugin new` was told.
#[derive(Clone, Debug, clap::Args)]
pub struct New {
    /// The plugin's name, which its stages begin with: lower-case letters, digits and hyphens.
    pub name: String,
    /// What it is written in.
    #[arg(long, value_enum, default_value_t = Lang::Rust)]
    pub lang: Lang,
    /// The folder to write, new or empty; NAME here when none is given.
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// Folder of weir-plugin in a checkout, as plugins/sdk; without it cargo is asked for the published crate.
    #[arg(long)]
    pub sdk: Option<PathBuf>,
}

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Lang {
    /// Rust, with the crate weir-plugin.
    Rust,
    /// C11, with nothing but a header.
    C,
}

/// Writes the project.
pub fn new(arguments: &New, out: &mut dyn Write) -> Done {
    let folder = match &arguments.folder {
        Some(folder) => folder.clone(),
        None => PathBuf::from(&arguments.name),
    };
    let language = match arguments.lang {
        Lang::Rust => Language::Rust,
        Lang::C => Language::C,
    };
    let files = project(&arguments.name, language, &folder, arguments.sdk.as_deref())
        .map_err(|what| Refusal::usage(what, ""))?;
    for file in files {
        writeln!(out, "wrote {}", file.display())?;
    }
    let (build, file) = match arguments.lang {
        Lang::Rust => (
            "cargo build --release",
            format!("target/release/lib{}.so", arguments.name.replace('-', "_")),
        ),
        Lang::C => ("make", format!("lib{}.so", arguments.name)),
    };
    writeln!(
        out,
        "next: cd {} && {build} && weir plugin check {file}",
        folder.display()
    )?;
    Ok(0)
}
