//! Units that must not be mixed up: the most frequent class of mistakes in this field is a coordinate of the wrong level.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};

/// A length or position in pixels of the slide's greatest resolution.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize, Default)]
pub struct Level0Px(pub f64);

/// A length in micrometres.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize, Default)]
pub struct Um(pub f64);

/// A pixel's size in um per px.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Mpp(pub f64);

impl Level0Px {
    /// The length in micrometres on a slide whose level 0 has `mpp`.
    pub fn to_um(self, mpp: Mpp) -> Um {
        Um(self.0 * mpp.0)
    }
}

impl Um {
    /// The length in level-0 px on a slide whose level 0 has `mpp`.
    pub fn to_level0(self, mpp: Mpp) -> Level0Px {
        Level0Px(self.0 / mpp.0)
    }
}

impl Add for Level0Px {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Level0Px(self.0 + other.0)
    }
}

impl Sub for Level0Px {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Level0Px(self.0 - other.0)
    }
}

impl fmt::Display for Level0Px {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} px", self.0)
    }
}

impl fmt::Display for Um {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} um", self.0)
    }
}

impl fmt::Display for Mpp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} um/px", self.0)
    }
}
