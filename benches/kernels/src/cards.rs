//! Limits of named cards, and where each figure comes from.

use crate::cost::Ceilings;

/// A card.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Card {
    /// As `--predict` takes it.
    pub name: &'static str,
    /// As its maker calls it.
    pub full: &'static str,
    /// Copy of its memory, bytes read plus written a second.
    pub copy: f64,
    /// Product of bf16 matrices with f32 sums, operations a second.
    pub product_half: f64,
    /// f32 outside the matrix units.
    pub product: f64,
    /// Where copy and product come from.
    pub source: &'static str,
}

const MEASURED_H200: &str =
    "copy and bf16 product measured on such a card (PyTorch, random data); f32 by its data sheet";
const SHEET: &str = "data sheet: a lead, measured cards reach 80 to 90 % of it";

/// All that are known.
pub const CARDS: &[Card] = &[
    Card {
        name: "h200",
        full: "H200 SXM 141 GB",
        copy: 4.3e12,
        product_half: 788e12,
        product: 67e12,
        source: MEASURED_H200,
    },
    Card {
        name: "h100",
        full: "H100 SXM 80 GB",
        copy: 3.0e12,
        product_half: 798e12,
        product: 67e12,
        source: MEASURED_H200,
    },
    Card {
        name: "b200",
        full: "B200 SXM 180 GB",
        copy: 8.0e12,
        product_half: 2250e12,
        product: 75e12,
        source: SHEET,
    },
    Card {
        name: "a100",
        full: "A100 SXM 80 GB",
        copy: 2.039e12,
        product_half: 312e12,
        product: 19.5e12,
        source: SHEET,
    },
    Card {
        name: "l40s",
        full: "L40S 48 GB",
        copy: 0.864e12,
        product_half: 362e12,
        product: 91.6e12,
        source: SHEET,
    },
    Card {
        name: "l4",
        full: "L4 24 GB",
        copy: 0.3e12,
        product_half: 121e12,
        product: 30.3e12,
        source: SHEET,
    },
    Card {
        name: "rtx4090",
        full: "GeForce RTX 4090 24 GB",
        copy: 1.008e12,
        product_half: 165e12,
        product: 82.6e12,
        source: SHEET,
    },
];

impl Card {
    /// By its name.
    pub fn named(name: &str) -> Option<&'static Card> {
        CARDS.iter().find(|card| card.name == name)
    }

    /// Its limits. A plain read is taken to be no faster than a copy.
    pub fn ceilings(&self) -> Ceilings {
        Ceilings {
            read: self.copy,
            copy: self.copy,
            product: self.product,
            product_half: self.product_half,
        }
    }

    /// A call's time, as far as it can be said without the card.
    pub fn predicted(&self, floor: f64) -> f64 {
        LAUNCH + floor / REACHED
    }
}

/// A launch and the wait for its end, seconds: an assumption.
pub const LAUNCH: f64 = 15e-6;
/// Share of the floor that a good kernel reaches: an assumption.
pub const REACHED: f64 = 0.85;
/// From the host's memory to the card's, bytes a second: PCIe 4.0 x16 as it is reached, an assumption.
pub const CARRIED: f64 = 24e9;
