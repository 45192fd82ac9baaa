//! `weir inspect` and `weir doctor`.

use crate::program::tiled::Tiled;
use crate::program::{fixture, tissue, weir};
use serde_json::Value;

fn inspect(path: &std::path::Path) -> Value {
    let said = weir(["inspect", "--format", "json", path.to_str().unwrap()]).exits(0);
    serde_json::from_str(&said.out).unwrap()
}

#[test]
fn a_slide_is_told_with_its_levels_and_who_knows_its_resolution() {
    let generic = inspect(&fixture("slide-14082.tiff"));
    assert_eq!(generic["mpp"], 4.0);
    assert_eq!(generic["mpp_origin"], "resolution");
    assert_eq!(generic["levels"].as_array().unwrap().len(), 4);
    assert_eq!(generic["problems"].as_array().unwrap().len(), 0);

    let aperio = inspect(&fixture("CMU-1-Small-Region.svs"));
    assert_eq!(
        (&aperio["width"], &aperio["height"]),
        (&2220.into(), &2967.into())
    );
    assert_eq!(
        (&aperio["mpp"], &aperio["mpp_origin"]),
        (&0.499.into(), &"vendor".into())
    );
    let names: Vec<_> = aperio["associated"]
        .as_array()
        .unwrap()
        .iter()
        .map(|picture| &picture["name"])
        .collect();
    assert_eq!(names, ["thumbnail", "label", "macro"]);
}

#[test]
fn people_get_lines_and_the_given_mpp_wins() {
    let slide = fixture("CMU-1-Small-Region.svs");
    let said = weir(["inspect", slide.to_str().unwrap(), "--mpp", "0.25"]).exits(0);
    for line in [
        "size        2220 x 2967 px, 0.6 x 0.7 mm",
        "mpp         0.25 um/px, from given",
        "problems    none",
    ] {
        assert!(said.out.contains(line), "{line}\n{}", said.out);
    }
}

#[test]
fn what_stands_in_the_way_of_a_run_is_told() {
    let said = weir([
        "inspect",
        fixture("corrupt/three-bad-tiles.svs").to_str().unwrap(),
    ])
    .exits(3);
    assert!(
        said.out.contains(
            "3 places of the overview cannot be read, in level-0 px: (0, 480) 240 x 240 px"
        ),
        "{}",
        said.out
    );

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain.tiff");
    let slide = Tiled {
        width: 128,
        height: 128,
        tile: 64,
        mpp: None,
    };
    let kind = |column: u32, row: u32| u64::from(column + 2 * row);
    let paint = |column, row, pixels: &mut [u8]| tissue(kind(column, row), pixels);
    slide.write(&path, &kind, &paint).unwrap();
    let said = weir(["inspect", path.to_str().unwrap()]).exits(3);
    assert!(
        said.out.contains("default-mpp"),
        "the remedy is told: {}",
        said.out
    );
}

#[test]
fn what_is_no_slide_is_refused_with_the_reason() {
    for (name, reason) in [
        ("empty.svs", "is empty"),
        (
            "text.svs",
            "is no TIFF file: it begins with the text \"this is ",
        ),
        (
            "truncated-60pct.svs",
            "the file is truncated or its header is damaged",
        ),
        ("none.svs", "no such file"),
    ] {
        let said = weir(["inspect", fixture("corrupt").join(name).to_str().unwrap()]).exits(1);
        assert!(
            said.err.contains(reason) && said.err.contains(name),
            "{name}: {}",
            said.err
        );
        assert!(said.err.contains("\n  help: "), "{name}: {}", said.err);
        assert_eq!(said.err.matches("error").count(), 1, "{}", said.err);
    }
}

#[test]
fn the_doctor_names_every_part_and_never_ends_by_itself() {
    let said = weir(["doctor", "--format", "json", "--out", "/tmp"]).exits(0);
    let names: Vec<String> = said
        .out
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["name"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    // Where there is a device, it and its kernels have lines of their own.
    let everywhere: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| !["device", "kernels"].contains(name))
        .collect();
    assert_eq!(
        everywhere,
        [
            "weir",
            "processor",
            "memory",
            "open files",
            "onnxruntime",
            "burn",
            "cuda",
            "nvrtc",
            "kernel cache",
            "burn cuda",
            "openslide",
            "plugins",
            "outputs"
        ]
    );
}

#[test]
fn the_doctor_says_what_to_do_about_a_library_that_is_not_there() {
    let mut command = crate::program::command(["doctor", "--out", "/tmp"]);
    command.env("WEIR_ONNXRUNTIME", "/nowhere/libonnxruntime.so");
    let said = crate::program::said(command).exits(0);
    assert!(
        said.out.contains("/nowhere/libonnxruntime.so") && said.out.contains("burn"),
        "{}",
        said.out
    );
}
