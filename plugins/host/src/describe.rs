//! A library that was looked at, with what it says of itself.

use crate::elf;
use crate::file::PluginFile;
use crate::manifest::{self, Manifest};
use crate::refusal::Refusal;
use crate::schema;
use std::ops::Range;
use std::path::Path;
use weir_pipeline::Schema;

/// A plugin whose file is sound and whose manifest was read; nothing of it has run.
#[derive(Debug)]
pub struct Described {
    file: PluginFile,
    /// Where in the file the manifest's text stands.
    text: Range<usize>,
    manifest: Manifest,
    schemas: &'static [Schema],
}

impl Described {
    /// Reads, checks and describes the file.
    pub fn read(path: &Path) -> Result<Described, Refusal> {
        Described::of(PluginFile::read(path)?)
    }

    /// Checks and describes a file that was read.
    pub fn of(file: PluginFile) -> Result<Described, Refusal> {
        let described = || {
            let library = elf::check(file.bytes())?;
            let section = &file.bytes()[library.manifest.clone()];
            let manifest = Manifest::parse(section)?;
            let schemas = schema::of(&manifest, file.sha256()).map_err(manifest::invalid)?;
            let end = section.iter().position(|byte| *byte == 0);
            let start = library.manifest.start;
            let text = start..end.map_or(library.manifest.end, |end| start + end);
            Ok((text, manifest, schemas))
        };
        let (text, manifest, schemas) =
            described().map_err(|refusal: Refusal| refusal.of(file.path()))?;
        Ok(Described {
            file,
            text,
            manifest,
            schemas,
        })
    }

    /// The file.
    pub fn file(&self) -> &PluginFile {
        &self.file
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The same as it stands in the file, without its terminating zero.
    pub(crate) fn text(&self) -> &[u8] {
        &self.file.bytes()[self.text.clone()]
    }

    /// Its stages as the checker knows them, in the manifest's order; the same ones whenever the same bytes are described.
    pub fn schemas(&self) -> &'static [Schema] {
        self.schemas
    }
}
