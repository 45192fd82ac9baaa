//! Mean and deviation of colours, by Reinhard's method.
//!
//! E. Reinhard et al., "Color transfer between images", IEEE CG&A 2001: each channel of a space in which channels hardly depend
//! on each other is shifted and stretched until mean and deviation are the target's. The space here is CIELAB and not Ruderman's
//! l-alpha-beta of the paper: it has no logarithm of nothing at black, its deviations are of one size for all channels, and it is
//! what torchstain, TIAToolbox, StainTools and Slideflow take, so their targets serve here.

use crate::degenerate::Degenerate;
use crate::density::Light;
use crate::lab::{BLOCK, Lab, Planes};
use crate::moments::{Moments, fixed};
use crate::recolour::round;
use crate::vector::Vector;
use serde::{Deserialize, Serialize};

/// Mean and standard deviation (divided by the number) of L (0 to 100), a and b.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Colours {
    /// Mean.
    pub mean: Vector,
    /// Standard deviation.
    pub deviation: Vector,
}

/// A published target: Slideflow's preset `reinhard_fast` v3, the average of about 50,000 tiles of about 450 slides of TCGA.
pub const REFERENCE: Colours = Colours {
    mean: [58.12343, 26.483482, -12.701005],
    deviation: [14.675022, 7.5744166, 5.226378],
};

/// Deviation below which a channel has nothing to stretch: a grey level is about 0.4 units.
const FLAT: f64 = 0.05;

/// The colours of pixels, interleaved red, green and blue: of those that are no glass where it is kept, else of all. Their order
/// does not matter, to the last bit. `least`: share of pixels that must be no glass.
pub fn colours(
    lab: &Lab,
    light: &Light,
    keep_glass: bool,
    least: f64,
    pixels: &[u8],
) -> Result<Colours, Degenerate> {
    let mut moments = Moments::default();
    let mut planes: Planes = [[0.0; BLOCK]; 3];
    let mut taken = [[0u8; 3]; BLOCK];
    let mut count = 0;
    let mut flush = |taken: &[[u8; 3]]| {
        lab.planes(taken, &mut planes);
        let mut summands = [[0i32; 3]; BLOCK];
        for (c, plane) in planes.iter().enumerate() {
            for (summand, value) in summands.iter_mut().zip(plane) {
                summand[c] = fixed(f64::from(*value));
            }
        }
        moments.add(&summands[..taken.len()]);
    };
    for pixel in pixels.as_chunks::<3>().0 {
        taken[count] = *pixel;
        count += usize::from(!(keep_glass && light.is_glass(*pixel)));
        if count == BLOCK {
            flush(&taken);
            count = 0;
        }
    }
    flush(&taken[..count]);
    Degenerate::check(moments.count(), (pixels.len() / 3) as u64, least)?;
    let covariance = moments.covariance();
    let deviation: Vector = std::array::from_fn(|c| covariance[c][c].max(0.0).sqrt());
    if let Some(flat) = deviation.iter().position(|deviation| *deviation < FLAT) {
        return Err(Degenerate::OneColour(['L', 'a', 'b'][flat]));
    }
    Ok(Colours {
        mean: moments.mean(),
        deviation,
    })
}

/// Shift and stretch from one to the other.
#[derive(Clone, Debug)]
pub struct Transfer {
    scale: [f32; 3],
    shift: [f32; 3],
    shares: [f32; 256],
}

impl Transfer {
    /// From the source's colours to the target's. `keep_glass`: see [`Light::shares`].
    pub fn new(source: &Colours, target: &Colours, light: &Light, keep_glass: bool) -> Transfer {
        let scale: Vector = std::array::from_fn(|c| target.deviation[c] / source.deviation[c]);
        let shift: Vector = std::array::from_fn(|c| target.mean[c] - source.mean[c] * scale[c]);
        Transfer {
            scale: scale.map(|x| x as f32),
            shift: shift.map(|x| x as f32),
            shares: light.shares(keep_glass),
        }
    }

    /// Changes pixels in place, interleaved red, green and blue.
    pub fn apply(&self, lab: &Lab, pixels: &mut [u8]) {
        let mut planes: Planes = [[0.0; BLOCK]; 3];
        for block in pixels.as_chunks_mut::<3>().0.chunks_mut(BLOCK) {
            lab.planes(block, &mut planes);
            for (c, plane) in planes.iter_mut().enumerate() {
                for value in plane.iter_mut() {
                    *value = *value * self.scale[c] + self.shift[c];
                }
            }
            lab.levels(&mut planes);
            for (i, pixel) in block.iter_mut().enumerate() {
                let [r, g, b] = *pixel;
                let share = self.shares[usize::from(r.min(g).min(b))];
                for (c, value) in pixel.iter_mut().enumerate() {
                    let old = f32::from(*value);
                    *value = round(old + share * (planes[c][i] - old));
                }
            }
        }
    }
}
