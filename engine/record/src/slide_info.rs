//! What is known of a slide once it is open.

use crate::{Mpp, SlideKey, TileId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A regular grid of tiles. Tiles of one grid have one size and resolution; their corners are integers in level-0 px.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Width and height of a tile's footprint, level-0 px; not an integer when the slide's mpp does not divide the target's.
    pub footprint: f64,
    /// Resolution of the tile's pixels, um/px, along x and y; 0 where it is not known, as of a file of features.
    pub mpp: f64,
    /// Width and height of a tile, px.
    pub px: u32,
}

/// Who said what a pixel's size is; the first that speaks wins, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MppOrigin {
    /// Given on the command line or in the manifest.
    Given,
    /// A vendor's key, as Aperio's `MPP`, or OME's `PhysicalSizeX`.
    Vendor,
    /// TIFF's XResolution and ResolutionUnit.
    Resolution,
    /// Computed from the objective's power (10 um/px divided by it).
    Objective,
    /// `default-mpp` of the pipeline.
    Default,
}

impl fmt::Display for MppOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MppOrigin::Given => "given",
            MppOrigin::Vendor => "vendor",
            MppOrigin::Resolution => "resolution",
            MppOrigin::Objective => "objective",
            MppOrigin::Default => "default",
        })
    }
}

/// A slide, as every stage sees it. Travels once a slide, ahead of its tiles, in [`Body::Opened`](crate::Body::Opened).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlideInfo {
    /// The name in the manifest, else the file's stem. Unique in a run.
    pub id: String,
    /// Digest of `id`: for seeds and ties.
    pub key: SlideKey,
    /// Where the slide was read from, as the user wrote it.
    pub path: String,
    /// Size of level 0, px; zero for a slide that could not be opened.
    pub width: u64,
    /// Size of level 0, px; zero for a slide that could not be opened.
    pub height: u64,
    /// Resolution of level 0, um/px, and who said so.
    pub mpp: Option<(Mpp, MppOrigin)>,
    /// The reader's name and format, as `native/aperio-svs`.
    pub reader: String,
    /// Patient of the manifest; views use the slide's id when there is none.
    pub patient: Option<String>,
    /// True class of the manifest; never used for prediction.
    pub label: Option<String>,
    /// Split of the manifest: train, val, test.
    pub split: Option<String>,
    /// Grids that [`TileId::grid`] indexes.
    pub grids: Vec<Grid>,
    /// Tiles that the source enumerates. In live use: so far.
    pub tiles: u64,
    /// Grid places that the tissue mask left out: never rows, but counted.
    pub background: u64,
    /// Size of the input in bytes and its modification time (ns since 1970), by which a later run knows that nothing changed.
    pub input: Option<(u64, u64)>,
}

impl SlideInfo {
    /// The grid of `tile`, if the slide has it.
    #[inline]
    pub fn grid(&self, tile: TileId) -> Option<&Grid> {
        self.grids.get(tile.grid() as usize)
    }

    /// A slide that could not be opened: only its name and path are known.
    pub fn unopened(id: String, key: SlideKey, path: String) -> Self {
        SlideInfo {
            id,
            key,
            path,
            width: 0,
            height: 0,
            mpp: None,
            reader: String::new(),
            patient: None,
            label: None,
            split: None,
            grids: Vec::new(),
            tiles: 0,
            background: 0,
            input: None,
        }
    }
}
