//! How a tile is changed while training: mirrored, turned, stained a little differently. What it shows stays what it is.

use crate::random::{Purpose, stream};
use crate::recipe::Augment;
use rand::RngExt;
use weir_record::{SlideKey, TileId};

/// Optical densities of haematoxylin, eosin and DAB at red, green and blue (Ruifrok and Johnston 2001), rows of unit length.
const STAINS: [[f32; 3]; 3] = [
    [0.650, 0.704, 0.286],
    [0.072, 0.990, 0.105],
    [0.268, 0.570, 0.776],
];

/// What becomes of one tile.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    mirror: bool,
    /// Quarter turns, 0 to 3.
    turns: u8,
    /// From optical densities to optical densities, and what is added; `None` leaves colours as they are.
    colour: Option<([[f32; 3]; 3], [f32; 3])>,
}

impl Change {
    /// No change.
    pub const NONE: Change = Change {
        mirror: false,
        turns: 0,
        colour: None,
    };

    /// That of a tile in an epoch.
    pub fn of(augment: &Augment, seed: u64, epoch: u64, slide: SlideKey, tile: TileId) -> Change {
        let mut random = stream(seed, Purpose::Augment, epoch, [slide.0, tile.word()]);
        // Every number is drawn whether it is used or not, so that one option does not change another.
        let mirror = random.random::<bool>() && augment.flips;
        let turns = random.random_range(0..4) * u8::from(augment.turns);
        let mut around = |spread: f32| (2.0 * random.random::<f32>() - 1.0) * spread;
        let gain = [0; 3].map(|_| 1.0 + around(augment.stain));
        let shift = [0; 3].map(|_| around(augment.shift));
        let colour = (augment.stain > 0.0 || augment.shift > 0.0).then(|| restain(gain, shift));
        Change {
            mirror,
            turns,
            colour,
        }
    }

    /// Writes the changed tile (interleaved RGB, `size` x `size` px) into `out`.
    pub fn apply(&self, tile: &[u8], size: usize, out: &mut Vec<u8>) {
        out.clear();
        out.reserve(tile.len());
        let last = size.saturating_sub(1);
        for y in 0..size {
            for x in 0..size {
                let (mut u, mut v) = match self.turns {
                    0 => (x, y),
                    1 => (y, last - x),
                    2 => (last - x, last - y),
                    _ => (last - y, x),
                };
                if self.mirror {
                    (u, v) = (last - u, v);
                }
                let at = 3 * (v * size + u);
                out.extend_from_slice(&tile[at..at + 3]);
            }
        }
        if let Some((matrix, shift)) = &self.colour {
            let density: [f32; 256] =
                std::array::from_fn(|byte| -((byte.max(1) as f32) / 255.0).ln());
            for px in out.as_chunks_mut::<3>().0 {
                let d = px.map(|byte| density[byte as usize]);
                for (channel, byte) in px.iter_mut().enumerate() {
                    let [a, b, c] = [0, 1, 2].map(|k| d[k] * matrix[k][channel]);
                    let value = 255.0 * (-(a + b + c + shift[channel])).exp();
                    *byte = value.round().clamp(0.0, 255.0) as u8;
                }
            }
        }
    }
}

/// Densities -> amounts of stain -> gain and shift -> densities, as one matrix and one sum (Tellez et al. 2018).
fn restain(gain: [f32; 3], shift: [f32; 3]) -> ([[f32; 3]; 3], [f32; 3]) {
    let back = inverse(&STAINS);
    let mut matrix = [[0.0; 3]; 3];
    let mut sum = [0.0; 3];
    for stain in 0..3 {
        for to in 0..3 {
            for (from, row) in matrix.iter_mut().enumerate() {
                row[to] += back[from][stain] * gain[stain] * STAINS[stain][to];
            }
            sum[to] += shift[stain] * STAINS[stain][to];
        }
    }
    (matrix, sum)
}

fn inverse(m: &[[f32; 3]; 3]) -> [[f32; 3]; 3] {
    let minor = |r: usize, c: usize| {
        let (r1, r2, c1, c2) = ((r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3);
        m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1]
    };
    let determinant: f32 = (0..3).map(|c| m[0][c] * minor(0, c)).sum();
    std::array::from_fn(|r| std::array::from_fn(|c| minor(c, r) / determinant))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn tile(size: usize) -> Vec<u8> {
        (0..3 * size * size).map(|k| (k * 37 % 251) as u8).collect()
    }

    fn sorted(pixels: &[u8]) -> Vec<[u8; 3]> {
        let mut pixels = pixels.as_chunks::<3>().0.to_vec();
        pixels.sort();
        pixels
    }

    proptest! {
        #[test]
        fn flips_and_turns_only_move_pixels(mirror: bool, turns in 0u8..4, size in 1usize..9) {
            let (before, mut after) = (tile(size), Vec::new());
            Change { mirror, turns, colour: None }.apply(&before, size, &mut after);
            prop_assert_eq!(sorted(&before), sorted(&after));
        }

        #[test]
        fn the_change_of_a_tile_hangs_on_seed_epoch_and_tile_alone(seed: u64, epoch in 0u64..100, x in 0i64..1000) {
            let augment = Augment::default();
            let id = TileId::new(0, 0, x, 7).unwrap();
            let of = |seed, epoch, id| Change::of(&augment, seed, epoch, SlideKey(5), id);
            prop_assert_eq!(of(seed, epoch, id), of(seed, epoch, id));
            prop_assert_ne!(of(seed, epoch, id), of(seed, epoch + 1, id));
            prop_assert_ne!(of(seed, epoch, id), of(seed, epoch, TileId::new(0, 0, x + 1, 7).unwrap()));
        }
    }

    #[test]
    fn four_quarter_turns_are_none_and_the_eight_changes_differ() {
        let size = 5;
        let mut all = Vec::new();
        for mirror in [false, true] {
            for turns in 0..4 {
                let mut out = Vec::new();
                let change = Change {
                    mirror,
                    turns,
                    colour: None,
                };
                change.apply(&tile(size), size, &mut out);
                all.push(out);
            }
        }
        let mut turned = tile(size);
        for _ in 0..4 {
            let mut next = Vec::new();
            let change = Change {
                mirror: false,
                turns: 1,
                colour: None,
            };
            change.apply(&turned, size, &mut next);
            turned = next;
        }
        assert_eq!(turned, tile(size));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 8);
    }

    #[test]
    fn gain_one_and_shift_zero_keep_every_colour() {
        let mut out = Vec::new();
        let change = Change {
            colour: Some(restain([1.0; 3], [0.0; 3])),
            ..Change::NONE
        };
        let before: Vec<u8> = tile(9).into_iter().map(|b| b.max(1)).collect();
        change.apply(&before, 9, &mut out);
        let far = before.iter().zip(&out).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(far.unwrap() <= 1, "{far:?}");
    }
}
