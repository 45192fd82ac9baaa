//! Plugins as the checker sees them: what a file asks for, and what somebody who can look into a library answers.
//!
//! This crate opens no libraries, so whoever checks a file brings a [`Plugins`]; the one of weir-plugin-host reads what a
//! library says of itself without running any of it.

use crate::{RunSettings, Schema};
use std::path::PathBuf;

/// What a file says in `[plugin.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginAsk {
    /// NAME: the plugin's, and the namespace of its stages.
    pub name: String,
    /// `path`, absolute or relative to the working directory; without it the plugin is looked for by its name.
    pub path: Option<PathBuf>,
    /// `version`, a semver requirement as it was written.
    pub version: Option<String>,
    /// `sha256` as it was written.
    pub sha256: Option<String>,
    /// `isolate`.
    pub isolate: bool,
}

/// A plugin that may be used. Nothing of it has run.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// Its name, which is its table's.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the file, 64 hexadecimal digits.
    pub sha256: String,
    /// The file.
    pub file: PathBuf,
    /// Whether it runs in a process of its own: the file or the machine's policy says so.
    pub isolate: bool,
    /// Its stage types, named with the namespace.
    pub schemas: &'static [Schema],
    /// Ids of its slide readers.
    pub readers: Vec<String>,
    /// Endings of the files that those take from folders, without the dot.
    pub extensions: Vec<String>,
    /// Bytes that its slide readers keep of all slides of a process together: part of `run.memory`.
    pub cache: u64,
    /// What its stages allocate beside rows and slides: part of `run.memory`.
    pub memory: Vec<StageMemory>,
    /// Files of the same name in later folders, which are not used.
    pub shadowed: Vec<PathBuf>,
    /// Where it was not looked for although somebody named the folder: which, why, and what to do.
    pub unsearched: Vec<String>,
}

/// What a stage of a plugin allocates at most, whatever slides are open, as a network its weights and layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageMemory {
    /// The stage's type.
    pub stage: String,
    /// The parameter that says how many bytes an instance allocates.
    pub param: String,
    /// How many instances there are in a process of a run.
    pub instances: Instances,
}

/// How many instances of a plugin's stage there are in a process of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instances {
    /// One.
    One,
    /// One a helper thread.
    OfHelpers,
    /// One a slide that is open.
    OfSlides,
}

impl Instances {
    /// How many these are.
    pub fn count(self, run: &RunSettings) -> u64 {
        match self {
            Instances::One => 1,
            Instances::OfHelpers => run.helpers.max(1) as u64,
            Instances::OfSlides => run.open_slides.max(1) as u64,
        }
    }
}

/// Why a plugin is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginRefusal {
    /// As `E0506`.
    pub code: &'static str,
    /// Which key of the table it is about.
    pub about: About,
    /// The file, where there is one.
    pub file: Option<PathBuf>,
    /// What is wrong; "it" is the file.
    pub what: String,
    /// What to do about it, and what else helps.
    pub help: Vec<String>,
}

/// A key of `[plugin.NAME]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The table as a whole.
    Table,
    /// `path`, or the table where that is not given.
    Path,
    /// `version`.
    Version,
    /// `sha256`.
    Sha256,
}

/// Who can say what a plugin is.
pub trait Plugins {
    /// The plugin that a file asks for, or why not.
    fn plugin(&self, ask: &PluginAsk) -> Result<Plugin, PluginRefusal>;
}

/// No plugin at all: for what has built-in stages only.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPlugins;

impl Plugins for NoPlugins {
    fn plugin(&self, ask: &PluginAsk) -> Result<Plugin, PluginRefusal> {
        Err(PluginRefusal {
            code: "E0501",
            about: About::Table,
            file: None,
            what: format!(
                "plugin `{}` was not looked for: only built-in stages are known here",
                ask.name
            ),
            help: vec!["`weir stages` lists what is built in".into()],
        })
    }
}
