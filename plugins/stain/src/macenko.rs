//! Stain vectors by Macenko's method.
//!
//! M. Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009, with the constants of
//! the authors' published code (github.com/mitkovetta/staining-normalization): of the pixels whose every channel has a density
//! of at least beta, the two first eigenvectors of the densities' covariance span a plane; the directions of the pixels at the
//! angles' percentiles alpha and 100 - alpha are the two stains; haematoxylin is the one that takes more red.
//!
//! Angles are counted from the mean density's direction instead of an eigenvector: an eigenvector's sign is arbitrary, and where
//! it points away from the pixels their angles wrap around.

use crate::degenerate::Degenerate;
use crate::density::Light;
use crate::eigen;
use crate::moments::{Moments, fixed};
use crate::percentile::{between, neighbours, percentile};
use crate::vector::{Matrix, Vector, cross, dot, mix, unit};
use serde::{Deserialize, Serialize};

/// Two stains: the direction of each one's densities, and how much of it there is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stains {
    /// Densities in red, green and blue of one unit of haematoxylin; length 1.
    pub haematoxylin: Vector,
    /// The same of eosin.
    pub eosin: Vector,
    /// 99th percentile of each one's concentration over all pixels.
    pub concentrations: [f64; 2],
}

/// The published reference: `HERef` and `maxCRef` of the authors' code, for light 240.
pub const REFERENCE: Stains = Stains {
    haematoxylin: [0.5626, 0.7201, 0.4062],
    eosin: [0.2159, 0.8012, 0.5581],
    concentrations: [1.9705, 1.0308],
};

/// The percentile that stands for "all of a stain that there is": single dark pixels do not count.
const MOST: f64 = 99.0;
/// Second eigenvalue over first, below which the pixels lie on a line.
const FLAT: f64 = 1e-7;
/// Sine of the angle between two stains, below which they are one.
const APART: f64 = 1e-3;
/// Concentration below which there is nothing to scale.
const NOTHING: f64 = 1e-3;

/// How stains are estimated.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// Grey levels as densities.
    pub light: Light,
    /// Percentile of the extreme angles, in percent: 1 as published.
    pub alpha: f64,
    /// Share of stained pixels that there must be.
    pub least: f64,
}

/// Memory that one estimate leaves to the next.
#[derive(Debug, Default)]
pub struct Scratch {
    stained: Vec<[u8; 3]>,
    first: Vec<f32>,
    second: Vec<f32>,
    boxes: Vec<u16>,
}

impl Estimate {
    /// The stains of pixels, interleaved red, green and blue. Their order does not matter, to the last bit.
    pub fn stains(&self, pixels: &[u8], scratch: &mut Scratch) -> Result<Stains, Degenerate> {
        let pixels = pixels.as_chunks::<3>().0;
        self.gather(pixels, &mut scratch.stained);
        let stained = scratch.stained.len() as u64;
        Degenerate::check(stained, pixels.len() as u64, self.least)?;
        let [first, second] = self.directions(scratch).ok_or(Degenerate::OneDye)?;
        let (haematoxylin, eosin) = if first[0] > second[0] {
            (first, second)
        } else {
            (second, first)
        };
        let inverse = unmix(haematoxylin, eosin).ok_or(Degenerate::OneDye)?;
        self.project(pixels, inverse, &mut scratch.first, &mut scratch.second);
        let mut most = |amounts: &[f32]| {
            percentile(amounts, MOST, &mut scratch.boxes).filter(|most| *most > NOTHING)
        };
        let concentrations = [
            most(&scratch.first).ok_or(Degenerate::OneDye)?,
            most(&scratch.second).ok_or(Degenerate::OneDye)?,
        ];
        Ok(Stains {
            haematoxylin,
            eosin,
            concentrations,
        })
    }

    /// The stained pixels.
    fn gather(&self, pixels: &[[u8; 3]], stained: &mut Vec<[u8; 3]>) {
        stained.resize(pixels.len(), [0; 3]);
        let mut count = 0;
        for pixel in pixels {
            // Written always and counted when stained, so that no branch depends on the pixel.
            stained[count] = *pixel;
            count += usize::from(self.light.is_stained(*pixel));
        }
        stained.truncate(count);
    }

    fn moments(&self, pixels: &[[u8; 3]]) -> Moments {
        let summands = self.light.densities().map(fixed);
        let mut moments = Moments::default();
        let mut block = [[0i32; 3]; 256];
        for part in pixels.chunks(block.len()) {
            for (summand, [r, g, b]) in block.iter_mut().zip(part) {
                *summand = [
                    summands[usize::from(*r)],
                    summands[usize::from(*g)],
                    summands[usize::from(*b)],
                ];
            }
            moments.add(&block[..part.len()]);
        }
        moments
    }

    /// The two extreme directions of the stained pixels, in no order.
    fn directions(&self, scratch: &mut Scratch) -> Option<[Vector; 2]> {
        let Scratch {
            stained,
            first,
            second,
            boxes,
        } = scratch;
        let moments = self.moments(stained);
        let (values, vectors) = eigen::symmetric(moments.covariance());
        if values[1] <= FLAT * values[0] || values[0] <= 0.0 {
            return None;
        }
        let mean = moments.mean();
        // The mean's direction within the plane, and the one across.
        let ahead = unit(mix(
            vectors[0],
            dot(vectors[0], mean),
            vectors[1],
            dot(vectors[1], mean),
        ))?;
        let aside = mix(
            vectors[0],
            dot(vectors[1], ahead),
            vectors[1],
            -dot(vectors[0], ahead),
        );
        self.project(stained, [ahead, aside], first, second);
        // The tangent orders as the angle does while nothing lies behind, and costs a division instead of an arc tangent.
        let behind = first.iter().fold(false, |any, ahead| any | (*ahead <= 0.0));
        if behind {
            first
                .iter_mut()
                .zip(&*second)
                .for_each(|(ahead, aside)| *ahead = aside.atan2(*ahead));
        } else {
            first
                .iter_mut()
                .zip(&*second)
                .for_each(|(ahead, aside)| *ahead = aside / *ahead);
        }
        let angle = |value: f32| {
            if behind {
                f64::from(value)
            } else {
                f64::from(value).atan()
            }
        };
        let extremes = neighbours(first, [self.alpha, 100.0 - self.alpha], boxes)?;
        let directions = extremes.map(|(low, high, way)| {
            let angle = between(angle(low), angle(high), way);
            mix(ahead, angle.cos(), aside, angle.sin())
        });
        Some(directions)
    }

    /// The densities' inner products with two vectors.
    fn project(
        &self,
        pixels: &[[u8; 3]],
        onto: [Vector; 2],
        first: &mut Vec<f32>,
        second: &mut Vec<f32>,
    ) {
        // Both products of a grey level side by side, so that a pixel costs three look-ups and two sums of pairs.
        let table = |c: usize| {
            self.light
                .densities()
                .map(|od| [(onto[0][c] * od) as f32, (onto[1][c] * od) as f32])
        };
        let [red, green, blue] = [table(0), table(1), table(2)];
        first.resize(pixels.len(), 0.0);
        second.resize(pixels.len(), 0.0);
        for ((pixel, first), second) in pixels.iter().zip(first).zip(second) {
            let [r, g, b] = [
                red[usize::from(pixel[0])],
                green[usize::from(pixel[1])],
                blue[usize::from(pixel[2])],
            ];
            *first = r[0] + g[0] + b[0];
            *second = r[1] + g[1] + b[1];
        }
    }
}

/// Rows that give the concentrations of two stains from densities, as least squares has them; `None` where the two are one.
pub fn unmix(haematoxylin: Vector, eosin: Vector) -> Option<[Vector; 2]> {
    let normal = cross(haematoxylin, eosin);
    let square = dot(normal, normal);
    let lengths = dot(haematoxylin, haematoxylin) * dot(eosin, eosin);
    if !square.is_finite() || square <= APART * APART * lengths {
        return None;
    }
    let row = |other: Vector, sign: f64| cross(other, normal).map(|x| sign * x / square);
    Some([row(eosin, 1.0), row(haematoxylin, -1.0)])
}

/// What turns densities of the source's stains into densities of the target's, with each concentration scaled so that the 99th
/// percentiles meet. What is no mixture of the source's two stains is dropped, as published. `None` where the source's are one.
pub fn normalisation(source: &Stains, target: &Stains) -> Option<Matrix> {
    let [first, second] = unmix(source.haematoxylin, source.eosin)?;
    let scale = |i: usize| target.concentrations[i] / source.concentrations[i];
    let matrix = std::array::from_fn(|i| {
        let (h, e) = (
            target.haematoxylin[i] * scale(0),
            target.eosin[i] * scale(1),
        );
        mix(first, h, second, e)
    });
    Some(matrix)
}
