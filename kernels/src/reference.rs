//! The same in f64 by the textbook (METHOD 2): what the loops and the trainer's gradients are held against.

use crate::normalise::{Link, Normalisation};

/// A pooled bag in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Pooled {
    /// `[d]`
    pub pooled: Vec<f64>,
    /// Of each member.
    pub weights: Vec<f64>,
    /// (sum w)^2 / sum w^2
    pub effective: f64,
    /// Nats.
    pub entropy: f64,
}

/// Gradients of L = u . z, z the pooled vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradient {
    /// dL/da of each member.
    pub logits: Vec<f64>,
    /// dL/dh of each member through the pool alone: w u.
    pub members: Vec<Vec<f64>>,
}

/// 1 / (1 + e^-x)
pub fn sigmoid(x: f64) -> f64 {
    if x < 0.0 {
        x.exp() / (1.0 + x.exp())
    } else {
        1.0 / (1.0 + (-x).exp())
    }
}

fn linked(link: Link, a: &[f64]) -> Vec<f64> {
    match link {
        Link::None => a.to_vec(),
        Link::Sigmoid => a.iter().map(|&a| sigmoid(a)).collect(),
    }
}

/// The weights; uniform where all numerators are zero.
pub fn weights(normalisation: Normalisation, link: Link, a: &[f64]) -> Vec<f64> {
    let g = linked(link, a);
    let e = numerators(normalisation, &g);
    let sum: f64 = e.iter().sum();
    if sum == 0.0 {
        return vec![1.0 / a.len() as f64; a.len()];
    }
    e.iter().map(|e| e / sum).collect()
}

fn numerators(normalisation: Normalisation, g: &[f64]) -> Vec<f64> {
    let greatest = g.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let each = |f: &dyn Fn(f64) -> f64| g.iter().map(|&g| f(g)).collect();
    match normalisation {
        Normalisation::SquaredAverage => each(&|g| g * g),
        Normalisation::Softmax => each(&|g| (g - greatest).exp()),
        Normalisation::Sigmoid => each(&sigmoid),
        Normalisation::Sparsemax => {
            let threshold = threshold(g);
            each(&|g| (g - threshold).max(0.0))
        }
        Normalisation::Mean => each(&|_| 1.0),
        Normalisation::Max => each(&|g| f64::from(g == greatest)),
        Normalisation::Power(p) => each(&|g| g.abs().powf(f64::from(p))),
    }
}

/// The t for which sum max(g - t, 0) = 1, by bisection: another way than the loop's.
fn threshold(g: &[f64]) -> f64 {
    let greatest = g.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (mut low, mut high) = (greatest - 1.0, greatest);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        let sum: f64 = g.iter().map(|g| (g - middle).max(0.0)).sum();
        if sum > 1.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// The pooled bag; `h` has at least one row.
pub fn pool(normalisation: Normalisation, link: Link, a: &[f64], h: &[Vec<f64>]) -> Pooled {
    let weights = weights(normalisation, link, a);
    let width = h.first().map_or(0, Vec::len);
    let pooled = (0..width)
        .map(|c| weights.iter().zip(h).map(|(w, h)| w * h[c]).sum())
        .collect();
    let sum: f64 = weights.iter().sum();
    let squares: f64 = weights.iter().map(|w| w * w).sum();
    Pooled {
        pooled,
        effective: sum * sum / squares,
        entropy: weights
            .iter()
            .filter(|w| **w > 0.0)
            .map(|w| -w * w.ln())
            .sum(),
        weights,
    }
}

/// The gradient of u . z: dL/da_k = (e'_k / S) u . (h_k - z) for a normalisation by numerators (METHOD 2.2), 0 where the
/// weights are uniform for want of a sum, and for `max` and `mean`, whose weights do not move with a.
pub fn gradient(
    normalisation: Normalisation,
    link: Link,
    a: &[f64],
    h: &[Vec<f64>],
    u: &[f64],
) -> Gradient {
    let bag = pool(normalisation, link, a, h);
    let g = linked(link, a);
    let e = numerators(normalisation, &g);
    let sum: f64 = e.iter().sum();
    let along = |h: &[f64]| h.iter().zip(u).map(|(h, u)| h * u).sum::<f64>();
    let r: Vec<f64> = h.iter().map(|h| along(h)).collect();
    let mean = along(&bag.pooled);
    let by_slope = |slope: &dyn Fn(usize) -> f64| -> Vec<f64> {
        (0..a.len())
            .map(|k| slope(k) / sum * (r[k] - mean))
            .collect()
    };
    let mut logits = if sum == 0.0 {
        vec![0.0; a.len()]
    } else {
        match normalisation {
            Normalisation::SquaredAverage => by_slope(&|k| 2.0 * g[k]),
            Normalisation::Softmax => by_slope(&|k| e[k]),
            Normalisation::Sigmoid => by_slope(&|k| e[k] * (1.0 - e[k])),
            Normalisation::Power(p) => by_slope(&|k| {
                let p = f64::from(p);
                if g[k] == 0.0 {
                    0.0
                } else {
                    p * g[k].abs().powf(p - 1.0) * g[k].signum()
                }
            }),
            Normalisation::Mean | Normalisation::Max => vec![0.0; a.len()],
            Normalisation::Sparsemax => {
                let support: Vec<usize> = (0..a.len()).filter(|&k| e[k] > 0.0).collect();
                let mean = support.iter().map(|&k| r[k]).sum::<f64>() / support.len() as f64;
                (0..a.len())
                    .map(|k| if e[k] > 0.0 { r[k] - mean } else { 0.0 })
                    .collect()
            }
        }
    };
    if link == Link::Sigmoid {
        for (d, g) in logits.iter_mut().zip(&g) {
            *d *= g * (1.0 - g);
        }
    }
    Gradient {
        logits,
        members: bag
            .weights
            .iter()
            .map(|w| u.iter().map(|u| w * u).collect())
            .collect(),
    }
}

/// W x + b, `weight` [outputs, inputs].
pub fn linear(weight: &[f64], bias: &[f64], x: &[f64]) -> Vec<f64> {
    weight
        .chunks_exact(x.len())
        .zip(bias)
        .map(|(row, b)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + b)
        .collect()
}

/// The attention logit of `h`: `value` and `gate` are (weight, bias), `weight` and `bias` the last layer.
pub fn attention(
    value: (&[f64], &[f64]),
    gate: Option<(&[f64], &[f64])>,
    weight: &[f64],
    bias: f64,
    h: &[f64],
) -> f64 {
    let mut hidden: Vec<f64> = linear(value.0, value.1, h);
    hidden.iter_mut().for_each(|v| *v = v.tanh());
    if let Some((weight, bias)) = gate {
        for (v, u) in hidden.iter_mut().zip(linear(weight, bias, h)) {
            *v *= sigmoid(u);
        }
    }
    hidden.iter().zip(weight).map(|(v, w)| v * w).sum::<f64>() + bias
}
