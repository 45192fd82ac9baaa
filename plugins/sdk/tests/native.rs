//! Plugins in C and C++: compiled as their authors compile them, and run by the harness.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use weir_plugin::End;
use weir_plugin::harness::{Library, Rows, Sent};
use weir_plugin_host::Described;

fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn run(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{command:?} failed: {said}");
    String::from_utf8(out.stdout).unwrap()
}

fn compile(compiler: &str, standard: &str, warnings: &[&str], files: &[&Path], out: &Path) {
    let mut command = Command::new(compiler);
    command
        .arg(format!("-std={standard}"))
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    command
        .args(warnings)
        .arg("-I")
        .arg(plugins().join("abi"))
        .arg("-o")
        .arg(out)
        .args(files);
    run(&mut command);
}

/// blur-c, built by its own Makefile; the folder stays as long as the library.
static BLUR: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let mut make = Command::new("make");
    make.arg("-C").arg(plugins().join("blur-c"));
    // What the outer make of a whole test run passes on is not meant for this one.
    make.env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .env_remove("CFLAGS");
    run(make.arg(format!("OUT={}", folder.path().display())));
    let library = folder.path().join("libblur-c.so");
    (folder, library)
});

/// The definition, in f64: the variance of the Laplacian of luma over the inner pixels.
fn sharpness(rgb: &[u8], width: usize, height: usize) -> f64 {
    let luma = |x: usize, y: usize| {
        let at = (y * width + x) * 3;
        0.299 * f64::from(rgb[at]) + 0.587 * f64::from(rgb[at + 1]) + 0.114 * f64::from(rgb[at + 2])
    };
    let mut all = Vec::new();
    for y in 1..height.max(1) - usize::from(height > 1) {
        for x in 1..width.max(1) - usize::from(width > 1) {
            all.push(
                luma(x - 1, y) + luma(x + 1, y) + luma(x, y - 1) + luma(x, y + 1)
                    - 4.0 * luma(x, y),
            );
        }
    }
    if all.is_empty() {
        return 0.0;
    }
    let n = all.len() as f64;
    let mean = all.iter().sum::<f64>() / n;
    all.iter().map(|it| (it - mean) * (it - mean)).sum::<f64>() / n
}

fn is_kept(rgb: &[u8], width: usize, height: usize, least: f64) -> bool {
    let stage = Library::open(&BLUR.1)
        .unwrap()
        .stage("blur-c.filter")
        .unwrap();
    let stage = stage.set("sharpness-min", least).start().unwrap();
    let tiles = Rows::pixels(width as u32, height as u32).push("a", 0, 0, rgb);
    let done = stage.process(tiles).unwrap();
    let kept = !done.kept().is_empty();
    assert_eq!(
        done.skipped(),
        if kept { vec![] } else { vec![(0, "blurred")] }
    );
    stage.end().unwrap();
    kept
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// On both sides of the definition's own number, a millionth away from it.
    #[test]
    fn blur_c_decides_as_the_definition_in_f64(
        width in 1_usize..24,
        height in 1_usize..24,
        bytes in prop::collection::vec(any::<u8>(), 24 * 24 * 3),
        contrast in 1_u8..=255,
    ) {
        let rgb: Vec<u8> = bytes[..width * height * 3].iter().map(|it| it % contrast).collect();
        let is = sharpness(&rgb, width, height);
        prop_assert!(is_kept(&rgb, width, height, is * (1.0 - 1e-6)) || is == 0.0);
        prop_assert!(!is_kept(&rgb, width, height, is * (1.0 + 1e-6) + 1e-9));
    }
}

#[test]
fn blur_c_keeps_what_is_sharp_and_says_why_it_does_not_keep_the_rest() {
    let described = Described::read(&BLUR.1).unwrap();
    assert_eq!(described.manifest().name, "blur-c");
    // A checkerboard is as sharp as can be; a ramp has no second derivative.
    let board: Vec<u8> = (0..64 * 64)
        .flat_map(|i| [255 * ((i / 64 + i % 64) % 2) as u8; 3])
        .collect();
    let ramp: Vec<u8> = (0..64 * 64).flat_map(|i| [(i % 64) as u8 * 4; 3]).collect();
    assert!((sharpness(&board, 64, 64) - 1_040_400.0).abs() < 1.0);
    assert!(is_kept(&board, 64, 64, 1_040_399.0));
    assert!(!is_kept(&ramp, 64, 64, 0.001));
}

#[test]
fn blur_c_is_clean_under_the_sanitizers() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("drive");
    let blur = plugins().join("blur-c");
    let files = [blur.join("drive.c"), blur.join("blur.c")];
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    compile(
        "gcc",
        "c11",
        &[
            "-g",
            "-O1",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
        ],
        &files,
        &program,
    );
    let said = run(&mut Command::new(program));
    assert!(
        said.contains("256 x 256: status 0, 1 kept, 1 skipped"),
        "{said}"
    );
}

/// A plugin in C++ of this folder, with more warnings than most projects have.
fn cpp(name: &str, library: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/cpp/{name}.cpp"));
    let warnings = [
        "-Wshadow",
        "-Wconversion",
        "-Wold-style-cast",
        "-Wnon-virtual-dtor",
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
    ];
    compile("g++", "c++17", &warnings, &[&source], library);
}

#[test]
fn a_cpp_reader_reads_slides_and_what_it_throws_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let library = path.join("libgrey.so");
    cpp("grey", &library);
    let reader = Library::open(&library).unwrap().reader("grey").unwrap();
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(path.join(name), bytes).unwrap();
        path.join(name)
    };
    let whole = file("whole.grey", b"GREY\x03\x02abcdef");
    assert_eq!(reader.sniff(&whole).unwrap(), 90);
    assert_eq!(reader.sniff(&file("other", b"GREEN!")).unwrap(), 0);
    assert_eq!(reader.sniff(&file("throws", b"GREY!")).unwrap(), 0);
    let slide = reader.open(&whole).unwrap();
    let facts = slide.facts().unwrap();
    assert_eq!((facts.levels[0].width, facts.levels[0].height), (3, 2));
    let grey = |bytes: &[u8]| -> Vec<u8> { bytes.iter().flat_map(|&grey| [grey; 3]).collect() };
    // White beyond the edge.
    let region = slide.region(0, 1, 1, 3, 2).unwrap();
    assert_eq!(region, grey(b"ef\xff\xff\xff\xff"));
    let error = slide.region(1, 0, 0, 1, 1).unwrap_err();
    assert_eq!(error.message(), "there is one level");
    assert!(slide.picture(0).is_err());
    let torn = reader
        .open(&file("torn.grey", b"GREY\x03\x02abcd"))
        .unwrap();
    assert_eq!(torn.region(0, 0, 0, 3, 1).unwrap(), grey(b"abc"));
    let error = torn.region(0, 0, 0, 3, 2).unwrap_err();
    assert_eq!(error.message(), "the file ends in row 1");
    let refused = reader.open(&file("short.grey", b"GREY")).err().unwrap();
    assert_eq!(
        refused.to_string(),
        "the file ends before its size; scan it again"
    );
}

/// By `finish` a host knows whether each open slide may have an instance of its own.
#[test]
fn a_cpp_table_has_the_end_of_the_run_where_its_class_has() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("ends.cpp");
    std::fs::write(
        &source,
        r#"#include "weir_plugin.hpp"
class None : public weir::collect {
 public:
  None(const weir::values &, weir::call &) {}
  void process(weir::call &, uint32_t, const weir::batch &) override {}
  void remove(weir::call &, uint32_t, const weir_row *, uint32_t) override {}
  void complete_slide(weir::call &, const weir_slide &, uint32_t, uint32_t) override {}
};
class Own : public None {
 public:
  using None::None;
  void finish(weir::call &) override {}
};
class Inherited : public Own {
 public:
  using Own::Own;
};
static_assert(weir::stage<None>("a.none").finish == nullptr);
static_assert(weir::stage<Own>("a.own").finish != nullptr);
static_assert(weir::stage<Inherited>("a.inherited").finish != nullptr);
"#,
    )
    .unwrap();
    let object = folder.path().join("ends.o");
    compile("g++", "c++17", &["-c"], &[&source], &object);
}

#[test]
fn cpp_stages_run_and_what_they_throw_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libcpp.so");
    cpp("mean", &library);
    assert_eq!(
        Described::read(&library).unwrap().manifest().stages.len(),
        4
    );
    let library = Library::open(&library).unwrap();

    let mean = || library.stage("cpp.mean").unwrap();
    let refused = mean().set("factor", 0.0).start().err().unwrap();
    assert_eq!(
        refused.to_string(),
        "parameter `factor`: nothing would be left; take another number"
    );
    let stage = mean().set("factor", 2.0).start().unwrap();
    assert_eq!(stage.log()[0].to_string(), "info: begun");
    let tiles = |value: u8| Rows::pixels(3, 2).push("a", 0, 0, &[value; 18]);
    let done = stage.process(tiles(21)).unwrap();
    assert_eq!(done.row::<f32>("features", 0, "features").unwrap(), [42.0]);
    stage.end().unwrap();

    let odd = library.stage("cpp.odd").unwrap().start().unwrap();
    for (value, told) in [
        (0, "nothing to see"),
        (1, "an exception without a message"),
        (2, "column `pixels` is of another type"),
        (4, "said no"),
        (5, "said no twice"),
    ] {
        assert_eq!(odd.process(tiles(value)).unwrap_err().message(), told);
    }
    assert_eq!(odd.process(tiles(3)).unwrap().skipped(), [(0, "three")]);
    assert_eq!(odd.process(tiles(9)).unwrap().kept(), [0]);
    odd.end().unwrap();

    let count = library
        .stage("cpp.count")
        .unwrap()
        .folder(folder.path())
        .start()
        .unwrap();
    count.take("tiles", tiles(1)).unwrap();
    count.take("tiles", tiles(1)).unwrap();
    count.remove("tiles", &tiles(1)).unwrap();
    count.complete("a", 0, End::Complete).unwrap();
    assert_eq!(
        std::fs::read_to_string(folder.path().join("a")).unwrap(),
        "1"
    );
    count.end().unwrap();

    let two = library
        .stage("cpp.two")
        .unwrap()
        .set("names", vec!["first", "second"])
        .set(
            "files",
            serde_json::json!([{"path": "/a.svs", "id": "a", "label": "tumour", "mpp": 0.25}]),
        )
        .start()
        .unwrap();
    let said: Vec<String> = two.log().iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "info: first",
            "info: second",
            "info: a of tumour at 0.250000"
        ]
    );
    let slides = two.slides().unwrap();
    assert_eq!(slides[1].id, "a slide with a long name, number 1");
    let slide = two.open(1).unwrap();
    assert_eq!(
        (slide.info.id.as_str(), slide.info.tile_footprint),
        (slides[1].id.as_str(), 512.0)
    );
    let sent = slide.run(|tile| tile.width as usize * 4).unwrap();
    assert_eq!(sent[0].features().unwrap(), [1.5, -2.5]);
    assert!(matches!(&sent[1], Sent::Fail(_, error) if error.message() == "torn"));
    drop(slide);
    assert_eq!(two.open(2).err().unwrap().message(), "no such slide");
    two.end().unwrap();
}

/// The C example of the README, word for word.
#[test]
fn the_thirty_lines_of_c_of_the_readme_run() {
    let readme = include_str!("../README.md");
    let (_, from) = readme.split_once("```c\n").unwrap();
    let (text, _) = from.split_once("```").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (
        folder.path().join("third.c"),
        folder.path().join("libthird.so"),
    );
    std::fs::write(&source, text).unwrap();
    compile("gcc", "c11", &["-fPIC", "-shared"], &[&source], &library);
    Described::read(&library).unwrap();
    let stage = Library::open(&library)
        .unwrap()
        .stage("third.filter")
        .unwrap()
        .start()
        .unwrap();
    let rows = (0..7).fold(Rows::pixels(1, 1), |rows, i| {
        rows.push("a", i, 0, &[0_u8; 3])
    });
    let done = stage.process(rows).unwrap();
    assert_eq!(done.kept(), [0, 3, 6]);
    assert_eq!(done.skipped()[0], (1, "thinned"));
    stage.end().unwrap();
}
