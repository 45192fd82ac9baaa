//! How good scores are, against labels (METHOD 5).

use crate::random::{Purpose, stream};
use rand::RngExt;
use serde::Serialize;

/// Area under the ROC curve: the probability that a positive scores above a negative, ties counting half (Mann and Whitney
/// 1947). `None` without both kinds. NaN counts as the lowest score.
pub fn auroc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let key = |score: f64| {
        if score.is_nan() {
            f64::NEG_INFINITY
        } else {
            score
        }
    };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| key(scores[a]).total_cmp(&key(scores[b])));
    let (mut rank_sum, mut at) = (0.0, 0);
    while at < order.len() {
        let same = order[at..]
            .iter()
            .take_while(|&&i| key(scores[i]) == key(scores[order[at]]))
            .count();
        let rank = at as f64 + (same as f64 + 1.0) / 2.0;
        rank_sum += rank
            * order[at..at + same]
                .iter()
                .filter(|&&i| positive[i])
                .count() as f64;
        at += same;
    }
    let p = positive.iter().filter(|p| **p).count() as f64;
    let n = positive.len() as f64 - p;
    (p > 0.0 && n > 0.0).then(|| (rank_sum - p * (p + 1.0) / 2.0) / (p * n))
}

/// Counts of true and predicted classes of a two-class decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// Positive, said to be.
    pub true_positive: u64,
    /// Negative, said to be positive.
    pub false_positive: u64,
    /// Positive, said to be negative.
    pub false_negative: u64,
    /// Negative, said to be.
    pub true_negative: u64,
}

impl Confusion {
    /// Of scores at a threshold: positive from it on.
    pub fn at(threshold: f64, scores: &[f64], positive: &[bool]) -> Self {
        let mut c = Confusion::default();
        for (score, positive) in scores.iter().zip(positive) {
            match (*score >= threshold, *positive) {
                (true, true) => c.true_positive += 1,
                (true, false) => c.false_positive += 1,
                (false, true) => c.false_negative += 1,
                (false, false) => c.true_negative += 1,
            }
        }
        c
    }

    /// F1 of the positive class; 0 when it neither occurs nor is predicted.
    pub fn f1(&self) -> f64 {
        f1(self.true_positive, self.false_positive, self.false_negative)
    }

    /// Mean of both classes' F1.
    pub fn macro_f1(&self) -> f64 {
        (self.f1() + f1(self.true_negative, self.false_negative, self.false_positive)) / 2.0
    }

    /// Mean of sensitivity and specificity; a class that does not occur is left out.
    pub fn balanced_accuracy(&self) -> f64 {
        let part = |hit: u64, miss: u64| (hit + miss > 0).then(|| hit as f64 / (hit + miss) as f64);
        let parts = [
            part(self.true_positive, self.false_negative),
            part(self.true_negative, self.false_positive),
        ];
        let known = parts.iter().flatten().count().max(1) as f64;
        parts.iter().flatten().sum::<f64>() / known
    }
}

fn f1(hit: u64, wrong: u64, missed: u64) -> f64 {
    let below = 2 * hit + wrong + missed;
    if below == 0 {
        0.0
    } else {
        2.0 * hit as f64 / below as f64
    }
}

/// A value and the interval that 95 % of the samples lie in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Of all units.
    pub value: f64,
    /// 2.5th percentile.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

/// Percentile bootstrap of `measure` over clusters: a sample takes as many clusters (patients) as there are, each as often as
/// it is drawn, with all its items. Samples in which the measure does not exist are drawn again, at most ten times each.
pub fn bootstrap(
    clusters: &[Vec<usize>],
    samples: u32,
    seed: u64,
    measure: impl Fn(&[usize]) -> Option<f64>,
) -> Option<Interval> {
    let all: Vec<usize> = clusters.iter().flatten().copied().collect();
    let value = measure(&all)?;
    let mut values = Vec::with_capacity(samples as usize);
    for sample in 0..samples {
        for attempt in 0..10 {
            let item = [u64::from(sample), attempt];
            let mut random = stream(seed, Purpose::Bootstrap, 0, item);
            let drawn: Vec<usize> = (0..clusters.len())
                .flat_map(|_| {
                    clusters[random.random_range(0..clusters.len())]
                        .iter()
                        .copied()
                })
                .collect();
            if let Some(value) = measure(&drawn) {
                values.push(value);
                break;
            }
        }
    }
    values.sort_by(f64::total_cmp);
    Some(Interval {
        value,
        low: quantile(&values, 0.025)?,
        high: quantile(&values, 0.975)?,
    })
}

/// The q-quantile of ascending values, linear between neighbours.
pub fn quantile(ascending: &[f64], q: f64) -> Option<f64> {
    let place = q * ascending.len().checked_sub(1)? as f64;
    let (low, part) = (place.floor(), place.fract());
    let a = ascending[low as usize];
    let b = ascending[place.ceil() as usize];
    Some(a + (b - a) * part)
}

/// How much of a bag's attention lies on its positive members, compared with uniform weights: G = (M - f) / (1 - f), 1 when
/// all does, 0 when it is spread evenly, negative when it is worse. `None` in a bag of one kind.
pub fn attention_gain(weights: &[f64], positive: &[bool]) -> Option<f64> {
    let share = positive.iter().filter(|p| **p).count() as f64 / positive.len().max(1) as f64;
    if share == 0.0 || share == 1.0 {
        return None;
    }
    let total: f64 = weights.iter().sum();
    let on: f64 = weights
        .iter()
        .zip(positive)
        .filter(|(_, p)| **p)
        .map(|(w, _)| w / total)
        .sum();
    Some((on - share) / (1.0 - share))
}

/// Effective number of members: (sum w)^2 / sum w^2.
pub fn effective(weights: &[f64]) -> f64 {
    let sum: f64 = weights.iter().sum();
    let squares: f64 = weights.iter().map(|w| w * w).sum();
    if squares > 0.0 {
        sum * sum / squares
    } else {
        0.0
    }
}

/// Mean of what is there.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values
        .into_iter()
        .fold((0.0, 0u64), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / n as f64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn auroc_is_the_share_of_ordered_pairs_with_ties_a_half() {
        // Pairs: (.8, .3) (.8, .5) (.5, .3) right, (.5, .5) tied: 3.5 of 4.
        let value = auroc(&[0.3, 0.5, 0.5, 0.8], &[false, true, false, true]);
        assert_eq!(value, Some(0.875));
        assert_eq!(auroc(&[0.1, 0.2], &[true, true]), None);
        assert_eq!(auroc(&[f64::NAN, 0.2], &[false, true]), Some(1.0));
        assert_eq!(auroc(&[f64::NEG_INFINITY, 0.2], &[true, false]), Some(0.0));
    }

    #[test]
    fn f1_and_balanced_accuracy_by_hand() {
        // tp 2, fp 1, fn 1, tn 3.
        let scores = [0.9, 0.8, 0.1, 0.7, 0.2, 0.3, 0.4];
        let truth = [true, true, true, false, false, false, false];
        let c = Confusion::at(0.5, &scores, &truth);
        assert_eq!(
            (
                c.true_positive,
                c.false_positive,
                c.false_negative,
                c.true_negative
            ),
            (2, 1, 1, 3)
        );
        assert!((c.f1() - 4.0 / 6.0).abs() < 1e-12);
        assert!((c.macro_f1() - (4.0 / 6.0 + 6.0 / 8.0) / 2.0).abs() < 1e-12);
        assert!((c.balanced_accuracy() - (2.0 / 3.0 + 3.0 / 4.0) / 2.0).abs() < 1e-12);
        assert_eq!(Confusion::default().f1(), 0.0);
    }

    #[test]
    fn gain_and_effective_number_by_hand() {
        // M = .7, f = .5: (.7 - .5) / .5 = .4.
        let gain = attention_gain(&[0.4, 0.3, 0.2, 0.1], &[true, true, false, false]);
        assert!((gain.unwrap() - 0.4).abs() < 1e-12);
        assert_eq!(attention_gain(&[0.5, 0.5], &[true, true]), None);
        // METHOD 2.2's golden vector: w = [1, 4, 9, 0] / 14, ESS = 2.
        assert!((effective(&[1.0 / 14.0, 4.0 / 14.0, 9.0 / 14.0, 0.0]) - 2.0).abs() < 1e-12);
    }

    #[test]
    fn bootstrap_of_equal_clusters_is_a_point_and_of_unequal_ones_brackets_the_value() {
        let measure = |items: &[usize]| mean(items.iter().map(|i| *i as f64));
        let same = vec![vec![4]; 5];
        let point = bootstrap(&same, 200, 1, measure).unwrap();
        assert_eq!((point.value, point.low, point.high), (4.0, 4.0, 4.0));
        let spread: Vec<Vec<usize>> = (0..20).map(|i| vec![i]).collect();
        let interval = bootstrap(&spread, 2000, 1, measure).unwrap();
        assert_eq!(interval.value, 9.5);
        // sd of a mean of 20 numbers 0..19: 5.77 / sqrt(20) = 1.29; 1.96 sd = 2.53.
        assert!((interval.low - (9.5 - 2.53)).abs() < 0.4, "{interval:?}");
        assert!((interval.high - (9.5 + 2.53)).abs() < 0.4, "{interval:?}");
        assert_eq!(interval, bootstrap(&spread, 2000, 1, measure).unwrap());
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.5), Some(2.0));
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), Some(3.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    proptest! {
        #[test]
        fn auroc_equals_the_count_over_all_pairs(
            items in proptest::collection::vec((0u8..6, any::<bool>()), 2..40)
        ) {
            let scores: Vec<f64> = items.iter().map(|(s, _)| f64::from(*s)).collect();
            let truth: Vec<bool> = items.iter().map(|(_, p)| *p).collect();
            let (mut sum, mut pairs) = (0.0, 0.0);
            for i in 0..items.len() {
                for j in 0..items.len() {
                    if truth[i] && !truth[j] {
                        pairs += 1.0;
                        sum += if scores[i] > scores[j] { 1.0 } else if scores[i] == scores[j] { 0.5 } else { 0.0 };
                    }
                }
            }
            match auroc(&scores, &truth) {
                None => prop_assert_eq!(pairs, 0.0),
                Some(value) => prop_assert!((value - sum / pairs).abs() < 1e-12),
            }
        }
    }
}
