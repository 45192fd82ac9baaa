//! Whose a call is.

use crate::log::{Counters, Level, Log};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
use weir_record::Slab;
use weir_runtime::Stop;

/// Whose call it is, for messages; and what all calls of a stage have in common.
pub(crate) struct Who {
    /// The stage's name in the pipeline file; empty while a plugin is loaded.
    pub(crate) stage: String,
    /// As "plugin `stain` 0.3.1".
    pub(crate) plugin: String,
    /// As `stain`.
    pub(crate) plugin_name: String,
    pub(crate) log: Log,
    pub(crate) counters: Counters,
    pub(crate) stop: Stop,
    pub(crate) folder: PathBuf,
    pub(crate) slab: Option<Slab>,
    /// How long a call may take.
    pub(crate) timeout: Duration,
    /// It was told that it leaves a thread's rounding changed.
    pub(crate) rounding_told: Mutex<bool>,
}

impl Who {
    /// A line of the log, under the stage's name or, where there is none, the plugin's.
    pub(crate) fn line(&self, level: Level, text: &str) {
        let name = match self.stage.as_str() {
            "" => &self.plugin_name,
            stage => stage,
        };
        self.log.line(level, name, text);
    }

    pub(crate) fn plugin(name: &str, version: &semver::Version) -> Who {
        Who {
            stage: String::new(),
            plugin: format!("plugin `{name}` {version}"),
            plugin_name: name.to_owned(),
            log: Log::default(),
            counters: Default::default(),
            stop: Stop::default(),
            folder: PathBuf::new(),
            slab: None,
            timeout: Duration::from_secs(60),
            rounding_told: Mutex::default(),
        }
    }
}
