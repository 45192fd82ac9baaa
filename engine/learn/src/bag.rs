//! Model B end to end on the tiles that A scores highest and lowest in each bag, by the surrogate gradient.

use crate::TrainError;
use crate::augment::Change;
use crate::bags::Split;
use crate::choose::{Scored, for_bag};
use crate::data::Data;
use crate::nets::BagNet;
use crate::phase::{Passes, Validation};
use crate::pooling::Numerator;
use crate::random::shuffle;
use crate::recipe::Recipe;
use crate::scorer::class_weights;
use crate::scoring::{Scoring, score, softmax};
use crate::steps::Training;
use crate::surrogate::{Form, Members, Pooled};
use burn::module::Module;
use burn::optim::GradientsAccumulator;
use burn::tensor::{Device, Tensor, TensorData};
use std::ops::Range;
use weir_model::{PoolPasses, Weights, head};

/// Of the order of epochs, to keep it apart from the scorer's.
const ORDER: u64 = 2;

/// The tiles of each bag that B sees, in the order of the bags.
pub fn selection(
    recipe: &Recipe,
    data: &Data,
    scoring: &Scoring,
) -> Result<Vec<Vec<usize>>, TrainError> {
    let (highest, lowest) = (
        *recipe.file.bag.highest.get_ref(),
        *recipe.file.bag.lowest.get_ref(),
    );
    (0..data.bags.len())
        .map(|bag| {
            let tiles: Vec<usize> = data.members(bag).collect();
            let all = scoring.tiles(data, &tiles)?;
            let scored: Vec<Scored> = tiles
                .iter()
                .zip(&all)
                .map(|(&tile, p)| (tile, data.tiles[tile].id, score(p, recipe.positive())))
                .collect();
            Ok(for_bag(scored, highest, lowest))
        })
        .collect()
}

/// What B holds before training: the encoder of A or of a file, new heads.
pub fn start(recipe: &Recipe, scorer: &Weights) -> Result<Weights, TrainError> {
    let model = &recipe.file.model;
    let classes = recipe.classes().len();
    let parameters = head::bag_parameters(
        &recipe.network,
        *model.hidden.get_ref(),
        model.gated,
        classes,
    );
    // Another seed than A's, or the two classifiers would begin alike.
    let mut weights = Weights::start(&parameters, recipe.file.seed.wrapping_add(1));
    let encoder = match recipe.file.bag.init.as_str() {
        "start" => None,
        "scorer" => Some(scorer.clone()),
        path => Some(Weights::load(&recipe.beside(path.as_ref()))?),
    };
    if let Some(encoder) = encoder {
        take_encoder(recipe, &encoder, &mut weights)?;
    }
    let bias = recipe.file.bag.bias_start;
    weights.insert(&format!("{}.bias", head::ATTENTION_W), vec![1], vec![bias]);
    Ok(weights)
}

/// Takes over every array of the encoder but `feature`, which torchvision's files do not have, where it is missing.
pub fn take_encoder(recipe: &Recipe, from: &Weights, into: &mut Weights) -> Result<(), TrainError> {
    for parameter in recipe.network.parameters() {
        let new = parameter.name.starts_with("feature.") && from.get(&parameter.name).is_none();
        if !new {
            let values = from.values(&parameter.name, &parameter.shape)?.to_vec();
            into.insert(&parameter.name, parameter.shape, values);
        }
    }
    Ok(())
}

/// The training of one bag model.
pub struct BagPasses<'a> {
    /// What to do.
    pub recipe: &'a Recipe,
    /// On what.
    pub data: &'a Data,
    /// The tiles of each bag, from [`selection`].
    pub selection: &'a [Vec<usize>],
    /// From logits to weights.
    pub numerator: Numerator,
    /// The pool by them, from [`Numerator::passes`].
    pub pool: Option<PoolPasses>,
    /// What trains; on the tape.
    pub device: &'a Device,
}

/// A bag's tiles, changed as its epoch says.
struct Changed<'a> {
    passes: &'a BagPasses<'a>,
    tiles: &'a [usize],
    /// `None` leaves tiles as they are.
    epoch: Option<u64>,
}

impl Members for Changed<'_> {
    fn count(&self) -> usize {
        self.tiles.len()
    }

    fn numbers(&self, range: Range<usize>) -> Result<Vec<f32>, TrainError> {
        let (file, data) = (&self.passes.recipe.file, self.passes.data);
        data.numbers(self.tiles[range].iter().map(|&tile| {
            let change = self.epoch.map_or(Change::NONE, |epoch| {
                let key = data.entry(tile).key();
                Change::of(&file.augment, file.seed, epoch, key, data.tiles[tile].id)
            });
            (tile, change)
        }))
    }
}

/// What B says of a bag.
pub struct Verdict {
    /// Probability of each class.
    pub probabilities: Vec<f64>,
    /// Pooled features, attention.
    pub pooled: Pooled,
}

impl BagPasses<'_> {
    fn form(&self) -> Form {
        let file = &self.recipe.file;
        Form {
            size: file.input.size as usize,
            chunk: *file.bag.chunk.get_ref(),
            classes: self.recipe.classes().len(),
            numerator: self.numerator,
            passes: self.pool.clone(),
        }
    }

    /// A network with these weights.
    pub fn net(&self, weights: &Weights, device: &Device) -> Result<BagNet, TrainError> {
        let model = &self.recipe.file.model;
        Ok(BagNet::new(
            &self.recipe.network,
            *model.hidden.get_ref(),
            model.gated,
            self.recipe.classes().len(),
            weights,
            device,
        )?)
    }

    /// What a network off the tape says of a bag.
    pub fn judge(&self, net: &BagNet, bag: usize) -> Result<Verdict, TrainError> {
        let members = Changed {
            passes: self,
            tiles: &self.selection[bag],
            epoch: None,
        };
        let device = self.device.clone().inner();
        let pooled = self.form().pool(net, &members, &device)?;
        let width = pooled.pooled.len();
        let z = Tensor::<2>::from_data(TensorData::new(pooled.pooled.clone(), [1, width]), &device);
        let logits = crate::nets::numbers(net.classify(z));
        Ok(Verdict {
            probabilities: softmax(&logits).into_iter().map(f64::from).collect(),
            pooled: pooled.without_features(),
        })
    }
}

impl Passes for BagPasses<'_> {
    type Net = BagNet;

    fn train(
        &mut self,
        mut training: Training<BagNet>,
        epoch: u64,
        epochs: u64,
        told: &mut dyn FnMut(f64, f64),
    ) -> Result<(Training<BagNet>, u64), TrainError> {
        let file = &self.recipe.file;
        let classes = self.recipe.classes().len();
        let mut bags: Vec<usize> = (0..self.data.bags.len())
            .filter(|bag| self.data.bags[*bag].split == Split::Train)
            .collect();
        let weights = class_weights(
            file.bag.balance,
            classes,
            bags.iter().map(|bag| self.data.bags[*bag].class),
        );
        shuffle(&mut bags, file.seed, epoch, ORDER);
        let form = self.form();
        let mut done = 0;
        for batch in bags.chunks(*file.bag.batch.get_ref()) {
            let plain = training.net.valid();
            let mut sum = GradientsAccumulator::new();
            let mut loss = 0.0;
            for &bag in batch {
                let members = Changed {
                    passes: self,
                    tiles: &self.selection[bag],
                    epoch: Some(epoch),
                };
                let class = self.data.bags[bag].class;
                let weight = weights[class] / batch.len() as f32;
                let nets = (&training.net, &plain);
                loss += form.gradient(nets, &members, (class, weight), self.device, &mut sum)?;
            }
            let part = done as f64 / bags.len() as f64;
            training = training.step(sum.grads(), (epoch as f64 + part) / epochs as f64);
            done += batch.len();
            told(done as f64 / bags.len() as f64, f64::from(loss));
        }
        Ok((training, bags.len() as u64))
    }

    fn validate(&mut self, weights: &Weights) -> Result<Validation, TrainError> {
        let net = self.net(weights, &self.device.clone().inner())?;
        let positive = self.recipe.positive();
        let mut validation = Validation {
            positive: Vec::new(),
            truth: Vec::new(),
            loss: Vec::new(),
        };
        for (place, bag) in self.data.bags.iter().enumerate() {
            if bag.split == Split::Val {
                let p = self.judge(&net, place)?.probabilities;
                validation.positive.push(p[positive]);
                validation.truth.push(bag.class == positive);
                validation.loss.push(-p[bag.class].max(1e-7).ln());
            }
        }
        Ok(validation)
    }
}
