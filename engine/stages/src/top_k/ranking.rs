//! The ranking of a slide's tiles, and what is selected of it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use weir_kernels::kernels::TopKOut;
use weir_kernels::{Auto, Bags, KernelError, Kernels, View, ViewMut};
use weir_record::TileId;

/// How many of each end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// From the top.
    pub highest: usize,
    /// From the bottom.
    pub lowest: usize,
}

impl Ends {
    /// Whether the kernel selects as many.
    pub(super) fn fit_the_kernel(self) -> bool {
        self.highest.max(self.lowest) <= weir_kernels::kernels::Ends::LIMIT
    }
}

/// A tile's place in its slide's ranking: score descending, then tile ascending. Nothing else orders tiles anywhere, so tables and
/// selections agree. Scores are finite; of two zeros, the positive one stands first.
#[derive(Clone, Copy, Debug)]
pub struct Rank {
    /// The tile's score.
    pub score: f32,
    /// The tile.
    pub tile: TileId,
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .score
            .total_cmp(&self.score)
            .then(self.tile.cmp(&other.tile))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Rank {}

/// What is selected: the revision and the score of each tile.
pub(super) type Selection = BTreeMap<TileId, (u32, f32)>;

/// The scored tiles of a slide whose tiles come once: tile, revision, score.
pub(super) type Column = Vec<(TileId, u32, f32)>;

/// What is selected of each column, all in one launch. The kernel ranks by score and then by row, so rows are put in the order of
/// their tiles first. It selects so many of each end and no more: for more a sort selects, by the same total order. An error is the
/// device's, or that there are more tiles than a launch counts.
pub(super) fn select(
    kernels: &Auto,
    ends: Ends,
    columns: &mut [&mut Column],
) -> Result<Vec<Selection>, KernelError> {
    if !ends.fit_the_kernel() {
        return Ok(columns.iter().map(|column| sorted(ends, column)).collect());
    }
    for column in columns.iter_mut() {
        column.sort_unstable_by_key(|(tile, ..)| *tile);
    }
    launch(kernels, ends, columns)
}

/// What is selected of a column, by a sort.
fn sorted(ends: Ends, column: &Column) -> Selection {
    let mut ranked: Vec<(Rank, u32)> = column
        .iter()
        .map(|&(tile, rev, score)| (Rank { score, tile }, rev))
        .collect();
    ranked.sort_unstable();
    let low = ranked.len().saturating_sub(ends.lowest);
    let chosen = ranked.iter().enumerate();
    chosen
        .filter(|(place, _)| *place < ends.highest || *place >= low)
        .map(|(_, (rank, rev))| (rank.tile, (*rev, rank.score)))
        .collect()
}

fn launch(
    kernels: &Auto,
    ends: Ends,
    columns: &[&mut Column],
) -> Result<Vec<Selection>, KernelError> {
    let mut offsets = vec![0];
    for column in columns {
        offsets.push(offsets[offsets.len() - 1] + column.len());
    }
    let scores: Vec<f32> = columns
        .iter()
        .flat_map(|column| column.iter().map(|(.., score)| *score))
        .collect();
    let bags = Bags::new(&offsets, None)?;
    let count = columns.len();
    let mut highest = vec![0i32; count * ends.highest];
    let mut lowest = vec![0i32; count * ends.lowest];
    let mut nans = vec![0u32; count];
    let out = TopKOut {
        highest: ViewMut::new(&mut highest, [count, ends.highest])?,
        lowest: ViewMut::new(&mut lowest, [count, ends.lowest])?,
        nans: ViewMut::new(&mut nans, [count])?,
    };
    let wanted = weir_kernels::kernels::Ends {
        highest: ends.highest,
        lowest: ends.lowest,
    };
    let scores = View::new(&scores, [scores.len()])?;
    kernels.top_k(&bags, wanted, scores, out)?;
    let of_bag = |places: &[i32], width: usize, bag: usize| -> Vec<i32> {
        places[bag * width..(bag + 1) * width].to_vec()
    };
    let selections = columns.iter().enumerate().map(|(bag, column)| {
        let mut places = of_bag(&highest, ends.highest, bag);
        places.extend(of_bag(&lowest, ends.lowest, bag));
        // -1 fills what a short slide leaves.
        let places = places.into_iter().filter_map(|at| usize::try_from(at).ok());
        places
            .filter_map(|at| column.get(at))
            .map(|&(tile, rev, score)| (tile, (rev, score)))
            .collect()
    });
    Ok(selections.collect())
}

/// Every tile that has a score, for tiles that may be withdrawn or come again: whoever left the selection may return.
#[derive(Debug, Default)]
pub(super) struct Register {
    held: HashMap<TileId, (u32, f32)>,
    order: BTreeSet<Rank>,
}

impl Register {
    pub(super) fn put(&mut self, rank: Rank, rev: u32) {
        self.take(rank.tile);
        self.held.insert(rank.tile, (rev, rank.score));
        self.order.insert(rank);
    }

    pub(super) fn take(&mut self, tile: TileId) {
        if let Some((_, score)) = self.held.remove(&tile) {
            self.order.remove(&Rank { score, tile });
        }
    }

    pub(super) fn selection(&self, ends: Ends) -> Selection {
        let top = self.order.iter().take(ends.highest);
        let bottom = self.order.iter().rev().take(ends.lowest);
        top.chain(bottom)
            .filter_map(|rank| Some((rank.tile, *self.held.get(&rank.tile)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::sync::OnceLock;
    use weir_kernels::Cpu;

    fn kernels() -> &'static Auto {
        static KERNELS: OnceLock<Auto> = OnceLock::new();
        KERNELS.get_or_init(|| Auto::cpu(Cpu::new(2).unwrap()))
    }

    fn tile(i: u32) -> TileId {
        TileId::new(0, 0, i as i64 % 10 * 50, i as i64 / 10 * 50).unwrap()
    }

    proptest! {
        /// Tiles that come once need no register: the kernel, in one launch for several slides, tells the same selections,
        /// and so does the sort for more than it selects.
        #[test]
        fn the_kernel_selects_what_a_register_does(
            slides in prop::collection::vec(prop::collection::vec((0u8..8, any::<u32>()), 0..120), 1..4),
            highest in 1usize..20,
            lowest in 0usize..20,
        ) {
            let ends = Ends { highest, lowest };
            let mut columns: Vec<Column> = Vec::new();
            let mut truth = Vec::new();
            for scores in &slides {
                let mut register = Register::default();
                let mut order: Vec<usize> = (0..scores.len()).collect();
                order.sort_by_key(|i| scores[*i].1);
                let of = |i: usize| (tile(i as u32), scores[i].0 as f32 / 8.0);
                for i in 0..scores.len() {
                    let (tile, score) = of(i);
                    register.put(Rank { score, tile }, 0);
                }
                columns.push(order.into_iter().map(|i| (of(i).0, 0, of(i).1)).collect());
                truth.push(register.selection(ends));
            }
            let by_sort: Vec<Selection> = columns.iter().map(|column| sorted(ends, column)).collect();
            prop_assert_eq!(&by_sort, &truth);
            let mut views: Vec<&mut Column> = columns.iter_mut().collect();
            prop_assert_eq!(&select(kernels(), ends, &mut views).unwrap(), &truth);
        }
    }

    #[test]
    fn more_than_the_kernel_selects_is_selected_by_a_sort() {
        let ends = Ends {
            highest: 2000,
            lowest: 1,
        };
        let mut column: Column = (0..2500)
            .map(|i| {
                (
                    TileId::new(0, 0, i, 0).unwrap(),
                    0,
                    (i * 7919 % 2500) as f32,
                )
            })
            .collect();
        let chosen = select(kernels(), ends, &mut [&mut column])
            .unwrap()
            .remove(0);
        assert_eq!(chosen.len(), 2001);
        let scores = chosen.values().map(|(_, score)| *score);
        assert_eq!(scores.filter(|score| *score < 500.0).count(), 1);
    }
}
