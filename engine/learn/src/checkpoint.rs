//! Checkpoints: everything that a phase stands on, so that going on is the same as never having stopped.
//!
//! `OUT/checkpoints/PHASE/EPOCH/` holds the network and the optimiser as burn keeps them (AdamW's moments hang on the
//! parameters' ids, which only burn's own file carries), the mean of the weights, the best weights, and `state.json`. A folder
//! is written under another name and renamed when it is whole; the one before it is removed after that.

use crate::TrainError;
use crate::nets::Trained;
use crate::recipe::Recipe;
use crate::steps::Training;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use weir_model::{Weights, sha256};

/// One epoch, a line of metrics.csv.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// `scorer`, `bag-squared-average`, ...
    pub phase: String,
    /// From 1.
    pub epoch: u64,
    /// It took, s.
    pub seconds: f64,
    /// Learning rate at its end.
    pub rate: f64,
    /// Tiles (scorer) or bags (bag) that were trained on.
    pub items: u64,
    /// Mean of the steps.
    pub loss: f64,
    /// Mean cross-entropy of validation bags.
    pub val_loss: f64,
    /// Of validation bags.
    pub val_auroc: f64,
    /// Of validation bags, at 0.5.
    pub val_balanced_accuracy: f64,
    /// Whether it was the best so far, by `val_loss`.
    pub best: bool,
}

/// What of a phase is no array.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Epochs done.
    pub epochs: u64,
    /// Steps done.
    pub steps: u64,
    /// Least validation loss so far.
    pub best: Option<f64>,
    /// Every epoch so far.
    pub history: Vec<Epoch>,
    /// What the run stands on: recipe, bags, executor. Under another one going on would be another training.
    pub ground: Ground,
}

/// What a run stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ground {
    /// SHA-256 of the recipe's text.
    pub recipe: String,
    /// SHA-256 of the list of bags.
    pub bags: String,
    /// Executor, version, device that scores tiles.
    pub executor: String,
    /// Name and SHA-256 of each plugin whose readers were there.
    #[serde(default)]
    pub plugins: Vec<(String, String)>,
}

impl Ground {
    /// Of a run.
    pub fn new(recipe: &Recipe, bags: &str, executor: &str, plugins: &[(String, String)]) -> Self {
        Ground {
            recipe: sha256(recipe.text.as_bytes()),
            bags: bags.to_string(),
            executor: executor.to_string(),
            plugins: plugins.to_vec(),
        }
    }
}

/// What was taken up: the training, and with a checkpoint its best weights and state.
pub type Taken<M> = (Training<M>, Option<(Weights, State)>);

/// The checkpoints of one phase.
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// Under the run's folder.
    pub fn new(out: &Path, phase: &str) -> Self {
        Checkpoints {
            folder: out.join("checkpoints").join(phase),
        }
    }

    /// The whole checkpoint of the latest epoch.
    fn latest(&self) -> Option<PathBuf> {
        fs::read_dir(&self.folder)
            .ok()?
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let epoch: u64 = entry.file_name().to_str()?.parse().ok()?;
                Some((epoch, entry.path()))
            })
            .max()
            .map(|(_, path)| path)
    }

    /// Whether there is one.
    pub fn any(&self) -> bool {
        self.latest().is_some()
    }

    /// Writes one; `best` are the best weights so far.
    pub fn save<M: Trained>(
        &self,
        training: &Training<M>,
        best: &Weights,
        state: &State,
    ) -> Result<(), TrainError> {
        let io = |path: &Path, doing: &'static str| {
            let path = path.to_path_buf();
            move |source| TrainError::io(&path, doing, source)
        };
        let part = self.folder.join(format!("{:06}.part", state.epochs));
        let done = self.folder.join(format!("{:06}", state.epochs));
        if part.exists() {
            fs::remove_dir_all(&part).map_err(io(&part, "remove what an earlier run left"))?;
        }
        fs::create_dir_all(&part).map_err(io(&part, "make the folder"))?;
        let record = |error: burn::store::RecordError| TrainError::Run {
            path: part.clone(),
            what: format!("the checkpoint could not be written: {error}"),
            help: "is the disk full?".into(),
        };
        training
            .net
            .clone()
            .save_file(part.join("net.bpk"))
            .map_err(record)?;
        training
            .optimiser
            .save(part.join("optimiser.bpk"))
            .map_err(record)?;
        training.mean.save(&part.join("mean.safetensors"))?;
        best.save(&part.join("best.safetensors"))?;
        let text = serde_json::to_vec_pretty(state)
            .map_err(|error| io(&part, "write state.json")(std::io::Error::other(error)))?;
        weir_model::file::write(&part.join("state.json"), &text)
            .map_err(io(&part, "write state.json"))?;
        let before = self.latest();
        fs::rename(&part, &done).map_err(io(&part, "rename the checkpoint"))?;
        match before {
            Some(before) if before != done => {
                fs::remove_dir_all(&before).map_err(io(&before, "remove the checkpoint before"))
            }
            _ => Ok(()),
        }
    }

    /// Takes up the latest one into `training`; `None` when there is none.
    pub fn load<M: Trained>(
        &self,
        mut training: Training<M>,
        ground: &Ground,
    ) -> Result<Taken<M>, TrainError> {
        let Some(folder) = self.latest() else {
            return Ok((training, None));
        };
        let broken = |what: String| TrainError::Run {
            path: folder.clone(),
            what,
            help: "remove this checkpoint, or train without --resume".into(),
        };
        let path = folder.join("state.json");
        let text =
            fs::read(&path).map_err(|source| TrainError::io(&path, "read the state", source))?;
        let state: State =
            serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
        if state.ground != *ground {
            let differs = [
                ("the recipe", state.ground.recipe != ground.recipe),
                ("the list of bags", state.ground.bags != ground.bags),
                ("the executor", state.ground.executor != ground.executor),
                ("a plugin", state.ground.plugins != ground.plugins),
            ];
            let differs: Vec<&str> = differs.iter().filter(|d| d.1).map(|d| d.0).collect();
            return Err(TrainError::Run {
                path: folder,
                what: format!(
                    "it was made under another ground: {} differs",
                    differs.join(", ")
                ),
                help: "go on under the same one, or train into another folder".into(),
            });
        }
        training.net = training
            .net
            .try_load_file(folder.join("net.bpk"))
            .map_err(|error| broken(error.to_string()))?;
        training.optimiser = training
            .optimiser
            .load(folder.join("optimiser.bpk"))
            .map_err(|error| broken(error.to_string()))?;
        training.mean = Weights::load(&folder.join("mean.safetensors"))?;
        training.steps = state.steps;
        let best = Weights::load(&folder.join("best.safetensors"))?;
        Ok((training, Some((best, state))))
    }
}
