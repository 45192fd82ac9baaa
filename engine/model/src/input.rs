//! From pixels to numbers: (x / 255 - mean) / std per channel, in one place for training and both executors.

use std::fmt;
use weir_pipeline::model::ModelInput;

/// What a tile becomes before the first layer.
#[derive(Clone, Debug)]
pub struct Input {
    size: usize,
    /// For each channel and each byte, the number that it becomes.
    table: [[f32; 256]; 3],
}

/// Why a tile cannot enter a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongSize {
    /// Width and height that the model takes, px.
    pub size: usize,
    /// Bytes of the tile that came.
    pub bytes: usize,
}

impl fmt::Display for WrongSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a tile of {} bytes, but the model takes {2} x {2} px RGB, {1} bytes; set the tile-reader's `size` to {2}",
            self.bytes,
            self.size * self.size * 3,
            self.size
        )
    }
}

impl std::error::Error for WrongSize {}

impl Input {
    /// From `[input]` of `model.toml`.
    pub fn new(input: &ModelInput) -> Self {
        let mut table = [[0.0; 256]; 3];
        for (channel, row) in table.iter_mut().enumerate() {
            for (byte, value) in row.iter_mut().enumerate() {
                *value = (byte as f32 / 255.0 - input.mean[channel]) / input.std[channel];
            }
        }
        Input {
            size: input.size as usize,
            table,
        }
    }

    /// Width and height of a tile, px.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Numbers of a tile: 3 size^2.
    pub fn len(&self) -> usize {
        3 * self.size * self.size
    }

    /// Whether tiles have no pixels.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Appends the tile (interleaved RGB, rows top to bottom) as [channel, height, width].
    pub fn append(&self, tile: &[u8], out: &mut Vec<f32>) -> Result<(), WrongSize> {
        if tile.len() != self.len() {
            return Err(WrongSize {
                size: self.size,
                bytes: tile.len(),
            });
        }
        out.reserve(self.len());
        for (channel, row) in self.table.iter().enumerate() {
            out.extend(tile.chunks_exact(3).map(|px| row[px[channel] as usize]));
        }
        Ok(())
    }

    /// The tiles as [tiles, channel, height, width].
    pub fn tensor(&self, tiles: &[&[u8]]) -> Result<Vec<f32>, WrongSize> {
        let mut out = Vec::with_capacity(tiles.len() * self.len());
        for tile in tiles {
            self.append(tile, &mut out)?;
        }
        Ok(out)
    }
}
