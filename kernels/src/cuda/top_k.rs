//! (d) on a device.

use super::launch::Grid;
use super::stream::Stream;
use crate::bags::Bags;
use crate::check::top_k::{check, describe};
use crate::error::KernelError;
use crate::kernels::{Ends, TopKOut};
use crate::view::View;

/// Members of a slice, threads of a block, and the most keys that it holds: those of cuda/top_k.cu.
const SLICE: usize = 4096;
const THREADS: u32 = 256;
/// Keys, two rows of the warps' sums, one counter.
const SHARED: u32 = Ends::LIMIT as u32 * 8 + 2 * (THREADS / 32) * 4 + 8;
/// The slot of a slice that is its bag's only one.
const NO_SLOT: u32 = u32::MAX;

/// How bags are cut: `struct Slice` and `struct Merge` of cuda/top_k.cu, four u32 each.
#[derive(Debug, Default, PartialEq)]
struct Cut {
    slices: Vec<u32>,
    merges: Vec<u32>,
    slots: usize,
}

/// A function of the bags alone, so that what a block does is of no device.
fn cut(bags: &Bags) -> Cut {
    let mut cut = Cut::default();
    for bag in 0..bags.len() {
        let places = bags.places(bag);
        let (first, members) = (places.start as u32, places.len() as u32);
        let slices = places.len().div_ceil(SLICE);
        if slices <= 1 {
            // An empty bag has a slice too: somebody must say that nothing was selected.
            cut.slices.extend([bag as u32, first, members, NO_SLOT]);
            continue;
        }
        cut.merges
            .extend([bag as u32, cut.slots as u32, slices as u32, members]);
        for slice in 0..slices {
            let from = (slice * SLICE) as u32;
            let rows = (members - from).min(SLICE as u32);
            let slot = (cut.slots + slice) as u32;
            cut.slices.extend([bag as u32, first + from, rows, slot]);
        }
        cut.slots += slices;
    }
    cut
}

pub(super) fn select(
    stream: &Stream,
    bags: &Bags,
    ends: Ends,
    scores: View<'_, 1>,
    out: TopKOut<'_>,
) -> Result<(), KernelError> {
    check(bags, ends, &scores, &out)?;
    if bags.is_empty() {
        return Ok(());
    }
    let mut work = stream.begin("top-k", describe(bags, ends))?;
    let scores = work.input("scores", scores)?;
    let highest = work.output("highest", out.highest)?;
    let lowest = work.output("lowest", out.lowest)?;
    let nans = work.output("nans", out.nans)?;
    let rows = work.upload(bags.offsets())?;
    let list = match bags.list() {
        Some(list) => work.upload(list)?,
        None => super::buffer::Span::none(),
    };
    let cut = cut(bags);
    let slices = work.upload(&cut.slices)?;
    let width = ends.highest + ends.lowest;
    let slots = work.take::<u64>(cut.slots * width)?;
    let slot_nans = work.take::<u32>(cut.slots)?;
    let (m_high, m_low) = (ends.highest as u32, ends.lowest as u32);
    let blocks = |lists: &[u32]| u32::try_from(lists.len() / 4).unwrap_or(u32::MAX);
    let function = work.function("top_k", "weir_top_k_slices")?;
    let grid = Grid::new(blocks(&cut.slices), THREADS).shared(SHARED);
    // SAFETY: `check` holds scores, bags and results against each other; the slices cover each bag's members, and there is
    // a slot for each slice of a bag of several.
    unsafe {
        work.launch(
            &function,
            grid,
            &[
                scores.into(),
                list.into(),
                rows.into(),
                slices.into(),
                m_high.into(),
                m_low.into(),
                highest.into(),
                lowest.into(),
                nans.into(),
                slots.into(),
                slot_nans.into(),
            ],
        )?;
    }
    if !cut.merges.is_empty() {
        let merges = work.upload(&cut.merges)?;
        let function = work.function("top_k", "weir_top_k_merge")?;
        let grid = Grid::new(blocks(&cut.merges), THREADS).rows(2);
        // SAFETY: as above; the launch before has filled the slots that the merges name.
        unsafe {
            work.launch(
                &function,
                grid.shared(SHARED),
                &[
                    merges.into(),
                    slots.into(),
                    slot_nans.into(),
                    m_high.into(),
                    m_low.into(),
                    highest.into(),
                    lowest.into(),
                    nans.into(),
                ],
            )?;
        }
    }
    work.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_bag_is_cut_by_its_own_members_alone() {
        let bags = Bags::new(&[0, 5, 5, 4102, 4103], None).unwrap();
        let cut = cut(&bags);
        assert_eq!(
            cut.slices,
            [
                [0, 0, 5, NO_SLOT],
                [1, 5, 0, NO_SLOT],
                [2, 5, 4096, 0],
                [2, 4101, 1, 1],
                [3, 4102, 1, NO_SLOT],
            ]
            .concat()
        );
        assert_eq!((cut.merges, cut.slots), (vec![2, 0, 2, 4097], 2));
    }
}
