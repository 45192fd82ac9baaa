//! The plugin's file as a run has it: described, admitted, loaded, behind the engine's door.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_openslide::library::{REMEDY, library};
use weir_plugin_host::{Admitted, Ask, Described, Loaded, Plugins, Policy, openers as readers};
use weir_slide::{OpenOptions, Openers, SlideError, SlideReader};

/// Whether the tests can run: `WEIR_WITHOUT_OPENSLIDE=1` says that they need not.
pub fn there() -> bool {
    if std::env::var_os("WEIR_WITHOUT_OPENSLIDE").is_some() {
        eprintln!("skipped: WEIR_WITHOUT_OPENSLIDE is set");
        return false;
    }
    if let Err(missing) = library() {
        panic!("{missing}; {REMEDY}; WEIR_WITHOUT_OPENSLIDE=1 skips these tests");
    }
    true
}

/// Whether the library is OpenSlide 4 or later.
pub fn four() -> bool {
    let library = library().unwrap_or_else(|missing| panic!("{missing}"));
    if !library.at_least(4) {
        eprintln!("skipped: OpenSlide {} reads no DICOM", library.version());
    }
    library.at_least(4)
}

/// The shared library that cargo built beside this test.
fn file() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.parent().unwrap().join("libweir_openslide.so")
}

/// The plugin's reader.
pub fn openers() -> Openers {
    let ask = Ask {
        name: "openslide".into(),
        ..Ask::default()
    };
    let loaded = || {
        Loaded::new(&Admitted::new(
            Described::read(&file())?,
            &ask,
            Policy::Any,
        )?)
    };
    let loaded = loaded().unwrap_or_else(|refusal| panic!("{refusal}"));
    readers(&Plugins {
        loaded: vec![loaded],
        ..Plugins::default()
    })
}

/// The slide at `path`, without asking the native reader.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Arc<dyn SlideReader>, SlideError> {
    let openers = openers();
    let reader = openers.iter().next().unwrap();
    reader.open(path, options)
}
