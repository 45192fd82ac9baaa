//! Plugins for the checker: found, described and admitted, and kept for whoever loads them.

use crate::admit::{Admitted, Ask, Policy};
use crate::describe::Described;
use crate::find::{Folders, Found};
use crate::isolate::most_processes;
use crate::manifest::{Concurrency, Manifest};
use crate::refusal::Refusal;
use crate::rules::{Rules, RulesError};
use semver::VersionReq;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use weir_pipeline::{
    About, Instances, Plugin, PluginAsk, PluginRefusal, Plugins, Rows, StageMemory,
};

/// What is looked into, what is allowed, and what was admitted so far.
#[derive(Debug, Default)]
pub struct Catalogue {
    folders: Folders,
    rules: Rules,
    any_hash: bool,
    /// By hash.
    admitted: Mutex<BTreeMap<String, Arc<Admitted>>>,
}

impl Catalogue {
    /// Of this process and machine; `locked` as `weir run --locked` says.
    pub fn here(locked: bool) -> Result<Catalogue, RulesError> {
        let rules = Rules::here()?;
        let rules = if locked { rules.locked() } else { rules };
        Ok(Catalogue::new(Folders::here(), rules))
    }

    /// Of these folders, under these rules.
    pub fn new(folders: Folders, rules: Rules) -> Catalogue {
        Catalogue {
            folders,
            rules,
            ..Catalogue::default()
        }
    }

    /// The same, but hashes are found out, not held: for pinning.
    #[must_use]
    pub fn pinning(mut self) -> Catalogue {
        self.any_hash = true;
        self
    }

    /// Where plugins are looked for.
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// What is allowed.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// A plugin of a plan that was checked with this catalogue: the very bytes that were hashed, for the loader.
    pub fn admitted(&self, plugin: &Plugin) -> Option<Arc<Admitted>> {
        let admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        admitted.get(&plugin.sha256).cloned()
    }

    /// The plugin of this file, or of this name: what holds a `/` or ends in `.so` is a file. For looking at it, so neither
    /// rules nor pins matter.
    pub fn look(&self, file_or_name: &Path) -> Result<Described, Refusal> {
        Described::read(&self.file(file_or_name)?)
    }

    /// The file that is meant, as [`Catalogue::look`] takes it; it is not looked at.
    ///
    /// # Errors
    /// When no folder has a plugin of the name.
    pub fn file(&self, file_or_name: &Path) -> Result<PathBuf, Refusal> {
        let text = file_or_name.to_string_lossy();
        if text.contains('/') || text.ends_with(".so") {
            return Ok(file_or_name.to_owned());
        }
        Ok(self.folders.find(&text)?.path)
    }

    /// Whether plugins may be used at all, before anything is looked at.
    fn allowed(&self, ask: &PluginAsk) -> Result<(), PluginRefusal> {
        let (what, help) = match self.rules.plugins {
            Policy::None => ("no plugins are allowed here", ""),
            Policy::Pinned if ask.sha256.is_none() && !self.any_hash => (
                "only pinned plugins are allowed here, and it has no `sha256`",
                "look at the plugin, then pin it with `weir plugin pin`",
            ),
            Policy::Pinned | Policy::Any => return Ok(()),
        };
        let said = format!("{} says so", self.rules.said_by);
        let help = [said, help.to_owned()];
        Err(PluginRefusal {
            code: "E0508",
            about: About::Table,
            file: None,
            what: what.into(),
            help: help.into_iter().filter(|help| !help.is_empty()).collect(),
        })
    }

    fn find(&self, ask: &PluginAsk) -> Result<Found, PluginRefusal> {
        if let Some(path) = &ask.path {
            return Ok(Found {
                path: path.clone(),
                shadowed: Vec::new(),
            });
        }
        self.folders.find(&ask.name).map_err(|refusal| {
            let places = self.folders.places(&ask.name);
            let places = places
                .iter()
                .map(|place| format!("looked for {}", place.display()));
            let unsearched = self.folders.unsearched();
            PluginRefusal {
                code: refusal.code,
                about: About::Table,
                file: None,
                what: format!("plugin `{}` was not found", ask.name),
                help: places.chain(unsearched).chain([refusal.help]).collect(),
            }
        })
    }
}

impl Plugins for Catalogue {
    fn plugin(&self, asked: &PluginAsk) -> Result<Plugin, PluginRefusal> {
        self.allowed(asked)?;
        let ask = ask(asked, self.any_hash)?;
        let Found { path, shadowed } = self.find(asked)?;
        let refused = |refusal| {
            let mut told = told(refusal, &path);
            let others = shadowed.iter().map(|file| {
                format!(
                    "a later folder has one of that name too, which `path` can say: {}",
                    file.display()
                )
            });
            told.help.extend(others);
            told
        };
        let described = Described::read(&path).map_err(&refused)?;
        let schemas = described.schemas();
        // What the rules say of an unpinned plugin was asked above.
        let admitted = Admitted::new(described, &ask, Policy::Any).map_err(&refused)?;
        let manifest = admitted.manifest();
        let isolate = asked.isolate || self.rules.isolate;
        let processes = if isolate { most_processes() } else { 1 };
        let mut cache = 0_u64;
        for reader in manifest.readers.iter().flat_map(|reader| &reader.cache) {
            let bytes = reader.size_of(processes).map_err(|what| PluginRefusal {
                code: "E0309",
                about: About::Table,
                file: None,
                what,
                help: vec!["write it as \"64MiB\", or leave the variable unset".into()],
            })?;
            cache = cache.saturating_add(bytes);
        }
        let plugin = Plugin {
            name: manifest.name.clone(),
            version: manifest.version.to_string(),
            sha256: admitted.file().sha256().to_owned(),
            file: path,
            isolate,
            schemas,
            readers: manifest
                .readers
                .iter()
                .map(|reader| reader.id.clone())
                .collect(),
            extensions: manifest
                .readers
                .iter()
                .flat_map(|reader| reader.extensions.clone())
                .collect(),
            cache,
            memory: memory(manifest, isolate),
            shadowed,
            unsearched: match &asked.path {
                Some(_) => Vec::new(),
                None => self.folders.passed_over(),
            },
        };
        let mut known = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(plugin.sha256.clone(), Arc::new(admitted));
        Ok(plugin)
    }
}

/// What the plugin's stages allocate, of those that say so.
fn memory(manifest: &Manifest, isolate: bool) -> Vec<StageMemory> {
    let stages = manifest.stages.iter();
    stages
        .filter_map(|stage| {
            // As the stage is made ready for a run: what gathers has one for each open slide, unless it has something to do at the end,
            // which only its code says: then this is more than there are. What gives tiles has one, and in processes of its own as many.
            let helped = matches!(stage.rows, Rows::Map | Rows::Filter);
            let instances = match stage.concurrency {
                Concurrency::PerWorker if helped => Instances::OfHelpers,
                // One a process.
                Concurrency::Parallel if helped && isolate => Instances::OfHelpers,
                _ if !helped && (isolate || stage.rows != Rows::Source) => Instances::OfSlides,
                _ => Instances::One,
            };
            Some(StageMemory {
                stage: stage.id.clone(),
                param: stage.memory.clone()?,
                instances,
            })
        })
        .collect()
}

/// What is asked for, in the terms of [`Admitted::new`].
fn ask(asked: &PluginAsk, any_hash: bool) -> Result<Ask, PluginRefusal> {
    let refuse = |code, about, what: String, help: &str| PluginRefusal {
        code,
        about,
        file: None,
        what,
        help: vec![help.to_owned()],
    };
    let version = asked.version.as_deref().map(|text| {
        VersionReq::parse(text).map_err(|error| {
            refuse(
                "E0512",
                About::Version,
                format!("`{text}` is no requirement on a version: {error}"),
                "write it as \"1.2\", \"~1.2\", \"=1.2.3\" or \">=1.2, <1.5\"",
            )
        })
    });
    let sha256 = asked.sha256.as_deref().filter(|_| !any_hash);
    if let Some(text) = sha256
        && (text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err(refuse(
            "E0507",
            About::Sha256,
            "`sha256` is not 64 hexadecimal digits".into(),
            "look at the plugin, then let `weir plugin pin` write its hash",
        ));
    }
    Ok(Ask {
        name: asked.name.clone(),
        version: version.transpose()?,
        sha256: sha256.map(str::to_owned),
    })
}

/// A refusal of a file, for the checker.
fn told(refusal: Refusal, path: &Path) -> PluginRefusal {
    PluginRefusal {
        about: match refusal.code {
            "E0507" => About::Sha256,
            "E0512" => About::Version,
            _ => About::Path,
        },
        code: refusal.code,
        file: Some(path.to_owned()),
        what: refusal.what,
        help: vec![refusal.help],
    }
}
