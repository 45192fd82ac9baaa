//! The stages behind the border, as weir calls them.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use weir_plugin::End;
use weir_plugin::harness::{self, Rows};
use weir_stain::density::Light;
use weir_stain::lab::Lab;
use weir_stain::macenko::{self, Estimate, Scratch, Stains};
use weir_stain::recolour::Recolour;
use weir_stain::reinhard;
use weir_stain::stages::measure::Measure;
use weir_stain::stages::normalise::Normalise;
use weir_stain::stages::separate::Separate;
use weir_stain::statistics::Statistics;

const SIDE: u32 = 64;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn tile(name: &str) -> Vec<u8> {
    weir_stain::picture::read(&file(&format!("{name}.png"))).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn blank() -> Vec<u8> {
    vec![245; (SIDE * SIDE * 3) as usize]
}

/// Three tiles of two slides, the second one blank.
fn rows() -> Rows {
    Rows::pixels(SIDE, SIDE)
        .push("a", 0, 0, &tile("stroma"))
        .push("a", 64, 0, &blank())
        .push("b", 0, 64, &tile("tumour"))
}

fn by_hand(pixels: &[u8]) -> Vec<u8> {
    let light = Light::new(240.0, 0.15);
    let estimate = Estimate {
        light: light.clone(),
        alpha: 1.0,
        least: 0.01,
    };
    let source = estimate.stains(pixels, &mut Scratch::default()).unwrap();
    let change = macenko::normalisation(&source, &macenko::REFERENCE).unwrap();
    let mut made = pixels.to_vec();
    Recolour::new(&light, &change, true).apply(&mut made);
    made
}

#[test]
fn tiles_are_normalised_by_their_own_stains_and_blank_ones_pass() {
    let stage = harness::stage::<Normalise>().start().unwrap();
    let done = stage.process(rows()).unwrap();
    assert_eq!(done.count("tiles"), 3);
    assert_eq!(
        done.row::<u8>("tiles", 0, "pixels").unwrap(),
        by_hand(&tile("stroma"))
    );
    assert_eq!(done.row::<u8>("tiles", 1, "pixels").unwrap(), blank());
    assert_eq!(
        done.row::<u8>("tiles", 2, "pixels").unwrap(),
        by_hand(&tile("tumour"))
    );
    assert_eq!(stage.counter("degenerate"), 1);
    stage.end().unwrap();
}

#[test]
fn degenerate_tiles_fail_alone_where_that_is_asked_for() {
    let stage = harness::stage::<Normalise>()
        .set("degenerate", "fail")
        .start()
        .unwrap();
    let done = stage.process(rows()).unwrap();
    let [(1, error)] = done.failed() else {
        panic!("{done:?}")
    };
    assert!(
        error
            .message()
            .contains("0 of 4096 pixels are stained, and 41 must be"),
        "{error}"
    );
    assert_eq!(
        done.row::<u8>("tiles", 0, "pixels").unwrap(),
        by_hand(&tile("stroma"))
    );
    assert_eq!(
        done.row::<u8>("tiles", 2, "pixels").unwrap(),
        by_hand(&tile("tumour"))
    );
    let alone = Rows::pixels(SIDE, SIDE).push("a", 0, 0, &blank());
    assert_eq!(stage.process(alone).unwrap().failed().len(), 1);
    stage.end().unwrap();
}

#[test]
fn the_same_bits_come_whatever_the_batch_and_the_thread() {
    for method in ["macenko", "reinhard"] {
        let stage = harness::stage::<Normalise>()
            .set("method", method)
            .start()
            .unwrap();
        let alone = |name: &str| {
            let rows = Rows::pixels(SIDE, SIDE).push("c", 9, 9, &tile(name));
            stage
                .process(rows)
                .unwrap()
                .row::<u8>("tiles", 0, "pixels")
                .unwrap()
                .to_vec()
        };
        let expected = [alone("stroma"), alone("tumour")];
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| stage.process(rows()).unwrap()))
                .collect();
            for thread in threads {
                let done = thread.join().unwrap();
                assert_eq!(done.row::<u8>("tiles", 0, "pixels").unwrap(), expected[0]);
                assert_eq!(done.row::<u8>("tiles", 2, "pixels").unwrap(), expected[1]);
            }
        });
        stage.end().unwrap();
    }
}

/// What is left of pixels when they are normalised to the very stains that they have.
fn explained(pixels: &[u8], own: &Stains) -> Vec<u8> {
    let change = macenko::normalisation(own, own).unwrap();
    let mut made = pixels.to_vec();
    Recolour::new(&Light::new(240.0, 0.15), &change, true).apply(&mut made);
    made
}

#[test]
fn a_reference_picture_gives_its_stains() {
    let reference = tile("tumour");
    let setup = harness::stage::<Normalise>().set("reference", text(&file("tumour.png")));
    let stage = setup.start().unwrap();
    let rows = Rows::pixels(SIDE, SIDE)
        .push("a", 0, 0, &tile("stroma"))
        .push("a", 64, 0, &reference);
    let done = stage.process(rows).unwrap();
    let stains = |pixels: &[u8]| {
        let estimate = Estimate {
            light: Light::new(240.0, 0.15),
            alpha: 1.0,
            least: 0.01,
        };
        estimate.stains(pixels, &mut Scratch::default()).unwrap()
    };
    let target = stains(&reference);
    let after = stains(done.row::<u8>("tiles", 0, "pixels").unwrap());
    let before = stains(&tile("stroma"));
    let apart = |a: &Stains, b: &Stains| {
        let vectors = [a.haematoxylin, a.eosin]
            .into_iter()
            .flatten()
            .zip([b.haematoxylin, b.eosin].into_iter().flatten());
        vectors.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    // Pixels that were no mixture of two stains, or were held at black or white, move the estimate a little.
    assert!(
        apart(&after, &target) < 0.05 && apart(&before, &target) > 0.1,
        "{before:?} {after:?} {target:?}"
    );
    assert_eq!(
        done.row::<u8>("tiles", 1, "pixels").unwrap(),
        explained(&reference, &target)
    );
    stage.end().unwrap();
}

#[test]
fn a_reference_picture_gives_its_colours() {
    let setup = harness::stage::<Normalise>()
        .set("method", "reinhard")
        .set("reference", text(&file("tumour.png")));
    let stage = setup.start().unwrap();
    let rows = Rows::pixels(SIDE, SIDE)
        .push("a", 0, 0, &tile("connective"))
        .push("a", 64, 0, &tile("tumour"));
    let done = stage.process(rows).unwrap();
    let colours = |pixels: &[u8]| {
        reinhard::colours(&Lab::default(), &Light::new(240.0, 0.15), true, 0.0, pixels).unwrap()
    };
    let (after, target) = (
        colours(done.row::<u8>("tiles", 0, "pixels").unwrap()),
        colours(&tile("tumour")),
    );
    for c in 0..3 {
        assert!(
            (after.mean[c] - target.mean[c]).abs() < 1.0,
            "{after:?} {target:?}"
        );
        assert!(
            (after.deviation[c] - target.deviation[c]).abs() < 1.0,
            "{after:?} {target:?}"
        );
    }
    assert_eq!(
        done.row::<u8>("tiles", 1, "pixels").unwrap(),
        tile("tumour")
    );
    stage.end().unwrap();
}

#[test]
fn a_measured_slide_is_a_reference_and_a_source() {
    let out = tempfile::tempdir().unwrap();
    let measure = harness::stage::<Measure>()
        .folder(out.path())
        .start()
        .unwrap();
    measure.take("tiles", rows()).unwrap();
    for slide in ["a", "b"] {
        measure.complete(slide, 1, End::Complete).unwrap();
        measure.close(slide);
    }
    measure.end().unwrap();
    let of_b = out.path().join("b/stain.json");
    let statistics = Statistics::read(&of_b).unwrap();
    assert_eq!((statistics.tiles, statistics.pixels), (1, 1024));
    assert!(statistics.macenko.is_some() && statistics.reinhard.is_some());
    for method in ["macenko", "reinhard"] {
        let setup = harness::stage::<Normalise>().set("method", method);
        let stage = setup
            .set("reference", text(&of_b))
            .set("source", text(out.path()))
            .start()
            .unwrap();
        let done = stage
            .process(rows().push("unmeasured", 0, 0, &tile("edge")))
            .unwrap();
        let [(3, error)] = done.failed() else {
            panic!("{done:?}")
        };
        assert!(
            error
                .message()
                .contains("no statistics of slide `unmeasured`"),
            "{error}"
        );
        // Blank tiles are changed by their slide's numbers too, which leave glass as it is.
        assert_eq!(done.row::<u8>("tiles", 1, "pixels").unwrap(), blank());
        let own = done.row::<u8>("tiles", 2, "pixels").unwrap();
        match method {
            "macenko" => assert_eq!(
                own,
                explained(&tile("tumour"), &statistics.macenko.unwrap())
            ),
            _ => assert_eq!(own, tile("tumour")),
        }
        stage.end().unwrap();
    }
}

#[test]
fn a_slides_statistics_do_not_depend_on_the_order_of_its_tiles_or_on_what_was_withdrawn() {
    let names = ["connective", "edge", "epidermis", "stroma", "tumour"];
    let rows = |order: &[usize]| {
        let rows = Rows::pixels(SIDE, SIDE);
        order.iter().fold(rows, |rows, i| {
            rows.push("a", 64 * *i as i64, 0, &tile(names[*i]))
        })
    };
    let measure = |feed: &dyn Fn(&harness::Stage)| {
        let out = tempfile::tempdir().unwrap();
        let stage = harness::stage::<Measure>()
            .folder(out.path())
            .start()
            .unwrap();
        feed(&stage);
        stage.complete("a", 1, End::Complete).unwrap();
        std::fs::read_to_string(out.path().join("a/stain.json")).unwrap()
    };
    let first = measure(&|stage| stage.take("tiles", rows(&[0, 1, 2, 3])).unwrap());
    let other = measure(&|stage| {
        for i in [3, 1, 4, 2, 0] {
            stage.take("tiles", rows(&[i])).unwrap();
        }
        stage.remove("tiles", &rows(&[4])).unwrap();
    });
    assert_eq!(first, other);
    // A later version of a tile replaces the earlier one.
    let replaced = measure(&|stage| {
        stage
            .take("tiles", Rows::pixels(SIDE, SIDE).push("a", 64, 0, &blank()))
            .unwrap();
        stage.take("tiles", rows(&[0, 1, 2, 3])).unwrap();
    });
    assert_eq!(first, replaced);
}

#[test]
fn a_blank_slides_file_says_why_it_has_no_stains_and_an_aborted_slide_has_none() {
    let out = tempfile::tempdir().unwrap();
    let stage = harness::stage::<Measure>()
        .folder(out.path())
        .start()
        .unwrap();
    stage
        .take(
            "tiles",
            Rows::pixels(SIDE, SIDE).push("../x", 0, 0, &blank()),
        )
        .unwrap();
    stage.complete("../x", 1, End::Complete).unwrap();
    let file = out.path().join("%2E.%2Fx/stain.json");
    let statistics = Statistics::read(&file).unwrap();
    assert_eq!(statistics.slide, "../x");
    assert_eq!(statistics.missing.len(), 2);
    let log = stage.log();
    assert!(
        log.iter()
            .any(|line| line.text.contains("0 of 1024 pixels are stained")),
        "{log:?}"
    );
    let refused = harness::stage::<Normalise>()
        .set("reference", text(&file))
        .start()
        .err()
        .unwrap();
    assert_eq!(refused.of_which_param(), "reference");
    assert!(
        refused
            .message()
            .contains("it has no statistics for macenko (macenko: 0 of 1024"),
        "{refused}"
    );
    stage.complete("../x", 2, End::Aborted).unwrap();
    assert!(!file.exists());
}

#[test]
fn separation_gives_three_pictures_of_each_tile() {
    let stage = harness::stage::<Separate>().start().unwrap();
    let done = stage.process(rows()).unwrap();
    // The fourth to sixth of the reference's pictures.
    let theirs = tile("stroma.made");
    let size = tile("stroma").len();
    for (place, output) in ["haematoxylin", "eosin", "residual"]
        .into_iter()
        .enumerate()
    {
        assert_eq!(done.count(output), 3);
        let ours = done.row::<u8>(output, 0, "pixels").unwrap();
        let theirs = &theirs[(3 + place) * size..(4 + place) * size];
        assert!(
            ours.iter()
                .zip(theirs)
                .all(|(ours, theirs)| ours.abs_diff(*theirs) <= 1)
        );
    }
    stage.end().unwrap();
    let fixed = "0.65 0.70 0.29";
    let own = harness::stage::<Separate>()
        .set("method", "macenko")
        .set("degenerate", "fail")
        .set("show", "colour");
    let own = own.set("haematoxylin", fixed).start().unwrap();
    let done = own.process(rows()).unwrap();
    assert_eq!(done.failed().len(), 1);
    assert_eq!(done.count("residual"), 2);
    own.end().unwrap();
    let fallback = harness::stage::<Separate>()
        .set("method", "macenko")
        .start()
        .unwrap();
    assert_eq!(fallback.process(rows()).unwrap().count("eosin"), 3);
    assert_eq!(fallback.counter("degenerate"), 1);
    fallback.end().unwrap();
}

#[test]
fn parameters_that_cannot_be_used_are_named() {
    let png = file("tumour.png");
    let json = file("statistics.json");
    let refused = |setup: harness::Setup| {
        let error = setup.start().err().unwrap();
        (
            error.of_which_param().to_owned(),
            error.message().to_owned(),
        )
    };
    let normalise = harness::stage::<Normalise>;
    let cases = [
        (
            normalise().set("eosin", "0.1 0.2"),
            "eosin",
            "2 numbers, and 3 are wanted",
        ),
        (
            normalise().set("eosin", "0.5626 0.7201 0.4062"),
            "eosin",
            "same direction",
        ),
        (
            normalise().set("concentrations", "1 0"),
            "concentrations",
            "not greater than 0",
        ),
        (
            normalise().set("mean", "1 2 3"),
            "mean",
            "it is of method = \"reinhard\"",
        ),
        (
            normalise()
                .set("method", "reinhard")
                .set("deviation", "1 2 0"),
            "deviation",
            "not greater than 0",
        ),
        (
            normalise()
                .set("reference", text(&png))
                .set("eosin", "0 1 0"),
            "eosin",
            "given twice",
        ),
        (
            normalise().set("reference", text(&json)),
            "reference",
            "no file of stain.measure",
        ),
        (
            normalise().set("reference", text(&file("make.py"))),
            "reference",
            "neither PNG nor JPEG",
        ),
        (
            normalise().set("source", text(&file(""))),
            "source",
            "none of its folders has a file stain.json",
        ),
        (
            harness::stage::<Separate>().set("eosin", "0 0 0"),
            "eosin",
            "has no direction",
        ),
        (
            harness::stage::<Separate>().set("eosin", "6.5 7 2.9"),
            "eosin",
            "direction of `haematoxylin`",
        ),
        (
            harness::stage::<Separate>().set("source", text(&file(""))),
            "source",
            "it is of method = \"macenko\"",
        ),
    ];
    for (setup, param, message) in cases {
        let (which, what) = refused(setup);
        assert_eq!(which, param, "{what}");
        assert!(what.contains(message), "{what}");
    }
}
