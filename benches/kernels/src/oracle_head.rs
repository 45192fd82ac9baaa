//! The attention head and the gradient through it, in f64.

use crate::oracle::{Checked, least, named, numerators, row_of};
use crate::shapes::Outputs;
use crate::work::{Head, Work};

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

/// tanh(V h + b) and sigmoid(U h + b) of one unit.
fn unit_of(head: &Head, unit: usize, h: &[f64]) -> (f64, f64) {
    let row = unit * h.len()..(unit + 1) * h.len();
    let value = dot(&head.value.0[row.clone()], h) + f64::from(head.value.1[unit]);
    let gate = dot(&head.gate.0[row], h) + f64::from(head.gate.1[unit]);
    (value.tanh(), 1.0 / (1.0 + (-gate).exp()))
}

/// The logit of a member.
pub fn logit(head: &Head, h: &[f64]) -> f64 {
    let last = head.last.0.iter().enumerate();
    let terms = last.map(|(unit, w)| {
        let (t, s) = unit_of(head, unit, h);
        f64::from(*w) * t * s
    });
    terms.sum::<f64>() + f64::from(head.last.1)
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

/// What of a case is judged.
struct Part {
    /// All of it: no number of the kernels' own is taken for right.
    whole: bool,
    /// Bags that are looked at.
    bags: Vec<usize>,
    /// Of so many members one: dL/dh.
    step: usize,
    /// Hidden units: their rows of dL/dV and dL/dU, biases and weight.
    units: Vec<usize>,
}

impl Part {
    /// That which takes about `limit` multiplications.
    fn of(work: &Work, limit: f64) -> Part {
        let case = &work.case;
        let (d, l, members) = (case.d, case.l, work.bags.members());
        if (members * d * l * 6) as f64 <= limit {
            return Part {
                whole: true,
                bags: (0..case.bags).collect(),
                step: 1,
                units: (0..l).collect(),
            };
        }
        // Each unit is a sum over all members: its products with V and U, and what it adds to their gradients.
        let count = (limit / 2.0 / (members * d * 4) as f64) as usize;
        let units: Vec<usize> = (0..count.min(l)).map(|k| k * l / count.min(l)).collect();
        let mut bags: Vec<usize> = (0..case.bags).collect();
        if units.is_empty() {
            bags = vec![0, case.bags / 2, case.bags - 1];
            bags.dedup();
        }
        let rows = (limit / 4.0 / (4 * d * l) as f64).max(1.0);
        let looked_at: usize = bags.iter().map(|&bag| work.rows_of(bag).len()).sum();
        Part {
            whole: false,
            bags,
            step: (looked_at as f64 / rows).ceil() as usize,
            units,
        }
    }
}

/// Holds (c)'s gradients against f64. Of a case that would take more than about `limit` multiplications a part is judged:
/// dL/dh of every so many-th member, from the logits that the kernel's forward pass gave (which that pass's own case
/// judges), and, where one sum over all members is no more than that, every so many-th hidden unit's gradients; of larger
/// ones still only dL/dh, in three bags.
pub fn backward(work: &Work, out: &Outputs, checked: &mut Checked, limit: f64) {
    let (case, set) = (&work.case, &work.sets[0]);
    let Some(head) = &work.head else { return };
    let (d, l) = (case.d, case.l);
    let part = Part::of(work, limit);
    let mut by = [vec![Sum::default(); l * d], vec![Sum::default(); l * d]];
    let mut by_bias = [vec![Sum::default(); l], vec![Sum::default(); l]];
    let (mut by_last, mut by_last_bias) = (vec![Sum::default(); l], Sum::default());
    let Ok(features) = named(out, "features") else {
        return;
    };
    let all: Vec<usize> = (0..l).collect();
    let mut chosen = vec![false; l];
    part.units.iter().for_each(|&unit| chosen[unit] = true);
    let mut number = 0;
    for &bag in &part.bags {
        let members: Vec<usize> = work.rows_of(bag).filter(|&row| work.member(row)).collect();
        let of_kernel = set.get("state.logits").filter(|_| !part.whole);
        let a: Vec<f64> = members
            .iter()
            .map(|&row| of_kernel.map_or_else(|| logit(head, &row_of(work, row)), |a| a.at(row)))
            .collect();
        let (e, slope) = numerators(case, &a);
        let sum: f64 = e.iter().sum();
        let u: Vec<f64> = (0..d).map(|c| set["gradient"].at(bag * d + c)).collect();
        let along: Vec<Sum> = members
            .iter()
            .map(|&row| {
                let mut sum = Sum::default();
                let h = row_of(work, row);
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
            let judged = number % part.step == 0;
            number += 1;
            if !judged && part.units.is_empty() {
                continue;
            }
            let h = row_of(work, row);
            let da = slope[k] / sum * (along[k].0 - mean.0);
            let size = slope[k].abs() / sum * (along[k].1 + mean.1);
            let mut by_h: Vec<Sum> = u
                .iter()
                .map(|u| Sum(e[k] / sum * u, (e[k] / sum * u).abs()))
                .collect();
            by_last_bias.add(da, size);
            for &unit in if judged { &all } else { &part.units } {
                let ((t, s), w) = (unit_of(head, unit, &h), f64::from(head.last.0[unit]));
                by_last[unit].add(da * t * s, size * (t * s).abs());
                let slopes = [w * s * (1.0 - t * t), w * t * s * (1.0 - s)];
                for (which, slope) in slopes.into_iter().enumerate() {
                    let (term, size) = (da * slope, size * slope.abs());
                    by_bias[which][unit].add(term, size);
                    let places = unit * d..(unit + 1) * d;
                    if chosen[unit] {
                        for (by, h) in by[which][places.clone()].iter_mut().zip(&h) {
                            by.add(term * h, size * h.abs());
                        }
                    }
                    if judged {
                        let matrix = [&head.value.0, &head.gate.0][which];
                        for (by, m) in by_h.iter_mut().zip(&matrix[places]) {
                            by.add(term * f64::from(*m), size * f64::from(m.abs()));
                        }
                    }
                }
            }
            if judged {
                for (c, sum) in by_h.iter().enumerate() {
                    let scale = sum.1.max(least(case.dtype));
                    checked.see("features", features.at(row * d + c), sum.0, scale);
                }
            }
        }
    }
    let sums: [(_, &[Sum], usize); 5] = [
        ("value", &by[0], d),
        ("gate", &by[1], d),
        ("value bias", &by_bias[0], 1),
        ("gate bias", &by_bias[1], 1),
        ("weight", &by_last, 1),
    ];
    for (name, sums, width) in sums {
        let Ok(got) = named(out, name) else { return };
        for &unit in &part.units {
            let places = unit * width..(unit + 1) * width;
            for (at, sum) in places.clone().zip(&sums[places]) {
                checked.see(name, got.at(at), sum.0, sum.1);
            }
        }
    }
    if let (Ok(got), false) = (named(out, "bias"), part.units.is_empty()) {
        checked.see("bias", got.at(0), by_last_bias.0, by_last_bias.1);
    }
}
