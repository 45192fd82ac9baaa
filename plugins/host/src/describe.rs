//! A library that was looked at, with what it says of itself.

use crate::elf;
use crate::file::PluginFile;
use crate::manifest::Manifest;
use crate::refusal::Refusal;
use std::path::Path;

/// A plugin whose file is sound and whose manifest was read; nothing of it has run.
#[derive(Debug)]
pub struct Described {
    file: PluginFile,
    manifest: Manifest,
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
            Manifest::parse(&file.bytes()[library.manifest])
        };
        let manifest = described().map_err(|refusal| refusal.of(file.path()))?;
        Ok(Described { file, manifest })
    }

    /// The file.
    pub fn file(&self) -> &PluginFile {
        &self.file
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}
