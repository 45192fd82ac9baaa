//! Files that are TIFF outside and something else inside, which the native reader declines.
//!
//! Read as plain pyramids they would give wrong pictures without an error: a macro taken for level 0, tiles that overlap laid side
//! by side, levels padded to whole tiles. Signs are those by which OpenSlide's drivers know the same files.

use crate::tiff::{Directory, Source, Tiff, tags};
use crate::{Fault, SlideError};
use std::path::Path;

/// NDPI's own tag, in every directory of it.
const NDPI_FLAG: u16 = 65_420;
/// XMP, where Ventana's scanners write iScan's settings.
const XML_PACKET: u16 = 700;
/// Argos' settings.
const ARGOS: u16 = 65_000;

/// Refuses `source` by its name, before anything of it is believed: past 4 GiB an NDPI file is no TIFF that can be followed.
pub(crate) fn decline_by_name(path: &Path, source: &Source) -> Result<(), SlideError> {
    match path.extension() {
        Some(ending) if ending.eq_ignore_ascii_case("ndpi") => Err(declined(source, NDPI)),
        _ => Ok(()),
    }
}

/// Refuses a file whose first directory says that a maker laid it out in another way.
pub(crate) fn decline(tiff: &Tiff, first: &Directory) -> Result<(), SlideError> {
    // What cannot be read there is no sign of anybody.
    let holds = |tag: u16, sign: &str| {
        let bytes = tiff.bytes(first, tag).ok().flatten().unwrap_or_default();
        bytes
            .windows(sign.len())
            .any(|part| part == sign.as_bytes())
    };
    let software = tiff.text(first, tags::SOFTWARE)?.unwrap_or_default();
    let description = tiff
        .text(first, tags::IMAGE_DESCRIPTION)?
        .unwrap_or_default();
    let layout = if first.has(NDPI_FLAG) {
        NDPI
    } else if description.contains("http://www.leica-microsystems.com/scn/") {
        "is a Leica SCN file, whose images lie on a larger plane"
    } else if holds(XML_PACKET, "iScan") {
        "is a Ventana BIF file, whose tiles overlap"
    } else if software.starts_with("Philips") {
        "is a Philips TIFF file, whose levels are padded and leave out what was not scanned"
    } else if software.starts_with("MedScan") {
        "is a Trestle file, whose tiles overlap"
    } else if holds(ARGOS, "Argos.Scan.Metadata") {
        "is an Argos file, which holds a stack of focal planes"
    } else {
        return Ok(());
    };
    Err(declined(&tiff.source, layout))
}

const NDPI: &str = "is a Hamamatsu NDPI file, which holds each level as one JPEG";

fn declined(source: &Source, layout: &str) -> SlideError {
    source.error(
        Fault::Unsupported,
        format!("{layout}; the native reader does not read that"),
        "",
    )
}
