//! The attention head and the gradient through it, in f64.

use crate::oracle::{Checked, least, named, numerators, row_of};
use crate::work::{Head, Outputs, Work};

/// Eight sums at once, so that a check of a large case takes seconds, not minutes.
fn dot(weights: &[f32], h: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (w, h) = (weights.chunks_exact(8), h.chunks_exact(8));
    let rest: f64 = w
        .remainder()
        .iter()
        .zip(h.remainder())
        .map(|(w, h)| f64::from(*w) * h)
        .sum();
    for (w, h) in w.zip(h) {
        for i in 0..8 {
            sums[i] += f64::from(w[i]) * h[i];
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// tanh(V h + b) and sigmoid(U h + b).
fn hidden(head: &Head, h: &[f64]) -> Vec<(f64, f64)> {
    let d = h.len();
    (0..head.last.0.len())
        .map(|unit| {
            let row = unit * d..(unit + 1) * d;
            let value = dot(&head.value.0[row.clone()], h) + f64::from(head.value.1[unit]);
            let gate = dot(&head.gate.0[row], h) + f64::from(head.gate.1[unit]);
            (value.tanh(), 1.0 / (1.0 + (-gate).exp()))
        })
        .collect()
}

/// The logit of a member.
pub fn logit(head: &Head, h: &[f64]) -> f64 {
    let units = hidden(head, h);
    let last = head.last.0.iter().zip(&units);
    last.map(|(w, (t, s))| f64::from(*w) * t * s).sum::<f64>() + f64::from(head.last.1)
}

/// A sum and the sum of its terms' sizes.
#[derive(Clone, Copy, Default)]
struct Sum(f64, f64);

impl Sum {
    fn add(&mut self, term: f64, size: f64) {
        self.0 += term;
        self.1 += size;
    }
}

/// Holds (c)'s gradients against f64, where that takes no more than `limit` multiplications.
pub fn backward(work: &Work, out: &Outputs, checked: &mut Checked, limit: f64) {
    let (case, set) = (&work.case, &work.sets[0]);
    let Some(head) = &work.head else { return };
    let (d, l) = (case.d, case.l);
    if (work.bags.members() * d * l * 6) as f64 > limit {
        return;
    }
    let mut by = [vec![Sum::default(); l * d], vec![Sum::default(); l * d]];
    let mut by_bias = [vec![Sum::default(); l], vec![Sum::default(); l]];
    let (mut by_last, mut by_last_bias) = (vec![Sum::default(); l], Sum::default());
    let Ok(features) = named(out, "features") else {
        return;
    };
    for bag in 0..case.bags {
        let members: Vec<usize> = work.rows_of(bag).filter(|&row| work.member(row)).collect();
        let rows: Vec<Vec<f64>> = members.iter().map(|&row| row_of(work, row)).collect();
        let units: Vec<Vec<(f64, f64)>> = rows.iter().map(|h| hidden(head, h)).collect();
        let a: Vec<f64> = rows.iter().map(|h| logit(head, h)).collect();
        let (e, slope) = numerators(case, &a);
        let sum: f64 = e.iter().sum();
        let u: Vec<f64> = (0..d).map(|c| set["gradient"].at(bag * d + c)).collect();
        let along: Vec<Sum> = rows
            .iter()
            .map(|h| {
                let mut sum = Sum::default();
                h.iter()
                    .zip(&u)
                    .for_each(|(h, u)| sum.add(h * u, (h * u).abs()));
                sum
            })
            .collect();
        let mut mean = Sum::default();
        for (e, along) in e.iter().zip(&along) {
            mean.add(e / sum * along.0, e / sum * along.1);
        }
        for (k, &row) in members.iter().enumerate() {
            let da = slope[k] / sum * (along[k].0 - mean.0);
            let size = slope[k].abs() / sum * (along[k].1 + mean.1);
            let mut by_h: Vec<Sum> = u
                .iter()
                .map(|u| Sum(e[k] / sum * u, (e[k] / sum * u).abs()))
                .collect();
            by_last_bias.add(da, size);
            for unit in 0..l {
                let ((t, s), w) = (units[k][unit], f64::from(head.last.0[unit]));
                by_last[unit].add(da * t * s, size * (t * s).abs());
                let slopes = [w * s * (1.0 - t * t), w * t * s * (1.0 - s)];
                for (which, slope) in slopes.into_iter().enumerate() {
                    let (term, size) = (da * slope, size * slope.abs());
                    by_bias[which][unit].add(term, size);
                    let matrix = [&head.value.0, &head.gate.0][which];
                    for c in 0..d {
                        let (h, m) = (rows[k][c], f64::from(matrix[unit * d + c]));
                        by[which][unit * d + c].add(term * h, size * h.abs());
                        by_h[c].add(term * m, size * m.abs());
                    }
                }
            }
            for (c, sum) in by_h.iter().enumerate() {
                let scale = sum.1.max(least(case.dtype));
                checked.see("features", features.at(row * d + c), sum.0, scale);
            }
        }
    }
    let sums = [
        ("value", &by[0]),
        ("gate", &by[1]),
        ("value bias", &by_bias[0]),
        ("gate bias", &by_bias[1]),
        ("weight", &by_last),
        ("bias", &vec![by_last_bias]),
    ];
    for (name, sums) in sums {
        let Ok(got) = named(out, name) else { return };
        for (at, sum) in sums.iter().enumerate() {
            checked.see(name, got.at(at), sum.0, sum.1);
        }
    }
}
