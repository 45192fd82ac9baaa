//! A plugin in a file.

use super::about::About;
use super::call::{CallBox, Shared, lock};
use super::done::Line;
use super::functions::HOST;
use super::reader::Reader;
use super::stage::{Setup, finish_plain};
use crate::abi;
use crate::abi::plugin::{DescribeV1, Entry, Plugin};
use crate::abi::reader::Reader as ReaderTable;
use crate::abi::stage::Stage as StageTable;
use crate::error::{Error, Result};
use crate::host::slice;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
}

const RTLD_NOW: c_int = 2;

/// A plugin's library. It is never unloaded, as in weir. Unlike weir, the harness loads it unseen: only what you built yourself.
pub struct Library {
    stages: &'static [*const StageTable],
    readers: &'static [*const ReaderTable],
    manifest: Json,
    table: &'static Plugin,
}

impl Library {
    /// Loads the file.
    ///
    /// # Errors
    /// When it cannot be loaded, is no plugin, or refuses.
    pub fn open(path: &Path) -> Result<Library> {
        let name = CString::new(std::path::absolute(path)?.as_os_str().as_bytes())?;
        // SAFETY: the path is terminated; loading runs the library's own initialisers, which the caller asked for.
        let library = unsafe { dlopen(name.as_ptr(), RTLD_NOW) };
        if library.is_null() {
            return Err(Error::new(format!(
                "{} cannot be loaded: {}",
                path.display(),
                last_error()
            )));
        }
        // SAFETY: the library is loaded and stays so.
        let entry = unsafe { dlsym(library, c"weir_plugin_v1".as_ptr()) };
        if entry.is_null() {
            return Err(Error::new(format!(
                "{} does not export weir_plugin_v1",
                path.display()
            )));
        }
        // SAFETY: that symbol is this function.
        let entry: Entry = unsafe { std::mem::transmute(entry) };
        let call = CallBox::plain(&Arc::new(Shared::default())).open();
        let mut plugin: *const Plugin = std::ptr::null();
        // SAFETY: as weir_plugin.h says.
        let status = unsafe { entry(&HOST, call.raw(), &mut plugin) };
        finish_plain(&call, status)?;
        // SAFETY: an entry that succeeded gave its table, which lives as long as the process.
        let plugin =
            unsafe { plugin.as_ref() }.ok_or_else(|| Error::new("weir_plugin_v1 gave no table"))?;
        // SAFETY: as above; the text is terminated.
        let manifest = unsafe { CStr::from_ptr(plugin.manifest) };
        Ok(Library {
            // SAFETY: as above: the lists have as many as they say.
            stages: unsafe { slice(plugin.stages, plugin.n_stages) },
            // SAFETY: as above.
            readers: unsafe { slice(plugin.readers, plugin.n_readers) },
            manifest: serde_json::from_slice(manifest.to_bytes())
                .map_err(|error| Error::new(format!("the manifest is no JSON: {error}")))?,
            table: plugin,
        })
    }

    /// What the plugin says of a file.
    ///
    /// # Errors
    /// When it describes none, or not this one.
    pub fn describe(&self, path: &Path) -> Result<Vec<Line>> {
        let extension = self.table.extension;
        // SAFETY: the id is terminated.
        let found = extension.map(|extension| unsafe { extension(c"weir.describe/1".as_ptr()) });
        // SAFETY: what a plugin hands out under this name is this struct, and lives as long as the process.
        let found = found.and_then(|found| unsafe { found.cast::<DescribeV1>().as_ref() });
        let describe = found
            .and_then(|found| found.describe)
            .ok_or_else(|| Error::new("the plugin describes no files"))?;
        let path = std::path::absolute(path)?;
        let shared = Arc::new(Shared::default());
        let call = CallBox::plain(&shared).open();
        // SAFETY: as weir_plugin.h says: host, call and path live through the call.
        let status = unsafe { describe(&HOST, call.raw(), abi::Str::new(&path.to_string_lossy())) };
        finish_plain(&call, status)?;
        Ok(lock(&shared.log).clone())
    }

    /// The manifest.
    pub fn manifest(&self) -> String {
        self.manifest.to_string()
    }

    /// The stage of this id, to be set up.
    ///
    /// # Errors
    /// When there is none, or the manifest and the table do not agree about it.
    pub fn stage(&self, id: &str) -> Result<Setup> {
        let none = Vec::new();
        let listed = self.manifest["stages"].as_array().unwrap_or(&none);
        let about = listed.iter().find(|stage| stage["id"] == id);
        let about = about.ok_or_else(|| Error::new(format!("the manifest has no stage `{id}`")))?;
        // SAFETY: the tables live as long as the process; their ids are terminated.
        let table = self.stages.iter().map(|table| unsafe { &**table });
        // SAFETY: as above.
        let mut table =
            table.filter(|table| unsafe { CStr::from_ptr(table.id) }.to_bytes() == id.as_bytes());
        let table = table
            .next()
            .ok_or_else(|| Error::new(format!("the library has no stage `{id}`")))?;
        Ok(Setup {
            table,
            about: About::of(about),
            values: BTreeMap::new(),
            folder: String::new(),
        })
    }

    /// The slide reader of this id.
    ///
    /// # Errors
    /// When there is none.
    pub fn reader(&self, id: &str) -> Result<Reader> {
        // SAFETY: as in `stage`.
        let table = self.readers.iter().map(|table| unsafe { &**table });
        // SAFETY: as above.
        let mut table =
            table.filter(|table| unsafe { CStr::from_ptr(table.id) }.to_bytes() == id.as_bytes());
        match table.next() {
            Some(table) => Ok(Reader { table }),
            None => Err(Error::new(format!("the library has no reader `{id}`"))),
        }
    }
}

fn last_error() -> String {
    // SAFETY: what it gives is terminated, or null.
    let text = unsafe { dlerror() };
    if text.is_null() {
        return "no reason was given".into();
    }
    // SAFETY: as above; it is copied before this thread's next call.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}
