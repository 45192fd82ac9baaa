//! The same in f64, with the size that the terms of each sum have: errors are told as a part of it.

use crate::case::{Case, Gradients, Results, Shape};
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::{Rule, reference};

/// A sum, and the sum of its terms' sizes.
#[derive(Clone, Copy, Default)]
struct Sum {
    value: f64,
    size: f64,
}

impl Sum {
    fn add(&mut self, value: f64, size: f64) {
        self.value += value;
        self.size += size;
    }
}

pub struct Truth<'a> {
    case: &'a Case,
    logits: Vec<Sum>,
    pooled: Vec<Sum>,
    gradients: Vec<(&'static str, Vec<Sum>)>,
}

/// Pre-activations of a member by V and U, tanh and sigmoid of them.
struct Hidden {
    t: Vec<f64>,
    s: Vec<f64>,
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn hidden(case: &Case, h: &[f64]) -> Hidden {
    let t = reference::linear(&wide(&case.value.0), &wide(&case.value.1), h);
    let s = reference::linear(&wide(&case.gate.0), &wide(&case.gate.1), h);
    Hidden {
        t: t.iter().map(|t| t.tanh()).collect(),
        s: s.iter()
            .map(|&s| {
                if case.shape.gated {
                    reference::sigmoid(s)
                } else {
                    1.0
                }
            })
            .collect(),
    }
}

/// The numerator of a logit, and its slope; of softmax against no greatest.
fn numerator(rule: Rule, a: f64) -> (f64, f64) {
    let (g, by_a) = match rule.link {
        Link::None => (a, 1.0),
        Link::Sigmoid => {
            let s = reference::sigmoid(a);
            (s, s * (1.0 - s))
        }
    };
    let power = |p: f64, g: f64| (g.abs().powf(p), p * g.abs().powf(p - 1.0) * g.signum());
    let (e, by_g) = match rule.normalisation {
        Normalisation::SquaredAverage => power(2.0, g),
        Normalisation::Power(p) => power(f64::from(p), g),
        Normalisation::Sigmoid => {
            let s = reference::sigmoid(g);
            (s, s * (1.0 - s))
        }
        Normalisation::Softmax => (g.exp(), g.exp()),
        _ => (1.0, 0.0),
    };
    (e, by_g * by_a)
}

/// d numerator / da over S, for the members' logits, which are sums of terms of these sizes: a slope's own size is what it
/// would be were the logit wrong by a part of its size, over that part.
fn slopes(rule: Rule, a: &[f64], weights: &[f64], sizes: &[f64]) -> Vec<Sum> {
    const PART: f64 = 1e-4;
    let sum: f64 = a.iter().map(|&a| numerator(rule, a).0).sum();
    for (&a, w) in a.iter().zip(weights) {
        assert!((numerator(rule, a).0 / sum - w).abs() < 1e-12);
    }
    let slope = |a: f64| numerator(rule, a).1 / sum;
    a.iter()
        .zip(sizes)
        .map(|(&a, &size)| Sum {
            value: slope(a),
            size: slope(a).abs() + (slope(a + PART * size) - slope(a)).abs() / PART,
        })
        .collect()
}

impl<'a> Truth<'a> {
    pub fn new(case: &'a Case, rule: Rule, dz: &[f32], dw: Option<&[f32]>) -> Truth<'a> {
        let Shape {
            d,
            hidden: units,
            gated,
        } = case.shape;
        let (rows, n) = (case.bags.total(), case.bags.len());
        let mut truth = Truth {
            case,
            logits: vec![Sum::default(); rows],
            pooled: vec![Sum::default(); n * d],
            gradients: Vec::new(),
        };
        let mut value = vec![Sum::default(); units * d];
        let mut gate = vec![Sum::default(); if gated { units * d } else { 0 }];
        let mut value_bias = vec![Sum::default(); units];
        let mut gate_bias = vec![Sum::default(); if gated { units } else { 0 }];
        let mut weight = vec![Sum::default(); units];
        let mut bias = vec![Sum::default(); 1];
        let mut features = vec![Sum::default(); rows * d];
        let (v, u, w) = (wide(&case.value.0), wide(&case.gate.0), wide(&case.weight));
        for bag in 0..n {
            let members: Vec<usize> = case.bags.rows(bag).filter(|&row| case.mask[row]).collect();
            if members.is_empty() {
                continue;
            }
            let h: Vec<Vec<f64>> = members
                .iter()
                .map(|&row| wide(&case.features[row * d..(row + 1) * d]))
                .collect();
            let units_of: Vec<Hidden> = h.iter().map(|h| hidden(case, h)).collect();
            let a: Vec<f64> = units_of
                .iter()
                .zip(&members)
                .map(|(hidden, &row)| {
                    let sum = &mut truth.logits[row];
                    sum.add(f64::from(case.bias), f64::from(case.bias.abs()));
                    for ((t, s), w) in hidden.t.iter().zip(&hidden.s).zip(&w) {
                        sum.add(w * t * s, w.abs());
                    }
                    sum.value
                })
                .collect();
            let weights = reference::weights(rule.normalisation, rule.link, &a);
            for (&weight, h) in weights.iter().zip(&h) {
                for (z, h) in truth.pooled[bag * d..(bag + 1) * d].iter_mut().zip(h) {
                    z.add(weight * h, weight * h.abs());
                }
            }
            let dz = wide(&dz[bag * d..(bag + 1) * d]);
            let by_weight: Vec<Sum> = members
                .iter()
                .zip(&h)
                .map(|(&row, h)| {
                    let mut sum = Sum::default();
                    h.iter()
                        .zip(&dz)
                        .for_each(|(h, dz)| sum.add(h * dz, (h * dz).abs()));
                    let direct = dw.map_or(0.0, |dw| f64::from(dw[row]));
                    sum.add(direct, direct.abs());
                    sum
                })
                .collect();
            let mut mean = Sum::default();
            by_weight
                .iter()
                .zip(&weights)
                .for_each(|(g, w)| mean.add(w * g.value, w * g.size));
            let sizes: Vec<f64> = members.iter().map(|&row| truth.logits[row].size).collect();
            let slopes = slopes(rule, &a, &weights, &sizes);
            for (k, &row) in members.iter().enumerate() {
                let da = slopes[k].value * (by_weight[k].value - mean.value);
                let da_size = slopes[k].size * (by_weight[k].size + mean.size);
                bias[0].add(da, da_size);
                let dh = &mut features[row * d..(row + 1) * d];
                for (dh, dz) in dh.iter_mut().zip(&dz) {
                    dh.add(weights[k] * dz, (weights[k] * dz).abs());
                }
                for l in 0..units {
                    let (t, s) = (units_of[k].t[l], units_of[k].s[l]);
                    weight[l].add(da * t * s, da_size);
                    let mut through =
                        |by: f64, layer: &[f64], layer_sum: &mut [Sum], bias_sum: &mut Sum| {
                            let (dp, size) = (da * w[l] * by, da_size * (w[l] * by).abs());
                            bias_sum.add(dp, size);
                            for c in 0..d {
                                layer_sum[l * d + c].add(dp * h[k][c], size * h[k][c].abs());
                                dh[c].add(dp * layer[l * d + c], size * layer[l * d + c].abs());
                            }
                        };
                    through(s * (1.0 - t * t), &v, &mut value, &mut value_bias[l]);
                    if gated {
                        through(t * s * (1.0 - s), &u, &mut gate, &mut gate_bias[l]);
                    }
                }
            }
        }
        truth.gradients = vec![
            ("value", value),
            ("value bias", value_bias),
            ("gate", gate),
            ("gate bias", gate_bias),
            ("weight", weight),
            ("bias", bias),
            ("features", features),
        ];
        truth
    }

    /// Greatest error of a logit, as a part of sum |w|.
    pub fn logits(&self, got: &Results) -> f64 {
        apart("logits", &self.logits, &got.logits)
    }

    /// Greatest error of a pooled component, as a part of sum w |h|.
    pub fn pooled(&self, got: &Results) -> f64 {
        apart("pooled", &self.pooled, &got.pooled)
    }

    /// Weights, S, the sum of the weights' squares and their entropy are what the rule makes of the kernel's own logits in
    /// f64, whatever the features' type: from the logits on it is f32 alone. No row is refused and no bag uniform.
    pub fn weights_and_their_sums(&self, rule: Rule, got: &Results) {
        let close = |what: &str, bag: usize, got: f32, wanted: f64, least: f64| {
            assert!(
                (f64::from(got) - wanted).abs() <= 1e-5 * (wanted + least),
                "{what} of bag {bag} is {got:e}, but its logits give {wanted:e}: {rule:?}"
            );
        };
        for bag in 0..self.case.bags.len() {
            let (members, masked): (Vec<usize>, Vec<usize>) = self
                .case
                .bags
                .rows(bag)
                .partition(|&row| self.case.mask[row]);
            let a: Vec<f64> = members.iter().map(|&k| f64::from(got.logits[k])).collect();
            let weights = match a.is_empty() {
                true => Vec::new(),
                false => reference::weights(rule.normalisation, rule.link, &a),
            };
            let of_members = members.iter().zip(weights.iter().copied());
            for (&row, wanted) in of_members.chain(masked.iter().map(|row| (row, 0.0))) {
                close("a weight", bag, got.weights[row], wanted, 0.0);
            }
            let greatest = a.iter().copied().reduce(f64::max).unwrap_or(0.0);
            let shift = match rule.normalisation {
                Normalisation::Softmax => (-greatest).exp(),
                _ => 1.0,
            };
            let sum: f64 = a.iter().map(|&a| numerator(rule, a).0).sum();
            close("S", bag, got.sums[bag], sum * shift, 0.0);
            let squares: f64 = weights.iter().map(|w| w * w).sum();
            close("the sum of squares", bag, got.squares[bag], squares, 0.0);
            let entropy = |&w: &f64| if w > 0.0 { -w * w.ln() } else { 0.0 };
            let entropy: f64 = weights.iter().map(entropy).sum();
            close("the entropy", bag, got.entropy[bag], entropy, 1.0);
        }
    }

    /// Greatest error of each gradient, as a part of the sum of its terms' sizes.
    pub fn gradients(&self, got: &Gradients) -> Vec<(&'static str, f64)> {
        let parts = got.parts().into_iter().zip(&self.gradients);
        parts
            .map(|((name, got), (_, truth))| (name, apart(name, truth, got)))
            .collect()
    }
}

fn apart(name: &str, truth: &[Sum], got: &[f32]) -> f64 {
    assert_eq!(truth.len(), got.len(), "{name}");
    let mut worst = 0.0f64;
    for (at, (truth, &got)) in truth.iter().zip(got).enumerate() {
        assert!(
            got.is_finite(),
            "{name} {at} was not written, or is no number"
        );
        let far = (f64::from(got) - truth.value).abs();
        if truth.size == 0.0 {
            assert_eq!(got, 0.0, "{name} {at}");
        } else if far > 0.0 {
            worst = worst.max(far / truth.size.max(1e-30));
        }
    }
    worst
}

/// u . z summed over the bags, in f64.
fn loss(case: &Case, rule: Rule, dz: &[f32], moved: &dyn Fn(&mut Moved)) -> f64 {
    let Shape { d, gated, .. } = case.shape;
    let mut at = Moved {
        value: (wide(&case.value.0), wide(&case.value.1)),
        gate: (wide(&case.gate.0), wide(&case.gate.1)),
        weight: wide(&case.weight),
        bias: f64::from(case.bias),
        features: wide(&case.features),
    };
    moved(&mut at);
    let mut loss = 0.0;
    for bag in 0..case.bags.len() {
        let members: Vec<usize> = case.bags.rows(bag).filter(|&row| case.mask[row]).collect();
        if members.is_empty() {
            continue;
        }
        let h: Vec<Vec<f64>> = members
            .iter()
            .map(|&row| at.features[row * d..(row + 1) * d].to_vec())
            .collect();
        let gate = gated.then_some((&at.gate.0[..], &at.gate.1[..]));
        let a: Vec<f64> = h
            .iter()
            .map(|h| reference::attention((&at.value.0, &at.value.1), gate, &at.weight, at.bias, h))
            .collect();
        let z = reference::pool(rule.normalisation, rule.link, &a, &h).pooled;
        loss += z
            .iter()
            .zip(&dz[bag * d..])
            .map(|(z, &dz)| z * f64::from(dz))
            .sum::<f64>();
    }
    loss
}

struct Moved {
    value: (Vec<f64>, Vec<f64>),
    gate: (Vec<f64>, Vec<f64>),
    weight: Vec<f64>,
    bias: f64,
    features: Vec<f64>,
}

/// The part of the head, or the features, that a gradient is by.
type Part = fn(&mut Moved) -> &mut [f64];

/// Holds some of each gradient against central differences.
pub fn finite_differences(case: &Case, rule: Rule, dz: &[f32], got: &Gradients) {
    const STEP: f64 = 1e-6;
    let parts: [(&'static str, &[f32], Part); 7] = [
        ("value", &got.value, |at| &mut at.value.0),
        ("value bias", &got.value_bias, |at| &mut at.value.1),
        ("gate", &got.gate, |at| &mut at.gate.0),
        ("gate bias", &got.gate_bias, |at| &mut at.gate.1),
        ("weight", &got.weight, |at| &mut at.weight),
        ("bias", &got.bias, |at| std::slice::from_mut(&mut at.bias)),
        ("features", &got.features, |at| &mut at.features),
    ];
    for (name, got, of) in parts {
        let scale = got.iter().fold(0.0f64, |m, &g| m.max(f64::from(g.abs())));
        for at in (0..got.len()).step_by(got.len() / 5 + 1) {
            let by = |step: f64| loss(case, rule, dz, &|moved: &mut Moved| of(moved)[at] += step);
            let slope = (by(STEP) - by(-STEP)) / (2.0 * STEP);
            let far = (slope - f64::from(got[at])).abs();
            assert!(
                far <= 2e-4 * scale + 1e-6,
                "{rule:?} {name} {at}: {} but {slope} (greatest {scale})",
                got[at]
            );
        }
    }
}
