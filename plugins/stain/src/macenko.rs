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
    stained: Vec<[f32; 3]>,
    values: Vec<f32>,
    others: Vec<f32>,
}

impl Estimate {
    /// The stains of pixels, interleaved red, green and blue. Their order does not matter, to the last bit.
    pub fn stains(&self, pixels: &[u8], scratch: &mut Scratch) -> Result<Stains, Degenerate> {
        let moments = self.gather(pixels, &mut scratch.stained);
        Degenerate::check(moments.count(), (pixels.len() / 3) as u64, self.least)?;
        let [first, second] =
            self.directions(&moments, &scratch.stained, &mut scratch.values).ok_or(Degenerate::OneDye)?;
        let (haematoxylin, eosin) = if first[0] > second[0] { (first, second) } else { (second, first) };
        let inverse = unmix(haematoxylin, eosin).ok_or(Degenerate::OneDye)?;
        let concentrations = self
            .most(pixels, inverse, &mut scratch.values, &mut scratch.others)
            .filter(|most| most.iter().all(|most| *most > NOTHING))
            .ok_or(Degenerate::OneDye)?;
        Ok(Stains { haematoxylin, eosin, concentrations })
    }

    /// The densities of the stained pixels, and their moments.
    fn gather(&self, pixels: &[u8], stained: &mut Vec<[f32; 3]>) -> Moments {
        let densities = self.light.densities().map(|density| density as f32);
        let summands = self.light.densities().map(fixed);
        let mut moments = Moments::default();
        let mut block = [[0i32; 3]; 256];
        stained.clear();
        for part in pixels.chunks(3 * block.len()) {
            let mut filled = 0;
            for [r, g, b] in part.as_chunks::<3>().0 {
                // Written always and counted when stained, so that no branch depends on the pixel.
                let at = [*r, *g, *b].map(usize::from);
                block[filled] = at.map(|v| summands[v]);
                filled += usize::from(self.light.is_stained([*r, *g, *b]));
            }
            moments.add(&block[..filled]);
        }
        stained.reserve(moments.count() as usize);
        stained.extend(
            pixels
                .as_chunks::<3>()
                .0
                .iter()
                .filter(|pixel| self.light.is_stained(**pixel))
                .map(|pixel| pixel.map(|v| densities[usize::from(v)])),
        );
        moments
    }

    /// The two extreme directions of the stained pixels, in no order.
    fn directions(
        &self,
        moments: &Moments,
        stained: &[[f32; 3]],
        angles: &mut Vec<f32>,
    ) -> Option<[Vector; 2]> {
        let (values, vectors) = eigen::symmetric(moments.covariance());
        if values[1] <= FLAT * values[0] || values[0] <= 0.0 {
            return None;
        }
        let mean = moments.mean();
        // The mean's direction within the plane, and the one across.
        let ahead = unit(mix(vectors[0], dot(vectors[0], mean), vectors[1], dot(vectors[1], mean)))?;
        let aside = mix(vectors[0], dot(vectors[1], ahead), vectors[1], -dot(vectors[0], ahead));
        let [(a, b)] = [(ahead.map(|x| x as f32), aside.map(|x| x as f32))];
        let project = |od: &[f32; 3], v: [f32; 3]| od[0] * v[0] + od[1] * v[1] + od[2] * v[2];
        angles.clear();
        // The tangent orders as the angle does while nothing lies behind, and costs a division instead of an arc tangent.
        let mut behind = false;
        angles.extend(stained.iter().map(|od| {
            let ahead = project(od, a);
            behind |= ahead <= 0.0;
            project(od, b) / ahead
        }));
        if behind {
            angles.clear();
            angles.extend(stained.iter().map(|od| project(od, b).atan2(project(od, a))));
        }
        let angle = |value: f32| if behind { f64::from(value) } else { f64::from(value).atan() };
        let extremes = neighbours(angles, [self.alpha, 100.0 - self.alpha])?;
        let directions = extremes.map(|(low, high, way)| {
            let angle = between(angle(low), angle(high), way);
            mix(ahead, angle.cos(), aside, angle.sin())
        });
        Some(directions)
    }

    /// The 99th percentiles of both concentrations over all pixels.
    fn most(
        &self,
        pixels: &[u8],
        inverse: [Vector; 2],
        first: &mut Vec<f32>,
        second: &mut Vec<f32>,
    ) -> Option<[f64; 2]> {
        let densities = self.light.densities().map(|density| density as f32);
        let inverse = inverse.map(|row| row.map(|x| x as f32));
        first.clear();
        second.clear();
        let pixels = pixels.as_chunks::<3>().0;
        first.reserve(pixels.len());
        second.reserve(pixels.len());
        for pixel in pixels {
            let od = pixel.map(|v| densities[usize::from(v)]);
            let at = |row: [f32; 3]| od[0] * row[0] + od[1] * row[1] + od[2] * row[2];
            first.push(at(inverse[0]));
            second.push(at(inverse[1]));
        }
        Some([percentile(first, MOST)?, percentile(second, MOST)?])
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
        let (h, e) = (target.haematoxylin[i] * scale(0), target.eosin[i] * scale(1));
        mix(first, h, second, e)
    });
    Some(matrix)
}
