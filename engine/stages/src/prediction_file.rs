//! `prediction.json`: a slide's prediction with all that it stands on, and back again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_record::{
    Bag, BagFlags, Coverage, End, ExactSums, Failure, MppOrigin, Prediction, SlideInfo, State,
};

/// The file's format.
const FORMAT: u32 = 1;

/// What says whether a slide is done: the same plan, models and executors give the same answer for the same input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// SHA-256 of the plan.
    pub plan: String,
    /// Models' names and the SHA-256 of their weights.
    pub models: BTreeMap<String, String>,
    /// Stages' names and what runs their networks: library, version, device.
    pub executors: BTreeMap<String, String>,
}

/// The input as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    bytes: u64,
    modified_ns: u64,
}

/// The file. Whole numbers of the exact sums are texts, since many readers of JSON round what is longer than 53 bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PredictionFile {
    format: u32,
    slide: String,
    path: String,
    patient: Option<String>,
    label: Option<String>,
    mpp: Option<f64>,
    mpp_origin: Option<MppOrigin>,
    tiles: u64,
    background: u64,
    state: State,
    class: Option<String>,
    classes: Vec<String>,
    probabilities: Vec<f32>,
    logits: Vec<f32>,
    coverage: Coverage,
    flags: Vec<String>,
    contract: String,
    /// Generation of the selection.
    selection: u32,
    revision: u32,
    ended: Option<End>,
    failure: Option<Failure>,
    bag: Pooled,
    /// The slide's other files of this run.
    files: Vec<String>,
    /// `null` when something of the slide is missing, so that the next run computes it again.
    done: Option<Done>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pooled {
    members: u64,
    effective: f32,
    entropy: f32,
    pooled: Vec<f32>,
    exact: Option<Exact>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exact {
    n: i64,
    s: String,
    t: Vec<String>,
    u: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Done {
    #[serde(flatten)]
    identity: Identity,
    input: Input,
}

const FLAGS: [BagFlags; 4] = [
    BagFlags::EMPTY,
    BagFlags::UNIFORM,
    BagFlags::OUT_OF_DOMAIN,
    BagFlags::DEGRADED,
];

impl PredictionFile {
    /// `files`: the slide's other files; `None` when one of them is missing.
    pub(crate) fn new(
        info: &SlideInfo,
        prediction: &Prediction,
        failure: Option<&Failure>,
        files: Option<Vec<String>>,
        identity: &Identity,
    ) -> Self {
        let bag = &prediction.bag;
        let texts = |numbers: &[i128]| numbers.iter().map(i128::to_string).collect();
        let done = match (&files, info.input) {
            (Some(_), Some((bytes, modified_ns))) => Some(Done {
                identity: identity.clone(),
                input: Input { bytes, modified_ns },
            }),
            _ => None,
        };
        PredictionFile {
            format: FORMAT,
            slide: info.id.clone(),
            path: info.path.clone(),
            patient: info.patient.clone(),
            label: info.label.clone(),
            mpp: info.mpp.map(|(mpp, _)| mpp.0),
            mpp_origin: info.mpp.map(|(_, origin)| origin),
            tiles: info.tiles,
            background: info.background,
            state: prediction.state,
            class: class_name(prediction),
            classes: prediction.classes.clone(),
            probabilities: prediction.probabilities.clone(),
            logits: prediction.logits.clone(),
            coverage: bag.coverage.clone(),
            flags: bag
                .flags
                .names()
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
            contract: bag.contract.clone(),
            selection: bag.selection,
            revision: prediction.revision,
            ended: bag.ended,
            failure: failure.cloned(),
            bag: Pooled {
                members: bag.n,
                effective: bag.effective,
                entropy: bag.entropy,
                pooled: bag.pooled.clone(),
                exact: bag.exact.as_ref().map(|sums| Exact {
                    n: sums.n,
                    s: sums.s.to_string(),
                    t: texts(&sums.t),
                    u: texts(&sums.u),
                }),
            },
            files: files.unwrap_or_default(),
            done,
        }
    }

    /// Whether the file says that `info`'s slide is done by `identity`.
    pub(crate) fn is_done(&self, info: &SlideInfo, identity: &Identity) -> bool {
        let answered = matches!(self.state, State::Final | State::NoTissue);
        let same = self.done.as_ref().is_some_and(|done| {
            done.identity == *identity
                && info.input == Some((done.input.bytes, done.input.modified_ns))
        });
        // The manifest may say otherwise now: another resolution is another answer, another patient another table.
        let said = self.patient == info.patient && self.label == info.label;
        let mpp = match (self.mpp, info.mpp) {
            // A number that went through text may come back one rounding away.
            (Some(then), Some((now, _))) => (then - now.0).abs() <= 1e-12 * now.0,
            (then, now) => then.is_none() && now.is_none(),
        };
        self.format == FORMAT && self.slide == info.id && answered && same && said && mpp
    }

    pub(crate) fn files(&self) -> &[String] {
        &self.files
    }

    /// Tiles that were read, and places that were left out as background.
    pub(crate) fn places(&self) -> (u64, u64) {
        (self.tiles, self.background)
    }

    /// The prediction; `None` when the file does not make sense.
    pub(crate) fn prediction(self) -> Option<Prediction> {
        let flags = self
            .flags
            .iter()
            .try_fold(BagFlags::default(), |all, name| {
                let flag = FLAGS
                    .into_iter()
                    .find(|flag| flag.names() == [name.as_str()])?;
                Some(all.with(flag))
            })?;
        let class = match &self.class {
            Some(name) => Some(self.classes.iter().position(|known| known == name)? as u32),
            None => None,
        };
        let counts = [self.probabilities.len(), self.logits.len()];
        if class.is_some() && counts != [self.classes.len(); 2] {
            return None;
        }
        let exact = match self.bag.exact {
            Some(sums) => Some(ExactSums {
                n: sums.n,
                s: sums.s.parse().ok()?,
                t: numbers(&sums.t)?,
                u: numbers(&sums.u)?,
            }),
            None => None,
        };
        Some(Prediction {
            revision: self.revision,
            state: self.state,
            classes: self.classes,
            class,
            logits: self.logits,
            probabilities: self.probabilities,
            bag: Bag {
                n: self.bag.members,
                flags,
                pooled: self.bag.pooled,
                effective: self.bag.effective,
                entropy: self.bag.entropy,
                exact,
                contract: self.contract,
                coverage: self.coverage,
                selection: self.selection,
                ended: self.ended,
                state: self.state,
            },
        })
    }
}

/// The predicted class.
pub(crate) fn class_name(prediction: &Prediction) -> Option<String> {
    prediction.classes.get(prediction.class? as usize).cloned()
}

fn numbers(texts: &[String]) -> Option<Vec<i128>> {
    texts.iter().map(|text| text.parse().ok()).collect()
}
