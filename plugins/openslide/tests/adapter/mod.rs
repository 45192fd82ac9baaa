//! The plugin's slide behind the engine's door, without the C table between.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_openslide::library::{REMEDY, library};
use weir_openslide::slide::{Fault as Why, Said as By, Slide};
use weir_openslide::sniff::sniff;
use weir_slide::leveled::{Found, FoundLevel, Handle, Handles, LeveledSlide, Said};
use weir_slide::{Associated, Fault, OpenOptions, Opener, Openers, SlideError, SlideReader};

pub struct OpenSlide(Vec<String>);

impl OpenSlide {
    pub fn openers() -> Openers {
        Openers::new([Arc::new(OpenSlide(vec!["mrxs".into()])) as Arc<dyn Opener>])
    }
}

/// Whether the tests can run: `WEIR_WITHOUT_OPENSLIDE=1` says that they need not.
pub fn there() -> bool {
    if std::env::var_os("WEIR_WITHOUT_OPENSLIDE").is_some() {
        eprintln!("skipped: WEIR_WITHOUT_OPENSLIDE is set");
        return false;
    }
    if let Err(missing) = library() {
        panic!("{missing}; {REMEDY}; WEIR_WITHOUT_OPENSLIDE=1 skips these tests");
    }
    true
}

/// Whether the library is OpenSlide 4 or later.
pub fn four() -> bool {
    let library = library().unwrap_or_else(|missing| panic!("{missing}"));
    if !library.at_least(4) {
        eprintln!("skipped: OpenSlide {} reads no DICOM", library.version());
    }
    library.at_least(4)
}

fn error(path: &Path, why: Why) -> SlideError {
    let fault = match why.foreign {
        true => Fault::Unsupported,
        false => Fault::Damaged,
    };
    SlideError::new(fault, path.display().to_string(), why.what, why.help)
}

impl Opener for OpenSlide {
    fn id(&self) -> &str {
        "openslide"
    }

    fn extensions(&self) -> &[String] {
        &self.0
    }

    fn sniff(&self, path: &Path, head: &[u8]) -> i32 {
        sniff(path, head).into()
    }

    fn open(&self, path: &Path, options: &OpenOptions) -> Result<Arc<dyn SlideReader>, SlideError> {
        open(path, options)
    }
}

/// The slide at `path`, without asking the native reader.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Arc<dyn SlideReader>, SlideError> {
    let handles = Arc::new(Of(path.to_owned()));
    Ok(Arc::new(LeveledSlide::open(
        "openslide",
        path,
        options,
        handles,
    )?))
}

struct Of(PathBuf);

impl Handles for Of {
    fn open(&self) -> Result<Arc<dyn Handle>, SlideError> {
        let slide = Slide::open(&self.0).map_err(|why| error(&self.0, why))?;
        Ok(Arc::new(One(self.0.clone(), slide)))
    }

    fn parallel(&self) -> bool {
        true
    }

    fn spoils(&self) -> bool {
        true
    }
}

struct One(PathBuf, Slide);

impl Handle for One {
    fn found(&self) -> Result<Found, SlideError> {
        let slide = &self.1;
        Ok(Found {
            format: slide.vendor().into(),
            vendor: slide.vendor().into(),
            pixel: slide.pixel().map(|(um, by)| {
                let by = match by {
                    By::Vendor => Said::Vendor,
                    By::Resolution => Said::Resolution,
                    By::Objective => Said::Objective,
                };
                (um, by)
            }),
            levels: slide
                .levels()
                .iter()
                .map(|level| FoundLevel {
                    width: level.width,
                    height: level.height,
                    downsample: level.downsample,
                    tile: level.tile,
                })
                .collect(),
            pictures: slide
                .pictures()
                .iter()
                .map(|picture| Associated {
                    name: picture.name.clone(),
                    width: picture.width,
                    height: picture.height,
                })
                .collect(),
            properties: slide
                .properties()
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
        })
    }

    fn read_region(
        &self,
        level: u32,
        corner: (u32, u32),
        size: (u32, u32),
        into: &mut [u8],
        pitch: usize,
    ) -> Result<(), SlideError> {
        let corner = (i64::from(corner.0), i64::from(corner.1));
        self.1
            .read_region(level, corner, size, into, pitch)
            .map_err(|why| error(&self.0, why))
    }

    fn picture(&self, index: usize, into: &mut [u8]) -> Result<(), SlideError> {
        let pitch = self.1.pictures()[index].width as usize * 3;
        self.1
            .picture(index, into, pitch)
            .map_err(|why| error(&self.0, why))
    }
}
