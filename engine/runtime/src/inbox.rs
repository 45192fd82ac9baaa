//! What a reduce or a sink keeps of one slide and input port: a ledger a feeder, and the register of what holds.

use std::collections::HashMap;

use weir_record::{End, Kind, Ledger, LedgerError, Seal, Tally, TileId};

/// One slide at one input port.
pub(crate) struct Inbox {
    feeders: Vec<Feeder>,
    register: HashMap<TileId, Held>,
    /// Outcomes of what holds: one a tile, so it does not depend on how often a tile was corrected.
    tally: Tally,
}

#[derive(Default)]
struct Feeder {
    ledger: Ledger,
    closing: bool,
}

struct Held {
    rev: u32,
    kind: Kind,
}

/// Bytes that a tile takes in a register, for reservations.
pub(crate) const REGISTER_BYTES: u64 = 96;

impl Inbox {
    pub(crate) fn new(feeders: usize) -> Self {
        Inbox {
            feeders: (0..feeders).map(|_| Feeder::default()).collect(),
            register: HashMap::new(),
            tally: Tally::default(),
        }
    }

    /// Counts a version; returns whether it now holds for its tile. Of two outcomes of one version (the branches of a
    /// diamond), the value wins.
    pub(crate) fn version(
        &mut self,
        feeder: usize,
        rev: u32,
        tile: TileId,
        kind: Kind,
    ) -> Result<bool, LedgerError> {
        self.feeders[feeder]
            .ledger
            .outcome(rev, tile, kind.clone())?;
        match self.register.get_mut(&tile) {
            None => {
                count(&mut self.tally, &kind, true);
                self.register.insert(tile, Held { rev, kind });
                Ok(true)
            }
            Some(held)
                if rev > held.rev
                    || (rev == held.rev && kind == Kind::Value && held.kind != Kind::Value) =>
            {
                count(&mut self.tally, &held.kind, false);
                count(&mut self.tally, &kind, true);
                *held = Held { rev, kind };
                Ok(true)
            }
            Some(_) => Ok(false),
        }
    }

    pub(crate) fn seal(&mut self, feeder: usize, rev: u32, seal: Seal) -> Result<(), LedgerError> {
        self.feeders[feeder].ledger.seal(rev, seal)
    }

    /// The feeder has everything of the slide.
    pub(crate) fn close(&mut self, feeder: usize) {
        self.feeders[feeder].closing = true;
    }

    /// Whether every feeder has everything of the slide and every ledger ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.feeders.iter().all(|feeder| feeder.closing) && self.ended().is_some()
    }

    /// The greatest generation through which every feeder is complete.
    pub(crate) fn through(&self) -> Option<u32> {
        self.feeders
            .iter()
            .map(|feeder| feeder.ledger.through())
            .min()
            .flatten()
    }

    /// How the port ended, when every feeder did; the worst of them.
    pub(crate) fn ended(&self) -> Option<End> {
        self.feeders
            .iter()
            .map(|feeder| feeder.ledger.ended())
            .try_fold(End::Complete, |worst, end| Some(worst.max(end?)))
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What the audit says of a port that did not end.
    pub(crate) fn waits_for(&self) -> String {
        let waiting = self
            .feeders
            .iter()
            .find(|feeder| feeder.ledger.ended().is_none() || !feeder.closing);
        let Some(feeder) = waiting else {
            return "nothing".to_owned();
        };
        let (rev, seen, sealed) = feeder.ledger.waiting_for();
        match sealed {
            Some(n) => format!("generation {rev} has {seen} outcomes of {n}"),
            None if feeder.ledger.ended().is_some() => "its end was never told".to_owned(),
            None => format!("generation {rev} has {seen} outcomes and no seal"),
        }
    }
}

fn count(tally: &mut Tally, kind: &Kind, up: bool) {
    let place = match kind {
        Kind::Value => &mut tally.value,
        Kind::Skip(skip) => tally.skip.entry(skip.to_string()).or_default(),
        Kind::Fail => &mut tally.fail,
        Kind::Gone => &mut tally.gone,
    };
    *place = if up {
        *place + 1
    } else {
        place.saturating_sub(1)
    };
    tally.skip.retain(|_, n| *n > 0);
}
