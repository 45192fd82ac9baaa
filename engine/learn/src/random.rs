//! Random numbers that hang on what they are for, never on what was drawn before: the same tile of the same epoch is changed
//! the same way in both passes of a step, on any thread, and after a restart.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// What numbers are drawn for; no two share a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// How a tile is flipped, turned and stained.
    Augment = 1,
    /// The order of an epoch.
    Order = 2,
    /// Which samples a bootstrap takes.
    Bootstrap = 3,
}

/// The stream of (seed, purpose, epoch, item); epochs are below 2^56.
pub fn stream(seed: u64, purpose: Purpose, epoch: u64, item: [u64; 2]) -> ChaCha8Rng {
    let mut key = [0; 32];
    let words = [seed, (purpose as u64) << 56 | epoch, item[0], item[1]];
    for (slot, word) in key.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *slot = word.to_le_bytes();
    }
    ChaCha8Rng::from_seed(key)
}

/// Puts `items` into the order of that epoch. `phase` keeps the models' orders apart.
pub fn shuffle<T>(items: &mut [T], seed: u64, epoch: u64, phase: u64) {
    items.shuffle(&mut stream(seed, Purpose::Order, epoch, [phase, 0]));
}
