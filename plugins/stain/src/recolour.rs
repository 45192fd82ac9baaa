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
    // None where every share is 1.
    shares: Option<Box<[f32; 256]>>,
}

/// Density beyond which a factor is as good as 0 or as much as f32 products can bear.
const MOST: f64 = 25.0;
/// Pixels of a block.
const BLOCK: usize = 256;

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
            shares: keep_glass.then(|| Box::new(light.shares(true))),
        }
    }

    /// Changes pixels in place, interleaved red, green and blue.
    pub fn apply(&self, pixels: &mut [u8]) {
        // Three channels a pixel, stored four at a time: each pixel's fourth is overwritten by the next one's first.
        let mut made = [0f32; 3 * BLOCK + 1];
        let mut shares = [1f32; 3 * BLOCK + 1];
        for block in pixels.chunks_mut(3 * BLOCK) {
            let triples = block.as_chunks::<3>().0;
            for (i, [r, g, b]) in triples.iter().enumerate() {
                let x = &self.tables[0][usize::from(*r)];
                let y = &self.tables[1][usize::from(*g)];
                let z = &self.tables[2][usize::from(*b)];
                let mut product = [0f32; 4];
                for c in 0..4 {
                    product[c] = x[c] * y[c] * z[c];
                }
                made[3 * i..3 * i + 4].copy_from_slice(&product);
            }
            if let Some(by_level) = &self.shares {
                for (i, [r, g, b]) in triples.iter().enumerate() {
                    let darkest = *r.min(g).min(b);
                    shares[3 * i..3 * i + 4].fill(by_level[usize::from(darkest)]);
                }
            }
            for ((level, made), share) in block.iter_mut().zip(&made).zip(&shares) {
                // Held before it is mixed, so that a very dark or bright result weighs no more than black or white.
                let new = (made - 1.0).clamp(0.0, 255.0);
                let old = f32::from(*level);
                *level = round(old + share * (new - old));
            }
        }
    }
}

/// The nearest grey level of a number from 0 to 255.
#[inline(always)]
pub fn round(level: f32) -> u8 {
    whole(level) as u8
}

/// The nearest whole number, in the last 22 bits, of a number from 0 to 2^22: added to 2^23, it has no place for its fraction.
/// Unlike a cast this needs no care for what does not fit, so it runs in vectors.
#[inline(always)]
pub fn whole(number: f32) -> u32 {
    (number + 8_388_608.0).to_bits()
}
