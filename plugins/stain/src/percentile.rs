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
/// Exact: the numbers are counted in boxes and only the boxes that hold a neighbour are sorted, so a tile costs a few reading
/// passes and no sort. `None` where there is no number, or one that is not finite.
pub fn neighbours<const N: usize>(
    values: &[f32],
    percents: [f64; N],
    boxes: &mut Vec<u16>,
) -> Option<[(f32, f32, f64); N]> {
    let (least, most) = bounds(values)?;
    let scale = (BOXES - 1) as f32 / (most - least).max(f32::MIN_POSITIVE);
    boxes.clear();
    // Monotone in the value, as every step of it is; so boxes are in order whatever was rounded.
    boxes.extend(values.iter().map(|value| {
        let at = ((value - least) * scale).min((BOXES - 1) as f32);
        crate::recolour::whole(at) as u16
    }));
    let mut counts = [0u32; BOXES];
    for at in boxes.iter() {
        counts[usize::from(*at) % BOXES] += 1;
    }
    let last = values.len() - 1;
    let mut kept = Kept::default();
    let places = percents.map(|percent| place(percent, values.len()));
    Some(places.map(|(below, way)| {
        let low = kept.ranked(values, boxes, &counts, below);
        let high = kept.ranked(values, boxes, &counts, (below + 1).min(last));
        (low, high, way)
    }))
}

/// A percentile of numbers; see [`neighbours`].
pub fn percentile(values: &[f32], percent: f64, boxes: &mut Vec<u16>) -> Option<f64> {
    let [(low, high, way)] = neighbours(values, [percent], boxes)?;
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
    let (chunks, rest) = values.as_chunks::<8>();
    let mut see = |chunk: &[f32; 8]| {
        for i in 0..8 {
            least[i] = if chunk[i] < least[i] {
                chunk[i]
            } else {
                least[i]
            };
            most[i] = if chunk[i] > most[i] {
                chunk[i]
            } else {
                most[i]
            };
            // Only to see whether one is not a number, which no comparison notices.
            sum[i] += chunk[i] * 0.0;
        }
    };
    chunks.iter().for_each(&mut see);
    rest.iter().for_each(|value| see(&[*value; 8]));
    let least = least.into_iter().fold(f32::INFINITY, f32::min);
    let most = most.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let finite = sum.into_iter().all(|lane| lane == 0.0);
    finite.then_some((least, most))
}

/// The sorted numbers of the box that was asked for last: neighbours mostly share it.
#[derive(Default)]
struct Kept {
    at: Option<usize>,
    values: Vec<f32>,
}

impl Kept {
    /// The number of this rank.
    fn ranked(&mut self, values: &[f32], boxes: &[u16], counts: &[u32; BOXES], rank: usize) -> f32 {
        let (mut before, mut at) = (0usize, 0usize);
        while before + counts[at] as usize <= rank {
            before += counts[at] as usize;
            at += 1;
        }
        if self.at != Some(at) {
            self.at = Some(at);
            self.values.clear();
            for (values, boxes) in values.chunks(CHUNK).zip(boxes.chunks(CHUNK)) {
                // Most chunks have none: one comparison in vectors says so.
                if boxes
                    .iter()
                    .fold(false, |any, other| any | (usize::from(*other) == at))
                {
                    let pairs = values.iter().zip(boxes);
                    self.values.extend(
                        pairs
                            .filter(|(_, other)| usize::from(**other) == at)
                            .map(|(value, _)| value),
                    );
                }
            }
            self.values.sort_unstable_by(f32::total_cmp);
        }
        self.values[rank - before]
    }
}

/// Numbers that are looked through at once.
const CHUNK: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
            prop_assert_eq!(percentile(&values, percent, &mut Vec::new()), Some(by_sorting(&values, percent)));
            let [a, b] = neighbours(&values, [percent, 100.0 - percent], &mut vec![7; 3]).unwrap();
            prop_assert_eq!(between(f64::from(a.0), f64::from(a.1), a.2), by_sorting(&values, percent));
            prop_assert_eq!(between(f64::from(b.0), f64::from(b.1), b.2), by_sorting(&values, 100.0 - percent));
        }
    }

    #[test]
    fn nothing_and_what_is_no_number_have_none() {
        assert_eq!(percentile(&[], 50.0, &mut Vec::new()), None);
        assert_eq!(
            percentile(&[1.0, f32::NAN, 2.0], 50.0, &mut Vec::new()),
            None
        );
        assert_eq!(
            percentile(&[1.0, f32::INFINITY], 50.0, &mut Vec::new()),
            None
        );
        assert_eq!(percentile(&[7.0; 9], 99.0, &mut Vec::new()), Some(7.0));
    }
}
