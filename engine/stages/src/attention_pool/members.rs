//! The members of a bag.

use std::borrow::Cow;
use std::collections::BTreeMap;

use weir_record::TileId;

/// The members of a bag, with their features in one matrix; the answer is a function of this set.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    /// Row of the matrix of each member.
    rows: BTreeMap<TileId, usize>,
    matrix: Vec<f32>,
    /// Numbers of a row; 0 before the first member came.
    pub(super) width: usize,
    /// Rows that belong to nobody.
    free: Vec<usize>,
}

impl Members {
    pub(super) fn insert(&mut self, tile: TileId, feature: &[f32]) {
        self.width = feature.len();
        let mut new = || {
            self.free
                .pop()
                .unwrap_or(self.matrix.len() / feature.len().max(1))
        };
        let row = match self.rows.get(&tile) {
            Some(row) => *row,
            None => new(),
        };
        self.rows.insert(tile, row);
        let at = row * self.width;
        if at == self.matrix.len() {
            self.matrix.extend_from_slice(feature);
        } else {
            self.matrix[at..at + self.width].copy_from_slice(feature);
        }
    }

    pub(super) fn remove(&mut self, tile: TileId) {
        self.free.extend(self.rows.remove(&tile));
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn has(&self, tile: &TileId) -> bool {
        self.rows.contains_key(tile)
    }

    pub(super) fn tiles(&self) -> impl Iterator<Item = TileId> {
        self.rows.keys().copied()
    }

    /// The members' features in TileId order. A slide that came once and whole lies so already.
    pub(super) fn in_order(&self) -> Cow<'_, [f32]> {
        if self.free.is_empty() && self.rows.values().copied().eq(0..self.rows.len()) {
            return Cow::Borrowed(&self.matrix);
        }
        let mut matrix = Vec::with_capacity(self.rows.len() * self.width);
        for row in self.rows.values() {
            matrix.extend_from_slice(&self.matrix[row * self.width..(row + 1) * self.width]);
        }
        Cow::Owned(matrix)
    }
}
