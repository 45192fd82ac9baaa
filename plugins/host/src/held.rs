//! What holds of a slide at an input of a reduce or a sink, and what of it the plugin has not been told yet.

use crate::batch::live::Noted;
use crate::batch::task::Task;
use crate::batch::{HostBatch, place};
use crate::kept::set_apart;
use crate::pool::{Holder, Lent, Pool};
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_abi::status;
use weir_record::{Body, Key, SlideInfo, TileId};
use weir_runtime::stage::{StageError, Turn};

/// Rows of a batch to a plugin.
const FULL: usize = 256;

/// An input of a slide.
pub(crate) struct Held {
    /// Revisions of the tiles that have a value.
    revs: BTreeMap<TileId, u32>,
    waiting: Waiting,
    taken: Taken,
}

/// What an input takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// Pixels are handed over one by one: a stage that gathers them would hold bytes that others wait for.
    pub pixels: bool,
    /// Numbers of a row, where the values may have none.
    pub width: usize,
    /// The stage takes no withdrawals. A live run, which has some, is refused; a source may still send a place twice.
    pub batch_only: bool,
}

/// What a plugin is told next: first what holds no more, then what does.
#[derive(Default)]
pub(crate) struct Waiting {
    removed: Vec<Key>,
    values: Vec<(Key, Body, Arc<SlideInfo>)>,
    info: Option<Arc<SlideInfo>>,
    width: usize,
    batch_only: bool,
}

impl Held {
    pub fn new(taken: Taken) -> Held {
        Held {
            revs: BTreeMap::new(),
            waiting: Waiting::default(),
            taken,
        }
    }

    /// The revision of the tile's value.
    pub fn rev(&self, tile: TileId) -> Option<u32> {
        self.revs.get(&tile).copied()
    }

    /// Notes what now holds. What waits and must be told before it comes back, to be given first.
    pub fn put(&mut self, key: Key, body: Option<Body>, info: &Arc<SlideInfo>) -> Option<Waiting> {
        let before = match body {
            Some(_) => self.revs.insert(key.tile, key.rev),
            None => self.revs.remove(&key.tile),
        };
        let mut first = None;
        if let Some(rev) = before {
            let waits = self
                .waiting
                .values
                .iter()
                .any(|(known, ..)| known.tile == key.tile);
            if waits {
                first = Some(std::mem::take(&mut self.waiting));
            }
            self.waiting.removed.push(Key { rev, ..key });
            self.waiting.batch_only = self.taken.batch_only;
            self.waiting.info = Some(info.clone());
        }
        if let Some(body) = body {
            self.waiting.values.push((key, body, info.clone()));
            self.waiting.width = self.taken.width;
        }
        first
    }

    /// Whether enough waits.
    pub fn is_full(&self) -> bool {
        let most = if self.taken.pixels { 1 } else { FULL };
        self.waiting.values.len() >= most || self.waiting.removed.len() >= FULL
    }

    pub fn take(&mut self) -> Waiting {
        std::mem::take(&mut self.waiting)
    }
}

impl Waiting {
    /// Tells the plugin.
    pub fn give(self, pool: &Pool, holder: &Holder, port: u32) -> Result<(), StageError> {
        if let Some(info) = self.info.filter(|_| !self.removed.is_empty()) {
            if self.batch_only {
                let tile = self.removed[0].tile;
                let plugin = &pool.who().plugin;
                return Err(StageError::new(
                    format!(
                        "tile ({}, {}) was withdrawn, or sent a second time, and the stage is batch-only: {plugin} takes what holds once",
                        tile.x(),
                        tile.y()
                    ),
                    "the stage that sends it gives each place once; else take a stage that takes withdrawals",
                ));
            }
            let rows = removed(&self.removed, &info);
            let task = Task::Setup;
            pool.call_for(holder, task, |stage, me, call| {
                let _watched = pool.watch("remove", Some(&info.id));
                match stage.remove {
                    // SAFETY: as the header says: the rows live through the call.
                    Some(remove) => unsafe {
                        remove(me, call, port, rows.as_ptr(), rows.len() as u32)
                    },
                    None => status::UNSUPPORTED,
                }
            })?;
        }
        if !self.values.is_empty() {
            process(pool, holder, port, self.values, self.width)?;
        }
        Ok(())
    }
}

/// Rows of the header for what holds no more.
fn removed(keys: &[Key], info: &SlideInfo) -> Vec<weir_abi::row::Row> {
    keys.iter()
        .map(|key| weir_abi::row::Row {
            key: weir_abi::row::Key {
                slide: key.slide.number(),
                tile: key.tile.word(),
                rev: key.rev,
                source: key.rev,
            },
            ..place(key.tile, info, 0)
        })
        .collect()
}

/// Hands values over as one batch.
fn process(
    pool: &Pool,
    holder: &Holder,
    port: u32,
    values: Vec<(Key, Body, Arc<SlideInfo>)>,
    width: usize,
) -> Result<(), StageError> {
    let rows = values.iter().map(|(key, body, info)| (*key, body, info));
    // SAFETY: the values live until the call is over.
    let input = unsafe { HostBatch::input(rows, width) }
        .map_err(|what| StageError::new(what, "this is a fault of the stage before"))?
        .placed();
    let batch = input.as_ptr();
    let kept = || values.iter().for_each(|(_, body, _)| set_apart(body));
    let lent = Lent {
        holder: Some(holder),
        kept: &kept,
        turn: &Turn::default(),
    };
    let slide = values.first().map(|(_, _, info)| info.id.as_str());
    pool.call_with(&lent, Task::Take(input), |stage, me, call| {
        let _watched = pool.watch("process", slide);
        match stage.process {
            // SAFETY: as the header says: the batch lives at least as long as the call.
            Some(process) => unsafe { process(me, call, port, batch) },
            None => status::UNSUPPORTED,
        }
    })?;
    Ok(())
}
