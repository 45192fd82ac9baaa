//! A slide reader without the engine, and a slide for it.

use super::fence::Fence;
use super::stand::Given;
use super::trials::No;
use crate::load::Loaded;
use crate::manifest;
use crate::reader::{PluginHandle, PluginSlide, sniff};
use crate::who::Who;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_abi::reader::Reader;
use weir_slide::SlideError;

/// A reader of a loaded plugin.
pub(super) struct Glass {
    pub about: &'static manifest::Reader,
    table: &'static Reader,
    who: Arc<Who>,
    slide: Option<PathBuf>,
    pub seed: u64,
    /// Where files may be made.
    pub folder: PathBuf,
}

/// A rectangle of a level, px of the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rectangle {
    pub level: u32,
    pub corner: (i64, i64),
    pub size: (u32, u32),
}

impl fmt::Display for Rectangle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rectangle {
            level,
            corner: (x, y),
            size: (width, height),
        } = self;
        write!(
            f,
            "the {width} x {height} px at ({x}, {y}) of level {level}"
        )
    }
}

impl Glass {
    pub fn new(loaded: &'static Loaded, id: &str, given: &Given) -> Result<Glass, No> {
        let manifest = loaded.manifest();
        let about = manifest.readers.iter().find(|reader| reader.id == id);
        let (Some(about), Some(table)) = (about, loaded.reader(id)) else {
            return Err(No::Failed(format!("it has no reader `{id}`")));
        };
        let key = format!("{id}.path=");
        let set = given.set.iter().find_map(|text| text.strip_prefix(&key));
        Ok(Glass {
            about,
            table,
            who: Arc::new(Who::plugin(&manifest.name, &manifest.version)),
            slide: set
                .map(|path| given.from.join(path))
                .or_else(|| given.slide.map(Path::to_owned)),
            seed: given.seed,
            folder: given.folder.to_owned(),
        })
    }

    /// The slide that was given.
    pub fn slide(&self) -> Result<&Path, No> {
        self.slide.as_deref().ok_or_else(|| {
            No::Skipped(format!(
                "it needs a slide: give --slide FILE, or --set {}.path=FILE",
                self.about.id
            ))
        })
    }

    /// Whether a handle may be read from by several threads.
    pub fn is_parallel(&self) -> bool {
        self.table.flags & weir_abi::reader::PARALLEL != 0
    }

    /// What the reader makes of a name and first bytes, which end where nobody may read on.
    pub fn sniff(&self, path: &Path, head: &[u8]) -> Result<i32, No> {
        let mut fence = Fence::new(head.len(), 1).map_err(No::Failed)?;
        fence.bytes_mut().copy_from_slice(head);
        let said = sniff(self.table, path, fence.bytes_mut());
        match (0..=100).contains(&said) {
            true => Ok(said),
            false => Err(No::Failed(format!(
                "sniff() said {said} of {}: it is 0 to 100",
                path.display()
            ))),
        }
    }

    /// Opens a file.
    pub fn open(&self, path: &Path) -> Result<PluginHandle, SlideError> {
        PluginSlide::new(self.table, self.who.clone(), path, None)?.handle()
    }

    /// Opens the slide.
    pub fn opened(&self) -> Result<PluginHandle, No> {
        let slide = self.slide()?;
        self.open(slide).map_err(|error| {
            No::Failed(format!(
                "it cannot open {}: {}",
                slide.display(),
                error.what
            ))
        })
    }
}

/// What a region was read to.
pub(super) struct Region {
    /// Interleaved RGB, rows side by side.
    pub pixels: Vec<u8>,
    /// What is wrong with what was written elsewhere.
    pub beside: Option<&'static str>,
}

/// Reads a region into rows that stand `gap` bytes apart from each other, in memory that held `before`.
pub(super) fn read(
    handle: &PluginHandle,
    at: Rectangle,
    gap: usize,
    before: u8,
) -> Result<Region, SlideError> {
    let (width, height) = (at.size.0 as usize, at.size.1 as usize);
    let row = width * 3;
    let pitch = row + gap;
    let len = (height.saturating_sub(1)) * pitch + row;
    let unmade =
        |what: String| SlideError::new(weir_slide::Fault::Io, String::new(), what, String::new());
    let mut fence = Fence::new(len, 1).map_err(unmade)?;
    fence.bytes_mut().fill(before);
    // SAFETY: the fence has all rows, and this alone.
    let said = unsafe {
        let into = fence.bytes_mut().as_mut_ptr();
        handle.region(at.level, at.corner, at.size, into, pitch)
    };
    let mut beside = None;
    if !fence.is_whole() {
        beside = Some("it wrote beside the region's memory");
    }
    let bytes = fence.bytes_mut();
    let mut pixels = Vec::with_capacity(row * height);
    for line in bytes.chunks(pitch.max(1)) {
        pixels.extend_from_slice(&line[..row]);
        if line[row..].iter().any(|&byte| byte != before) {
            beside = Some("it wrote between the rows: they are `pitch` bytes apart");
        }
    }
    said.map(|()| Region { pixels, beside })
}
