//! One picture a stain.
//!
//! A. C. Ruifrok and D. A. Johnston, "Quantification of histochemical staining by color deconvolution", Anal. Quant. Cytol.
//! Histol. 23 (2001): two stains and what is perpendicular to both, the residual, are a basis of densities; a pixel's
//! coordinates in it are its concentrations. With `c` the concentration of a stain and `s` its direction, the pictures are
//!
//! * density: `light * exp(-c) - 1` in all three channels, so that `c = ln(light / (v + 1))` reads it back;
//! * colour: `light * exp(-c s) - 1`, what the slide would look like with that stain alone.
//!
//! Both are linear in the densities, so the tables of [`crate::recolour`] make them.

use crate::macenko::unmix;
use crate::vector::{Matrix, Vector, cross, dot, unit};

/// Haematoxylin and eosin of Ruifrok and Johnston with the digits that scikit-image (`rgb_from_hed`) has.
pub const RUIFROK: [Vector; 2] = [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]];

/// Which picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Grey: the concentration as a density.
    Density,
    /// The stain's own colour.
    Colour,
}

/// Matrices of densities for haematoxylin, eosin and residual; `None` where the two stains are one.
pub fn matrices(haematoxylin: Vector, eosin: Vector, show: Show) -> Option<[Matrix; 3]> {
    let (haematoxylin, eosin) = (unit(haematoxylin)?, unit(eosin)?);
    let [first, second] = unmix(haematoxylin, eosin)?;
    let residual = unit(cross(haematoxylin, eosin))?;
    // The residual's sign is free: the one whose sum is not negative, so that its picture is darker where more light is missing.
    let residual = if residual.iter().sum::<f64>() < 0.0 {
        residual.map(|x| -x)
    } else {
        residual
    };
    debug_assert!(dot(residual, haematoxylin).abs() < 1e-9);
    let picture = |row: Vector, stain: Vector| -> Matrix {
        std::array::from_fn(|channel| match show {
            Show::Density => row,
            Show::Colour => row.map(|x| x * stain[channel]),
        })
    };
    Some([
        picture(first, haematoxylin),
        picture(second, eosin),
        picture(residual, residual),
    ])
}
