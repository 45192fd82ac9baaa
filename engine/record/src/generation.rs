//! How a sender numbers what it sends.

use crate::ledger::check;
use crate::{End, Seal, TileId};
use std::collections::BTreeMap;

/// Numbers the versions of one slide's stream: `rev = max(sent[tile] + 1, sealed + 1)`, whatever a wire says, so that no
/// version is sent twice and none falls into a generation that is sealed.
///
/// Keeps, for each tile that was sent, its revision, and for each open generation its count and check.
#[derive(Clone, Debug, Default)]
pub struct Generations {
    sent: BTreeMap<TileId, u32>,
    open: BTreeMap<u32, (u64, u64)>,
    sealed: Option<u32>,
}

impl Generations {
    /// The revision of the next version of `tile`, which the caller sends now.
    pub fn send(&mut self, tile: TileId) -> u32 {
        let after_sent = self.sent.get(&tile).map_or(0, |rev| rev + 1);
        let rev = after_sent.max(self.next_to_seal());
        self.sent.insert(tile, rev);
        let (n, sum) = self.open.entry(rev).or_default();
        *n += 1;
        *sum = sum.wrapping_add(check(tile, rev));
        rev
    }

    /// Seals every generation that is open, empty ones between them included; the greatest carries `last`. When nothing is
    /// open, an empty generation is sealed to carry it.
    pub fn seal(&mut self, last: Option<End>) -> Vec<(u32, Seal)> {
        let first = self.next_to_seal();
        let greatest = self.open.keys().next_back().copied().unwrap_or(first);
        let open = std::mem::take(&mut self.open);
        self.sealed = Some(greatest);
        (first..=greatest)
            .map(|rev| {
                let (n, check) = open.get(&rev).copied().unwrap_or_default();
                (
                    rev,
                    Seal {
                        n,
                        check,
                        last: last.filter(|_| rev == greatest),
                    },
                )
            })
            .collect()
    }

    /// The revision of `tile` that was sent last.
    pub fn sent(&self, tile: TileId) -> Option<u32> {
        self.sent.get(&tile).copied()
    }

    /// The greatest generation that is sealed.
    pub fn sealed(&self) -> Option<u32> {
        self.sealed
    }

    fn next_to_seal(&self) -> u32 {
        self.sealed.map_or(0, |rev| rev + 1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Kind, Ledger};
    use proptest::prelude::*;

    proptest! {
        // LEDGER 1.2: overlapping regions, time-outs and reopenings end right, whatever overtakes what.
        #[test]
        fn reopened_streams_end_with_the_last_version_of_each_tile(
            phases in prop::collection::vec(prop::collection::vec(0i64..12, 0..20), 1..5),
            shuffle in any::<u64>(),
        ) {
            let mut generations = Generations::default();
            let (mut rows, mut seals, mut truth) = (Vec::new(), Vec::new(), BTreeMap::new());
            for phase in phases {
                for region in phase {
                    for touched in [region, (region + 1) % 12] {
                        let tile = TileId::new(0, 0, touched, 0).unwrap();
                        let rev = generations.send(tile);
                        rows.push((tile, rev, rows.len()));
                        truth.insert(tile, rows.len() - 1);
                    }
                }
                seals.extend(generations.seal(Some(End::Complete)));
            }
            rows.sort_by_key(|row| crate::id::mix(shuffle ^ row.2 as u64));
            let mut ledger = Ledger::default();
            let mut register: BTreeMap<TileId, (u32, usize)> = BTreeMap::new();
            for (tile, rev, seq) in rows {
                ledger.outcome(rev, tile, Kind::Value).unwrap();
                let held = register.entry(tile).or_insert((rev, seq));
                if held.0 < rev { *held = (rev, seq); }
            }
            for (rev, seal) in seals {
                ledger.seal(rev, seal).unwrap();
            }
            prop_assert_eq!(ledger.ended(), Some(End::Complete));
            let held: BTreeMap<TileId, usize> = register.into_iter().map(|(t, (_, seq))| (t, seq)).collect();
            prop_assert_eq!(held, truth);
        }
    }
}
