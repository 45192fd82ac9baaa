//! `onnx.scorer`: tiles to class probabilities, and the score by which they are ranked.

use crate::stage::{each_row, stage_of_a_model};
use weir_plugin::{Batch, Call, Error, Map, Result};

/// What makes probabilities of a model's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, weir_plugin::Choice)]
pub enum Activation {
    /// They are logits, of which one class holds.
    #[default]
    Softmax,
    /// Each is the logit of one class for itself.
    Sigmoid,
    /// They are probabilities.
    None,
}

stage_of_a_model! {
    /// Scores tiles with any ONNX file
    ///
    /// The model takes pixels, [n, 3, size, size] or [n, size, size, 3] of f32, f16 or u8, and gives a number a class of each tile,
    /// [n, classes] or [n, classes, 1, 1] of f32 or f16; n, height and width may be open. `activation` makes probabilities of
    /// them, and that of the class `positive` is the tile's score. A model of two classes may give one number: of the positive class.
    /// A tile of which it makes no finite number, or with the activation `none` no probability, is counted as failed.
    ///
    /// It runs on ONNX Runtime, which is found as the engine's own executor finds it. The log says what the model takes and gives.
    #[derive(weir_plugin::Stage)]
    #[stage(
        map,
        id = "onnx.scorer",
        deterministic,
        memory = "memory",
        example = "[stage.score]\nuse = \"onnx.scorer\"\nin = \"tiles\"\nmodel = \"scorer.onnx\"\nclasses = 2\nsize = 224\nmpp = 0.5\nmean = \"0.485, 0.456, 0.406\"\nstd = \"0.229, 0.224, 0.225\"\n"
    )]
    #[input(tiles: pixels["$size", "$size", 3], mpp = "$mpp", doc = "Pixels of each tile, of the size and resolution that the model was trained on")]
    #[output(scores: scores["$size", "$size", "$classes"], mpp = "$mpp", doc = "Score and class probabilities of each tile")]
    pub struct Scorer {
        /// Number of classes; the model must give as many numbers, or one where there are two classes
        #[param(min = 1, max = 65536)]
        classes: u32,
        /// The class, from 0, whose probability is the tile's score; with one class or two it is the last where it is not given
        #[param]
        positive: Option<u32>,
        /// What makes probabilities of the model's numbers: `softmax` or `sigmoid` of logits; `none` where they are probabilities already
        #[param(default = "softmax")]
        activation: Activation,
        /// Resolved from `positive`.
        ranked: usize,
    }
}

/// How far beyond 0 and 1 a probability may lie by rounding: f16 has 11 bits.
const ROUNDING: f32 = 1e-3;

impl Map for Scorer {
    fn start(&mut self, call: &Call) -> Result<()> {
        self.ranked = self.ranked()?;
        let model = self.given().open(call)?;
        let (gives, classes) = (model.width(), self.classes as usize);
        let binary = classes == 2 && gives == 1;
        if gives != classes && !binary {
            return Err(model.blame(Error::param(
                "classes",
                format!("the model gives {gives} numbers of a tile, not {classes}"),
            )));
        }
        if gives == 1 && self.activation == Activation::Softmax {
            return Err(model.blame(
                Error::param(
                    "activation",
                    "the softmax of one number is 1, whatever it is",
                )
                .help("take \"sigmoid\", or \"none\" where it is a probability"),
            ));
        }
        self.opened = Some(model);
        Ok(())
    }

    fn map(&self, batch: &Batch, call: &Call) -> Result<()> {
        let (mut rows, mut all) = (Vec::with_capacity(batch.len()), Vec::new());
        each_row(self.opened.as_ref(), batch, call, |row, numbers| {
            all.extend(self.probabilities(numbers)?);
            rows.push(row);
            Ok(())
        })?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut made = call.out().make(&rows)?;
        for (i, probabilities) in all.chunks_exact(self.classes as usize).enumerate() {
            made.set("score", i, &[probabilities[self.ranked]])?;
            made.set("probabilities", i, probabilities)?;
        }
        made.emit()
    }
}

impl Scorer {
    fn ranked(&self) -> Result<usize> {
        match self.positive {
            Some(class) if class < self.classes => Ok(class as usize),
            Some(class) => Err(Error::param(
                "positive",
                format!(
                    "there is no class {class}: they are 0 to {}",
                    self.classes - 1
                ),
            )),
            None if self.classes <= 2 => Ok(self.classes as usize - 1),
            None => Err(Error::param(
                "positive",
                format!("which of the {} classes are tiles ranked by?", self.classes),
            )
            .help("give `positive`, the class's number from 0")),
        }
    }

    /// Of the model's numbers of a tile.
    fn probabilities(&self, numbers: &[f32]) -> Result<Vec<f32>> {
        let mut made: Vec<f32> = match self.activation {
            Activation::Softmax => softmax(numbers),
            Activation::Sigmoid => numbers.iter().map(|logit| sigmoid(*logit)).collect(),
            Activation::None => numbers
                .iter()
                .map(|&it| match (-ROUNDING..=1.0 + ROUNDING).contains(&it) {
                    true => Ok(it.clamp(0.0, 1.0)),
                    false => Err(Error::new(format!(
                        "the model gives {it}, which is no probability"
                    ))
                    .help("take the activation \"softmax\" or \"sigmoid\"")),
                })
                .collect::<Result<_>>()?,
        };
        // One number of two classes is the ranked one's.
        if let ([one], 2) = (&made[..], self.classes) {
            let one = *one;
            made = vec![1.0 - one; 2];
            made[self.ranked] = one;
        }
        Ok(made)
    }
}

/// In f64, so that the sum's order is below f32's last bit.
fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits
        .iter()
        .map(|logit| f64::from(logit - most).exp())
        .collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| (power / sum) as f32).collect()
}

fn sigmoid(logit: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_stand_the_greatest_logits() {
        assert_eq!(softmax(&[1000.0, 1000.0]), [0.5, 0.5]);
        assert_eq!(softmax(&[-1e30, 0.0, -1e30]), [0.0, 1.0, 0.0]);
        assert_eq!([sigmoid(-1e4), sigmoid(0.0), sigmoid(1e4)], [0.0, 0.5, 1.0]);
        let sum: f32 = softmax(&[0.1, 2.0, -3.0, 0.7]).iter().sum();
        assert!((sum - 1.0).abs() < 1e-6);
    }
}
