//! From pixels to numbers: (x / 255 - mean) / std per channel, in one place for training and every executor.
//!
//! It is kernel (e) of weir-kernels on either device ([`Kernels::normalise_tiles`]), x * (1 / (255 std)) + (-mean / std), so that
//! a tile normalised on a device is the same to the bit.

use crate::executor::ExecutorError;
use std::fmt;
use weir_kernels::kernels::TileForm;
use weir_kernels::{Cpu, KernelError, Kernels, View, ViewMut};
use weir_pipeline::model::ModelInput;

/// What a tile becomes before the first layer.
#[derive(Clone, Debug)]
pub struct Input {
    size: usize,
    form: TileForm,
    /// One thread, which is the caller's: an executor's passes have one, and many run at once.
    processor: Cpu,
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
    /// From `[input]` of `model.toml`. An error where the system gives no thread.
    pub fn new(input: &ModelInput) -> Result<Self, KernelError> {
        Ok(Input {
            size: input.size as usize,
            form: TileForm::new(input.mean, input.std),
            processor: Cpu::new(1)?,
        })
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

    /// An error where the tile (interleaved RGB) has another size.
    pub fn check(&self, tile: &[u8]) -> Result<(), WrongSize> {
        if tile.len() == self.len() {
            return Ok(());
        }
        Err(WrongSize {
            size: self.size,
            bytes: tile.len(),
        })
    }

    /// Tiles, u8 [tiles, size, size, 3] (interleaved RGB, rows top to bottom), to f32 [tiles, 3, size, size], by the kernels of the
    /// device that both lie on.
    pub fn normalise(
        &self,
        on: &dyn Kernels,
        tiles: View<'_, 4>,
        out: ViewMut<'_, 4>,
    ) -> Result<(), KernelError> {
        on.normalise_tiles(tiles, self.form, out)
    }

    /// Appends a tile (interleaved RGB, rows top to bottom) as [channel, height, width], on the processor.
    pub fn append(&self, tile: &[u8], out: &mut Vec<f32>) -> Result<(), ExecutorError> {
        self.check(tile)?;
        let (start, size) = (out.len(), self.size);
        out.resize(start + self.len(), 0.0);
        let tiles = View::new(tile, [1, size, size, 3])?;
        let numbers = ViewMut::new(&mut out[start..], [1, 3, size, size])?;
        Ok(self.normalise(&self.processor, tiles, numbers)?)
    }

    /// The tiles as [tiles, channel, height, width], on the processor.
    pub fn tensor(&self, tiles: &[&[u8]]) -> Result<Vec<f32>, ExecutorError> {
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
        })
        .unwrap();
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
