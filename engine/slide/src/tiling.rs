//! Where the tiles of a slide lie, at an exact resolution.

use crate::{Facts, Fault, Region, SlideError};
use weir_record::{Grid, TileId};

/// What becomes of a tile that reaches over the slide's right or lower edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// It is left out: every tile lies wholly inside.
    Drop,
    /// It is kept; the part outside the slide is white. Of a 2220 x 2967 px slide, tiles of 240 px are 10 x 13 this way and
    /// 9 x 12 with [`Edge::Drop`].
    Pad,
}

impl std::str::FromStr for Edge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "drop" => Ok(Edge::Drop),
            "pad" => Ok(Edge::Pad),
            other => Err(format!("`{other}` is no edge policy: drop or pad")),
        }
    }
}

/// A regular grid of tiles over a slide.
///
/// Corners are whole level-0 px, `round(i * stride)` from an exact stride, so no rounding adds up; footprints may be
/// fractional, so that a tile has exactly the resolution asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tiling {
    /// Footprint, resolution and size of a tile.
    pub grid: Grid,
    /// Distance of neighbouring tiles, level-0 px.
    pub stride: f64,
    /// Tiles in a row.
    pub columns: u32,
    /// Rows of tiles.
    pub rows: u32,
    /// Index of the grid in the slide's list, as it stands in [`TileId`].
    pub index: u8,
}

impl Tiling {
    /// Tiles of `px` x `px` px at `mpp` um/px over `facts`, neighbours sharing `overlap` px.
    ///
    /// Fails when the slide's mpp is not known, when `overlap` is not below `px`, or when the slide is larger than a
    /// [`TileId`] can say.
    pub fn new(
        facts: &Facts,
        px: u32,
        mpp: f64,
        overlap: u32,
        edge: Edge,
    ) -> Result<Self, SlideError> {
        let refuse = |what: String, help: &str| {
            Err(SlideError::new(Fault::Request, &facts.path, what, help))
        };
        let (own, _) = facts.require_mpp()?;
        if px == 0 || overlap >= px {
            return refuse(
                format!("tiles of {px} px cannot share {overlap} px"),
                "the overlap must be smaller than the tile",
            );
        }
        if !(mpp.is_finite() && mpp > 0.0) {
            return refuse(
                format!("{mpp} um/px is no resolution"),
                "give a positive number",
            );
        }
        let (width, height) = (facts.width(), facts.height());
        if width.max(height) > TileId::MAX_CORNER as u64 {
            return refuse(
                format!(
                    "the slide has {width} x {height} px; more than {} px a side cannot be addressed",
                    TileId::MAX_CORNER
                ),
                "cut it",
            );
        }
        // 240 px at the slide's own 0.499 um/px must be 240 level-0 px, not 239.99999999999997.
        let factor = whole_if_near(mpp / own.0);
        let footprint = whole_if_near(px as f64 * factor);
        let stride = whole_if_near((px - overlap) as f64 * factor);
        let places = |side: u64| -> u64 {
            let side = side as f64;
            match edge {
                Edge::Pad => {
                    // A tile whose new part begins inside; with overlap the last one may be covered by its neighbour.
                    let shared = footprint - stride;
                    (((side - shared) / stride).ceil()).max(1.0) as u64
                }
                Edge::Drop if side + SLACK < footprint => 0,
                Edge::Drop => {
                    let mut n = ((side - footprint) / stride).floor() as u64 + 2;
                    // Corners are rounded, so the last one is tried rather than computed.
                    while n > 0 && ((n - 1) as f64 * stride).round() + footprint > side + SLACK {
                        n -= 1;
                    }
                    n
                }
            }
        };
        Ok(Tiling {
            grid: Grid { footprint, mpp, px },
            stride,
            columns: places(width).min(u32::MAX as u64) as u32,
            rows: places(height).min(u32::MAX as u64) as u32,
            index: 0,
        })
    }

    /// Number of places.
    pub fn len(&self) -> u64 {
        self.columns as u64 * self.rows as u64
    }

    /// Whether there is no place: the slide is smaller than a tile and the edge policy drops it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Top-left corner of the tile at `column`, `row`, level-0 px.
    pub fn corner(&self, column: u32, row: u32) -> (i64, i64) {
        (
            (column as f64 * self.stride).round() as i64,
            (row as f64 * self.stride).round() as i64,
        )
    }

    /// The tile at `column`, `row`.
    pub fn tile(&self, column: u32, row: u32) -> Option<TileId> {
        let (x, y) = self.corner(column, row);
        TileId::new(self.index, 0, x, y)
    }

    /// What `tile` covers.
    pub fn region(&self, tile: TileId) -> Region {
        Region {
            x: tile.x() as f64,
            y: tile.y() as f64,
            w: self.grid.footprint,
            h: self.grid.footprint,
        }
    }

    /// All tiles, row by row.
    pub fn tiles(&self) -> impl Iterator<Item = TileId> + '_ {
        (0..self.rows)
            .flat_map(move |row| (0..self.columns).filter_map(move |column| self.tile(column, row)))
    }

    /// Sorts `tiles` so that each native tile is needed once: row by row inside strips that are so narrow that the native
    /// tiles of two bands fit into `cache_bytes`, the strips from left to right. The order never changes an answer.
    pub fn file_order(&self, tiles: &mut [TileId], facts: &Facts, cache_bytes: usize) {
        let level = level_for(
            facts.levels.iter().map(|level| level.downsample),
            self.grid.footprint / self.grid.px as f64,
        );
        let Some(level) = facts.levels.get(level) else {
            return;
        };
        // A band of model tiles touches its own rows and up to one native tile more above and below.
        let band = self.grid.footprint / level.downsample + 2.0 * level.tile_height as f64;
        let fits = cache_bytes as f64 / (3.0 * band.max(1.0));
        let strip = (fits * level.downsample)
            .max(self.stride)
            .max(level.tile_width as f64 * level.downsample);
        tiles.sort_by_key(|tile| ((tile.x() as f64 / strip).floor() as i64, *tile));
    }
}

/// The coarsest level of `downsamples` (ascending) whose resolution reaches `scale` (level-0 px per output px) within 0.1 %;
/// level 0 when none does.
pub(crate) fn level_for(downsamples: impl Iterator<Item = f64>, scale: f64) -> usize {
    downsamples
        .enumerate()
        .filter(|(_, downsample)| *downsample <= scale * 1.001)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map_or(0, |(level, _)| level)
}

/// A tile that reaches over the edge by less than this much of a pixel counts as inside.
const SLACK: f64 = 1e-6;

fn whole_if_near(value: f64) -> f64 {
    let whole = value.round();
    if (value - whole).abs() <= 1e-9 * value.abs().max(1.0) {
        whole
    } else {
        value
    }
}
