//! What holds of a slide at an input of a reduce or a sink, and what of it the plugin has not been told yet.

use crate::pool::{Holder, Pool};
use crate::reduce::{process, removed};
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_abi::status;
use weir_record::{Body, Key, SlideInfo, TileId};
use weir_runtime::stage::StageError;

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
}

/// What a plugin is told next: first what holds no more, then what does.
#[derive(Default)]
pub(crate) struct Waiting {
    removed: Vec<Key>,
    values: Vec<(Key, Body, Arc<SlideInfo>)>,
    info: Option<Arc<SlideInfo>>,
    width: usize,
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
            let rows = removed(&self.removed, &info);
            let task = crate::batch::task::Task::Setup;
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
