//! What `weir inspect` and a run say of slides that the native reader declines. The plugin's own tests hold its pixels.

use crate::program::{fixture, weir};
use std::path::Path;

#[test]
fn inspect_says_that_the_native_reader_took_a_slide() {
    let said = weir([
        "inspect",
        fixture("CMU-1-Small-Region.svs").to_str().unwrap(),
    ])
    .exits(0);
    assert!(
        said.out
            .contains("chosen      native reader; no other was asked"),
        "{}",
        said.out
    );
}

/// With the plugin beside the program (`make plugins`) it reads the slide; without, the message names it.
#[test]
fn inspect_asks_plugins_where_the_native_reader_declines() {
    let beside =
        Path::new(env!("CARGO_BIN_EXE_weir")).with_file_name("plugins/libweir_openslide.so");
    let slide = fixture("CMU-1-Small-Region.dcm");
    let said = weir(["inspect", slide.to_str().unwrap()]);
    if !beside.is_file() {
        let said = said.exits(1);
        assert!(
            said.err.contains("is no TIFF file") && said.err.contains("[plugin.openslide]"),
            "{}",
            said.err
        );
        return;
    }
    if said.err.contains("DICOM needs OpenSlide 4.0") {
        eprintln!("skipped: the system's OpenSlide reads no DICOM");
        return;
    }
    let said = said.exits(0);
    for line in [
        "reader      openslide/dicom (",
        "chosen      openslide, sure by 90 of 100; the native reader declined: is no TIFF file",
        "size        2220 x 2967 px",
        "mpp         0.499 um/px, from the vendor's key",
    ] {
        assert!(said.out.contains(line), "{line}\n{}", said.out);
    }
}
