//! Names of slides and tiles.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A slide inside one run: home process (16 bits) and number (48 bits).
///
/// It says where a slide's rows live and nothing else: it is never printed, ordered by, or used as a seed, since it changes
/// with the number of processes. Outputs, seeds and ties over slides use [`SlideKey`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlideId(u64);

impl SlideId {
    /// The slide `number` (its place in the sorted input, below 2^48) whose rows live in process `home`.
    pub fn new(home: u16, number: u64) -> Self {
        debug_assert!(number < 1 << 48);
        SlideId((home as u64) << 48 | (number & ((1 << 48) - 1)))
    }

    /// The process in which the slide's rows live.
    pub fn home(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// The slide's place in the sorted input.
    #[inline]
    pub fn number(self) -> u64 {
        self.0 & ((1 << 48) - 1)
    }

    /// A well mixed 64-bit word for routing: raw ids are strided and would skew a modulus.
    pub fn mixed(self) -> u64 {
        mix(self.0)
    }
}

impl fmt::Debug for SlideId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slide#{}@{}", self.number(), self.home())
    }
}

/// The first 64 bits of the SHA-256 of a slide's id (its name in the manifest, else its file stem).
///
/// The same for every run, process count and order of the input, so it may be a seed or break a tie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlideKey(pub u64);

impl SlideKey {
    /// From the digest of the slide's id; big endian, so that the key sorts as the digest's text does.
    pub fn from_digest(digest: &[u8; 32]) -> Self {
        let mut head = [0; 8];
        head.copy_from_slice(&digest[..8]);
        SlideKey(u64::from_be_bytes(head))
    }
}

impl fmt::Debug for SlideKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A tile of a slide: `grid:u8 | plane:u8 | y:u24 | x:u24`, the top-left corner in level-0 px with a bias for tiles that
/// begin left of or above the slide. Its order breaks every tie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TileId(u64);

impl TileId {
    /// Where bags and predictions stand: the slide as a whole.
    pub const SLIDE: TileId = TileId(u64::MAX);
    /// Added to x and y, so that corners from -1,048,576 px on are representable.
    pub const BIAS: i64 = 1 << 20;
    /// The greatest corner that is representable, in level-0 px; a slide that is longer on a side is refused.
    pub const MAX_CORNER: i64 = (1 << 24) - 2 - Self::BIAS;

    /// The tile of `grid` and `plane` whose top-left corner is at (`x`, `y`) in level-0 px; `None` when a corner lies
    /// outside `-BIAS ..= MAX_CORNER`.
    pub fn new(grid: u8, plane: u8, x: i64, y: i64) -> Option<Self> {
        let field = |v: i64| {
            (-Self::BIAS..=Self::MAX_CORNER)
                .contains(&v)
                .then_some((v + Self::BIAS) as u64)
        };
        Some(TileId(
            (grid as u64) << 56 | (plane as u64) << 48 | field(y)? << 24 | field(x)?,
        ))
    }

    /// Index into [`SlideInfo::grids`](crate::SlideInfo).
    #[inline]
    pub fn grid(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// Focal plane.
    pub fn plane(self) -> u8 {
        (self.0 >> 48) as u8
    }

    /// Left edge, level-0 px.
    #[inline]
    pub fn x(self) -> i64 {
        (self.0 & 0xff_ffff) as i64 - Self::BIAS
    }

    /// Top edge, level-0 px.
    #[inline]
    pub fn y(self) -> i64 {
        (self.0 >> 24 & 0xff_ffff) as i64 - Self::BIAS
    }

    /// The packed word; for checks and seeds.
    #[inline]
    pub fn word(self) -> u64 {
        self.0
    }

    /// The inverse of [`TileId::word`].
    #[inline]
    pub fn from_word(word: u64) -> Self {
        TileId(word)
    }
}

impl fmt::Debug for TileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == TileId::SLIDE {
            return f.write_str("slide");
        }
        write!(f, "tile({}, {})", self.x(), self.y())?;
        if self.grid() != 0 || self.plane() != 0 {
            write!(f, " of grid {} plane {}", self.grid(), self.plane())?;
        }
        Ok(())
    }
}

/// A bijective mixer of 64 bits (the finaliser of MurmurHash3): every input bit reaches every output bit.
pub fn mix(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ (word >> 33)
}
