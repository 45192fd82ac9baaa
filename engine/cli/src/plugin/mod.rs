//! `weir plugin`: what plugins there are, what they are, and pinning them. None of their code runs.

mod inspect;
mod list;
mod pin;

pub use list::summary;

use crate::args;
use crate::message::{Done, Manner, Refusal};
use std::io::Write;
use weir_plugin_host::Catalogue;

/// Does what was asked for.
pub fn plugin(what: &args::Plugin, manner: &Manner, out: &mut dyn Write) -> Done {
    match what {
        args::Plugin::List => list::list(manner, out),
        args::Plugin::Inspect { plugin } => inspect::inspect(plugin, manner, out),
        args::Plugin::Pin { file, name } => pin::pin(file, name.as_deref(), manner, out),
    }
}

/// Where plugins are found, and which are allowed; `locked` as `weir run --locked` says.
pub fn catalogue(locked: bool) -> Result<Catalogue, Refusal> {
    Catalogue::here(locked).map_err(|error| {
        Refusal::usage(
            error,
            "no plugins are used, and nothing is run, as long as nobody knows what the file forbids",
        )
    })
}

/// A plugin that was named on the command line and cannot be used.
pub fn refused(refusal: weir_plugin_host::Refusal) -> Refusal {
    let place = refusal
        .path
        .map_or_else(String::new, |path| format!("{}: ", path.display()));
    Refusal::usage(
        format!("[{}] {place}{}", refusal.code, refusal.what),
        refusal.help,
    )
}
