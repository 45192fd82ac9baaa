//! A slide of a plugin's reader in this process.
//!
//! The plugin gives levels and their pixels; [`LeveledSlide`](weir_slide::leveled::LeveledSlide) makes the whole reader of them. Here
//! its tables become safe values: what it says of a slide is copied and checked, what it returns becomes a [`SlideError`], and its
//! handles are closed once, but for those in which it panicked: these are used no more, and not closed either.

use crate::call::{Call, CallError, FAULT};
use crate::inside::inside;
use crate::offer::HOST;
use crate::patience::{Watched, watch_for};
use crate::tables::{self, Fault as Broken};
use crate::who::Who;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use weir_abi::desk::Said as Told;
use weir_abi::reader::{
    Facts, Level, MPP_OBJECTIVE, MPP_RESOLUTION, MPP_VENDOR, PARALLEL, Picture, Property, Reader,
    SPOILS,
};
use weir_abi::{Str, status};
use weir_slide::leveled::{Found, FoundLevel, Handle, Handles, Said};
use weir_slide::{Associated, Fault, SlideError};

/// More of anything than a slide has: a count that is larger is none.
const MOST: u32 = 1 << 20;

/// What to do about a reader that takes too long.
pub(crate) const SLOW: &str = "is the disk slow, or the slide damaged? if it is only slow, raise run.timeout of the stage that reads slides, `timeout` in [data] of a training's recipe, or --timeout of `weir inspect`";

/// How surely the file is the reader's, by its name and first bytes.
pub(crate) fn sniff(table: &Reader, path: &Path, head: &[u8]) -> i32 {
    match (table.sniff, path.to_str()) {
        // SAFETY: as the header says; path and head live through the call.
        (Some(sniff), Some(path)) => unsafe { sniff(Str::new(path), head.as_ptr(), head.len()) },
        _ => 0,
    }
}

/// The path as the header wants it: absolute, UTF-8.
pub(crate) fn absolute(path: &Path) -> Result<String, SlideError> {
    let refused = |what: &str| {
        SlideError::new(
            Fault::Unsupported,
            path.display().to_string(),
            what,
            "give the file and its folders names in UTF-8",
        )
    };
    let absolute: PathBuf =
        std::path::absolute(path).map_err(|error| refused(&error.to_string()))?;
    let absolute = absolute.into_os_string().into_string();
    absolute.map_err(|_| refused("its path is not UTF-8, which plugins need"))
}

/// A call into a reader that failed, as an error of the slide that `shown` names.
pub(crate) fn error(shown: &str, error: CallError) -> SlideError {
    let fault = match error.status {
        status::UNSUPPORTED => Fault::Unsupported,
        status::RETRY | status::MEMORY | status::CANCELLED => Fault::Io,
        _ => Fault::Damaged,
    };
    SlideError::new(fault, shown, error.said.what, error.said.help)
}

/// The plugin said what cannot be.
pub(crate) fn broken(who: &Who, shown: &str, what: &str) -> SlideError {
    SlideError::new(
        Fault::Damaged,
        shown,
        format!("{} broke the contract [E0520]: {what}", who.plugin),
        FAULT,
    )
}

/// A slide of a plugin's reader.
#[derive(Clone)]
pub(crate) struct PluginSlide {
    table: &'static Reader,
    who: Arc<Who>,
    /// As the user named it.
    shown: String,
    path: String,
    /// How long a call may take before the user is told of it.
    timeout: Duration,
    /// Whether a handle of it panicked.
    panics: Arc<AtomicBool>,
}

impl PluginSlide {
    /// A slide, not open yet. `timeout`: how long a call may take; `None`: as long as there is said of `who`.
    pub fn new(
        table: &'static Reader,
        who: Arc<Who>,
        path: &Path,
        timeout: Option<Duration>,
    ) -> Result<PluginSlide, SlideError> {
        Ok(PluginSlide {
            table,
            shown: path.display().to_string(),
            path: absolute(path)?,
            timeout: timeout.unwrap_or(who.timeout),
            who,
            panics: Arc::default(),
        })
    }

    /// Opens it once more.
    pub fn handle(&self) -> Result<PluginHandle, SlideError> {
        let Some(open) = self.table.open else {
            return Err(self.broken("its reader has no function `open`"));
        };
        let mut raw = std::ptr::null_mut();
        let mut opened = None;
        let done = self.call("open", |call| {
            // SAFETY: as the header says; host, path and the place for the handle live through the call.
            let said = unsafe { open(&HOST, call, Str::new(&self.path), &mut raw) };
            // Also where the call broke a rule: then this closes it.
            opened = (said == status::OK).then(|| PluginHandle {
                of: self.clone(),
                raw,
                panicked: AtomicBool::new(false),
            });
            said
        });
        done?;
        opened.ok_or_else(|| self.broken("it opened nothing"))
    }

    /// Looks after a call of `function` until what comes back is dropped.
    fn watched(&self, function: &'static str) -> Watched {
        watch_for(self.timeout, SLOW, &self.who, function, Some(&self.shown))
    }

    /// One call into the plugin.
    fn call(
        &self,
        function: &'static str,
        body: impl FnOnce(*mut weir_abi::Call) -> status::Status,
    ) -> Result<(), SlideError> {
        let call = Call::setup(&self.who);
        let watched = self.watched(function);
        let said = call.inside(body);
        drop(watched);
        call.end(said)
            .map(|_| ())
            .map_err(|said| error(&self.shown, said))
    }

    fn broken(&self, what: impl AsRef<str>) -> SlideError {
        broken(&self.who, &self.shown, what.as_ref())
    }
}

impl Handles for PluginSlide {
    fn open(&self) -> Result<Arc<dyn Handle>, SlideError> {
        Ok(Arc::new(self.handle()?))
    }

    fn parallel(&self) -> bool {
        self.table.flags & PARALLEL != 0
    }

    fn spoils(&self) -> bool {
        // A handle that panicked is of no use either.
        self.table.flags & SPOILS != 0 || self.panics.load(Ordering::SeqCst)
    }
}

/// A slide that the plugin has open.
pub(crate) struct PluginHandle {
    of: PluginSlide,
    raw: *mut c_void,
    /// A function of it did, so its state may be anything.
    panicked: AtomicBool,
}

// SAFETY: the header lets every function of a handle be called from any thread.
unsafe impl Send for PluginHandle {}
// SAFETY: only where the reader says WEIR_READER_PARALLEL is a handle read from by several threads: `LeveledSlide` asks
// `Handles::parallel` and gives a handle to one caller at a time otherwise.
unsafe impl Sync for PluginHandle {}

impl PluginHandle {
    /// One call of the handle; none once it has panicked.
    fn call(
        &self,
        function: &'static str,
        body: impl FnOnce(*mut weir_abi::Call) -> status::Status,
    ) -> Result<(), SlideError> {
        if self.panicked.load(Ordering::SeqCst) {
            let said = Told {
                what: format!(
                    "{} panicked before [E0522], and this handle is used no more",
                    self.of.who.plugin
                ),
                help: FAULT.into(),
                ..Told::default()
            };
            return Err(error(&self.of.shown, CallError::of(status::PANIC, said)));
        }
        self.of.call(function, |call| {
            let said = body(call);
            if said == status::PANIC {
                self.panicked.store(true, Ordering::SeqCst);
                self.of.panics.store(true, Ordering::SeqCst);
            }
            said
        })
    }

    /// What the reader says of the slide; what it points to lives as long as this.
    pub fn facts(&self) -> Result<Facts, SlideError> {
        let Some(info) = self.of.table.info else {
            return Err(self.of.broken("its reader has no function `info`"));
        };
        let mut out: *const Facts = std::ptr::null();
        self.call("info", |call| {
            // SAFETY: as the header says; the handle is open and `out` is a place for a pointer.
            unsafe { info(self.raw, call, &mut out) }
        })?;
        // SAFETY: what info() gave lives as long as the handle.
        unsafe { tables::facts(out) }.map_err(|Broken(what)| self.of.broken(what))
    }

    /// Keys of the slide's properties, in the reader's order.
    pub fn keys(&self) -> Result<Vec<String>, SlideError> {
        let facts = self.facts()?;
        // SAFETY: what info() gave lives as long as the handle.
        let properties: &[Property] =
            unsafe { list(facts.properties, facts.n_properties, "properties") }
                .map_err(|Broken(what)| self.of.broken(what))?;
        let keys = properties.iter().map(|property| {
            // SAFETY: as above.
            String::from_utf8_lossy(unsafe { property.key.bytes() }).into_owned()
        });
        Ok(keys.collect())
    }

    /// Fills `into`, rows `pitch` bytes apart, with `size` px of `level` from `corner` on, wherever that lies.
    ///
    /// # Safety
    /// `into` has the rows.
    pub unsafe fn region(
        &self,
        level: u32,
        (x, y): (i64, i64),
        (width, height): (u32, u32),
        into: *mut u8,
        pitch: usize,
    ) -> Result<(), SlideError> {
        let Some(read) = self.of.table.read_region else {
            return Err(self.of.broken("its reader has no function `read_region`"));
        };
        self.call("read_region", |call| {
            // SAFETY: the caller's; as the header says.
            unsafe { read(self.raw, call, level, x, y, width, height, into, pitch) }
        })
    }
}

impl Handle for PluginHandle {
    fn found(&self) -> Result<Found, SlideError> {
        let facts = self.facts()?;
        // SAFETY: what info() gave lives as long as the handle and is copied here.
        unsafe { found(&facts) }.map_err(|Broken(what)| self.of.broken(what))
    }

    fn read_region(
        &self,
        level: u32,
        (x, y): (u32, u32),
        (width, height): (u32, u32),
        into: &mut [u8],
        pitch: usize,
    ) -> Result<(), SlideError> {
        check_room(into, pitch, (width, height));
        let corner = (x.into(), y.into());
        // SAFETY: `into` has `height` rows of `width` px, `pitch` bytes apart.
        unsafe { self.region(level, corner, (width, height), into.as_mut_ptr(), pitch) }
    }

    fn picture(
        &self,
        index: usize,
        (width, height): (u32, u32),
        into: &mut [u8],
    ) -> Result<(), SlideError> {
        let pitch = width as usize * 3;
        check_room(into, pitch, (width, height));
        let Some(picture) = self.of.table.picture else {
            return Err(self
                .of
                .broken("its reader lists pictures and has no function `picture`"));
        };
        self.call("picture", |call| {
            // SAFETY: as the header says; `into` holds the whole picture of the size that info() said.
            unsafe { picture(self.raw, call, index as u32, into.as_mut_ptr(), pitch) }
        })
    }
}

impl Drop for PluginHandle {
    fn drop(&mut self) {
        let usable = !self.panicked.load(Ordering::SeqCst);
        if let Some(close) = self.of.table.close.filter(|_| usable) {
            let _watched = self.of.watched("close");
            // SAFETY: nobody else has the handle, and it is not used again.
            inside(&self.of.who, 0, || unsafe { close(self.raw) });
        }
    }
}

/// That `into` has `height` rows of `width` px, `pitch` bytes apart: whoever fills it does not look.
pub(crate) fn check_room(into: &[u8], pitch: usize, (width, height): (u32, u32)) {
    let row = width as usize * 3;
    let room = match height as usize {
        0 => Some(0),
        rows => (rows - 1)
            .checked_mul(pitch)
            .and_then(|bytes| bytes.checked_add(row)),
    };
    let enough = room.is_some_and(|room| into.len() >= room);
    assert!(pitch >= row && enough, "room for the pixels");
}

/// A copy of what a reader found.
///
/// # Safety
/// Texts and lists of `facts` are readable.
pub(crate) unsafe fn found(facts: &Facts) -> Result<Found, Broken> {
    // SAFETY: the caller's.
    let text = |of: Str| String::from_utf8_lossy(unsafe { of.bytes() }).into_owned();
    // SAFETY: the caller's.
    let (levels, pictures, properties): (&[Level], &[Picture], &[Property]) = unsafe {
        (
            list(facts.levels, facts.n_levels, "levels")?,
            list(facts.pictures, facts.n_pictures, "pictures")?,
            list(facts.properties, facts.n_properties, "properties")?,
        )
    };
    let side = |value: i64, what: &str| {
        u32::try_from(value).map_err(|_| Broken(format!("{what} is {value} px")))
    };
    let said = match facts.mpp_origin {
        MPP_VENDOR => Some(Said::Vendor),
        MPP_RESOLUTION => Some(Said::Resolution),
        MPP_OBJECTIVE => Some(Said::Objective),
        _ => None,
    };
    Ok(Found {
        format: text(facts.format),
        vendor: text(facts.vendor),
        pixel: said.map(|said| ((facts.mpp_x, facts.mpp_y), said)),
        levels: levels
            .iter()
            .map(|level| {
                let tile = (
                    side(level.tile_width, "a tile's width")?,
                    side(level.tile_height, "a tile's height")?,
                );
                Ok(FoundLevel {
                    width: side(level.width, "a level's width")?,
                    height: side(level.height, "a level's height")?,
                    downsample: level.downsample,
                    tile: (tile.0 > 0 && tile.1 > 0).then_some(tile),
                })
            })
            .collect::<Result<_, Broken>>()?,
        pictures: pictures
            .iter()
            .map(|picture| {
                Ok(Associated {
                    name: text(picture.name),
                    width: side(picture.width, "a picture's width")?,
                    height: side(picture.height, "a picture's height")?,
                })
            })
            .collect::<Result<_, Broken>>()?,
        properties: properties
            .iter()
            .map(|property| (text(property.key), text(property.value)))
            .collect::<BTreeMap<_, _>>(),
    })
}

/// # Safety
/// `from` has `count` entries that live and do not change for `'a`, or is null.
unsafe fn list<'a, T>(from: *const T, count: u32, what: &str) -> Result<&'a [T], Broken> {
    if count == 0 {
        return Ok(&[]);
    }
    if from.is_null() || count > MOST {
        return Err(Broken(format!(
            "it says that a slide has {count} {what}{}",
            if from.is_null() {
                " and gives none"
            } else {
                ""
            }
        )));
    }
    // SAFETY: the caller's.
    Ok(unsafe { std::slice::from_raw_parts(from, count as usize) })
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
