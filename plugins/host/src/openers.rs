//! The slide readers of a run's plugins behind the engine's door: [`Openers`] of what was loaded, here or in processes of their own.

use crate::inside::inside;
use crate::isolate::reader::IsolatedReader;
use crate::manifest::{self, Manifest};
use crate::patience::watch_for;
use crate::prepare::Plugins;
use crate::reader::{PluginSlide, SLOW, sniff};
use crate::who::Who;
use std::path::Path;
use std::sync::Arc;
use weir_abi::reader::Reader;
use weir_slide::leveled::LeveledSlide;
use weir_slide::{OpenOptions, Opener, Openers, SlideError, SlideReader};

/// The readers of all plugins of a run, in this process and in their own.
pub fn openers(plugins: &Plugins) -> Openers {
    let mut all: Vec<Arc<dyn Opener>> = Vec::new();
    for &loaded in &plugins.loaded {
        for about in &loaded.manifest().readers {
            if let Some(table) = loaded.reader(&about.id) {
                let who = who(loaded.manifest(), about, plugins);
                all.push(Arc::new(PluginReader::new(table, about, who)));
            }
        }
    }
    for isolated in &plugins.isolated {
        for about in &isolated.manifest().readers {
            let who = who(isolated.manifest(), about, plugins);
            all.push(Arc::new(IsolatedReader::new(isolated, about, who)));
        }
    }
    Openers::new(all)
}

fn who(manifest: &Manifest, about: &manifest::Reader, plugins: &Plugins) -> Arc<Who> {
    Arc::new(Who {
        stage: about.id.clone(),
        log: plugins.log.clone(),
        counters: plugins.counters.clone(),
        stop: plugins.stop.clone(),
        ..Who::plugin(&manifest.name, &manifest.version)
    })
}

/// A reader of a plugin.
pub(crate) struct PluginReader {
    table: &'static Reader,
    id: String,
    extensions: Vec<String>,
    who: Arc<Who>,
}

impl PluginReader {
    pub fn new(table: &'static Reader, about: &manifest::Reader, who: Arc<Who>) -> PluginReader {
        PluginReader {
            table,
            id: about.id.clone(),
            extensions: about.extensions.clone(),
            who,
        }
    }
}

impl Opener for PluginReader {
    fn id(&self) -> &str {
        &self.id
    }

    fn extensions(&self) -> &[String] {
        &self.extensions
    }

    fn sniff(&self, path: &Path, head: &[u8], options: &OpenOptions) -> Result<i32, SlideError> {
        let timeout = options.timeout.unwrap_or(self.who.timeout);
        let shown = path.display().to_string();
        let _watched = watch_for(timeout, SLOW, &self.who, "sniff", Some(&shown));
        Ok(inside(&self.who, 0, || sniff(self.table, path, head)))
    }

    fn open(&self, path: &Path, options: &OpenOptions) -> Result<Arc<dyn SlideReader>, SlideError> {
        let slide = PluginSlide::new(self.table, self.who.clone(), path, options.timeout)?;
        Ok(Arc::new(LeveledSlide::open(
            &self.id,
            path,
            options,
            Arc::new(slide),
        )?))
    }
}
