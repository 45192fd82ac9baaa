//! Which tiles of a bag are trained on, by A's scores.

use crate::recipe::Negatives;
use std::cmp::Ordering;
use weir_record::TileId;

/// A tile's place in the list of tiles, its name, its score.
pub type Scored = (usize, TileId, f32);

/// The one order everywhere: score descending, then tile ascending. A NaN comes last.
pub fn order(a: &Scored, b: &Scored) -> Ordering {
    let key = |score: f32| {
        if score.is_nan() {
            f32::NEG_INFINITY
        } else {
            score
        }
    };
    key(b.2).total_cmp(&key(a.2)).then(a.1.cmp(&b.1))
}

/// The tiles of a bag that A learns from.
pub fn for_scorer(mut bag: Vec<Scored>, negative: bool, top: usize, rule: Negatives) -> Vec<usize> {
    bag.sort_by(order);
    if !(negative && rule == Negatives::All) {
        bag.truncate(top);
    }
    bag.into_iter().map(|(place, ..)| place).collect()
}

/// The tiles of a bag that B sees: the `highest` first and the `lowest` last of the order, each once, in ascending order of
/// tiles, as the pool takes its members.
pub fn for_bag(mut bag: Vec<Scored>, highest: usize, lowest: usize) -> Vec<usize> {
    bag.sort_by(order);
    let n = bag.len();
    let lowest_from = n.saturating_sub(lowest).max(highest.min(n));
    let mut kept: Vec<Scored> = bag[..highest.min(n)].to_vec();
    kept.extend_from_slice(&bag[lowest_from..]);
    kept.sort_by_key(|(_, tile, _)| *tile);
    kept.into_iter().map(|(place, ..)| place).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn bag(scores: &[f32]) -> Vec<Scored> {
        scores
            .iter()
            .enumerate()
            .map(|(i, s)| (100 + i, TileId::new(0, 0, i as i64, 0).unwrap(), *s))
            .collect()
    }

    #[test]
    fn ties_go_to_the_lower_tile_and_a_nan_is_last() {
        let scores = [0.5, f32::NAN, 0.9, 0.5, 0.5];
        let kept = |top| for_scorer(bag(&scores), false, top, Negatives::All);
        assert_eq!(kept(3), [102, 100, 103]);
        assert_eq!(kept(9), [102, 100, 103, 104, 101]);
    }

    #[test]
    fn a_negative_bag_gives_all_tiles_or_its_highest() {
        let scores = [0.1, 0.9, 0.2];
        assert_eq!(for_scorer(bag(&scores), true, 1, Negatives::All).len(), 3);
        assert_eq!(for_scorer(bag(&scores), true, 1, Negatives::Top), [101]);
    }

    #[test]
    fn both_ends_without_the_middle_in_the_order_of_tiles() {
        let kept = for_bag(bag(&[0.3, 0.9, 0.1, 0.5, 0.7]), 1, 2);
        assert_eq!(kept, [100, 101, 102]);
    }

    proptest! {
        #[test]
        fn a_bag_keeps_min_n_2m_different_tiles(
            scores in proptest::collection::vec(0u8..5, 0..40), high in 0usize..12, low in 0usize..12
        ) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let mut kept = for_bag(bag(&scores), high, low);
            prop_assert_eq!(kept.len(), scores.len().min(high + low));
            prop_assert!(kept.is_sorted());
            kept.dedup();
            prop_assert_eq!(kept.len(), scores.len().min(high + low));
        }
    }
}
