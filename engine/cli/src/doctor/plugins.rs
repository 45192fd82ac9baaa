//! Plugins that are found by their names.

use super::{Finding, Judgement, finding as found, good};
use crate::plugin;
use weir_plugin_host::{Catalogue, Policy};

const NAME: &str = "plugins";

/// Which folders there are, what is in them, and what the machine's owner allows.
pub fn finding() -> Finding {
    let catalogue = match Catalogue::here(false) {
        Ok(catalogue) => catalogue,
        Err(error) => {
            let remedy = "mend the file, or ask who wrote it: nothing runs before";
            return found(NAME, Judgement::Bad, error.to_string(), remedy);
        }
    };
    let (what, sound) = plugin::summary(catalogue.folders());
    if !sound {
        let remedy = "some files or folders cannot be used: `weir plugin list` says why";
        return found(NAME, Judgement::Note, what, remedy);
    }
    match catalogue.rules().plugins {
        Policy::Any => good(NAME, what),
        Policy::Pinned | Policy::None => {
            let rules = format!("{what}; {}", catalogue.rules().said_by);
            good(NAME, rules)
        }
    }
}

/// What the reader of the plugin of this name keeps, in words that go on a line; nothing where the plugin is not found.
pub fn cache_of(name: &str) -> String {
    let Ok(catalogue) = Catalogue::here(false) else {
        return String::new();
    };
    let Ok(described) = catalogue.look(std::path::Path::new(name)) else {
        return String::new();
    };
    let mut readers = described.manifest().readers.iter();
    readers
        .find_map(|reader| reader.cache.as_ref())
        .map_or_else(String::new, |cache| {
            format!("; its cache: {}", plugin::cache(cache))
        })
}
