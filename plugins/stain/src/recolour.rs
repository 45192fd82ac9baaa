//! A linear change of densities, applied to grey levels.
//!
//! With `d` the densities of a pixel and `m` a matrix, the new grey level of channel `c` is
//! `light * exp(-sum_j m[c][j] d[j]) - 1 = light * product_j t[j][c](v[j]) - 1`: three tables of 256, so a pixel costs three
//! look-ups and six products instead of three logarithms and three exponentials. Tables are made in f64 and kept in f32, whose
//! three roundings move a grey level by less than 1e-4.

use crate::density::Light;
use crate::vector::Matrix;

/// Tables of one matrix.
#[derive(Clone, Debug)]
pub struct Recolour {
    // [input channel][grey level][output channel], the fourth for alignment.
    tables: Box<[[[f32; 4]; 256]; 3]>,
    shares: [f32; 256],
}

/// Density beyond which a factor is as good as 0 or as much as f32 products can bear.
const MOST: f64 = 25.0;

impl Recolour {
    /// Tables for a matrix of densities. `keep_glass`: see [`Light::shares`].
    pub fn new(light: &Light, matrix: &Matrix, keep_glass: bool) -> Recolour {
        let mut tables = Box::new([[[0f32; 4]; 256]; 3]);
        for (j, table) in tables.iter_mut().enumerate() {
            // The light is part of the first table.
            let factor = if j == 0 { light.level() } else { 1.0 };
            for (entry, density) in table.iter_mut().zip(light.densities()) {
                for (value, row) in entry.iter_mut().zip(matrix) {
                    *value = (factor * (-row[j] * density).clamp(-MOST, MOST).exp()) as f32;
                }
            }
        }
        Recolour {
            tables,
            shares: light.shares(keep_glass),
        }
    }

    /// Changes pixels in place, interleaved red, green and blue.
    pub fn apply(&self, pixels: &mut [u8]) {
        for pixel in pixels.as_chunks_mut::<3>().0 {
            *pixel = self.pixel(*pixel);
        }
    }

    /// The same into other memory of the same length.
    pub fn apply_to(&self, pixels: &[u8], into: &mut [u8]) {
        let pairs = pixels.as_chunks::<3>().0.iter().zip(into.as_chunks_mut::<3>().0);
        for (pixel, into) in pairs {
            *into = self.pixel(*pixel);
        }
    }

    #[inline(always)]
    fn pixel(&self, pixel: [u8; 3]) -> [u8; 3] {
        let [r, g, b] = pixel;
        let x = &self.tables[0][usize::from(r)];
        let y = &self.tables[1][usize::from(g)];
        let z = &self.tables[2][usize::from(b)];
        let share = self.shares[usize::from(r.min(g).min(b))];
        let old = [r, g, b, 0];
        let new: [f32; 4] = std::array::from_fn(|c| {
            let old = f32::from(old[c]);
            let new = x[c] * y[c] * z[c] - 1.0;
            // Held before it is mixed, so that a very dark or bright result weighs no more than black or white.
            let new = new.clamp(0.0, 255.0);
            // The half makes the cut-off of `as` a rounding.
            old + share * (new - old) + 0.5
        });
        [new[0] as u8, new[1] as u8, new[2] as u8]
    }
}
