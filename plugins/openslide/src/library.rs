//! OpenSlide's own library: where it is looked for, and the functions of openslide.h that are called.
//!
//! It is opened at run time and not linked, for two reasons: a plugin that is linked to a library that is not there fails inside
//! the loader, with the loader's words instead of what to do; and OpenSlide 3.4 and 4 have different file names, of which whichever
//! is there will do. (The crate openslide-rs links, by pkg-config and bindgen at build time, so it cannot do either.)

use libloading::Library as Shared;
use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use weir_libraries::Place;
use weir_plugin::param::Bytes;
use weir_plugin::{Error, Result};

/// Bytes of decoded tiles that all slides of the process have in common where nobody says another size (OpenSlide 4; 3.4 keeps
/// 32 MiB a slide). The manifest says the same.
const CACHE: Bytes = Bytes(128 << 20);

/// The environment variable that says another size, as `64MiB`; weir reads it as well, to count the cache as part of `run.memory`.
pub const CACHE_SAID_BY: &str = "WEIR_OPENSLIDE_CACHE";

/// Bytes of the cache.
///
/// # Errors
/// What stands in the variable and is no size.
pub fn cache_bytes() -> Result<usize> {
    let said = std::env::var(CACHE_SAID_BY).unwrap_or_default();
    let bytes = match said.as_str() {
        "" => CACHE,
        said => said.parse().map_err(|error: Error| {
            Error::new(format!("{CACHE_SAID_BY}: {}", error.message())).help(error.what_to_do())
        })?,
    };
    Ok(usize::try_from(bytes.0).unwrap_or(usize::MAX))
}

/// The first version that reads DICOM.
pub const DICOM: [u32; 3] = [4, 0, 0];
/// The first version that reads CZI.
pub const CZI: [u32; 3] = [4, 0, 1];

/// `openslide_t *`.
pub(crate) type Raw = *mut c_void;
type Names = *const *const c_char;

/// The library, open.
pub struct Library {
    path: PathBuf,
    version: String,
    cache: Option<Cache>,
    table: Table,
    // The functions above lead into it.
    _shared: Shared,
}

/// The functions of openslide.h, which says that all but `close` may be called from any thread.
struct Table {
    detect_vendor: unsafe extern "C" fn(*const c_char) -> *const c_char,
    open: unsafe extern "C" fn(*const c_char) -> Raw,
    close: unsafe extern "C" fn(Raw),
    get_error: unsafe extern "C" fn(Raw) -> *const c_char,
    get_level_count: unsafe extern "C" fn(Raw) -> i32,
    get_level_dimensions: unsafe extern "C" fn(Raw, i32, *mut i64, *mut i64),
    get_level_downsample: unsafe extern "C" fn(Raw, i32) -> f64,
    read_region: unsafe extern "C" fn(Raw, *mut u32, i64, i64, i32, i64, i64),
    get_property_names: unsafe extern "C" fn(Raw) -> Names,
    get_property_value: unsafe extern "C" fn(Raw, *const c_char) -> *const c_char,
    get_associated_image_names: unsafe extern "C" fn(Raw) -> Names,
    get_associated_image_dimensions: unsafe extern "C" fn(Raw, *const c_char, *mut i64, *mut i64),
    read_associated_image: unsafe extern "C" fn(Raw, *const c_char, *mut u32),
}

/// `openslide_cache_t *`, shared by all slides and never released, since slides may be open until the process ends.
struct Cache {
    cache: *mut c_void,
    set: unsafe extern "C" fn(Raw, *mut c_void),
}

// SAFETY: openslide.h: "All functions except openslide_close() are thread-safe", the cache's among them; the pointers are never
// written through here.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

/// Why the library is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Where it was looked for, and what came of it.
    pub tried: Vec<String>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the OpenSlide library is not there; looked for {}",
            self.tried.join(", ")
        )
    }
}

/// What to do about [`Missing`].
pub const REMEDY: &str = "`make openslide` takes it out of the PyPI wheel `openslide-bin`; or install the package libopenslide0 (3.4: no DICOM, no CZI), or set WEIR_OPENSLIDE to the file";

/// The library, opened when it is asked for first; it stays for the process.
pub fn library() -> std::result::Result<&'static Library, Missing> {
    static LOADED: OnceLock<Library> = OnceLock::new();
    static LOADING: Mutex<()> = Mutex::new(());
    // What it guards has no state to spoil.
    let _guard = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = LOADED.get() {
        return Ok(library);
    }
    let library = find(weir_libraries::openslide())?;
    Ok(LOADED.get_or_init(|| library))
}

/// The first of these places where it is and opens.
fn find(places: Vec<Place>) -> std::result::Result<Library, Missing> {
    let mut tried = Vec::new();
    for place in places {
        let path = match place {
            // A relative path would be looked for among the system's.
            Place::Named(path) => std::path::absolute(&path).unwrap_or(path),
            Place::Here(path) => path,
            Place::System(name) => PathBuf::from(name),
        };
        match Library::open(&path) {
            Ok(library) => return Ok(library),
            Err(why) => tried.push(format!("{} ({why})", path.display())),
        }
    }
    Err(Missing { tried })
}

impl Library {
    fn open(path: &Path) -> std::result::Result<Library, String> {
        // SAFETY: the initialisers of a library that the user, the checkout or the system names as OpenSlide.
        let shared = unsafe { Shared::new(path) }.map_err(|error| one_line(&error))?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the type is the one that openslide.h gives to the function of this name, in 3.4 and 4.0.
                *unsafe { shared.get($name) }.map_err(|error| one_line(&error))?
            };
        }
        let get_version: unsafe extern "C" fn() -> *const c_char =
            function!(b"openslide_get_version\0");
        let table = Table {
            detect_vendor: function!(b"openslide_detect_vendor\0"),
            open: function!(b"openslide_open\0"),
            close: function!(b"openslide_close\0"),
            get_error: function!(b"openslide_get_error\0"),
            get_level_count: function!(b"openslide_get_level_count\0"),
            get_level_dimensions: function!(b"openslide_get_level_dimensions\0"),
            get_level_downsample: function!(b"openslide_get_level_downsample\0"),
            read_region: function!(b"openslide_read_region\0"),
            get_property_names: function!(b"openslide_get_property_names\0"),
            get_property_value: function!(b"openslide_get_property_value\0"),
            get_associated_image_names: function!(b"openslide_get_associated_image_names\0"),
            get_associated_image_dimensions: function!(
                b"openslide_get_associated_image_dimensions\0"
            ),
            read_associated_image: function!(b"openslide_read_associated_image\0"),
        };
        // SAFETY: it returns a constant text.
        let version = text(unsafe { get_version() }).unwrap_or_else(|| "unknown".into());
        // A text that is no size is told when a slide is opened.
        let cache = Cache::new(&shared, cache_bytes().unwrap_or(CACHE.0 as usize));
        Ok(Library {
            path: path.to_owned(),
            version,
            cache,
            table,
            _shared: shared,
        })
    }

    /// Its file, or the name by which the system found it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As `4.0.1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether it is at least that version, as [`DICOM`].
    pub fn at_least(&self, version: [u32; 3]) -> bool {
        at_least(&self.version, version)
    }

    /// The name of the driver that knows the file, as `aperio`.
    pub(crate) fn vendor(&self, path: &CString) -> Option<String> {
        // SAFETY: the name lives through the call; the answer is a constant text or null.
        text(unsafe { (self.table.detect_vendor)(path.as_ptr()) })
    }

    /// A slide; `None` when no driver knows the file.
    pub(crate) fn slide(&self, path: &CString) -> Option<Open<'_>> {
        // SAFETY: the name lives through the call.
        let raw = unsafe { (self.table.open)(path.as_ptr()) };
        if raw.is_null() {
            return None;
        }
        let open = Open { library: self, raw };
        if let (Some(cache), None) = (&self.cache, open.error()) {
            // SAFETY: both are open, and the cache is never released.
            unsafe { (cache.set)(raw, cache.cache) };
        }
        Some(open)
    }
}

impl Cache {
    /// OpenSlide 4's; 3.4 has none to set.
    fn new(shared: &Shared, bytes: usize) -> Option<Cache> {
        // SAFETY: openslide_cache_t *openslide_cache_create(size_t), void openslide_set_cache(openslide_t *,
        // openslide_cache_t *) of openslide.h 4.0.
        let (create, set) = unsafe {
            let create: unsafe extern "C" fn(usize) -> *mut c_void =
                *shared.get(b"openslide_cache_create\0").ok()?;
            let set: unsafe extern "C" fn(Raw, *mut c_void) =
                *shared.get(b"openslide_set_cache\0").ok()?;
            (create, set)
        };
        // SAFETY: a size in bytes is all it takes.
        let cache = unsafe { create(bytes) };
        (!cache.is_null()).then_some(Cache { cache, set })
    }
}

/// A slide that is open.
pub(crate) struct Open<'a> {
    library: &'a Library,
    raw: Raw,
}

// SAFETY: openslide.h: "An openslide_t object can be used concurrently from multiple threads"; closing takes it by value.
unsafe impl Send for Open<'_> {}
// SAFETY: as above.
unsafe impl Sync for Open<'_> {}

impl Open<'_> {
    /// What went wrong first; from then on the slide gives nothing more.
    pub(crate) fn error(&self) -> Option<String> {
        // SAFETY: the slide is open; the text lives as long and is copied.
        text(unsafe { (self.library.table.get_error)(self.raw) })
    }

    pub(crate) fn levels(&self) -> i32 {
        // SAFETY: the slide is open.
        unsafe { (self.library.table.get_level_count)(self.raw) }
    }

    /// Width and height, px; negative for no such level.
    pub(crate) fn size(&self, level: i32) -> (i64, i64) {
        let (mut width, mut height) = (-1, -1);
        // SAFETY: the slide is open, both places are there.
        unsafe {
            (self.library.table.get_level_dimensions)(
                self.raw,
                level,
                &raw mut width,
                &raw mut height,
            );
        }
        (width, height)
    }

    pub(crate) fn downsample(&self, level: i32) -> f64 {
        // SAFETY: the slide is open.
        unsafe { (self.library.table.get_level_downsample)(self.raw, level) }
    }

    /// Fills `into` with `width` x `height` px of `level` from (`x`, `y`) in level-0 px on: premultiplied ARGB, all zero where
    /// there is nothing or after an error.
    pub(crate) fn read(
        &self,
        into: &mut [u32],
        (x, y): (i64, i64),
        level: i32,
        (width, height): (u32, u32),
    ) {
        assert_eq!(
            into.len(),
            width as usize * height as usize,
            "a buffer of that size"
        );
        // SAFETY: the slide is open; the buffer holds width * height pixels of 4 bytes.
        unsafe {
            (self.library.table.read_region)(
                self.raw,
                into.as_mut_ptr(),
                x,
                y,
                level,
                width.into(),
                height.into(),
            );
        }
    }

    /// All keys and values, in the order of the keys. Bytes that are no UTF-8 are replaced.
    pub(crate) fn properties(&self) -> Vec<(String, String)> {
        // SAFETY: the slide is open; the array ends with null and lives as long as it.
        let names = unsafe { (self.library.table.get_property_names)(self.raw) };
        let mut properties: Vec<(String, String)> = each(names)
            .filter_map(|name| {
                // SAFETY: the slide is open, the name is one of its own.
                let value = text(unsafe {
                    (self.library.table.get_property_value)(self.raw, name.as_ptr())
                })?;
                Some((name.to_string_lossy().into_owned(), value))
            })
            .collect();
        properties.sort();
        properties
    }

    /// Names of the pictures beside the levels, with width and height, px.
    pub(crate) fn pictures(&self) -> Vec<(CString, (i64, i64))> {
        // SAFETY: the slide is open; the array ends with null and lives as long as it.
        let names = unsafe { (self.library.table.get_associated_image_names)(self.raw) };
        each(names)
            .map(|name| {
                let (mut width, mut height) = (-1, -1);
                // SAFETY: the slide is open, the name is one of its own, both places are there.
                unsafe {
                    (self.library.table.get_associated_image_dimensions)(
                        self.raw,
                        name.as_ptr(),
                        &raw mut width,
                        &raw mut height,
                    );
                }
                (name.to_owned(), (width, height))
            })
            .collect()
    }

    /// Fills `into` with the picture of that name, premultiplied ARGB; `size` is the one that [`Open::pictures`] said.
    pub(crate) fn picture(&self, name: &CStr, (width, height): (u32, u32), into: &mut [u32]) {
        assert_eq!(
            into.len(),
            width as usize * height as usize,
            "a buffer of that size"
        );
        // SAFETY: the slide is open; the buffer holds all pixels of the picture, whose size never changes.
        unsafe {
            (self.library.table.read_associated_image)(self.raw, name.as_ptr(), into.as_mut_ptr())
        };
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // SAFETY: nobody else has the slide, and it is not used again.
        unsafe { (self.library.table.close)(self.raw) };
    }
}

/// Whether `have`, as `4.0.1`, is at least version `wanted`; what stands for no number counts as 0.
fn at_least(have: &str, wanted: [u32; 3]) -> bool {
    let mut numbers = have.split('.').map(|number| number.parse().unwrap_or(0));
    [(); 3].map(|()| numbers.next().unwrap_or(0)) >= wanted
}

/// A copy of a text of OpenSlide's.
fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: OpenSlide's texts are terminated, and live at least until the next call on their slide.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
}

/// The texts of an array that ends with null.
fn each<'a>(names: Names) -> impl Iterator<Item = &'a CStr> {
    let mut at = names;
    std::iter::from_fn(move || {
        if at.is_null() {
            return None;
        }
        // SAFETY: `at` is inside the array, or at the null that ends it.
        let name = unsafe { *at };
        if name.is_null() {
            return None;
        }
        // SAFETY: the null was not reached.
        at = unsafe { at.add(1) };
        // SAFETY: the array's texts are terminated and live as long as the slide.
        Some(unsafe { CStr::from_ptr(name) })
    })
}

fn one_line(error: &libloading::Error) -> String {
    // libloading wraps what the loader said.
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
        .to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_one_message_that_says_where_it_was_looked_for() {
        let named = PathBuf::from("/nowhere/libopenslide.so.1");
        let Err(missing) = find(vec![Place::Named(named)]) else {
            panic!("it was found")
        };
        let text = missing.to_string();
        assert!(
            text.starts_with(
                "the OpenSlide library is not there; looked for /nowhere/libopenslide.so.1 ("
            ),
            "{text}"
        );
        assert!(
            REMEDY.contains("make openslide")
                && REMEDY.contains(weir_libraries::OPENSLIDE_NAMED_BY)
        );
    }

    #[test]
    fn versions_are_compared_number_by_number() {
        for (have, dicom, czi) in [
            ("3.4.1", false, false),
            ("4.0.0", true, false),
            ("4.0.1", true, true),
            ("4.1", true, true),
            ("10.0.0", true, true),
            ("unknown", false, false),
        ] {
            assert_eq!(
                (at_least(have, DICOM), at_least(have, CZI)),
                (dicom, czi),
                "{have}"
            );
        }
    }

    #[test]
    fn the_manifest_says_the_caches_size_and_its_variable() {
        let said: String =
            <crate::slide::Slide as weir_plugin::export::DeclaredReader>::MANIFEST.concat();
        let cache = format!(
            "\"cache\":{{\"bytes\":{},\"variable\":\"{CACHE_SAID_BY}\"}}",
            CACHE.0
        );
        assert!(said.contains(&cache), "{said}");
    }

    #[test]
    fn a_file_that_is_another_library_is_not_taken_for_openslide() {
        let Err(missing) = find(vec![Place::System("libc.so.6")]) else {
            panic!("it was found")
        };
        assert!(missing.tried[0].contains("libc.so.6"), "{missing}");
    }
}
