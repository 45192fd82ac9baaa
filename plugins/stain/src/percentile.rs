//! Percentiles, as numpy has them: linear between the two nearest of the sorted numbers.

/// Boxes that a first pass counts the numbers in.
const BOXES: usize = 4096;

/// Where a percentile lies among sorted numbers: the lower neighbour's place and the way to the next one, from 0 to 1.
fn place(percent: f64, count: usize) -> (usize, f64) {
    let at = (percent / 100.0).clamp(0.0, 1.0) * (count - 1) as f64;
    let below = (at.floor() as usize).min(count - 1);
    (below, at - below as f64)
}

/// The two neighbours of each percentile and the way between them, from 0 to 1.
///
/// Exact: the numbers are counted in boxes and only the boxes that hold a neighbour are sorted, so a tile costs two reading
/// passes and no sort. `None` where there is no number, or one that is not finite.
pub fn neighbours<const N: usize>(values: &[f32], percents: [f64; N]) -> Option<[(f32, f32, f64); N]> {
    let (least, most) = bounds(values)?;
    let scale = (BOXES - 1) as f32 / (most - least).max(f32::MIN_POSITIVE);
    // Monotone in the value, as every step of it is; so boxes are in order whatever was rounded.
    let box_of = |value: f32| (((value - least) * scale) as usize).min(BOXES - 1);
    let mut counts = [0u32; BOXES];
    for value in values {
        counts[box_of(*value)] += 1;
    }
    let places = percents.map(|percent| place(percent, values.len()));
    let mut wanted: Vec<usize> = places
        .iter()
        .flat_map(|(below, _)| [*below, (*below + 1).min(values.len() - 1)])
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    let found = select(values, &counts, box_of, &wanted);
    let at = |rank: usize| found[wanted.partition_point(|other| *other < rank)];
    Some(places.map(|(below, way)| (at(below), at((below + 1).min(values.len() - 1)), way)))
}

/// A percentile of numbers; see [`neighbours`].
pub fn percentile(values: &[f32], percent: f64) -> Option<f64> {
    let [(low, high, way)] = neighbours(values, [percent])?;
    Some(between(f64::from(low), f64::from(high), way))
}

/// Linear between two numbers.
pub fn between(low: f64, high: f64, way: f64) -> f64 {
    low + (high - low) * way
}

fn bounds(values: &[f32]) -> Option<(f32, f32)> {
    if values.is_empty() {
        return None;
    }
    // Eight lanes, so that the loop is not one chain of comparisons.
    let mut least = [f32::INFINITY; 8];
    let mut most = [f32::NEG_INFINITY; 8];
    let mut sum = [0f32; 8];
    for chunk in values.chunks(8) {
        for (i, value) in chunk.iter().enumerate() {
            least[i] = if *value < least[i] { *value } else { least[i] };
            most[i] = if *value > most[i] { *value } else { most[i] };
            // Only to see whether one is not a number, which no comparison notices.
            sum[i] += *value * 0.0;
        }
    }
    let least = least.into_iter().fold(f32::INFINITY, f32::min);
    let most = most.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let finite = sum.into_iter().all(|lane| lane == 0.0);
    finite.then_some((least, most))
}

/// The numbers of these ranks, which are sorted and without repetition.
fn select(
    values: &[f32],
    counts: &[u32; BOXES],
    box_of: impl Fn(f32) -> usize,
    ranks: &[usize],
) -> Vec<f32> {
    // Box and rank within it.
    let mut targets = Vec::with_capacity(ranks.len());
    let (mut before, mut at) = (0usize, 0usize);
    for rank in ranks {
        while before + counts[at] as usize <= *rank {
            before += counts[at] as usize;
            at += 1;
        }
        targets.push((at, rank - before));
    }
    let mut is_target = [false; BOXES];
    for (at, _) in &targets {
        is_target[*at] = true;
    }
    let mut kept: Vec<(usize, f32)> = values
        .iter()
        .map(|value| (box_of(*value), *value))
        .filter(|(at, _)| is_target[*at])
        .collect();
    kept.sort_unstable_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    targets
        .into_iter()
        .map(|(at, rank)| kept[kept.partition_point(|(other, _)| *other < at) + rank].1)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_sorting(values: &[f32], percent: f64) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        let at = percent / 100.0 * (sorted.len() - 1) as f64;
        let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
        f64::from(low) + (f64::from(high) - f64::from(low)) * at.fract()
    }

    proptest! {
        #[test]
        fn it_is_what_sorting_gives(
            values in proptest::collection::vec(prop_oneof![-1e3f32..1e3, Just(1.0f32), -1e-6f32..1e-6, Just(1e30f32)], 1..400),
            percent in 0.0f64..=100.0,
        ) {
            prop_assert_eq!(percentile(&values, percent), Some(by_sorting(&values, percent)));
            let [a, b] = neighbours(&values, [percent, 100.0 - percent]).unwrap();
            prop_assert_eq!(between(f64::from(a.0), f64::from(a.1), a.2), by_sorting(&values, percent));
            prop_assert_eq!(between(f64::from(b.0), f64::from(b.1), b.2), by_sorting(&values, 100.0 - percent));
        }
    }

    #[test]
    fn nothing_and_what_is_no_number_have_none() {
        assert_eq!(percentile(&[], 50.0), None);
        assert_eq!(percentile(&[1.0, f32::NAN, 2.0], 50.0), None);
        assert_eq!(percentile(&[1.0, f32::INFINITY], 50.0), None);
        assert_eq!(percentile(&[7.0; 9], 99.0), Some(7.0));
    }
}
