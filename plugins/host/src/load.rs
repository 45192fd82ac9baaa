//! From an admitted file to the tables of a loaded library.
//!
//! What the loader maps is the sealed memory that was hashed, by its descriptor. A library is never unloaded: its threads, its
//! thread-local destructors and its tables may be in use by anybody, and nothing tells when they are not.

use crate::admit::Admitted;
use crate::call::{Call, FAULT};
use crate::errand;
use crate::inside::{inside, watch_exit};
use crate::log::Log;
use crate::manifest::{Concurrency, Manifest};
use crate::offer::HOST;
use crate::patience::watch_for;
use crate::refusal::Refusal;
use crate::rpath;
use crate::tables::{self, Fault};
use crate::who::Who;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use weir_abi::desk::Said;
use weir_abi::plugin::{ENTRY, Entry, Plugin};
use weir_abi::{Str, reader, stage, status};
use weir_pipeline::Rows;

/// A plugin whose code is in this process.
#[derive(Debug)]
pub struct Loaded {
    manifest: Manifest,
    path: PathBuf,
    sha256: String,
    stages: BTreeMap<String, stage::Stage>,
    readers: BTreeMap<String, reader::Reader>,
    extension: Option<unsafe extern "C" fn(id: *const c_char) -> *const c_void>,
}

/// How long a plugin may take to be loaded before its user is told.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The name of the extension that describes files.
const DESCRIBE: &CStr = c"weir.describe/1";

/// What came of every entry that was called, by the files' hashes: the header promises an entry that it is called once a process,
/// so what was refused after it was called is refused again by the same words.
static ENTERED: Mutex<BTreeMap<String, Result<&'static Loaded, Refusal>>> =
    Mutex::new(BTreeMap::new());

impl Loaded {
    /// Loads the library, runs its entry, and holds its tables against its manifest. The same bytes are loaded once: whoever asks
    /// again gets what came of them then, also a refusal.
    pub fn new(admitted: &Admitted) -> Result<&'static Loaded, Refusal> {
        Loaded::heard(admitted, &Log::default(), PATIENCE)
    }

    /// The same; `log` has what the entry says, and is told after `patience`, and again whenever that has doubled, when the library is
    /// not there yet (E0523): its constructors and its entry run here, and nothing can end one that hangs.
    pub fn heard(
        admitted: &Admitted,
        log: &Log,
        patience: Duration,
    ) -> Result<&'static Loaded, Refusal> {
        let mut all = ENTERED.lock().unwrap_or_else(PoisonError::into_inner);
        let file = admitted.file();
        if let Some(known) = all.get(file.sha256()) {
            return known
                .clone()
                .map_err(|refusal| refusal.of(file.path().to_owned()));
        }
        let mut called = false;
        errand::stand_by();
        let who = Arc::new(Who {
            log: log.clone(),
            ..Who::plugin(&admitted.manifest().name, &admitted.manifest().version)
        });
        let slow = "what runs while it is loaded is its constructors and `weir_plugin_v1`";
        let _watched = watch_for(patience, slow, &who, "dlopen", None);
        let loaded = load(admitted, &who, |entry| {
            called = true;
            // SAFETY: host and call live through the call, and `out` is a place for a pointer.
            enter(who.clone(), |call, out| unsafe { entry(&HOST, call, out) })
        });
        let loaded = loaded
            .map(|loaded| &*Box::leak(Box::new(loaded)))
            .map_err(|refusal| refusal.of(file.path().to_owned()));
        // What kept it from being loaded at all, as too few open files, may have passed by the next time.
        if called {
            all.insert(file.sha256().to_owned(), loaded.clone());
        }
        loaded
    }

    /// Loads the library; `enter` calls its entry.
    pub(crate) fn entered(
        admitted: &Admitted,
        enter: impl FnOnce(Entry) -> Result<*const Plugin, Said>,
    ) -> Result<Loaded, Refusal> {
        let path = admitted.file().path().to_owned();
        let (name, version) = (&admitted.manifest().name, &admitted.manifest().version);
        load(admitted, &Who::plugin(name, version), enter).map_err(|refusal| refusal.of(path))
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where it was read from.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// SHA-256 of its file.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// What a file is to the plugin, as extension "weir.describe/1" says it line by line: what a model takes and gives.
    ///
    /// # Errors
    /// When the plugin describes no files, or not this one: why, in its words. The plugin itself is not refused, so no code says so.
    pub fn describe(&self, file: &std::path::Path) -> Result<Vec<String>, Said> {
        let refuse = |what: String, help: &str| Said {
            what,
            help: help.into(),
            ..Said::default()
        };
        let found = self.extension(DESCRIBE).filter(|found| !found.is_null());
        let table = found.map(|found| {
            // SAFETY: what a plugin hands out under this name is this struct, and lives as long as the process.
            let table = unsafe { tables::describe(found.cast()) };
            table.map_err(|Fault(what)| refuse(what, FAULT))
        });
        let Some(describe) = table.transpose()?.and_then(|table| table.describe) else {
            return Err(refuse(
                "it describes no files".into(),
                "without --file its manifest is shown",
            ));
        };
        let file = std::path::absolute(file)
            .map_err(|error| refuse(format!("{}: {error}", file.display()), ""))?;
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = lines.clone();
        let log = Log::to(move |_, _, text| {
            kept.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(text.to_owned());
        });
        let who = Arc::new(Who {
            log,
            ..Who::plugin(&self.manifest.name, &self.manifest.version)
        });
        let call = Call::setup(&who);
        // SAFETY: as the header says: host, call and path live through the call.
        let said =
            call.inside(|call| unsafe { describe(&HOST, call, Str::new(&file.to_string_lossy())) });
        if said != status::OK {
            let said = call.close(said);
            return Err(said);
        }
        let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(lines.clone())
    }

    /// What the plugin has under the name of an extension; `None` where it has no extensions at all.
    pub(crate) fn extension(&self, id: &CStr) -> Option<*const c_void> {
        let who = Who::plugin(&self.manifest.name, &self.manifest.version);
        self.extension.map(|extension| {
            // SAFETY: the id is a C string.
            inside(&who, 0, || unsafe { extension(id.as_ptr()) })
        })
    }

    /// The same with another table for the stage type of this id, for the rest of the process: for who stands between a plugin and
    /// its host.
    pub(crate) fn with_stage(mut self, id: &str, table: stage::Stage) -> &'static Loaded {
        self.stages.insert(id.to_owned(), table);
        Box::leak(Box::new(self))
    }

    /// The table of the stage type of this id.
    pub(crate) fn stage(&self, id: &str) -> Option<&stage::Stage> {
        self.stages.get(id)
    }

    /// The table of the reader of this id.
    pub fn reader(&self, id: &str) -> Option<&reader::Reader> {
        self.readers.get(id)
    }
}

/// The table that a plugin's entry gives.
pub(crate) fn enter(
    who: Arc<Who>,
    entry: impl FnOnce(*mut weir_abi::Call, *mut *const Plugin) -> status::Status,
) -> Result<*const Plugin, Said> {
    let call = Call::setup(&who);
    let mut out: *const Plugin = std::ptr::null();
    let said = call.inside(|call| entry(call, &mut out));
    match said == status::OK && !out.is_null() {
        true => Ok(out),
        false => Err(call.close(said)),
    }
}

/// The library of a sealed file, with every symbol that it names resolved. Whoever has it must forget it: a plugin is never
/// unloaded.
pub(crate) fn linked(sealed: &std::fs::File) -> Result<Library, Refusal> {
    let address = format!("/proc/self/fd/{}", sealed.as_raw_fd());
    // SAFETY: the library's constructors run here: that is what its user asked for by naming it in a pipeline, and the bytes
    // are those that were hashed and whose segments were checked.
    let library = unsafe { Library::open(Some(&address), RTLD_NOW | RTLD_LOCAL) };
    library.map_err(|error| {
        // The loader's own words lie behind "dlopen failed".
        let words = std::error::Error::source(&error)
            .map_or_else(|| error.to_string(), ToString::to_string);
        let beside =
            || sealed_bytes(sealed).is_some_and(|bytes| rpath::of_origin(&bytes).is_some());
        let help = hint(&words, beside);
        Refusal::new("E0509", format!("it cannot be loaded: {words}"), help)
    })
}

/// All of a sealed file, whatever was read of it before.
fn sealed_bytes(sealed: &std::fs::File) -> Option<Vec<u8>> {
    let mut bytes = vec![0; sealed.metadata().ok()?.len().try_into().ok()?];
    sealed.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}

fn load(
    admitted: &Admitted,
    who: &Who,
    enter: impl FnOnce(Entry) -> Result<*const Plugin, Said>,
) -> Result<Loaded, Refusal> {
    let (file, manifest) = (admitted.file(), admitted.manifest());
    let sealed = file.sealed().try_clone().map_err(|error| {
        Refusal::new(
            "E0509",
            format!("its memory cannot be opened once more: {error}"),
            "raise the limit of open files",
        )
    })?;
    watch_exit(who);
    let library = inside(who, 0, || linked(&sealed))?;
    // SAFETY: the header says what type the symbol of this name has.
    let entry: Result<Symbol<Entry>, _> = unsafe { library.get(ENTRY.as_bytes()) };
    let entry = entry.map(|entry| *entry).map_err(|error| {
        Refusal::new(
            "E0503",
            format!("it has no `{ENTRY}`: {error}"),
            "name a shared library that was built as a plugin of weir",
        )
    });
    std::mem::forget(library);
    // Stays open, whatever is found now: the loader knows a library by the name under which it was opened, which has this
    // descriptor's number, and would give it again for another file of that number.
    std::mem::forget(sealed);
    let entry = entry?;
    let out = enter(entry).map_err(|error| {
        Refusal::new(
            "E0510",
            format!("it refuses to start: {}", error.what),
            error.help,
        )
    })?;
    let differs = |what: String| {
        Refusal::new(
            "E0513",
            format!("its tables are not what its manifest says: {what}"),
            "the plugin's author must mend it",
        )
    };
    // SAFETY: a plugin's table lives as long as the process and has the members that its size says.
    let plugin = unsafe { tables::plugin(out) }.map_err(|Fault(what)| differs(what))?;
    if manifest
        .abi()
        .is_none_or(|(_, minor)| plugin.abi_minor > minor)
    {
        return Err(differs(format!(
            "it was built against ABI {}.{} (abi_minor), and its manifest says {}",
            weir_abi::MAJOR,
            plugin.abi_minor,
            manifest.weir_abi
        )));
    }
    if !plugin.manifest.is_null() {
        // SAFETY: the header says that it is the text of the file's section, and lives as long as the process.
        if !unsafe { tables::is(plugin.manifest, admitted.text()) } {
            return Err(differs(
                "the text that it hands over is another one than its file's".into(),
            ));
        }
    }
    // SAFETY: as above; the lists are as long as they say.
    let stages = unsafe { tables::stages(&plugin) }.map_err(|Fault(what)| differs(what))?;
    for stage in &manifest.stages {
        let table = stages
            .get(&stage.id)
            .ok_or_else(|| differs(format!("stage `{}` is missing", stage.id)))?;
        if let Some(missing) = missing(stage.rows, stage.batch_only, table) {
            return Err(differs(format!(
                "stage `{}` is a {} and has no function `{missing}`",
                stage.id,
                stage.rows.name()
            )));
        }
        if stage.batch_only && table.remove.is_some() {
            return Err(differs(format!(
                "stage `{}` is batch-only in the manifest, and its table has a function `remove`",
                stage.id
            )));
        }
        let parallel = table.flags & stage::PARALLEL != 0;
        if parallel != (stage.concurrency == Concurrency::Parallel) {
            return Err(differs(format!(
                "stage `{}` has `concurrency` {} in the manifest, and its table {} WEIR_STAGE_PARALLEL",
                stage.id,
                stage.concurrency.name(),
                if parallel { "says" } else { "does not say" },
            )));
        }
    }
    let known = |id: &String| manifest.stages.iter().any(|stage| stage.id == *id);
    if let Some(id) = stages.keys().find(|id| !known(id)) {
        return Err(differs(format!(
            "its tables have a stage `{id}`, and its manifest has not"
        )));
    }
    // SAFETY: as above.
    let readers = unsafe { tables::readers(&plugin) }.map_err(|Fault(what)| differs(what))?;
    for reader in &manifest.readers {
        let table = readers
            .get(&reader.id)
            .ok_or_else(|| differs(format!("reader `{}` is missing", reader.id)))?;
        let whole = table.sniff.is_some()
            && table.open.is_some()
            && table.info.is_some()
            && table.read_region.is_some()
            && table.close.is_some();
        if !whole {
            return Err(differs(format!(
                "reader `{}` lacks one of sniff, open, info, read_region and close",
                reader.id
            )));
        }
    }
    let known = |id: &String| manifest.readers.iter().any(|reader| reader.id == *id);
    if let Some(id) = readers.keys().find(|id| !known(id)) {
        return Err(differs(format!(
            "its tables have a reader `{id}`, and its manifest has not"
        )));
    }
    Ok(Loaded {
        path: file.path().to_owned(),
        sha256: file.sha256().to_owned(),
        manifest: manifest.clone(),
        stages,
        readers,
        extension: plugin.extension,
    })
}

/// A function that a stage of this kind must have and has not.
fn missing(rows: Rows, batch_only: bool, table: &stage::Stage) -> Option<&'static str> {
    let own: &[(&'static str, bool)] = match rows {
        Rows::Source => &[
            ("slide", table.slide.is_some()),
            ("open", table.open.is_some()),
            ("next", table.next.is_some()),
            ("read", table.read.is_some()),
            ("close", table.close.is_some()),
        ],
        Rows::Map | Rows::Filter => &[("process", table.process.is_some())],
        Rows::Reduce | Rows::Sink => &[
            ("process", table.process.is_some()),
            ("complete_slide", table.complete_slide.is_some()),
            ("remove", batch_only || table.remove.is_some()),
        ],
    };
    let every = [
        ("create", table.create.is_some()),
        ("destroy", table.destroy.is_some()),
    ];
    let mut all = every.iter().chain(own);
    all.find(|(_, there)| !there).map(|(name, _)| *name)
}

/// What to do about the loader's words. `beside`: whether the file looks for libraries beside itself.
fn hint(words: &str, beside: impl FnOnce() -> bool) -> String {
    if words.contains("static TLS") {
        return "its allocator wants thread-local memory that a program has only at its start: build the plugin without \
jemalloc or mimalloc, or with their option for libraries"
            .into();
    }
    if words.contains("undefined symbol") || words.contains("undefined reference") {
        return "it was linked against a library that it does not name, or another version of it: link it with `-Wl,-z,defs`"
            .into();
    }
    if words.contains("cannot open shared object file") {
        let origin = match beside() {
            true => {
                ". Its rpath names $ORIGIN, which leads nowhere, since what is loaded is what was hashed and not the file: link \
what lies beside it statically, or name its folder in full (-Wl,-rpath,/...)"
            }
            false => "",
        };
        return format!(
            "install the library that is named there, or set LD_LIBRARY_PATH; `ldd` on the plugin's file lists all that it needs{origin}"
        );
    }
    if words.contains("GLIBC_") {
        return "it was built on a newer system: build it on this one, or on the oldest that it is meant for".into();
    }
    String::new()
}
