//! Model A by top-k multiple-instance learning (METHOD 1.2): before each pass score every tile, take the highest of each
//! positive bag as positive and all or the highest of each negative bag as negative, and train on those.

use crate::TrainError;
use crate::augment::Change;
use crate::bags::Split;
use crate::choose::{Scored, for_scorer};
use crate::data::Data;
use crate::nets::{ScorerNet, cross_entropy, numbers, targets};
use crate::phase::{Passes, Validation};
use crate::random::{Purpose, shuffle, stream};
use crate::recipe::Recipe;
use crate::scoring::{Scoring, negative, score};
use crate::steps::Training;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use weir_model::{Choice, Weights};

/// Of the order of epochs, to keep it apart from the bag model's.
const ORDER: u64 = 1;
/// PyTorch's.
const MOMENTUM: f32 = 0.1;

/// The training of A.
pub struct ScorerPasses<'a> {
    /// What to do.
    pub recipe: &'a Recipe,
    /// On what.
    pub data: &'a Data,
    /// What scores tiles.
    pub choice: &'a Choice,
    /// What trains; on the tape.
    pub device: &'a Device,
}

impl ScorerPasses<'_> {
    /// Tiles that a bag of `n` gives in an epoch after the first ones.
    fn top(&self, n: usize, epoch: u64) -> usize {
        let recipe = &self.recipe.file.scorer;
        let top = (*recipe.top.get_ref()).min(n);
        let after = (epoch + 1).saturating_sub(recipe.all_epochs);
        let rest = recipe.shrink_epochs.saturating_sub(after) as usize;
        top + ((n - top) * rest).div_ceil(recipe.shrink_epochs.max(1) as usize)
    }

    /// Tiles and classes of an epoch.
    fn chosen(&self, weights: &Weights, epoch: u64) -> Result<Vec<(usize, usize)>, TrainError> {
        let recipe = &self.recipe.file.scorer;
        let (classes, positive) = (self.recipe.classes().len(), self.recipe.positive());
        let bags =
            (0..self.data.bags.len()).filter(|bag| self.data.bags[*bag].split == Split::Train);
        if epoch < recipe.all_epochs {
            return Ok(bags
                .flat_map(|bag| {
                    let class = self.data.bags[bag].class;
                    self.data.members(bag).map(move |tile| (tile, class))
                })
                .collect());
        }
        let scoring = Scoring::new(self.recipe, weights, self.choice)?;
        let mut chosen = Vec::new();
        for bag in bags {
            let class = self.data.bags[bag].class;
            let is_negative = class == negative(classes, positive);
            let tiles: Vec<usize> = self.data.members(bag).collect();
            let scored: Vec<Scored> = if epoch == 0 {
                // An untrained network ties or lies; corners are no better choice, so chance decides.
                tiles
                    .iter()
                    .map(|&tile| {
                        let id = self.data.tiles[tile].id;
                        let item = [self.data.entry(tile).key().0, id.word()];
                        let seed = self.recipe.file.seed;
                        (tile, id, stream(seed, Purpose::Order, 0, item).random())
                    })
                    .collect()
            } else {
                let all = scoring.tiles(self.data, &tiles)?;
                let of = |p: &Vec<f32>| {
                    if is_negative || classes == 2 {
                        score(p, positive)
                    } else {
                        p[class]
                    }
                };
                tiles
                    .iter()
                    .zip(&all)
                    .map(|(&tile, p)| (tile, self.data.tiles[tile].id, of(p)))
                    .collect()
            };
            let top = self.top(scored.len(), epoch);
            let kept = for_scorer(scored, is_negative, top, recipe.negatives);
            chosen.extend(kept.into_iter().map(|tile| (tile, class)));
        }
        Ok(chosen)
    }
}

/// Weight of each class: the inverse of its share, so that the mean weight is 1; all 1 without `balance`.
pub fn class_weights(
    balance: bool,
    classes: usize,
    items: impl Iterator<Item = usize>,
) -> Vec<f32> {
    let mut counts = vec![0usize; classes];
    for class in items {
        counts[class] += 1;
    }
    let all: usize = counts.iter().sum();
    let present = counts.iter().filter(|n| **n > 0).count();
    counts
        .iter()
        .map(|&n| match (balance, n) {
            (false, _) | (_, 0) => 1.0,
            (true, n) => all as f32 / (present * n) as f32,
        })
        .collect()
}

impl Passes for ScorerPasses<'_> {
    type Net = ScorerNet;

    fn train(
        &mut self,
        mut training: Training<ScorerNet>,
        epoch: u64,
        epochs: u64,
        told: &mut dyn FnMut(f64, f64),
    ) -> Result<(Training<ScorerNet>, u64), TrainError> {
        let file = &self.recipe.file;
        let classes = self.recipe.classes().len();
        let mut items = self.chosen(&training.mean, epoch)?;
        let weights = class_weights(file.scorer.balance, classes, items.iter().map(|i| i.1));
        shuffle(&mut items, file.seed, epoch, ORDER);
        let size = file.input.size as usize;
        let by_batch = self.recipe.network.has_batch_norm();
        let mut done = 0;
        for batch in items.chunks(*file.scorer.batch.get_ref()) {
            let changed = batch.iter().map(|&(tile, _)| {
                let key = self.data.entry(tile).key();
                let id = self.data.tiles[tile].id;
                (tile, Change::of(&file.augment, file.seed, epoch, key, id))
            });
            let numbers_of = self.data.numbers(changed)?;
            let shape = [batch.len(), 3, size, size];
            let tiles = Tensor::<4>::from_data(TensorData::new(numbers_of, shape), self.device);
            let (features, statistics) = if by_batch {
                let (features, statistics) = training.net.encoder.forward_by_batch(tiles);
                (features, Some(statistics))
            } else {
                (training.net.encoder.forward(tiles), None)
            };
            let rows: Vec<(usize, f32)> = batch
                .iter()
                .map(|&(_, class)| (class, weights[class] / batch.len() as f32))
                .collect();
            let truth = targets(&rows, classes, self.device);
            let loss = cross_entropy(training.net.classify(features), truth);
            let value = numbers(loss.clone()).first().copied().unwrap_or(f32::NAN);
            let grads = GradientsParams::from_grads(loss.backward(), &training.net);
            if let Some(statistics) = statistics {
                training.net.encoder = training.net.encoder.with_statistics(statistics, MOMENTUM);
            }
            let part = done as f64 / items.len() as f64;
            training = training.step(grads, (epoch as f64 + part) / epochs as f64);
            done += batch.len();
            told(done as f64 / items.len() as f64, f64::from(value));
        }
        Ok((training, items.len() as u64))
    }

    /// A bag's probability is the mean of its `top` highest tiles'.
    fn validate(&mut self, weights: &Weights) -> Result<Validation, TrainError> {
        let scoring = Scoring::new(self.recipe, weights, self.choice)?;
        let positive = self.recipe.positive();
        let mut validation = Validation {
            positive: Vec::new(),
            truth: Vec::new(),
            loss: Vec::new(),
        };
        for (place, bag) in self.data.bags.iter().enumerate() {
            if bag.split != Split::Val {
                continue;
            }
            let tiles: Vec<usize> = self.data.members(place).collect();
            let mut all = scoring.tiles(self.data, &tiles)?;
            all.sort_by(|a, b| score(b, positive).total_cmp(&score(a, positive)));
            all.truncate(*self.recipe.file.scorer.top.get_ref());
            let of = |class: usize| {
                all.iter().map(|p| f64::from(p[class])).sum::<f64>() / all.len() as f64
            };
            validation.positive.push(of(positive));
            validation.truth.push(bag.class == positive);
            validation.loss.push(-of(bag.class).max(1e-7).ln());
        }
        Ok(validation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_classes_weigh_the_same_in_all_and_absent_ones_nothing_special() {
        let items = [0, 0, 0, 2];
        let weights = class_weights(true, 3, items.into_iter());
        assert_eq!(weights, [4.0 / 6.0, 1.0, 2.0]);
        assert_eq!(class_weights(false, 3, items.into_iter()), [1.0; 3]);
    }
}
