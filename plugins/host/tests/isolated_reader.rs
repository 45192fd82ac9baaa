//! A slide reader in a process of its own gives the bits that it gives in this one; what ends its process fails the read that did.
#![allow(clippy::unwrap_used)]

mod programs;
mod sins;

use programs::program;
use sins::admitted;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_plugin_host::{Isolated, Loaded, Plugins, openers};
use weir_record::Budget;
use weir_slide::{Fault, OpenOptions, Region, SlideError, SlideReader, open_and_tell};

/// Where the reader sins, px of level 0.
const SIN: (u32, u32) = (20, 10);

fn options(isolated: bool, timeout: Duration) -> OpenOptions {
    let mut plugins = Plugins::default();
    match isolated {
        true => {
            let isolated = Isolated::new(Arc::new(admitted()), program()).unwrap();
            isolated.loaded().unwrap();
            plugins.isolated.push(isolated);
        }
        false => plugins.loaded.push(Loaded::new(&admitted()).unwrap()),
    }
    OpenOptions {
        openers: openers(&plugins),
        timeout: Some(timeout),
        ..OpenOptions::default()
    }
}

fn file(folder: &Path, how: &str) -> PathBuf {
    let path = folder.join("slide.sin");
    std::fs::write(&path, format!("SINS {how}\n")).unwrap();
    path
}

fn opened(
    how: &str,
    isolated: bool,
    timeout: Duration,
) -> (tempfile::TempDir, Arc<dyn SlideReader>) {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), how);
    let (slide, choice) = open_and_tell(&path, &options(isolated, timeout)).unwrap();
    assert_eq!(choice.reader, "sins");
    (folder, slide)
}

fn read(slide: &dyn SlideReader, (x, y): (u32, u32), side: u32) -> Result<Vec<u8>, SlideError> {
    let mut pixels = vec![0; (side * side * 3) as usize];
    let region = Region {
        x: x.into(),
        y: y.into(),
        w: side.into(),
        h: side.into(),
    };
    slide.read(region, 0, side, side, &mut pixels)?;
    Ok(pixels)
}

/// Corners of 8 px, of which one region has the sin.
fn corners() -> impl Iterator<Item = (u32, u32)> {
    (0..6).flat_map(|row| (0..8).map(move |column| (column * 8, row * 8)))
}

fn sinful((x, y): (u32, u32)) -> bool {
    (x..x + 8).contains(&SIN.0) && (y..y + 8).contains(&SIN.1)
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn tiles_facts_and_pictures_are_the_same_to_the_bit() {
    let (_here, here) = opened("nothing", false, LONG);
    let (_there, there) = opened("nothing", true, LONG);
    let facts = |slide: &Arc<dyn SlideReader>| {
        let facts = slide.facts();
        (
            facts.reader.clone(),
            facts.vendor.clone(),
            format!("{:?} {:?} {:?}", facts.levels, facts.mpp, facts.associated),
            facts.properties.clone(),
        )
    };
    assert_eq!(facts(&there), facts(&here));
    assert_eq!(
        there.associated("label").unwrap(),
        here.associated("label").unwrap()
    );
    // Beyond the edge, across tiles, of another level.
    for side in [1, 7, 16, 33, 64] {
        for corner in [(0, 0), (3, 5), (17, 9), (40, 30), (63, 47)] {
            let read = |slide: &Arc<dyn SlideReader>| read(slide.as_ref(), corner, side).unwrap();
            assert_eq!(read(&there), read(&here), "{corner:?} {side}");
        }
    }
    assert_eq!(
        there.thumbnail(20).unwrap().pixels,
        here.thumbnail(20).unwrap().pixels
    );
}

/// A corner, and what was read there.
type Got = ((u32, u32), Result<Vec<u8>, SlideError>);

/// What so many threads read of a slide, by corner.
fn all(slide: &Arc<dyn SlideReader>, threads: usize) -> Vec<Vec<Got>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    corners()
                        .map(|at| (at, read(slide.as_ref(), at, 8)))
                        .collect()
                })
            })
            .collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    })
}

fn only_the_sin_fails(how: &str, timeout: Duration, said: &str) {
    let (_here, here) = opened("nothing", false, LONG);
    let (folder, there) = opened(how, true, timeout);
    let path = folder.path().join("slide.sin");
    for thread in all(&there, 4) {
        for (at, got) in thread {
            match (sinful(at), got) {
                (false, got) => assert_eq!(got.unwrap(), read(here.as_ref(), at, 8).unwrap()),
                (true, Ok(_)) => panic!("{how}: {at:?} was read"),
                (true, Err(error)) => {
                    assert_eq!(error.fault, Fault::Damaged);
                    let place = format!("at {}, level 0, 8 x 8 px from (16, 8)", path.display());
                    assert_eq!(error.what, format!("plugin `sins` 0.1.0{said} {place}"));
                }
            }
        }
    }
}

#[test]
fn a_region_that_ends_the_process_fails_alone_and_is_named() {
    for (how, said) in [
        (
            "abort",
            "'s process was killed by signal 6 (Aborted) [E0521]",
        ),
        (
            "segv",
            "'s process was killed by signal 11 (Segmentation fault) [E0521]",
        ),
        (
            "overrun",
            "'s process was killed by signal 11 (Segmentation fault) [E0521]",
        ),
        ("exit", "'s process ended with exit status 7 [E0521]"),
    ] {
        only_the_sin_fails(how, LONG, said);
    }
}

#[test]
fn a_region_that_hangs_is_ended_when_its_time_is_over() {
    let since = Instant::now();
    let timeout = Duration::from_secs(2);
    only_the_sin_fails("sleep", timeout, " did not answer within 2s [E0523]");
    assert!(since.elapsed() < Duration::from_secs(90));
}

#[test]
fn a_slide_of_which_three_regions_in_a_row_hang_is_asked_about_no_more_and_others_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(true, Duration::from_secs(2));
    let open = |how: &str| {
        let path = folder.path().join(format!("{how}.sin"));
        std::fs::write(&path, format!("SINS {how}\n")).unwrap();
        open_and_tell(&path, &options).unwrap().0
    };
    let (hangs, well) = (open("sleep"), open("nothing"));
    for x in 14..17 {
        let error = read(hangs.as_ref(), (x, 8), 8).unwrap_err();
        assert!(error.what.contains("did not answer within 2s"), "{error}");
        read(well.as_ref(), (x, 8), 8).unwrap();
    }
    for at in [(17, 8), (0, 0)] {
        let error = read(hangs.as_ref(), at, 8).unwrap_err();
        let told = "did not answer 3 times in a row about slide `";
        assert!(error.what.contains(told), "{error}");
        assert_eq!(error.fault, Fault::Damaged);
    }
    read(well.as_ref(), (0, 0), 8).unwrap();
}

/// As on a disk that stands still: after the first region that hangs the slide can be opened no more either.
#[test]
fn a_slide_that_hangs_when_it_is_opened_again_is_asked_about_no_more_after_three_regions() {
    let (_folder, slide) = opened("once", true, Duration::from_secs(4));
    // One that is tried again counts once.
    for x in [14, 15, 15, 16] {
        let error = read(slide.as_ref(), (x, 8), 8).unwrap_err();
        assert!(error.what.contains("did not answer within 4s"), "{error}");
        assert_eq!(error.what.contains("was opened"), x > 14, "{error}");
    }
    let error = read(slide.as_ref(), (17, 8), 8).unwrap_err();
    let told = "did not answer 3 times in a row about slide `";
    assert!(error.what.contains(told), "{error}");
}

#[test]
fn a_slide_that_cannot_be_opened_another_time_is_asked_about_no_more() {
    let (_folder, slide) = opened("once", true, Duration::from_secs(4));
    for _ in 0..3 {
        let error = slide.reopen().err().unwrap();
        assert!(error.what.contains("did not answer within 4s"), "{error}");
    }
    let error = slide.reopen().err().unwrap();
    let told = "did not answer 3 times in a row about slide `";
    assert!(error.what.contains(told), "{error}");
}

#[test]
fn a_slide_of_which_a_hundred_regions_in_a_row_kill_is_asked_about_no_more_and_others_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(true, LONG);
    let open = |how: &str| {
        let path = folder.path().join(format!("{how}.sin"));
        std::fs::write(&path, format!("SINS {how}\n")).unwrap();
        open_and_tell(&path, &options).unwrap().0
    };
    let (kills, well) = (open("exit"), open("nothing"));
    let regions = (0..=10).flat_map(|y| (9..=20).map(move |x| (x, y)));
    for (number, at) in regions.enumerate() {
        let error = read(kills.as_ref(), at, 12).unwrap_err();
        let told = match number < 100 {
            true => "'s process ended with exit status 7 [E0521] at ",
            false => "'s process was lost 100 times in a row at slide `",
        };
        assert!(error.what.contains(told), "{number}: {error}");
        read(well.as_ref(), at, 12).unwrap();
    }
    assert!(read(kills.as_ref(), (40, 30), 8).is_err());
}

/// The plugin ends the process when a handle that panicked is used or closed.
#[test]
fn a_handle_that_panicked_is_used_no_more_and_another_is_opened() {
    for isolated in [false, true] {
        let (_well, well) = opened("nothing", false, LONG);
        let (_folder, slide) = opened("panic", isolated, LONG);
        // In this process several threads read from one handle, of which one may be in a call when it panics in another's.
        let threads = if isolated { 4 } else { 1 };
        for thread in all(&slide, threads) {
            for (at, got) in thread {
                match (sinful(at), got) {
                    (true, got) => {
                        let error = got.unwrap_err();
                        assert!(error.what.contains("panicked"), "{error}");
                        assert!(error.what.contains("[E0522]"), "{error}");
                    }
                    (false, got) => assert_eq!(got.unwrap(), read(well.as_ref(), at, 8).unwrap()),
                }
            }
        }
    }
}

#[test]
fn a_file_that_was_opened_against_the_rules_is_closed_and_one_that_kills_is_refused() {
    for isolated in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let options = options(isolated, LONG);
        let path = file(folder.path(), "breach");
        let refused = open_and_tell(&path, &options).err().unwrap();
        assert!(refused.what.contains("[E0520]"), "{refused}");
        assert!(
            folder.path().join("slide.sin.closed").exists(),
            "isolated: {isolated}"
        );
        let path = file(folder.path(), "foreign");
        let refused = open_and_tell(&path, &options).err().unwrap();
        assert_eq!(refused.fault, Fault::NotASlide);
        if isolated {
            let path = file(folder.path(), "die-in-open");
            let refused = open_and_tell(&path, &options).err().unwrap();
            assert!(
                refused
                    .what
                    .contains("was killed by signal 6 (Aborted) [E0521] while"),
                "{refused}"
            );
            // The next one is read by the next process.
            let path = file(folder.path(), "nothing");
            assert!(open_and_tell(&path, &options).is_ok());
        }
    }
}

#[test]
fn a_look_at_a_file_has_the_time_that_is_given_and_what_came_of_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let since = Instant::now();
    let options = options(true, Duration::from_secs(2));
    for (how, said) in [
        ("loop-at-sight", " did not answer within 2s [E0523]"),
        (
            "die-at-sight",
            "'s process was killed by signal 6 (Aborted) [E0521]",
        ),
    ] {
        let path = file(folder.path(), how);
        let refused = open_and_tell(&path, &options).err().unwrap();
        let place = format!("while it looked at {}", path.display());
        let told = format!("sins declined it: plugin `sins` 0.1.0{said} {place}");
        assert!(refused.what.contains(&told), "{refused}");
        assert!(
            how == "die-at-sight" || refused.help.contains("--timeout"),
            "{refused}"
        );
        // The next file is looked at by the next process.
        let path = file(folder.path(), "nothing");
        assert!(open_and_tell(&path, &options).is_ok());
    }
    assert!(since.elapsed() < Duration::from_secs(60));
}

/// What a process shares for regions is missing in the run's budget, and is the run's again when the reader is gone.
#[test]
fn regions_of_an_isolated_reader_are_part_of_the_runs_memory() {
    for isolated in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "nothing");
        let budget = Budget::new(1 << 30);
        let options = OpenOptions {
            budget: Some(budget.clone()),
            ..options(isolated, LONG)
        };
        let (slide, _) = open_and_tell(&path, &options).unwrap();
        assert_eq!(budget.leased(), 0, "isolated: {isolated}");
        // The slide has 64 x 48 px.
        for side in (1..=64).chain((1..=64).rev()) {
            read(slide.as_ref(), (0, 0), side).unwrap();
        }
        let leased = budget.leased();
        match isolated {
            // One memory a power of two, each between two pages that nobody may touch.
            true => assert!((64 * 48 * 3..2 << 20).contains(&leased), "{leased}"),
            false => assert_eq!(leased, 0),
        }
        drop((slide, options));
        assert_eq!(budget.leased(), 0, "isolated: {isolated}");
    }
}
