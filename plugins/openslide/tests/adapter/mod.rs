//! The plugin's file as a run has it: described, admitted, loaded, behind the engine's door.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_openslide::library::{DICOM, REMEDY, library};
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

/// Whether the tests of what OpenSlide 4 reads can run: `WEIR_WITHOUT_OPENSLIDE4=1` says that they need not.
pub fn four() -> bool {
    if std::env::var_os("WEIR_WITHOUT_OPENSLIDE4").is_some() {
        eprintln!("skipped: WEIR_WITHOUT_OPENSLIDE4 is set");
        return false;
    }
    let library = library().unwrap_or_else(|missing| panic!("{missing}; {REMEDY}"));
    assert!(
        library.at_least(DICOM),
        "{} is OpenSlide {}, and 4.0 is needed; `make openslide` gets it, WEIR_WITHOUT_OPENSLIDE4=1 skips these tests",
        library.path().display(),
        library.version()
    );
    true
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
