//! A filter of thirty lines: leaves bright tiles out.

use weir_plugin::{Batch, Call, Filter, Result, Verdict};

/// Leaves bright tiles out.
///
/// A tile is left out, with the reason `bright`, when the mean of all its values is above `limit`.
#[derive(weir_plugin::Stage)]
#[stage(filter, id = "bright.filter", deterministic)]
#[input(tiles: pixels[height, width, 3], mpp = mpp)]
#[output(tiles: pixels[height, width, 3], mpp = mpp)]
struct Bright {
    /// Greatest mean of a tile's values that is kept, 0 to 255.
    #[param(default = 220.0, min = 0.0, max = 255.0)]
    limit: f64,
}

impl Filter for Bright {
    fn filter(&self, tiles: &Batch, call: &Call) -> Result<()> {
        let pixels = tiles.column::<u8>("pixels")?;
        call.sift(|i| {
            let tile = pixels.row(i);
            let sum: u64 = tile.iter().map(|value| u64::from(*value)).sum();
            let bright = sum as f64 > self.limit * tile.len() as f64;
            Ok(if bright {
                Verdict::Skip("bright")
            } else {
                Verdict::Keep
            })
        })
    }
}

weir_plugin::export! { name: "bright", summary: "Leaves bright tiles out", stages: [Bright] }
