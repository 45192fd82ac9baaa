//! What a tile is changed by: from the source's statistics to the target's.

use crate::degenerate::Degenerate;
use crate::lab::Lab;
use crate::macenko::{self, Estimate, Scratch, Stains};
use crate::recolour::Recolour;
use crate::reinhard::{self, Colours, Transfer};

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Macenko's method.
    Stains(Stains),
    /// Reinhard's method.
    Colours(Colours),
}

/// A method with its target.
#[derive(Debug)]
pub struct Normaliser {
    /// How stained pixels are told and stains estimated.
    pub estimate: Estimate,
    /// Whether glass stays as it is; see [`crate::density::Light::shares`].
    pub keep_glass: bool,
    /// Where to.
    pub target: Target,
    /// For Reinhard's method.
    pub lab: Lab,
}

/// What a tile is changed by.
#[derive(Clone, Debug)]
pub enum Change {
    /// Densities, linearly.
    Recolour(Recolour),
    /// Colours, shifted and stretched.
    Transfer(Box<Transfer>),
}

impl Normaliser {
    /// By the pixels' own statistics.
    pub fn change(&self, pixels: &[u8], scratch: &mut Scratch) -> Result<Change, Degenerate> {
        match &self.target {
            Target::Stains(target) => {
                let source = self.estimate.stains(pixels, scratch)?;
                self.stains(&source, target)
            }
            Target::Colours(target) => {
                let Estimate { light, least, .. } = &self.estimate;
                let source = reinhard::colours(&self.lab, light, self.keep_glass, *least, pixels)?;
                Ok(self.colours(&source, target))
            }
        }
    }

    /// By statistics that are known.
    pub fn known(&self, source: &Target) -> Option<Change> {
        match (source, &self.target) {
            (Target::Stains(source), Target::Stains(target)) => self.stains(source, target).ok(),
            (Target::Colours(source), Target::Colours(target)) => {
                Some(self.colours(source, target))
            }
            _ => None,
        }
    }

    fn stains(&self, source: &Stains, target: &Stains) -> Result<Change, Degenerate> {
        let matrix = macenko::normalisation(source, target).ok_or(Degenerate::OneDye)?;
        Ok(Change::Recolour(Recolour::new(
            &self.estimate.light,
            &matrix,
            self.keep_glass,
        )))
    }

    fn colours(&self, source: &Colours, target: &Colours) -> Change {
        Change::Transfer(Box::new(Transfer::new(
            source,
            target,
            &self.estimate.light,
            self.keep_glass,
        )))
    }

    /// Changes pixels in place, interleaved red, green and blue.
    pub fn apply(&self, change: &Change, pixels: &mut [u8]) {
        match change {
            Change::Recolour(recolour) => recolour.apply(pixels),
            Change::Transfer(transfer) => transfer.apply(&self.lab, pixels),
        }
    }
}
