//! A slide that this OpenSlide is too old for: the message names the version that reads it.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod adapter;

use std::path::{Path, PathBuf};
use std::process::Command;
use weir_slide::{OpenOptions, open};

/// Says which file the child opens.
const SLIDE: &str = "WEIR_TEST_SLIDE";
/// Debian 12's 3.4.1, where it is installed.
const DEBIAN: &str = "/usr/lib/x86_64-linux-gnu/libopenslide.so.0";

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An OpenSlide of that version that knows no file, in `folder`.
fn of_version(version: &str, folder: &Path) -> PathBuf {
    let library = folder.join(format!("libopenslide-{version}.so"));
    let built = Command::new("gcc")
        .args([
            "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
        ])
        .arg(format!("-DVERSION=\"{version}\""))
        .arg("-o")
        .arg(&library)
        .arg(here().join("tests/older/libopenslide.c"))
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    library
}

/// Started by [`said`], since a process opens the library once.
#[test]
#[ignore = "another test starts it"]
fn in_a_process_with_another_library() {
    let options = OpenOptions {
        openers: adapter::openers(),
        ..OpenOptions::default()
    };
    let slide = std::env::var_os(SLIDE).unwrap();
    let slide = Path::new(&slide);
    match open(slide, &options) {
        // The native reader's; the plugin's is asked by itself.
        Ok(_) => match adapter::open(slide, &OpenOptions::default()) {
            Ok(slide) => println!("said: {}", slide.facts().reader),
            Err(error) => println!("said: {error}"),
        },
        Err(error) => println!("said: {error}"),
    }
}

/// What is said of a slide that is opened with that library.
fn said(library: &Path, slide: &Path) -> String {
    let said = Command::new(std::env::current_exe().unwrap())
        .args([
            "in_a_process_with_another_library",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env("WEIR_OPENSLIDE", library)
        .env(SLIDE, slide)
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&said.stdout).into_owned();
    let line = out.lines().find(|line| line.contains("said: "));
    line.unwrap_or_else(|| panic!("{out}")).to_owned()
}

fn dicom() -> Vec<PathBuf> {
    let mut slides = vec![here().join("../../tests/fixtures/CMU-1-Small-Region.dcm")];
    if let Some(data) = std::env::var_os("WEIR_DATA") {
        slides.push(Path::new(&data).join("dicom/cmu1-small/00.dcm"));
    }
    slides
}

#[test]
fn a_dicom_slide_and_an_openslide_that_is_too_old_name_the_version_that_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let mut libraries = vec![of_version("3.4.1", folder.path())];
    libraries.extend(Some(PathBuf::from(DEBIAN)).filter(|debian| debian.exists()));
    for library in libraries {
        for slide in dicom() {
            assert!(slide.is_file(), "{} is not there", slide.display());
            let said = said(&library, &slide);
            for part in [
                "is no TIFF file",
                "openslide declined it: OpenSlide 3.4.1 does not know it",
                "DICOM needs OpenSlide 4.0: `make openslide` gets it",
                "set WEIR_OPENSLIDE",
            ] {
                assert!(said.contains(part), "{}: {part}\n{said}", library.display());
            }
        }
    }
}

/// Aperio's JPEG 2000 needs no newer one: held where Debian's and the slides are there.
#[test]
fn a_jpeg_2000_slide_needs_no_newer_version() {
    let debian = Path::new(DEBIAN);
    let Some(data) = std::env::var_os("WEIR_DATA").filter(|_| debian.exists()) else {
        eprintln!("skipped: no {DEBIAN}, or WEIR_DATA names no folder with wsi/jp2k-crop.svs");
        return;
    };
    let said = said(debian, &Path::new(&data).join("wsi/jp2k-crop.svs"));
    assert!(said.contains("openslide/aperio (3.4"), "{said}");
}

#[test]
fn each_format_names_the_version_that_it_needs_and_no_other_format_names_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let mut head = [0; 200];
    head[128..132].copy_from_slice(b"DICM");
    let dicom = at("slide.dcm", &head);
    let mut head = [0; 200];
    head[..10].copy_from_slice(b"ZISRAWFILE");
    let czi = at("slide.czi", &head);
    let mrxs = at(
        "slide.mrxs",
        &[&b"\xff\xd8\xff\xe0"[..], &[0; 200]].concat(),
    );
    for (version, slide, needs) in [
        ("3.4.1", &dicom, Some("DICOM needs OpenSlide 4.0:")),
        ("3.4.1", &czi, Some("CZI needs OpenSlide 4.0.1:")),
        ("4.0.0", &czi, Some("CZI needs OpenSlide 4.0.1:")),
        ("4.0.0", &dicom, None),
        ("4.0.1", &czi, None),
        ("3.4.1", &mrxs, None),
    ] {
        let said = said(&of_version(version, folder.path()), slide);
        assert!(
            said.contains(&format!("OpenSlide {version} does not know it")),
            "{said}"
        );
        match needs {
            Some(needs) => assert!(said.contains(needs), "{needs}\n{said}"),
            None => assert!(!said.contains("needs OpenSlide"), "{said}"),
        }
    }
}
