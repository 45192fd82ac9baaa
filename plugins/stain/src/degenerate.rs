//! Pixels that no stain can be told from.

use std::fmt;

/// Why a tile, a picture or a slide has no statistics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Degenerate {
    /// Fewer stained pixels than asked for.
    TooLittle {
        /// Stained pixels.
        stained: u64,
        /// All pixels.
        of: u64,
        /// How many there must be.
        least: u64,
    },
    /// The stained pixels' densities lie in one point or on one line: one dye at most.
    OneDye,
    /// The colours of the pixels do not differ in this channel of CIELAB.
    OneColour(char),
}

impl fmt::Display for Degenerate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Degenerate::TooLittle { stained, of, least } => {
                write!(
                    f,
                    "{stained} of {of} pixels are stained, and {least} must be"
                )
            }
            Degenerate::OneDye => write!(f, "the stained pixels show one dye at most"),
            Degenerate::OneColour(channel) => {
                write!(f, "the pixels do not differ in {channel} of CIELAB")
            }
        }
    }
}

impl Degenerate {
    /// Fails where `stained` pixels of `of` are fewer than the share `least`, or than what a covariance needs.
    pub fn check(stained: u64, of: u64, least: f64) -> Result<(), Degenerate> {
        let least = ((of as f64 * least).ceil() as u64).max(FEWEST);
        if stained < least {
            return Err(Degenerate::TooLittle { stained, of, least });
        }
        Ok(())
    }
}

/// Below this the extreme percentiles are single pixels.
const FEWEST: u64 = 16;
