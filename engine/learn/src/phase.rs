//! What both trainings share: epochs, validation, the best weights, checkpoints, progress.

use crate::checkpoint::{Checkpoints, Epoch, Ground, State};
use crate::metrics::{Confusion, auroc, mean};
use crate::nets::Trained;
use crate::progress::{At, Clock, Progress};
use crate::recipe::Steps;
use crate::steps::{Training, rate};
use crate::{Ended, TrainError};
use std::path::Path;
use std::time::Instant;
use weir_model::Weights;

/// One phase: the scorer, or one bag model.
pub struct Phase<'a> {
    /// `scorer`, `bag-squared-average`, ...
    pub name: &'a str,
    /// Passes.
    pub epochs: u64,
    /// How steps are made.
    pub steps: Steps,
    /// The run's folder.
    pub out: &'a Path,
    /// Whether to go on from its checkpoints.
    pub resume: bool,
    /// What the run stands on.
    pub ground: &'a Ground,
}

/// What validation says of each bag.
pub struct Validation {
    /// Probability of the positive class.
    pub positive: Vec<f64>,
    /// Whether it is the true one.
    pub truth: Vec<bool>,
    /// Cross-entropy.
    pub loss: Vec<f64>,
}

/// What a training does in an epoch.
pub trait Passes {
    /// The network.
    type Net: Trained;
    /// Trains one pass; `step` is to be told of each step's part of the pass and loss.
    fn train(
        &mut self,
        training: Training<Self::Net>,
        epoch: u64,
        epochs: u64,
        told: &mut dyn FnMut(f64, f64),
    ) -> Result<(Training<Self::Net>, u64), TrainError>;
    /// Judges weights on the validation bags.
    fn validate(&mut self, weights: &Weights) -> Result<Validation, TrainError>;
}

/// What a phase came to.
pub struct Outcome {
    /// Those of the best epoch.
    pub best: Weights,
    /// Every epoch.
    pub history: Vec<Epoch>,
}

impl Phase<'_> {
    /// Trains, from the start or a checkpoint.
    pub fn run<P: Passes>(
        &self,
        net: P::Net,
        passes: &mut P,
        progress: &mut dyn Progress,
    ) -> Result<Ended<Outcome>, TrainError> {
        let checkpoints = Checkpoints::new(self.out, self.name);
        let mut training = Training::new(net, self.steps);
        let mut best = training.mean.clone();
        let mut state = State {
            epochs: 0,
            steps: 0,
            best: None,
            history: Vec::new(),
            ground: self.ground.clone(),
        };
        if self.resume {
            let found;
            (training, found) = checkpoints.load(training, self.ground)?;
            if let Some((weights, before)) = found {
                progress.note(&format!(
                    "{}: goes on after epoch {}",
                    self.name, before.epochs
                ));
                (best, state) = (weights, before);
            }
        }
        let clock = Clock::new(state.epochs, self.epochs);
        while state.epochs < self.epochs {
            let start = Instant::now();
            let done = state.epochs;
            let mut losses = Vec::new();
            let mut told = |part: f64, loss: f64| {
                losses.push(loss);
                progress.at(&At {
                    phase: self.name,
                    epoch: done + 1,
                    epochs: self.epochs,
                    part,
                    loss: mean(losses.iter().copied()).unwrap_or(loss),
                    left: clock.left(done, part),
                });
            };
            let items;
            (training, items) = passes.train(training, done, self.epochs, &mut told)?;
            let loss = mean(losses.iter().copied()).unwrap_or(f64::NAN);
            if !loss.is_finite() {
                return Err(TrainError::Diverged {
                    phase: self.name.split('-').next().unwrap_or(self.name).into(),
                    epoch: done + 1,
                });
            }
            let validation = passes.validate(&training.mean)?;
            let val_loss = mean(validation.loss.iter().copied()).unwrap_or(f64::NAN);
            let is_best = state.best.is_none_or(|best| val_loss < best);
            if is_best {
                state.best = Some(val_loss);
                best = training.mean.clone();
            }
            let confusion = Confusion::at(0.5, &validation.positive, &validation.truth);
            state.epochs += 1;
            state.steps = training.steps;
            let epoch = Epoch {
                phase: self.name.to_string(),
                epoch: state.epochs,
                seconds: (start.elapsed().as_secs_f64() * 10.0).round() / 10.0,
                rate: rate(&self.steps, state.epochs as f64 / self.epochs as f64),
                items,
                loss,
                val_loss,
                val_auroc: auroc(&validation.positive, &validation.truth).unwrap_or(f64::NAN),
                val_balanced_accuracy: confusion.balanced_accuracy(),
                best: is_best,
            };
            progress.note(&line(&epoch, self.epochs));
            state.history.push(epoch);
            checkpoints.save(&training, &best, &state)?;
            if state.epochs < self.epochs && !progress.go_on() {
                return Ok(Ended::Early);
            }
        }
        Ok(Ended::Whole(Outcome {
            best,
            history: state.history,
        }))
    }
}

fn line(epoch: &Epoch, epochs: u64) -> String {
    format!(
        "{} {}/{epochs}: loss {:.4}; validation bags: loss {:.4}, AUROC {:.3}, balanced accuracy {:.3}{}; {} items, {:.0} s",
        epoch.phase,
        epoch.epoch,
        epoch.loss,
        epoch.val_loss,
        epoch.val_auroc,
        epoch.val_balanced_accuracy,
        if epoch.best { ", best" } else { "" },
        epoch.items,
        epoch.seconds,
    )
}
