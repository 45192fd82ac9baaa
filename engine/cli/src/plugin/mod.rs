//! `weir plugin`: what plugins there are, what they are, pinning them, checking them. Only checking runs their code.

mod check;
mod inspect;
mod list;
mod load;
mod new;
mod pin;
mod readers;

pub use check::{Check, Trial};
pub use list::summary;
pub use load::{load, load_some, log, not_ready, of_plugin};
pub use new::New;
pub use readers::readers;

use crate::args;
use crate::message::{Done, Manner, Refusal};
use crate::shown;
use std::io::Write;
use weir_plugin_host::Catalogue;
use weir_plugin_host::manifest::Cache;

/// Does what was asked for.
pub fn plugin(what: &args::Plugin, manner: &Manner, out: &mut dyn Write) -> Done {
    match what {
        args::Plugin::List => list::list(manner, out),
        args::Plugin::Inspect {
            plugin,
            file: Some(file),
        } => inspect::file(plugin, file, manner, out),
        args::Plugin::Inspect { plugin, file: None } => inspect::inspect(plugin, manner, out),
        args::Plugin::New(arguments) => new::new(arguments, out),
        args::Plugin::Check(arguments) => check::check(arguments, manner, out),
        args::Plugin::Trial(arguments) => check::trial(arguments, out),
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

/// What a reader keeps of all slides, in words.
pub fn cache(cache: &Cache) -> String {
    let size = match cache.size() {
        Ok(bytes) => shown::bytes(bytes),
        Err(what) => what,
    };
    match cache.variable.as_str() {
        "" => format!("{size} for all slides of a process"),
        variable => format!("{size} for all slides of a process; {variable} says another size"),
    }
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
