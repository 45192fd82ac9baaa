//! How large a pixel is, and who says so.

use std::fmt;
use weir_record::{Mpp, MppOrigin};

/// Smallest size that a pixel of a slide can have, um; smaller is a mistake in the file.
pub const SMALLEST: f64 = 0.05;
/// Largest size that a pixel of level 0 can have, um.
pub const LARGEST: f64 = 20.0;
/// Sizes along x and y may differ by this factor; tiles are square in um only up to it.
pub const SQUARE: f64 = 1.01;

/// What is said about a pixel's size, um along x and y; not judged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Claims {
    /// Command line or manifest. Believed whatever it says, as long as it is a positive number.
    pub given: Option<f64>,
    /// Aperio's `MPP`, OME's `PhysicalSizeX` and `PhysicalSizeY`.
    pub vendor: Option<(f64, f64)>,
    /// TIFF's XResolution and YResolution.
    pub resolution: Option<(f64, f64)>,
    /// The objective's power; 10 um/px divided by it.
    pub objective: Option<f64>,
    /// `default-mpp` of the pipeline.
    pub default: Option<f64>,
}

/// Why the first claim that was made cannot be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Implausible {
    /// Who made it.
    pub origin: MppOrigin,
    /// um along x.
    pub x: f64,
    /// um along y.
    pub y: f64,
}

impl fmt::Display for Implausible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.origin {
            MppOrigin::Given => "the given mpp",
            MppOrigin::Vendor => "the vendor's key",
            MppOrigin::Resolution => "the TIFF resolution tag",
            MppOrigin::Objective => "the objective's power",
            MppOrigin::Default => "default-mpp",
        };
        let (x, y) = (shown(self.x), shown(self.y));
        if self.x > 0.0 && self.y > 0.0 && (self.x / self.y).max(self.y / self.x) > SQUARE {
            write!(
                f,
                "{who} says that pixels are {x} x {y} um; pixels that are not square are not read"
            )
        } else {
            write!(
                f,
                "{who} says that a pixel is {x} um, which no slide has ({SMALLEST} to {LARGEST} um)"
            )
        }
    }
}

fn shown(um: f64) -> String {
    let text = format!("{um:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "0" || text == "-0" {
        format!("{um:e}")
    } else {
        text.to_string()
    }
}

impl Claims {
    /// The first claim that was made, in the order given, vendor, resolution, objective, default; `Ok(None)` when there is none.
    /// A claim that cannot be is not passed over in favour of a weaker one: somebody must look at that slide.
    pub fn resolve(&self) -> Result<Option<(Mpp, MppOrigin)>, Implausible> {
        let square = |um: f64| (um, um);
        let claims = [
            (MppOrigin::Given, self.given.map(square)),
            (MppOrigin::Vendor, self.vendor),
            (MppOrigin::Resolution, self.resolution),
            (
                MppOrigin::Objective,
                self.objective.map(|power| square(10.0 / power)),
            ),
            (MppOrigin::Default, self.default.map(square)),
        ];
        for (origin, claim) in claims {
            let Some((x, y)) = claim else { continue };
            let positive = |um: f64| um.is_finite() && um > 0.0;
            let inside = |um: f64| {
                positive(um) && (origin == MppOrigin::Given || (SMALLEST..=LARGEST).contains(&um))
            };
            if !inside(x) || !inside(y) || (x / y).max(y / x) > SQUARE {
                return Err(Implausible { origin, x, y });
            }
            let um = if x == y { x } else { (x + y) / 2.0 };
            return Ok(Some((Mpp(um), origin)));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_stronger_claim_wins() {
        let mut claims = Claims {
            given: Some(0.3),
            vendor: Some((0.499, 0.499)),
            resolution: Some((4.0, 4.0)),
            objective: Some(20.0),
            default: Some(1.0),
        };
        let mut order = Vec::new();
        for _ in 0..5 {
            let (mpp, origin) = claims.resolve().unwrap().unwrap();
            order.push((mpp.0, origin));
            match origin {
                MppOrigin::Given => claims.given = None,
                MppOrigin::Vendor => claims.vendor = None,
                MppOrigin::Resolution => claims.resolution = None,
                MppOrigin::Objective => claims.objective = None,
                MppOrigin::Default => claims.default = None,
            }
        }
        assert_eq!(
            order,
            [
                (0.3, MppOrigin::Given),
                (0.499, MppOrigin::Vendor),
                (4.0, MppOrigin::Resolution),
                (0.5, MppOrigin::Objective),
                (1.0, MppOrigin::Default)
            ]
        );
        assert_eq!(claims.resolve(), Ok(None));
    }

    #[test]
    fn an_impossible_claim_is_named_and_not_passed_over() {
        let claims = Claims {
            resolution: Some((352.778, 352.778)),
            objective: Some(20.0),
            ..Claims::default()
        };
        let text = claims.resolve().unwrap_err().to_string();
        assert_eq!(
            text,
            "the TIFF resolution tag says that a pixel is 352.778 um, which no slide has (0.05 to 20 um)"
        );
        let oblong = Claims {
            vendor: Some((0.25, 0.5)),
            ..Claims::default()
        };
        assert_eq!(
            oblong.resolve().unwrap_err().to_string(),
            "the vendor's key says that pixels are 0.25 x 0.5 um; pixels that are not square are not read"
        );
    }

    #[test]
    fn what_is_given_is_believed_unless_it_is_no_size() {
        let given = |um| {
            Claims {
                given: Some(um),
                ..Claims::default()
            }
            .resolve()
        };
        assert_eq!(given(100.0), Ok(Some((Mpp(100.0), MppOrigin::Given))));
        assert!(given(0.0).is_err() && given(f64::NAN).is_err() && given(-1.0).is_err());
    }
}
