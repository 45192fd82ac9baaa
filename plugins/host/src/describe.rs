//! A library that was looked at, with what it says of itself.

use crate::elf;
use crate::file::PluginFile;
use crate::manifest::{self, Manifest};
use crate::refusal::Refusal;
use crate::schema;
use std::path::Path;
use weir_pipeline::Schema;

/// A plugin whose file is sound and whose manifest was read; nothing of it has run.
#[derive(Debug)]
pub struct Described {
    file: PluginFile,
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
            let manifest = Manifest::parse(&file.bytes()[library.manifest])?;
            let schemas = schema::of(&manifest, file.sha256()).map_err(manifest::invalid)?;
            Ok((manifest, schemas))
        };
        let (manifest, schemas) =
            described().map_err(|refusal: Refusal| refusal.of(file.path()))?;
        Ok(Described {
            file,
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

    /// Its stages as the checker knows them, in the manifest's order; the same ones whenever the same bytes are described.
    pub fn schemas(&self) -> &'static [Schema] {
        self.schemas
    }
}
