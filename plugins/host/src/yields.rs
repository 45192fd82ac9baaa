//! What a plugin's source gives, tiles or their features, and how these lie in a slide.

use crate::listed::Listed;
use weir_record::Grid;

/// What flows out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Of {
    /// Tiles of this resolution, um/px; 0 where the plan does not know it.
    Pixels { mpp: f64, height: u32, width: u32 },
    /// Vectors of this width.
    Features { width: u32 },
}

impl Of {
    /// The tiles of a slide as the plugin opened it; `level`: um/px of its level 0, 0 where not known.
    pub fn grid(self, opened: &Listed, level: f64) -> Grid {
        let (px, mpp) = match self {
            Of::Pixels { mpp, width, .. } if mpp > 0.0 => (width, mpp),
            Of::Pixels { width, .. } => (width, opened.tile_mpp),
            // Of the sizes that the plugin leaves out, the two others say the third.
            Of::Features { .. }
                if opened.tile_mpp <= 0.0 && opened.footprint > 0.0 && opened.tile_px > 0 =>
            {
                let px = opened.tile_px;
                (px, level * opened.footprint / f64::from(px))
            }
            Of::Features { .. } => (opened.tile_px, opened.tile_mpp),
        };
        let by_mpp = match level > 0.0 && mpp > 0.0 {
            true => f64::from(px) * mpp / level,
            false => f64::from(px),
        };
        Grid {
            footprint: if opened.footprint > 0.0 {
                opened.footprint
            } else {
                by_mpp
            },
            mpp,
            px,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tiles_mpp_follows_from_its_slides_where_the_plugin_leaves_it_out() {
        let listed = Listed {
            footprint: 448.0,
            tile_px: 224,
            ..Listed::default()
        };
        let grid = Of::Features { width: 3 }.grid(&listed, 0.25);
        assert_eq!((grid.px, grid.mpp, grid.footprint), (224, 0.5, 448.0));
        let grid = Of::Features { width: 3 }.grid(&listed, 0.0);
        assert_eq!((grid.px, grid.mpp, grid.footprint), (224, 0.0, 448.0));
    }
}
