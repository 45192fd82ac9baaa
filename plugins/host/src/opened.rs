//! An open slide of a plugin's source: its tiles are read from it, whoever asks for its steps.

use crate::call::{Call, FAULT};
use crate::inside::inside;
use crate::patience::Watched;
use crate::pool::{Holder, Pool};
use crate::who::Who;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use weir_abi::desk::Said;
use weir_abi::stage::Stage;
use weir_abi::{row, status};
use weir_record::{SlideInfo, TileId};
use weir_runtime::stage::{ReadError, TileReader};

/// An open slide of the plugin's.
pub(crate) struct Opened {
    /// A slide may point into the instance that opened it, which lives as long as this.
    pool: Arc<Pool>,
    /// Its id.
    slide: Box<str>,
    /// Of one that no other slide has.
    holder: Holder,
    pub stage: &'static Stage,
    pub who: Arc<Who>,
    pub handle: *mut c_void,
    /// A function of it did, so its state may be anything: it is used no more, and not closed either.
    panicked: AtomicBool,
    pub info: OnceLock<Arc<SlideInfo>>,
}

// SAFETY: the header says which of a slide's functions may run at once, and on any thread.
unsafe impl Send for Opened {}
// SAFETY: as above.
unsafe impl Sync for Opened {}

impl Drop for Opened {
    fn drop(&mut self) {
        // In a process of its own nothing is called: what stands in for it ends.
        let usable = self.pool.shelf.keeps_time() || !self.panicked();
        if let Some(close) = self.stage.close.filter(|_| usable) {
            let _watched = self.watched("close");
            // SAFETY: every call of the slide holds a reference.
            inside(&self.who, 0, || unsafe { close(self.handle) });
        }
        self.pool.left(&self.holder);
    }
}

impl Opened {
    /// `handle` is what the plugin opened, in the instance that `holder` has where it has one.
    pub fn new(pool: Arc<Pool>, slide: &str, holder: Holder, handle: *mut c_void) -> Opened {
        Opened {
            stage: pool.shelf.stage,
            who: pool.who().clone(),
            pool,
            slide: slide.into(),
            holder,
            handle,
            panicked: AtomicBool::new(false),
            info: OnceLock::new(),
        }
    }

    pub fn panicked(&self) -> bool {
        self.panicked.load(Ordering::SeqCst)
    }

    pub fn watched(&self, function: &'static str) -> Option<Watched> {
        self.pool.watch(function, Some(&self.slide))
    }

    /// Why nothing more comes of it.
    pub fn panicked_before(&self) -> Said {
        Said {
            what: format!(
                "{} panicked before [E0522], and this slide is asked for no more",
                self.who.plugin
            ),
            help: FAULT.into(),
            ..Said::default()
        }
    }

    /// Notes a status that its functions return.
    pub fn heard(&self, said: status::Status) -> status::Status {
        if said == status::PANIC {
            self.panicked.store(true, Ordering::SeqCst);
        }
        said
    }

    fn fill(&self, tile: TileId, rev: u32, into: *mut u8, len: usize) -> Result<(), ReadError> {
        if self.panicked() {
            return Err(ReadError::Damaged(self.panicked_before().what));
        }
        let call = Call::setup(&self.who);
        let mut about = match self.info.get() {
            Some(info) => crate::batch::place(tile, info, 0),
            None => row::Row::default(),
        };
        about.key.tile = tile.word();
        (about.key.rev, about.key.source) = (rev, rev);
        let _watched = self.watched("read");
        let said = match self.stage.read {
            Some(read) => {
                // SAFETY: as the header says: row and memory live through the call.
                call.inside(|call| unsafe { read(self.handle, call, &about, into.cast(), len) })
            }
            None => status::UNSUPPORTED,
        };
        call.end(self.heard(said))
            .map(drop)
            .map_err(|error| ReadError::Damaged(error.by(&self.who).said.what))
    }
}

impl TileReader for Opened {
    fn read(&self, tile: TileId, rev: u32, into: &mut [u8]) -> Result<(), ReadError> {
        self.fill(tile, rev, into.as_mut_ptr(), into.len())
    }

    fn feature(&self, tile: TileId, rev: u32, into: &mut [f32]) -> Result<(), ReadError> {
        let bytes = size_of_val(into);
        self.fill(tile, rev, into.as_mut_ptr().cast(), bytes)?;
        match into.iter().position(|number| !number.is_finite()) {
            None => Ok(()),
            Some(at) => Err(ReadError::Damaged(format!(
                "number {at} of the features is {}, and every number must be finite",
                into[at]
            ))),
        }
    }
}
