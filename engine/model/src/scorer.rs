//! Model A: what a tile is, from its pixels.

use crate::encoder::Encoder;
use crate::error::ModelError;
use crate::executor::{Choice, Chosen};
use crate::head::CLASSIFIER;
use crate::{folder, head};
use weir_kernels::classifier::Classifier;
use weir_pipeline::model::{ModelHeader, ModelKind};
use weir_record::Scores;

/// Encoder, linear layer, softmax.
#[derive(Debug)]
pub struct Scorer {
    encoder: Encoder,
    head: Classifier,
    rank: Rank,
}

/// The number that tiles are ranked by, from the classes' probabilities (METHOD 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    /// p of that class.
    Of(usize),
    /// The greatest p of the classes other than class 0, which is called `normal`.
    GreatestButFirst,
    /// 1 - p of that class, which is called `normal`.
    Not(usize),
}

impl Rank {
    /// With two classes p(positive). With more, what speaks against the class called `normal`; without one p(positive).
    fn new(header: &ModelHeader, positive: usize) -> Rank {
        let normal = header
            .classes
            .iter()
            .position(|class| class.eq_ignore_ascii_case("normal"));
        match normal {
            Some(0) if header.classes.len() > 2 => Rank::GreatestButFirst,
            Some(class) if header.classes.len() > 2 => Rank::Not(class),
            _ => Rank::Of(positive),
        }
    }

    fn score(self, probabilities: &[f32]) -> f32 {
        match self {
            Rank::Of(class) => probabilities[class],
            Rank::GreatestButFirst => probabilities[1..].iter().copied().fold(0.0, f32::max),
            Rank::Not(class) => 1.0 - probabilities[class],
        }
    }
}

impl Scorer {
    /// The model of `header`, on the executor of `choice`.
    pub fn load(header: &ModelHeader, choice: &Choice) -> Result<Scorer, ModelError> {
        let file = header.folder.join(ModelHeader::FILE);
        if header.kind != ModelKind::Scorer {
            return Err(ModelError::new(
                &file,
                "this is a bag model, but tiles are scored by a scorer",
                "name a model of kind `scorer`",
            ));
        }
        let positive = header.positive_index().ok_or_else(|| {
            ModelError::new(
                &file,
                format!("`positive` is `{}`, which is no class", header.positive),
                "name one of `classes`",
            )
        })?;
        let weights = folder::weights(header)?;
        Ok(Scorer {
            head: Classifier {
                layer: head::layer(&weights, CLASSIFIER, header.classes.len(), header.feature)?,
            },
            encoder: Encoder::with_weights(header, &weights, choice)?,
            rank: Rank::new(header, positive),
        })
    }

    /// What runs the encoder.
    pub fn chosen(&self) -> &Chosen {
        self.encoder.chosen()
    }

    /// The scores of tiles: interleaved RGB, u8, of the model's size. A tile's scores do not hang on its neighbours.
    pub fn score(&self, tiles: &[&[u8]]) -> Result<Vec<Scores>, ModelError> {
        let features = self.encoder.encode(tiles)?;
        features
            .iter()
            .enumerate()
            .map(|(place, features)| {
                let verdict = self.head.classify(features);
                let score = self.rank.score(&verdict.probabilities);
                if !verdict.probabilities.iter().all(|p| p.is_finite()) {
                    return Err(ModelError::of_tile(
                        self.encoder.folder(),
                        place,
                        "a probability is no number",
                    ));
                }
                Ok(Scores {
                    score,
                    probabilities: verdict.probabilities,
                })
            })
            .collect()
    }
}
