//! A library that was looked at, with what it says of itself.

use crate::beside::Beside;
use crate::elf;
use crate::file::PluginFile;
use crate::manifest::{self, Manifest};
use crate::refusal::Refusal;
use crate::schema;
use crate::version;
use std::ops::Range;
use std::path::Path;
use weir_pipeline::Schema;

/// A plugin whose file is sound and whose manifest was read; nothing of it has run.
#[derive(Debug)]
pub struct Described {
    file: PluginFile,
    /// Where in the file the manifest's text stands; `None`: in the file beside it.
    text: Option<Range<usize>>,
    manifest: Manifest,
    schemas: &'static [Schema],
}

impl Described {
    /// Why it does not run here, where it was built for another version of the ABI.
    pub fn foreign(&self) -> Option<Refusal> {
        let manifest = self.manifest();
        let speaks = manifest.abi().is_some_and(version::speaks);
        let subject = format!("plugin `{}` {}", manifest.name, manifest.version);
        (!speaks).then(|| version::foreign(&subject, &manifest.weir_abi).of(self.file().path()))
    }

    /// Reads, checks and describes the file, by its section or by the manifest beside it ([`beside`](crate::beside)).
    pub fn read(path: &Path) -> Result<Described, Refusal> {
        let file = PluginFile::read(path)?;
        let beside = Beside::read(path).map_err(|refusal| refusal.of(path))?;
        Described::of(file, beside)
    }

    /// Checks and describes a file that was read, and what lies beside it.
    pub fn of(file: PluginFile, beside: Option<Beside>) -> Result<Described, Refusal> {
        let path = file.path().to_owned();
        described(file, beside).map_err(|refusal| refusal.of(path))
    }

    /// The file.
    pub fn file(&self) -> &PluginFile {
        &self.file
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The same as it stands in its file, without its terminating zero.
    pub(crate) fn text(&self) -> &[u8] {
        match &self.text {
            Some(text) => &self.file.bytes()[text.clone()],
            None => self.file.beside().map_or(&[], Beside::text),
        }
    }

    /// Its stages as the checker knows them, in the manifest's order; the same ones whenever the same bytes are described.
    pub fn schemas(&self) -> &'static [Schema] {
        self.schemas
    }
}

fn described(file: PluginFile, beside: Option<Beside>) -> Result<Described, Refusal> {
    let library = elf::check(file.bytes())?;
    let (file, text, manifest) = match (library.manifest, beside) {
        (Some(section), beside) => {
            let bytes = &file.bytes()[section.clone()];
            let manifest = Manifest::parse(bytes)?;
            if let Some(beside) = beside
                && Manifest::alone(beside.text()).ok().as_ref() != Some(&manifest)
            {
                return Err(beside.differs());
            }
            let end = bytes.iter().position(|byte| *byte == 0);
            let text = section.start..end.map_or(section.end, |end| section.start + end);
            (file, Some(text), manifest)
        }
        (None, Some(beside)) => {
            let manifest = Manifest::alone(beside.text())?;
            (file.described_by(beside), None, manifest)
        }
        (None, None) => return Err(Beside::missing(file.path())),
    };
    let schemas =
        schema::of(&manifest, file.sha256()).map_err(|faults| manifest::faulty(&faults))?;
    Ok(Described {
        file,
        text,
        manifest,
        schemas,
    })
}
