//! Whether a slide is done by an earlier run, and what says so.
//!
//! A slide is done when its `prediction.json` carries this plan's, these models' and these executors' identity and the input's
//! size and time of change, the slide's resolution, patient and label are the same, the prediction is an answer (final, or no tissue), and every file that it names is there. Whatever
//! is missing, damaged or of another version of weir is not done: the slide is computed again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use weir_pipeline::Plan;
use weir_record::{Event, Prediction, SlideInfo};
use weir_runtime::stage::{Prepare, Shared};

use crate::executors::Executors;
use crate::folder;
use crate::prediction_file::PredictionFile;

pub use crate::prediction_file::Identity;

/// The file's name in the slide's folder.
pub(crate) const FILE: &str = "prediction.json";

/// Longest file that is read, bytes: whatever is longer was not written by weir.
const LONGEST: u64 = 64 << 20;

/// Whether slides that are done are computed again (`weir run --again`). In [`Shared`], put there before the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Again(pub bool);

impl Identity {
    /// Of a run; complete once every stage is prepared, since executors are chosen then.
    pub fn of(plan: &Plan, shared: &Shared) -> Self {
        Identity {
            plan: plan.hash.clone(),
            models: plan
                .models
                .iter()
                .map(|(name, header)| (name.clone(), header.sha256.clone()))
                .collect(),
            executors: shared
                .get::<Executors>()
                .all()
                .into_iter()
                .map(|(stage, used)| (stage, used.key))
                .collect(),
        }
    }
}

/// What an earlier run left of a slide that it is done with.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Where its prediction stands.
    pub path: PathBuf,
    /// What that says.
    pub prediction: Prediction,
    /// Tiles that it read.
    pub tiles: u64,
    /// Places that it left out as background.
    pub background: u64,
}

impl Found {
    /// What tells the stages behind a source of it.
    pub(crate) fn news(self) -> Event {
        Event::Skipped {
            path: self.path.display().to_string(),
            prediction: Arc::new(self.prediction),
        }
    }
}

/// What an earlier run left of a source's slides.
pub(crate) struct Earlier {
    /// Slides that are done are computed again.
    again: bool,
    out: PathBuf,
    /// Of this run; known once every stage is prepared, so not before the first slide opens.
    identity: Box<dyn Fn() -> Identity + Send + Sync>,
    known: OnceLock<Identity>,
}

impl Earlier {
    /// For the source that is being prepared.
    pub(crate) fn new(cx: &Prepare) -> Self {
        let (plan, shared) = (cx.plan.clone(), cx.shared.clone());
        Earlier {
            again: cx.shared.get::<Again>().0,
            out: cx.out(),
            identity: Box::new(move || Identity::of(&plan, &shared)),
            known: OnceLock::new(),
        }
    }

    /// What an earlier run with the same identity left of the slide, when it is done with it.
    pub(crate) fn find(&self, info: &SlideInfo) -> Option<Found> {
        if self.again {
            return None;
        }
        find(&self.out, info, self.known.get_or_init(&self.identity))
    }
}

/// What stands below `out` of a slide that an earlier run is done with.
pub fn find(out: &Path, info: &SlideInfo, identity: &Identity) -> Option<Found> {
    let folder = folder::of(out, &info.id).ok()?;
    let path = folder.join(FILE);
    if fs::metadata(&path).ok()?.len() > LONGEST {
        return None;
    }
    let file: PredictionFile = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    let there = |name: &String| folder.join(name).is_file();
    if !file.is_done(info, identity) || !file.files().iter().all(there) {
        return None;
    }
    let (tiles, background) = file.places();
    Some(Found {
        path,
        tiles,
        background,
        prediction: file.prediction()?,
    })
}
