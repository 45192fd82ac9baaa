//! `features.reader`: feature files in.

use std::sync::Mutex;
use std::sync::PoisonError;

use weir_plugin::param::{SlideFile, Slides};
use weir_plugin::{
    Buffer, Call, Choice, Error, Result, Row, SlideInfo, Source, SourceSlide, Step, Tile, Waker,
};

use crate::corners::Corners;
use crate::file::FeatureFile;
use crate::layout::Layout;

/// Whose files they are, or what each file shows of itself.
#[derive(Choice, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// By what is in the file.
    #[default]
    Auto,
    /// TRIDENT's.
    Trident,
    /// CLAM's.
    Clam,
    /// STAMP's.
    Stamp,
}

impl Which {
    /// The layout, where it is said.
    pub fn layout(self) -> Option<Layout> {
        match self {
            Which::Auto => None,
            Which::Trident => Some(Layout::Trident),
            Which::Clam => Some(Layout::Clam),
            Which::Stamp => Some(Layout::Stamp),
        }
    }
}

/// Reads feature files of TRIDENT, CLAM and STAMP (HDF5), one a slide
///
/// `slides` names files, folders, patterns or manifests; a slide's id is the manifest's, else the file's stem.
///
/// | layout | features | places of the rows |
/// |---|---|---|
/// | trident | `features`: [rows, numbers] | `coords`, level-0 px; side of a tile `patch_size_level0`, size of a px 10 um divided by `level0_magnification` |
/// | clam | `features`: [rows, numbers] | `coords`, level-0 px; side of a tile `patch_size` x `downsample` (x `custom_downsample`) |
/// | stamp | `feats`: [rows, numbers] | `coords`, um; side of a tile `tile_size_um` (or `tile_size`), its pixels `tile_size_px` |
///
/// Numbers are f16, f32, f64 or whole ones, packed with gzip, LZF, shuffle or Fletcher-32 or not. Places in um become level-0 px by
/// the slide's mpp (manifest, then `mpp`); where nobody says it, by the mpp of STAMP's tiles, and the places are then px of the tiles.
/// Rows without places are laid out in the order of the file, in a square. No two rows may lie at one place.
///
/// A file that is damaged, cut off, or of another width fails its slide, and the others go on; a row with a number that is none, or
/// of 1e18 or more, is a failed tile. A file without rows is a legal, empty slide. Rows are read a block at a time, so that memory
/// is bounded whatever the files hold.
#[derive(weir_plugin::Stage)]
#[stage(
    source,
    id = "features.reader",
    state(tile = 40),
    example = "[stage.features]
use = \"features.reader\"
slides = [\"features/*.h5\"]
features = 1536
"
)]
#[output(features: features["$features"], doc = "The feature vector of each row")]
pub struct Reader {
    /// Feature files: files, folders, patterns with `*`, or manifests (CSV with the columns slide, path, label, split, patient, mpp)
    #[param(extensions = ["h5", "hdf5"])]
    slides: Slides,
    /// Numbers of a feature vector; a file of another width fails its slide
    #[param(min = 1, max = 65536)]
    features: u32,
    /// Whose files they are; `auto` sees it from each file
    #[param(default = "auto")]
    layout: Which,
    /// Width and height of a row's tile, level-0 px, where the file does not say it; else the smallest distance between two places
    #[param(min = 1, max = 1048576)]
    size: Option<u32>,
    /// Size of a level-0 px where neither the manifest nor the file says it, um/px
    #[param(min = 0.05, max = 20.0)]
    mpp: Option<f64>,
}

impl Source for Reader {
    type Slide = OpenSlide;

    fn slide(&self, i: u64, _: &Call) -> Result<Option<SlideInfo>> {
        let entry = usize::try_from(i).ok().and_then(|i| self.slides.0.get(i));
        Ok(entry.map(about))
    }

    fn open(&self, i: u64, _: Waker, call: &Call) -> Result<(SlideInfo, OpenSlide)> {
        let entry = usize::try_from(i).ok().and_then(|i| self.slides.0.get(i));
        let entry = entry.ok_or_else(|| Error::new(format!("there is no slide {i}")))?;
        let (info, slide, note) = self.open_entry(entry).map_err(|error| {
            Error::new(format!("{}: {}", entry.path.display(), error.message()))
                .help(error.what_to_do())
        })?;
        if let Some(note) = note {
            call.info(&format!("{}: {note}", entry.path.display()));
        }
        Ok((info, slide))
    }
}

fn about(entry: &SlideFile) -> SlideInfo {
    SlideInfo {
        id: entry.id.clone(),
        path: entry.path.display().to_string(),
        patient: entry.patient.clone(),
        label: entry.label.clone(),
        split: entry.split.clone(),
        mpp: entry.mpp.map(|mpp| (mpp, mpp)),
        ..SlideInfo::default()
    }
}

impl Reader {
    fn open_entry(&self, entry: &SlideFile) -> Result<(SlideInfo, OpenSlide, Option<String>)> {
        let file = FeatureFile::open(&entry.path, self.layout.layout())?;
        if file.width != self.features as usize && !(file.rows == 0 && file.width == 0) {
            return Err(Error::new(format!(
                "its features have {} numbers, and the stage says features = {}",
                file.width, self.features
            ))
            .help("set `features` to the width of the files, and use a model of that width"));
        }
        let mut note = None;
        let known = entry.mpp.or(file.said.mpp).or(self.mpp);
        let mpp = known.or_else(|| {
            let mpp = file.tile_mpp()?;
            note = Some(format!(
                "nobody says the slide's mpp, so its places are px of its tiles, {mpp} um each"
            ));
            Some(mpp)
        });
        let corners = file.corners(mpp, self.size.map(f64::from))?;
        let tile_px = file.said.tile_px.unwrap_or(corners.side).round();
        let (width, height) = file.said.size.unwrap_or_default();
        let info = SlideInfo {
            // What a file says of its size is no less than what its rows cover.
            size: (width.max(corners.extent.0), height.max(corners.extent.1)),
            mpp: mpp.map(|mpp| (mpp, mpp)),
            tiles: file.rows as u64,
            tile_footprint: corners.side,
            tile_mpp: mpp.map_or(0.0, |mpp| mpp * corners.side / tile_px.max(1.0)),
            tile_px: tile_px.clamp(1.0, f64::from(u32::MAX)) as u32,
            ..about(entry)
        };
        let slide = OpenSlide {
            width: self.features,
            file,
            corners,
            sent: Mutex::new(0),
        };
        Ok((info, slide, note))
    }
}

/// A file whose rows are sent.
pub struct OpenSlide {
    width: u32,
    file: FeatureFile,
    corners: Corners,
    /// Rows.
    sent: Mutex<usize>,
}

impl SourceSlide for OpenSlide {
    fn next(&self, _: &Call) -> Result<Step> {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(&(x, y)) = self.corners.at.get(*sent) else {
            return Ok(Step::End);
        };
        *sent += 1;
        Ok(Step::Tile(Tile {
            x,
            y,
            width: self.width,
            height: 1,
        }))
    }

    fn read(&self, row: &Row, into: Buffer, _: &Call) -> Result<()> {
        let place = self.corners.row((row.x, row.y)).ok_or_else(|| {
            Error::new(format!("no row of the file lies at ({}, {})", row.x, row.y))
        })?;
        self.file.row(place as usize, into.features()?)
    }
}
