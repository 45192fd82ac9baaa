//! The row: one version of one tile, or a message about its slide.

use crate::{
    Attention, Bag, Event, Failure, Lease, Prediction, Skip, SlideId, SlideInfo, TileBuf, TileId,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ops::Deref;
use std::sync::Arc;

/// One version of a tile. Small: what is large stands behind an `Arc`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The slide.
    pub slide: SlideId,
    /// The tile; [`TileId::SLIDE`] for what speaks of the slide as a whole.
    pub tile: TileId,
    /// Number of the generation; the greatest of a tile holds.
    pub rev: u32,
    /// What it says.
    pub body: Body,
}

/// What names a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The slide.
    pub slide: SlideId,
    /// The tile.
    pub tile: TileId,
    /// Number of the generation.
    pub rev: u32,
}

/// What a row says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Body {
    /// A tile's pixels. They never leave their process.
    #[serde(with = "local_pixels")]
    Pixels(Arc<TileBuf>),
    /// A scorer's answer.
    Score(Arc<Scores>),
    /// A tile that was selected: `source_rev` says which version of its pixels.
    Picked {
        /// The revision of the tile in the domain that was selected from.
        source_rev: u32,
        /// The score that it was selected by.
        score: f32,
    },
    /// An encoder's answer.
    Feature(Arc<Feature>),
    /// Whatever else a plugin sends.
    Ext(Arc<Table>),
    /// A member's part in its bag.
    Attention(Arc<Attention>),
    /// A pooled bag.
    Bag(Arc<Bag>),
    /// A slide's prediction.
    Prediction(Arc<Prediction>),
    /// Left out on purpose.
    Skip(Skip),
    /// Nothing could be made of it.
    Fail(Arc<Failure>),
    /// Withdrawn.
    Gone,

    /// Not counted. The slide is open; ahead of its versions.
    Opened(Arc<SlideInfo>),
    /// Not counted. How many versions generation `rev` has. No barrier: it may overtake versions and be overtaken.
    Seal(Seal),
    /// Not counted. News.
    Event(Arc<Event>),
}

impl Body {
    /// Whether a ledger counts it.
    pub fn is_version(&self) -> bool {
        !matches!(self, Body::Opened(_) | Body::Seal(_) | Body::Event(_))
    }

    /// Ends the lease on what a reduce or a sink takes: what that keeps is reserved since the slide was opened. Pixels keep
    /// theirs, since a stage that holds them holds bytes that nothing else covers.
    pub fn without_lease(self) -> Self {
        match self {
            Body::Feature(feature) if feature.lease.is_some() => {
                Body::Feature(Arc::new(match Arc::try_unwrap(feature) {
                    Ok(own) => Feature::new(own.values, None),
                    Err(shared) => Feature::new(shared.values.clone(), None),
                }))
            }
            other => other,
        }
    }

    /// The lease on its bytes.
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Body::Pixels(tile) => tile.lease(),
            Body::Feature(feature) => feature.lease.as_ref(),
            _ => None,
        }
    }

    /// Whether it is a value that a stage works on: a version that is no Skip, Fail or Gone.
    pub fn is_value(&self) -> bool {
        self.is_version() && !matches!(self, Body::Skip(_) | Body::Fail(_) | Body::Gone)
    }
}

/// How many versions a generation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Number of versions.
    pub n: u64,
    /// Wrapping sum of [`check`](crate::ledger::check) over them: tells a loss that is paired with a duplicate.
    pub check: u64,
    /// The sender says that the slide stands as of this generation; a later generation withdraws it.
    pub last: Option<End>,
}

/// How a domain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Everything came.
    Complete,
    /// The sender fell silent, or its digest differs from what was received.
    Incomplete,
    /// The slide could not be opened, failed, or the run was stopped.
    Aborted,
}

/// A scorer's answer for a tile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The number that tiles are ranked by: p(positive), or for C > 2 what METHOD 1.2 says. Never NaN.
    pub score: f32,
    /// Probabilities of the classes, `[C]`.
    pub probabilities: Vec<f32>,
}

/// An encoder's answer for a tile, `[d]`, with the lease on its bytes when they are 1 KiB or more.
#[derive(Debug, Default, PartialEq)]
pub struct Feature {
    values: Vec<f32>,
    lease: Option<Lease>,
}

impl Feature {
    /// A feature vector; `lease` covers its bytes where they are leased.
    pub fn new(values: Vec<f32>, lease: Option<Lease>) -> Self {
        Feature { values, lease }
    }

    /// Bytes of the lease; zero when there is none.
    pub fn leased(&self) -> usize {
        self.lease.as_ref().map_or(0, Lease::bytes)
    }
}

impl Deref for Feature {
    type Target = [f32];
    #[inline]
    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl Serialize for Feature {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.values.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Feature {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Feature {
            values: Vec::deserialize(from)?,
            lease: None,
        })
    }
}

/// A small table of named columns, for plugins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Which format, as `namespace.name/1`.
    pub format: String,
    /// Bytes in that format.
    pub bytes: Vec<u8>,
}

/// The planner keeps pixels at home; this is the last guard.
mod local_pixels {
    use super::*;

    const WHY: &str =
        "pixels never leave their process: a stage that takes pixels cannot be exchanged";

    pub fn serialize<S: Serializer>(_: &Arc<TileBuf>, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom(WHY))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(_: D) -> Result<Arc<TileBuf>, D::Error> {
        Err(serde::de::Error::custom(WHY))
    }
}
