//! Whether a file is OpenSlide's affair, by its name and first bytes.

use std::path::Path;

/// 0 (not OpenSlide's) to 100, from the signs by which OpenSlide's own drivers begin. `head` should have 132 bytes, where DICOM's
/// sign ends.
pub fn sniff(path: &Path, head: &[u8]) -> u8 {
    let ending = path
        .extension()
        .map(|ending| ending.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default();
    let ends = |known: &[&str]| known.contains(&ending.as_str());
    let starts = |sign: &[u8]| head.starts_with(sign);
    let holds = |sign: &str| head.windows(sign.len()).any(|part| part == sign.as_bytes());
    if starts(b"II*\0") || starts(b"MM\0*") || starts(b"II+\0") || starts(b"MM\0+") {
        // Any TIFF; OpenSlide knows those of scanners' makers and takes others when they are tiled.
        return match ends(&["svs", "ndpi", "scn", "bif", "avs"]) {
            true => 80,
            false => 50,
        };
    }
    // A MIRAX slide is a JPEG overview with a folder beside it.
    if starts(b"\xff\xd8\xff") && ends(&["mrxs"]) {
        return 95;
    }
    if starts(b"SQLite format 3\0") && ends(&["svslide"]) {
        return 95;
    }
    if starts(b"ZISRAWFILE") || head.get(128..132) == Some(b"DICM") {
        return 90;
    }
    // Hamamatsu's key files: a group in brackets.
    if ends(&["vms", "vmu"])
        && (holds("[Virtual Microscope Specimen]")
            || holds("[Uncompressed Virtual Microscope Specimen]"))
    {
        return 95;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_name_and_first_bytes_together() {
        let mut dicom = vec![0; 132];
        dicom[128..].copy_from_slice(b"DICM");
        let score = |name: &str, head: &[u8]| sniff(Path::new(name), head);
        assert_eq!(score("a.dcm", &dicom), 90);
        assert_eq!(score("a.dcm", &dicom[..131]), 0);
        assert_eq!(score("a.mrxs", b"\xff\xd8\xff\xe0"), 95);
        assert_eq!(score("a.jpg", b"\xff\xd8\xff\xe0"), 0);
        assert!(score("a.NDPI", b"II*\0") > score("a.tif", b"II*\0"));
        assert_eq!(score("a.vms", b"[Virtual Microscope Specimen]\r\n"), 95);
        assert_eq!(score("a.svs", b"hello"), 0);
        assert_eq!(score("a.svs", b""), 0);
    }
}
