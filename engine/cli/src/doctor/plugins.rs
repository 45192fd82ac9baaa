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
        let remedy = "some files there cannot be used: `weir plugin list` says why";
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
