//! When a slide is complete, and when it is final.
//!
//! A reduce or a sink has one [`Ledger`] a slide and a feeder of an input port. It counts outcomes by generation against the
//! seals of the sender; order does not matter, a seal may overtake rows and be overtaken. It is *complete through G* when
//! generations 0..=G are sealed and full, and *ended* when the greatest generation it knows of is complete and carried
//! `last`.

use crate::id::mix;
use crate::{Body, End, Seal, Skip, TileId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// The term that a version adds to its generation's check.
pub fn check(tile: TileId, rev: u32) -> u64 {
    mix(tile.word() ^ (rev as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Kinds of outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value.
    Value,
    /// Left out on purpose.
    Skip(Skip),
    /// Nothing could be made of it.
    Fail,
    /// Withdrawn.
    Gone,
}

impl Kind {
    /// The kind of a version's body; `None` for what is not counted.
    pub fn of(body: &Body) -> Option<Kind> {
        match body {
            Body::Skip(skip) => Some(Kind::Skip(skip.clone())),
            Body::Fail(_) => Some(Kind::Fail),
            Body::Gone => Some(Kind::Gone),
            body if body.is_version() => Some(Kind::Value),
            _ => None,
        }
    }
}

/// Outcomes counted, over all generations. A tile that was sent three times counts three times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Values.
    pub value: u64,
    /// Skips by reason, as `blur: blurred`.
    pub skip: BTreeMap<String, u64>,
    /// Failures.
    pub fail: u64,
    /// Withdrawals.
    pub gone: u64,
}

impl Tally {
    /// All outcomes.
    pub fn total(&self) -> u64 {
        self.value + self.skipped() + self.fail + self.gone
    }

    /// Skips of every reason.
    pub fn skipped(&self) -> u64 {
        self.skip.values().sum()
    }

    fn count(&mut self, kind: Kind) {
        match kind {
            Kind::Value => self.value += 1,
            Kind::Skip(skip) => *self.skip.entry(skip.to_string()).or_default() += 1,
            Kind::Fail => self.fail += 1,
            Kind::Gone => self.gone += 1,
        }
    }
}

/// A fault of a stage or of the engine: never of the input. The run ends with exit code 70.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerError {
    /// More outcomes than the generation has versions, or an outcome for one that is already complete.
    Overcount {
        /// The generation.
        rev: u32,
        /// Outcomes seen, this one included.
        seen: u64,
        /// Versions the seal speaks of.
        n: u64,
    },
    /// As many outcomes as versions, but not the same ones: one was lost and another came twice.
    Mismatch {
        /// The generation.
        rev: u32,
        /// Versions the seal speaks of.
        n: u64,
    },
    /// A second seal for a generation.
    SealedTwice {
        /// The generation.
        rev: u32,
    },
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LedgerError::Overcount { rev, seen, n } => {
                write!(f, "generation {rev}: {seen} outcomes for {n} versions")
            }
            LedgerError::Mismatch { rev, n } => {
                write!(
                    f,
                    "generation {rev}: {n} outcomes for {n} versions, but not of the same tiles"
                )
            }
            LedgerError::SealedTwice { rev } => write!(f, "generation {rev} was sealed twice"),
        }
    }
}

impl std::error::Error for LedgerError {}

/// Counts one feeder's outcomes for one slide. State is O(open generations).
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    open: VecDeque<Generation>,
    base: u32,
    last: Option<(u32, End)>,
    /// Outcomes so far.
    pub tally: Tally,
}

#[derive(Clone, Copy, Debug, Default)]
struct Generation {
    seen: u64,
    sum: u64,
    sealed: Option<(u64, u64)>,
}

impl Ledger {
    /// Counts the outcome of a version.
    pub fn outcome(&mut self, rev: u32, tile: TileId, kind: Kind) -> Result<(), LedgerError> {
        let base = self.base;
        let Some(generation) = self.generation(rev) else {
            // Complete generations are popped: whatever still comes for one is one too many.
            return Err(LedgerError::Overcount {
                rev,
                seen: 1,
                n: base as u64,
            });
        };
        generation.seen += 1;
        generation.sum = generation.sum.wrapping_add(check(tile, rev));
        generation.verify(rev)?;
        self.tally.count(kind);
        self.pop();
        Ok(())
    }

    /// Takes the sender's seal for generation `rev`.
    pub fn seal(&mut self, rev: u32, seal: Seal) -> Result<(), LedgerError> {
        let Some(generation) = self.generation(rev) else {
            return Err(LedgerError::SealedTwice { rev });
        };
        if generation.sealed.is_some() {
            return Err(LedgerError::SealedTwice { rev });
        }
        generation.sealed = Some((seal.n, seal.check));
        generation.verify(rev)?;
        if let Some(end) = seal.last
            && self.last.is_none_or(|(known, _)| known < rev)
        {
            self.last = Some((rev, end));
        }
        self.pop();
        Ok(())
    }

    /// The greatest G such that generations 0..=G are sealed and full.
    pub fn through(&self) -> Option<u32> {
        self.base.checked_sub(1)
    }

    /// How the domain ended: `Some` only when complete through the greatest generation known (by a row or a seal) and that
    /// one carried `last`.
    pub fn ended(&self) -> Option<End> {
        let (rev, end) = self.last?;
        (self.open.is_empty() && self.base == rev + 1).then_some(end)
    }

    /// The first generation that is not complete, as (generation, seen, n when sealed): what the audit prints.
    pub fn waiting_for(&self) -> (u32, u64, Option<u64>) {
        let open = self.open.front().copied().unwrap_or_default();
        (self.base, open.seen, open.sealed.map(|(n, _)| n))
    }

    fn generation(&mut self, rev: u32) -> Option<&mut Generation> {
        let place = rev.checked_sub(self.base)? as usize;
        if self.open.len() <= place {
            self.open.resize(place + 1, Generation::default());
        }
        self.open.get_mut(place)
    }

    fn pop(&mut self) {
        while self.open.front().is_some_and(Generation::full) {
            self.open.pop_front();
            self.base += 1;
        }
    }
}

impl Generation {
    fn full(&self) -> bool {
        self.sealed == Some((self.seen, self.sum))
    }

    fn verify(&self, rev: u32) -> Result<(), LedgerError> {
        match self.sealed {
            Some((n, _)) if self.seen > n => Err(LedgerError::Overcount {
                rev,
                seen: self.seen,
                n,
            }),
            Some((n, check)) if self.seen == n && self.sum != check => {
                Err(LedgerError::Mismatch { rev, n })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn tile(n: i64) -> TileId {
        TileId::new(0, 0, n, 0).unwrap()
    }

    fn seal_of(rev: u32, tiles: &[i64], last: Option<End>) -> Seal {
        let check = tiles
            .iter()
            .fold(0u64, |sum, t| sum.wrapping_add(check(tile(*t), rev)));
        Seal {
            n: tiles.len() as u64,
            check,
            last,
        }
    }

    #[test]
    fn a_loss_paired_with_a_duplicate_is_seen() {
        let mut ledger = Ledger::default();
        ledger
            .seal(0, seal_of(0, &[1, 2], Some(End::Complete)))
            .unwrap();
        ledger.outcome(0, tile(1), Kind::Value).unwrap();
        assert_eq!(
            ledger.outcome(0, tile(1), Kind::Value),
            Err(LedgerError::Mismatch { rev: 0, n: 2 })
        );
    }

    #[test]
    fn a_later_generation_withdraws_last() {
        let mut ledger = Ledger::default();
        ledger
            .seal(0, seal_of(0, &[], Some(End::Complete)))
            .unwrap();
        assert_eq!(ledger.ended(), Some(End::Complete));
        ledger.outcome(1, tile(4), Kind::Gone).unwrap();
        assert_eq!(ledger.ended(), None, "a row of generation 1 is known");
        ledger
            .seal(1, seal_of(1, &[4], Some(End::Incomplete)))
            .unwrap();
        assert_eq!(ledger.ended(), Some(End::Incomplete));
    }

    #[test]
    fn an_outcome_beyond_the_seal_is_an_overcount() {
        let mut ledger = Ledger::default();
        ledger.seal(0, seal_of(0, &[1], None)).unwrap();
        ledger.outcome(0, tile(1), Kind::Fail).unwrap();
        assert!(ledger.outcome(0, tile(2), Kind::Value).is_err());
        assert!(ledger.seal(0, seal_of(0, &[1], None)).is_err());
    }

    proptest! {
        #[test]
        fn any_order_of_outcomes_and_seals_ends_the_same(
            generations in prop::collection::vec(prop::collection::btree_set(0i64..40, 0..20), 1..6),
            shuffle in any::<u64>(),
        ) {
            let mut messages: Vec<(u32, Option<i64>)> = Vec::new();
            for (rev, tiles) in generations.iter().enumerate() {
                messages.extend(tiles.iter().map(|t| (rev as u32, Some(*t))));
                messages.push((rev as u32, None));
            }
            messages.sort_by_key(|(rev, t)| mix(shuffle ^ ((*rev as u64) << 32) ^ t.map_or(999, |t| t as u64)));
            let mut ledger = Ledger::default();
            let greatest = generations.len() as u32 - 1;
            for (at, (rev, t)) in messages.iter().enumerate() {
                match t {
                    Some(t) => ledger.outcome(*rev, tile(*t), Kind::Value).unwrap(),
                    None => {
                        let tiles: Vec<i64> = generations[*rev as usize].iter().copied().collect();
                        let last = (*rev == greatest).then_some(End::Complete);
                        ledger.seal(*rev, seal_of(*rev, &tiles, last)).unwrap();
                    }
                }
                prop_assert_eq!(ledger.ended().is_some(), at + 1 == messages.len());
            }
            prop_assert_eq!(ledger.through(), Some(greatest));
            prop_assert_eq!(ledger.tally.value, generations.iter().map(|g| g.len() as u64).sum::<u64>());
        }
    }
}
