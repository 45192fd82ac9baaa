//! From the members' logits to their numerators.
//!
//! A weight is a numerator over the sum of all numerators, so a normalisation says no more than what the numerator of a
//! member is. The link stands before it: g = a, or g = sigmoid(a). It goes with every normalisation, so `softmax` with
//! the link `sigmoid` is the bounded softmax of METHOD 7, and `squared-average` with the link `none` the paper's own form.

use crate::math::{exp, power, sigmoid};
use std::fmt;

/// What is done to a logit before it is normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// g = a.
    None,
    /// g = sigmoid(a): one-sided, so that weights rank as logits do.
    Sigmoid,
}

impl Link {
    /// Names that [`Link::parse`] knows.
    pub const NAMES: [&'static str; 2] = ["none", "sigmoid"];

    /// By the name in `model.toml`.
    pub fn parse(name: &str) -> Option<Link> {
        match name {
            "none" => Some(Link::None),
            "sigmoid" => Some(Link::Sigmoid),
            _ => None,
        }
    }

    /// As `model.toml` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Link::None => "none",
            Link::Sigmoid => "sigmoid",
        }
    }

    /// g of a.
    pub fn apply(self, a: f32) -> f32 {
        match self {
            Link::None => a,
            Link::Sigmoid => sigmoid(a),
        }
    }
}

/// A normalisation, by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Normalisation {
    /// e = g^2.
    SquaredAverage,
    /// e = exp(g - max g).
    Softmax,
    /// e = sigmoid(g).
    Sigmoid,
    /// Euclidean projection onto the simplex (Martins and Astudillo 2016).
    Sparsemax,
    /// e = 1.
    Mean,
    /// e = 1 for the greatest g, all that are equal to it, else 0.
    Max,
    /// e = |g|^p.
    Power(f32),
}

impl Normalisation {
    /// Names that [`Normalisation::parse`] knows.
    pub const NAMES: [&'static str; 7] = [
        "squared-average",
        "softmax",
        "sigmoid",
        "sparsemax",
        "mean",
        "max",
        "power",
    ];

    /// By the name in `model.toml`; `exponent` is that of `power`. `None` when the name is none of [`Self::NAMES`], or
    /// the exponent is missing, negative or not finite.
    pub fn parse(name: &str, exponent: Option<f32>) -> Option<Normalisation> {
        Some(match name {
            "squared-average" => Normalisation::SquaredAverage,
            "softmax" => Normalisation::Softmax,
            "sigmoid" => Normalisation::Sigmoid,
            "sparsemax" => Normalisation::Sparsemax,
            "mean" => Normalisation::Mean,
            "max" => Normalisation::Max,
            "power" => Normalisation::Power(exponent.filter(|p| p.is_finite() && *p >= 0.0)?),
            _ => return None,
        })
    }

    /// The rule of that name.
    pub fn rule(self) -> Box<dyn Normalise> {
        match self {
            Normalisation::SquaredAverage => Box::new(SquaredAverage),
            Normalisation::Softmax => Box::new(Softmax),
            Normalisation::Sigmoid => Box::new(Sigmoid),
            Normalisation::Sparsemax => Box::new(Sparsemax),
            Normalisation::Mean => Box::new(Mean),
            Normalisation::Max => Box::new(Max),
            Normalisation::Power(exponent) => Box::new(Power { exponent }),
        }
    }
}

/// How numerators are made.
pub trait Normalise: fmt::Debug + Send + Sync {
    /// As `model.toml` calls it.
    fn name(&self) -> &'static str;

    /// The numerators, none negative, of the members' `g`, all finite.
    fn numerators(&self, g: &[f32]) -> Vec<f32>;

    /// Whether the others keep their proportions when a member leaves the bag.
    fn proportional(&self) -> bool {
        true
    }

    /// Whether the order of the members alone decides. A link keeps it, but rounds: where the sigmoid is flat, two logits
    /// become one number. So such a rule is given the logits themselves.
    fn by_order(&self) -> bool {
        false
    }

    /// Whether `g` lies where its numerator keeps f32's precision.
    fn in_domain(&self, _g: f32) -> bool {
        true
    }
}

/// Whether the square of `g` neither overflows nor loses precision.
fn squares(g: f32) -> bool {
    g == 0.0 || (1e-18 < g.abs() && g.abs() < 1e18)
}

/// w = g^2 / sum g^2.
#[derive(Clone, Copy, Debug)]
pub struct SquaredAverage;

impl Normalise for SquaredAverage {
    fn name(&self) -> &'static str {
        "squared-average"
    }
    fn numerators(&self, g: &[f32]) -> Vec<f32> {
        g.iter().map(|g| g * g).collect()
    }
    fn in_domain(&self, g: f32) -> bool {
        squares(g)
    }
}

/// w = e^g / sum e^g.
#[derive(Clone, Copy, Debug)]
pub struct Softmax;

impl Normalise for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }
    fn numerators(&self, g: &[f32]) -> Vec<f32> {
        let greatest = greatest(g);
        g.iter().map(|&g| exp(g - greatest)).collect()
    }
}

/// w = sigmoid(g) / sum sigmoid(g).
#[derive(Clone, Copy, Debug)]
pub struct Sigmoid;

impl Normalise for Sigmoid {
    fn name(&self) -> &'static str {
        "sigmoid"
    }
    fn numerators(&self, g: &[f32]) -> Vec<f32> {
        g.iter().map(|&g| sigmoid(g)).collect()
    }
}

/// The nearest point of the simplex.
#[derive(Clone, Copy, Debug)]
pub struct Sparsemax;

impl Normalise for Sparsemax {
    fn name(&self) -> &'static str {
        "sparsemax"
    }
    fn numerators(&self, g: &[f32]) -> Vec<f32> {
        let greatest = greatest(g);
        let mut sorted: Vec<f32> = g.iter().map(|g| g - greatest).collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        // The support is the longest head whose least member still lies above the threshold that the head implies.
        let (mut sum, mut threshold) = (0.0, -1.0);
        for (place, &g) in sorted.iter().enumerate() {
            let count = (place + 1) as f32;
            sum += g;
            if 1.0 + count * g <= sum {
                break;
            }
            threshold = (sum - 1.0) / count;
        }
        g.iter()
            .map(|g| (g - greatest - threshold).max(0.0))
            .collect()
    }
    fn proportional(&self) -> bool {
        false
    }
}

/// w = 1 / n.
#[derive(Clone, Copy, Debug)]
pub struct Mean;

impl Normalise for Mean {
    fn name(&self) -> &'static str {
        "mean"
    }
    fn numerators(&self, g: &[f32]) -> Vec<f32> {
        vec![1.0; g.len()]
    }
}

/// The member of the greatest logit; equals share.
#[derive(Clone, Copy, Debug)]
pub struct Max;

impl Normalise for Max {
    fn name(&self) -> &'static str {
        "max"
    }
    fn numerators(&self, g: &[f32]) -> Vec<f32> {
        let greatest = greatest(g);
        g.iter()
            .map(|&g| if g == greatest { 1.0 } else { 0.0 })
            .collect()
    }
    fn proportional(&self) -> bool {
        false
    }
    fn by_order(&self) -> bool {
        true
    }
}

/// w = |g|^p / sum |g|^p.
#[derive(Clone, Copy, Debug)]
pub struct Power {
    /// p, at least 0.
    pub exponent: f32,
}

impl Normalise for Power {
    fn name(&self) -> &'static str {
        "power"
    }
    fn numerators(&self, g: &[f32]) -> Vec<f32> {
        g.iter().map(|&g| power(g, self.exponent)).collect()
    }
    fn in_domain(&self, g: f32) -> bool {
        squares(g)
    }
}

fn greatest(g: &[f32]) -> f32 {
    g.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}
