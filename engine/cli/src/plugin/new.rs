//! `weir plugin new`: a project to start from.

use crate::message::{Done, Refusal};
use std::io::Write;
use std::path::PathBuf;
use weir_plugin_host::new::{Language, library, project, sdk};

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
    /// Of a plugin in Rust, the folder of weir-plugin, plugins/sdk in a checkout; that of the checkout that this program lies in when none is given.
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
    let sdk = arguments.sdk.clone().or_else(sdk);
    let files = project(&arguments.name, language, &folder, sdk.as_deref())
        .map_err(|what| Refusal::usage(what, ""))?;
    for file in files {
        writeln!(out, "wrote {}", file.display())?;
    }
    let build = match arguments.lang {
        Lang::Rust => "cargo build --release",
        Lang::C => "make",
    };
    writeln!(
        out,
        "next: cd {} && {build} && weir plugin check {} && weir test {}.weir.toml",
        folder.display(),
        library(&arguments.name, language),
        arguments.name
    )?;
    Ok(0)
}
