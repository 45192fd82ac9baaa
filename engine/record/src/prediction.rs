//! Bags, attention and predictions.

use crate::{End, Tally};
use serde::{Deserialize, Serialize};

/// What was noticed while a bag was pooled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BagFlags(pub u8);

impl BagFlags {
    /// No member: no weights, no class.
    pub const EMPTY: BagFlags = BagFlags(1);
    /// Every attention was zero: weights are uniform.
    pub const UNIFORM: BagFlags = BagFlags(2);
    /// An attention outside 1e-18 < |a| < 1e18, where squares leave f32's range.
    pub const OUT_OF_DOMAIN: BagFlags = BagFlags(4);
    /// A selected tile failed and was left out.
    pub const DEGRADED: BagFlags = BagFlags(8);

    /// Whether every flag of `other` is set.
    pub fn has(self, other: BagFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    pub fn with(self, other: BagFlags) -> BagFlags {
        BagFlags(self.0 | other.0)
    }

    /// These, but none of `other`.
    pub fn without(self, other: BagFlags) -> BagFlags {
        BagFlags(self.0 & !other.0)
    }

    /// Names of the flags that are set, in a fixed order.
    pub fn names(self) -> Vec<&'static str> {
        [
            (Self::EMPTY, "empty"),
            (Self::UNIFORM, "uniform"),
            (Self::OUT_OF_DOMAIN, "out-of-domain"),
            (Self::DEGRADED, "degraded"),
        ]
        .into_iter()
        .filter_map(|(flag, name)| self.has(flag).then_some(name))
        .collect()
    }
}

/// What a prediction stands on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Outcomes of the tiles at the selecting stage (the first domain).
    pub source: Tally,
    /// Outcomes of the selected tiles (the second domain).
    pub selected: Tally,
}

/// The exact sums of a bag (contract `exact-q128/1`): an Abelian group, so bags merge and retract in any order to the bit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExactSums {
    /// Members.
    pub n: i64,
    /// Sum of e_i, in units of 2^-2A.
    pub s: i128,
    /// Sum of e_i h_i per component, in units of 2^-(2A+H).
    pub t: Vec<i128>,
    /// Sum of h_i per component, in units of 2^-H: pooled instead when `s` is zero.
    pub u: Vec<i128>,
}

/// Whether the slide has a prediction, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// More may come: a live slide between two publications.
    Provisional,
    /// Every version of every tile is accounted for.
    Final,
    /// The sender fell silent, or its digest differs from what was received.
    Incomplete,
    /// Could not be opened, or too many tiles failed: no class.
    Failed,
    /// The run was stopped while the slide was open: no class.
    Interrupted,
    /// No tissue: a legal result without a class.
    NoTissue,
}

/// A bag: the pooled features of the tiles that a prediction stands on. Stands at [`TileId::SLIDE`](crate::TileId::SLIDE).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bag {
    /// Members.
    pub n: u64,
    /// What was noticed.
    pub flags: BagFlags,
    /// Pooled features, `[d]`; empty when the bag is.
    pub pooled: Vec<f32>,
    /// Effective number of members, S^2 / sum e^2, in [1, n]; 0 when the bag is empty.
    pub effective: f32,
    /// Entropy of the weights, nats.
    pub entropy: f32,
    /// Exact sums, for the normalisations that have them (squared family and mean).
    pub exact: Option<ExactSums>,
    /// Numeric contract of `pooled`, as `ordered-f32/1`.
    pub contract: String,
    /// What it stands on.
    pub coverage: Coverage,
    /// Generation of the selection that it pools.
    pub selection: u32,
    /// How the domain ended; `None` while more may come.
    pub ended: Option<End>,
    /// Final, failed, ...
    pub state: State,
}

/// One member's part in its bag.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// Output of the attention head before link and normalisation.
    pub logit: f32,
    /// Normalised weight; all members' add up to 1.
    pub weight: f32,
    /// The member's part of the predicted class's logit; all parts and the bias add up to it.
    pub contribution: f32,
    /// Change of the predicted class's logit when the member is left out.
    pub leave_one_out: f32,
    /// Index of the predicted class that the last two speak of.
    pub class: u32,
}

/// Numbers of one selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picks {
    /// m highest.
    pub highest: u32,
    /// m lowest.
    pub lowest: u32,
}

/// A slide's prediction. Stands at [`TileId::SLIDE`](crate::TileId::SLIDE); the greatest revision holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Grows with each publication of the slide.
    pub revision: u32,
    /// Final, failed, ...
    pub state: State,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Index of the class with the greatest probability; the first of equals. `None` when the bag is empty or the slide failed.
    pub class: Option<u32>,
    /// Classifier's outputs, `[C]`.
    pub logits: Vec<f32>,
    /// Softmax of `logits`, `[C]`.
    pub probabilities: Vec<f32>,
    /// The bag that was classified.
    pub bag: Bag,
}
