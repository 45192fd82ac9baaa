//! How long a plugin may take: its slide reader where there is no run, in `weir inspect` and in `weir train`; and in a run what hangs
//! where nobody waits with a time of its own.

use crate::openslide::RECIPE;
use crate::program::{Said, command, said, weir};
use crate::sinner::{APART, From, failures, hangs, lost_a, of_b, plugin, run, run_own, said_until};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Far less than the 60 s that a reader has by itself.
const SOON: Duration = Duration::from_secs(40);
const LATE: &str = "plugin `sin` 0.1.0 did not answer within 1s [E0523]";

/// A slide of the plugin's that hangs so.
fn glass(folder: &Path, name: &str, sin: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, format!("SINGLASS{sin}")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn inspect_waits_for_a_reader_in_its_own_process_as_long_as_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.toml");
    std::fs::write(&rules, "isolate = \"always\"\n").unwrap();
    let inspect = |slide: &str| {
        let mut weir = command(["inspect", slide, "--timeout", "1s"]);
        weir.env("WEIR_PLUGIN_PATH", plugin().parent().unwrap());
        weir.env("WEIR_RULES", &rules);
        let said = said(weir);
        assert!(said.took < SOON, "{:?}", said.took);
        said
    };
    // When it is asked whether the slide is its own, and when it reads it.
    let slide = glass(folder.path(), "sight.glass", "sight");
    let said = inspect(&slide).exits(1);
    let place = format!("sin declined it: {LATE} while it looked at {slide}");
    assert!(said.err.contains(&place), "{}", said.err);
    assert!(said.err.contains("--timeout"), "{}", said.err);
    let said = inspect(&glass(folder.path(), "loop.glass", "loop")).exits(3);
    assert!(said.out.contains(LATE), "{}", said.out);
    let said = inspect(&glass(folder.path(), "well.glass", "none")).exits(0);
    assert!(said.out.contains("chosen      sin,"), "{}", said.out);
}

#[test]
fn a_time_without_its_unit_is_refused() {
    let said = weir(["inspect", "slide.svs", "--timeout", "5"]).exits(2);
    assert!(said.err.contains("as 20ms, 60s or 5m"), "{}", said.err);
}

/// A training on two slides, the first of which has the sin; `more`: lines of the plugin's table.
fn training(folder: &Path, sin: &str, timeout: &str, more: &str) -> Command {
    let mut bags = String::from("bag,slide,split,label,tiles\n");
    for split in ["train", "val"] {
        for bag in 0..4 {
            let label = ["no", "yes"][bag % 2];
            let y = 16 * bag;
            bags += &format!("{split}-{bag},{split},{split},{label},0:{y} 16:{y} 32:{y}\n");
        }
    }
    glass(folder, "train.glass", sin);
    glass(folder, "val.glass", "none");
    std::fs::write(folder.join("bags.csv"), bags).unwrap();
    let manifest = "slide,path,label,split\ntrain,train.glass,yes,train\nval,val.glass,yes,val\n";
    std::fs::write(folder.join("manifest.csv"), manifest).unwrap();
    let recipe = RECIPE.replace("mpp = 12.0", "mpp = 1.0");
    let recipe = format!(
        "{recipe}[data]\ntimeout = {timeout:?}\n[plugin.sin]\npath = {:?}\n{more}\n",
        plugin()
    );
    std::fs::write(folder.join("recipe.toml"), recipe).unwrap();
    command([
        "train".as_ref(),
        folder.join("recipe.toml").as_os_str(),
        "--data".as_ref(),
        folder.as_os_str(),
        "--out".as_ref(),
        folder.join("out").as_os_str(),
    ])
}

/// It with the plugin in a process of its own.
fn train(folder: &Path, sin: &str, timeout: &str) -> Said {
    let said = said(training(folder, sin, timeout, APART));
    assert!(said.took < SOON, "{:?}", said.took);
    said
}

#[test]
fn a_training_waits_for_a_reader_in_its_own_process_as_long_as_its_recipe_says() {
    for sin in ["sight", "loop"] {
        let folder = tempfile::tempdir().unwrap();
        let said = train(folder.path(), sin, "1s").exits(1);
        assert!(said.err.contains(LATE), "{sin}: {}", said.err);
        assert!(
            said.err.contains("`timeout` in [data]"),
            "{sin}: {}",
            said.err
        );
    }
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), "none", "5m").exits(0);
    let said = train(folder.path(), "none", "soon").exits(2);
    let line = RECIPE.lines().count() + 2;
    assert!(
        said.err.contains(&format!("recipe.toml:{line}:"))
            && said.err.contains("`soon` is no time with its unit"),
        "{}",
        said.err
    );
}

/// In weir's own process nothing can end it; the user is told what hangs, and what would.
#[test]
fn what_hangs_in_this_process_is_named_with_its_function_and_its_slide() {
    for (sin, stage, function) in [
        ("loop-slide", "tiles", "`slide`"),
        ("loop-open", "tiles", "`open` of slide `a`"),
        ("loop-next", "tiles", "`next` of slide `a`"),
        ("loop-close", "tiles", "`close` of slide `a`"),
        ("loop", "pick", "`complete_slide` of slide `a`"),
        ("loop-close", "pick", "`close_slide` of slide `a`"),
        ("loop", "write", "`complete_slide` of slide `a`"),
    ] {
        let word = format!("{stage}: plugin `sin` 0.1.0 has been in {function} for ");
        let said = hangs(&From::Source, sin, stage, &word);
        assert!(said.contains(&word), "{sin} at {stage}: {word}: {said}");
        for part in [
            "[E0523]",
            "in a process of its own (`isolate`) it would be ended",
            "run.timeout",
        ] {
            assert!(said.contains(part), "{sin} at {stage}: {part}: {said}");
        }
    }
}

/// Whoever reads the slide: a run, `weir inspect`, a training.
#[test]
fn a_slide_reader_that_hangs_in_this_process_is_named_with_its_function_and_its_slide() {
    for (sin, function) in [
        ("sight", "sniff"),
        ("loop-open", "open"),
        ("loop", "read_region"),
        ("loop-close", "close"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let word = format!("sin: plugin `sin` 0.1.0 has been in `{function}` of slide `");
        let run = hangs(&From::Reader(sin), sin, "tiles", &word);
        let slide = glass(folder.path(), "a.glass", sin);
        let mut inspect = command(["inspect", &slide, "--timeout", "300ms"]);
        inspect.env("WEIR_PLUGIN_PATH", plugin().parent().unwrap());
        let inspect = said_until(inspect, &word);
        let train = said_until(training(folder.path(), sin, "300ms", ""), &word);
        for (said, slide, time) in [
            (run, "a.glass", "run.timeout"),
            (inspect, "a.glass", "--timeout"),
            (train, "train.glass", "`timeout` in [data]"),
        ] {
            let slide = format!("{slide}` for ");
            for part in [
                &slide,
                "[E0523]",
                "in a process of its own (`isolate`) it would be ended",
                time,
            ] {
                assert!(said.contains(part), "{function}: {part}: {said}");
            }
        }
    }
}

#[test]
fn what_hangs_of_a_source_in_its_own_process_is_ended() {
    let words = ["plugin `sin` 0.1.0", "E0523"];
    for sin in ["loop-open", "loop-next"] {
        lost_a(sin, &From::Source, "tiles", words, APART, 3);
    }
    // Then the slide is done.
    let (good, wrote) = run_own(&From::Source, "none", "", "", &[0]);
    let (left, written) = run_own(&From::Source, "loop-close", "tiles", APART, &[0]);
    assert_eq!((left.answers, written), (good.answers, wrote));
    assert!(left.err.contains("E0523"), "{}", left.err);
}

#[test]
fn a_plugin_that_hangs_in_destroy_ends_its_run_as_any_other_and_is_named() {
    let (good, wrote) = run_own(&From::Source, "none", "", "", &[0]);
    for stage in ["tiles", "pick", "write"] {
        for more in ["", APART] {
            let began = std::time::Instant::now();
            let (left, written) = run_own(&From::Source, "loop-destroy", stage, more, &[0]);
            assert!(began.elapsed() < SOON * 2, "{stage} {more}");
            assert_eq!(left.answers, good.answers, "{stage} {more}");
            assert_eq!(written, wrote, "{stage} {more}");
            let line = format!("{stage}: plugin `sin` 0.1.0 has been in `destroy` for ");
            // What is in a process of its own ends with it.
            assert_eq!(left.err.contains(&line), more.is_empty(), "{}", left.err);
        }
    }
}

#[test]
fn a_process_that_answers_between_is_started_again_each_time() {
    let good = run("none", "map", APART, 0);
    let left = run("column", "map", APART, 3);
    // The slide has ten rows of tiles, and the first of each hangs.
    let told = failures(&left, "a");
    assert_eq!(told.len(), 10, "{told:?}");
    assert!(
        told.iter()
            .all(|line| line.contains("did not answer within 1s [E0523]"))
    );
    assert_eq!(of_b(&left), of_b(&good));
}
