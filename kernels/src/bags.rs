//! Which rows make which bag: offsets, a mask, and the items of [`ROWS`] rows in which sums run.
//!
//! The rows of all bags lie one after the other. A masked row is no member of its bag: the list of members leaves it out,
//! so that no kernel ever reads it, and items are cut from that list. What a bag gives is thus what it would give had the
//! row never come (contract `ordered-f32/1`), and an item never crosses a bag: a bag alone and in a batch are the same.

use crate::ROWS;
use crate::cuda::Identity;
use crate::error::{Cause, KernelError};
use std::ops::Range;

/// At most [`ROWS`] members of a bag. The layout is that of `struct Item` in cuda/bags.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The bag.
    pub bag: u32,
    /// Place of its first member in the list of members.
    pub first: u32,
    /// Members in it, 1 to [`ROWS`].
    pub rows: u32,
    /// Place of the item in its bag.
    pub slot: u32,
}

/// The bags of one launch.
#[derive(Clone, Debug, PartialEq)]
pub struct Bags {
    /// Rows of bag b: `offsets[b]..offsets[b + 1]`.
    offsets: Vec<u32>,
    /// Row of each member; `None`: every row is one.
    members: Option<Vec<u32>>,
    /// Members of bag b, places in the list: `starts[b]..starts[b + 1]`.
    starts: Vec<u32>,
    items: Vec<Item>,
    /// Items of bag b: `first[b]..first[b + 1]`.
    first: Vec<u32>,
    /// By which a device knows again that it has the lists: nothing of the above is ever changed.
    identity: Identity,
}

impl Bags {
    /// Bags of the rows `offsets[b]..offsets[b + 1]`; `offsets` begins with 0 and ascends. `mask`, one a row, is true where
    /// the row is a member.
    pub fn new(offsets: &[usize], mask: Option<&[bool]>) -> Result<Bags, KernelError> {
        let refuse = |cause| {
            Err(KernelError {
                kernel: "bags",
                shape: format!("{} bags", offsets.len().saturating_sub(1)),
                cause,
            })
        };
        let wrong = |at: usize, why: &'static str| Cause::Offsets {
            at,
            got: offsets.get(at).copied().unwrap_or(0),
            why,
        };
        if offsets.first() != Some(&0) {
            return refuse(wrong(0, "the first offset must be 0"));
        }
        if let Some(at) = (1..offsets.len()).find(|&at| offsets[at] < offsets[at - 1]) {
            return refuse(wrong(at, "offsets must ascend"));
        }
        let rows = offsets.last().copied().unwrap_or(0);
        // Row numbers travel as i32 in some kernels, and a bag's number beside them.
        for (what, got) in [("rows", rows), ("bags", offsets.len())] {
            if got >= i32::MAX as usize {
                return refuse(Cause::Limit {
                    what,
                    limit: i32::MAX as usize - 1,
                    got,
                });
            }
        }
        if let Some(mask) = mask
            && mask.len() != rows
        {
            return refuse(Cause::Shape {
                argument: "mask",
                expected: format!("{rows} rows"),
                got: format!("{}", mask.len()),
            });
        }
        let mask = mask.filter(|mask| mask.contains(&false));
        let offsets = offsets.iter().map(|&offset| offset as u32).collect();
        Ok(match mask {
            None => Bags::cut(offsets, None),
            Some(mask) => Bags::cut(offsets, Some(&|row| mask[row])),
        })
    }

    /// Those of the members that `keep` says, by bag and row; the bags stay, some of them empty.
    pub(crate) fn keep(&self, keep: impl Fn(usize, usize) -> bool) -> Bags {
        let mut kept = vec![false; self.total()];
        for bag in 0..self.len() {
            for row in self.places(bag).map(|place| self.row(place)) {
                kept[row] = keep(bag, row);
            }
        }
        Bags::cut(self.offsets.clone(), Some(&|row| kept[row]))
    }

    /// Of offsets that were checked.
    fn cut(offsets: Vec<u32>, member: Option<&dyn Fn(usize) -> bool>) -> Bags {
        let rows = offsets.last().map_or(0, |&offset| offset as usize);
        let mut bags = Bags {
            members: member.map(|member| {
                let member = |&row: &u32| member(row as usize);
                (0..rows as u32).filter(member).collect()
            }),
            starts: Vec::with_capacity(offsets.len()),
            items: Vec::with_capacity(rows / ROWS + offsets.len()),
            first: Vec::with_capacity(offsets.len()),
            offsets,
            identity: Identity::default(),
        };
        bags.starts.push(0);
        bags.first.push(0);
        for bag in 0..bags.len() {
            let start = bags.starts[bag];
            let members = match &bags.members {
                None => bags.offsets[bag + 1] - bags.offsets[bag],
                Some(list) => {
                    let rest = &list[start as usize..];
                    rest.partition_point(|&row| row < bags.offsets[bag + 1]) as u32
                }
            };
            for (slot, first) in (0..members).step_by(ROWS).enumerate() {
                bags.items.push(Item {
                    bag: bag as u32,
                    first: start + first,
                    rows: (members - first).min(ROWS as u32),
                    slot: slot as u32,
                });
            }
            bags.starts.push(start + members);
            bags.first.push(bags.items.len() as u32);
        }
        bags
    }

    /// One bag of `rows` rows.
    pub fn one(rows: usize) -> Result<Bags, KernelError> {
        Bags::new(&[0, rows], None)
    }

    /// Number of bags.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no bag.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows of all bags, masked ones too.
    pub fn total(&self) -> usize {
        self.offsets.last().map_or(0, |&offset| offset as usize)
    }

    /// Rows of a bag, masked ones too.
    pub fn rows(&self, bag: usize) -> Range<usize> {
        self.offsets[bag] as usize..self.offsets[bag + 1] as usize
    }

    /// Members of all bags.
    pub fn members(&self) -> usize {
        self.starts.last().map_or(0, |&start| start as usize)
    }

    /// Places of a bag's members in the list of members.
    pub fn places(&self, bag: usize) -> Range<usize> {
        self.starts[bag] as usize..self.starts[bag + 1] as usize
    }

    /// The row of the member at `place`.
    #[inline]
    pub fn row(&self, place: usize) -> usize {
        match &self.members {
            None => place,
            Some(members) => members[place] as usize,
        }
    }

    /// Row of each member; `None`: every row is one.
    pub fn list(&self) -> Option<&[u32]> {
        self.members.as_deref()
    }

    /// Offsets of the rows, as they were given.
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// Offsets of the members: those of bag b stand at `starts[b]..starts[b + 1]`.
    pub fn starts(&self) -> &[u32] {
        &self.starts
    }

    /// The items of all bags, bag by bag, ascending.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Offsets of the items: those of bag b are `first[b]..first[b + 1]`.
    pub fn first(&self) -> &[u32] {
        &self.first
    }

    /// The same for clones, another for bags that were made anew.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// As an error names them.
    pub fn describe(&self) -> String {
        let masked = self.total() - self.members();
        let bags = format!("{} bags, {} rows", self.len(), self.total());
        if masked == 0 {
            bags
        } else {
            format!("{bags} ({masked} masked)")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn items_are_cut_from_the_members_and_never_cross_a_bag() {
        let mut mask = vec![true; 300];
        mask[0] = false;
        mask[299] = false;
        let bags = Bags::new(&[0, 130, 130, 300], Some(&mask)).unwrap();
        assert_eq!(bags.members(), 298);
        assert_eq!(bags.row(0), 1);
        let cut: Vec<_> = bags
            .items()
            .iter()
            .map(|i| (i.bag, i.first, i.rows, i.slot))
            .collect();
        assert_eq!(
            cut,
            [
                (0, 0, 128, 0),
                (0, 128, 1, 1),
                (2, 129, 128, 0),
                (2, 257, 41, 1)
            ]
        );
        assert_eq!(bags.first(), [0, 2, 2, 4]);
    }

    #[test]
    fn offsets_that_cannot_be_are_refused() {
        assert!(matches!(
            Bags::new(&[], None).unwrap_err().cause,
            Cause::Offsets { at: 0, .. }
        ));
        assert!(matches!(
            Bags::new(&[0, 3, 2], None).unwrap_err().cause,
            Cause::Offsets { at: 2, .. }
        ));
        assert!(matches!(
            Bags::new(&[0, 3], Some(&[true])).unwrap_err().cause,
            Cause::Shape {
                argument: "mask",
                ..
            }
        ));
        assert!(matches!(
            Bags::new(&[0, usize::MAX], None).unwrap_err().cause,
            Cause::Limit { what: "rows", .. }
        ));
    }
}
