//! What a view knows of a slide.

use serde::{Deserialize, Serialize};
use weir_record::{ExactSums, State};

/// A number of a model with the order and equality of its bits' meaning, so that it may stand in a collection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Number(pub f32);

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Where a slide stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Standing {
    /// Every version of every tile is accounted for.
    Final,
    /// More may come.
    Provisional,
    /// The sender fell silent.
    Incomplete,
    /// No tissue: a legal result without a class.
    NoTissue,
    /// The run was stopped while the slide was open.
    Interrupted,
    /// Could not be opened, or too many tiles failed.
    Failed,
}

impl Standing {
    /// As the other outputs spell it.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Final => "final",
            Standing::Provisional => "provisional",
            Standing::Incomplete => "incomplete",
            Standing::NoTissue => "no-tissue",
            Standing::Interrupted => "interrupted",
            Standing::Failed => "failed",
        }
    }
}

impl From<State> for Standing {
    fn from(state: State) -> Self {
        match state {
            State::Final => Standing::Final,
            State::Provisional => Standing::Provisional,
            State::Incomplete => Standing::Incomplete,
            State::NoTissue => Standing::NoTissue,
            State::Interrupted => Standing::Interrupted,
            State::Failed => Standing::Failed,
        }
    }
}

/// A classifier's word on a slide.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Answer {
    /// Grows with each publication of the slide.
    pub revision: u32,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Index of the predicted class; `None` when there is none.
    pub class: Option<u32>,
    /// Of the classes, `[C]`.
    pub probabilities: Vec<Number>,
    /// Tiles of the bag.
    pub members: u64,
    /// What was noticed, as `degraded`.
    pub flags: Vec<String>,
    /// The bag's exact sums, where its normalisation has them.
    pub exact: Option<ExactSums>,
    /// As the prediction says.
    pub standing: Standing,
}

/// A slide in the worklist.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlideEntry {
    /// Id.
    pub slide: String,
    /// Patient of the manifest.
    pub patient: Option<String>,
    /// True class of the manifest.
    pub label: Option<String>,
    /// Where it stands.
    pub standing: Standing,
    /// What was predicted; `None` while nothing is.
    pub answer: Option<Answer>,
    /// Tiles that the source enumerates.
    pub tiles: u64,
    /// Tiles of which nothing could be made.
    pub failed: u64,
    /// Why there is no prediction; empty when there is one.
    pub reason: String,
}

impl SlideEntry {
    /// The answer, when it names a class that holds: not of a slide that failed or was interrupted.
    pub fn answered(&self) -> Option<(&Answer, usize)> {
        let holds = matches!(
            self.standing,
            Standing::Final | Standing::Provisional | Standing::Incomplete
        );
        let answer = self.answer.as_ref().filter(|_| holds)?;
        let class = answer.class? as usize;
        (class < answer.classes.len() && answer.probabilities.len() == answer.classes.len())
            .then_some((answer, class))
    }

    /// Whose roll-up it belongs to.
    pub fn owner(&self) -> Owner {
        match &self.patient {
            Some(patient) => Owner {
                name: patient.clone(),
                is_slide: false,
            },
            None => Owner {
                name: self.slide.clone(),
                is_slide: true,
            },
        }
    }
}

/// A patient, or a slide of which none is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// Patient of the manifest, or the slide's id.
    pub name: String,
    /// No patient is given: the slide is its own.
    pub is_slide: bool,
}
