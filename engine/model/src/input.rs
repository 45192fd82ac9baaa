//! From pixels to numbers: (x / 255 - mean) / std per channel, in one place for training and both executors.
//!
//! It is computed as [`TileForm`] says, x * (1 / (255 std)) + (-mean / std), so that a tile normalised on a device is the same
//! to the bit.

use std::fmt;
use weir_kernels::kernels::TileForm;
use weir_pipeline::model::ModelInput;

/// What a tile becomes before the first layer.
#[derive(Clone, Debug)]
pub struct Input {
    size: usize,
    form: TileForm,
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
        Input {
            size: input.size as usize,
            form: TileForm::new(input.mean, input.std),
        }
    }

    /// How bytes become numbers.
    pub fn form(&self) -> TileForm {
        self.form
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
        let start = out.len();
        out.resize(start + self.len(), 0.0);
        self.form.planes(tile, &mut out[start..]);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_byte_of_every_channel_is_the_kernels_number() {
        let input = Input::new(&ModelInput {
            size: 16,
            mpp: 1.0,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        });
        let tile: Vec<u8> = (0..input.len())
            .map(|i| (i / 3 + i % 3 * 85) as u8)
            .collect();
        let numbers = input.tensor(&[&tile]).unwrap();
        let form = input.form();
        for (place, number) in numbers.iter().enumerate() {
            let (channel, px) = (place / 256, place % 256);
            let byte = f32::from(tile[3 * px + channel]);
            let expected = byte * form.scale[channel] + form.shift[channel];
            assert_eq!(number.to_bits(), expected.to_bits());
            let textbook =
                (byte / 255.0 - [0.485, 0.456, 0.406][channel]) / [0.229, 0.224, 0.225][channel];
            assert!((number - textbook).abs() <= 1e-6);
        }
    }
}
