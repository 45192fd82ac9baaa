//! Reduces, sinks and sources in a process of their own do as they do in this one; when it dies, the slides that it held fail.
#![allow(clippy::unwrap_used)]

mod programs;
mod sins;

use sins::{Made, Way, feature, info, made, way};
use std::sync::Arc;
use weir_record::{Body, End, SlideId, SlideInfo, Tally, TileId};
use weir_runtime::stage::{Completed, Cx, Emit, Prepared, Reduce, Step};

/// What a reduce sent.
#[derive(Default)]
struct Heard(Vec<String>);

impl Emit for Heard {
    fn version(&mut self, _: usize, _: SlideId, _: TileId, body: Body) -> u32 {
        match body {
            Body::Ext(table) => self
                .0
                .push(String::from_utf8_lossy(&table.bytes).into_owned()),
            other => self.0.push(format!("{other:?}")),
        }
        0
    }
    fn seal(&mut self, _: usize, _: SlideId, last: Option<End>) {
        self.0.push(format!("seal {last:?}"));
    }
    fn event(&mut self, _: SlideId, event: weir_record::Event) {
        if let weir_record::Event::SlideFailed(failure) = event {
            self.0.push(format!(
                "slide `{}` failed: {}",
                failure.slide, failure.what
            ));
        }
    }
    fn info(&self, _: SlideId) -> Option<Arc<SlideInfo>> {
        None
    }
}

fn done() -> Completed {
    Completed {
        through: 0,
        end: Some(End::Complete),
        tally: Tally::default(),
    }
}

/// A reduce of one worker, and what it sent.
struct Worker {
    reduce: Box<dyn Reduce>,
    heard: Heard,
}

impl Worker {
    fn of(made: &Made) -> Worker {
        let Prepared::Reduce(make) = &made.prepared else {
            panic!("no reduce");
        };
        Worker {
            reduce: make(),
            heard: Heard::default(),
        }
    }

    fn open(&mut self, slide: u64, name: &str) {
        let mut cx = Cx::new(&mut self.heard);
        self.reduce
            .opened(SlideId::new(0, slide), &info(name), &mut cx);
    }

    /// Row `i` of the slide, with that first number.
    fn row(&mut self, slide: u64, i: i64, first: f32) {
        let (key, body) = feature(slide, i, first);
        let mut cx = Cx::new(&mut self.heard);
        self.reduce.row(0, key, Some(body), &mut cx);
    }

    fn end(&mut self, slide: u64) {
        let id = SlideId::new(0, slide);
        let mut cx = Cx::new(&mut self.heard);
        self.reduce.complete(0, id, &done(), &mut cx);
        self.reduce.closed(id);
    }
}

/// A reduce over slides `a` and `b`, whose rows come in turns; slide `a` has a row that may kill.
fn pooled(how: &str, isolated: bool) -> Vec<String> {
    let made = made("sins.pool", how, &way(isolated)).unwrap();
    let mut worker = Worker::of(&made);
    worker.open(0, "a");
    worker.open(1, "b");
    // More than are handed over at once.
    for i in 0..300 {
        for slide in 0..2 {
            let kills = slide == 0 && i == 290;
            worker.row(slide, i, if kills { 13.0 } else { 1.0 });
        }
    }
    worker.end(0);
    worker.end(1);
    // A slide that begins later knows nothing of it.
    worker.open(2, "c");
    worker.row(2, 0, 5.0);
    worker.end(2);
    worker.heard.0
}

#[test]
fn a_reduce_sums_the_same_and_the_slide_that_its_process_held_fails_alone_when_that_dies() {
    assert_eq!(pooled("", true), pooled("", false));
    let heard = pooled("abort", true);
    assert_eq!(
        heard,
        [
            "slide `a` failed: plugin `sins` 0.1.0's process was killed by signal 6 (Aborted) [E0521] at slide `a`, tiles (2048, 0) to (2392, 0)",
            "seal Some(Aborted)",
            "b 300 600 150",
            "seal Some(Complete)",
            "c 5 2 0.5",
            "seal Some(Complete)",
        ]
    );
}

/// As of a cohort that begins with all the slides that its plugin cannot take.
#[test]
fn however_many_slides_kill_their_process_the_others_are_done() {
    let made = made("sins.pool", "abort", &way(true)).unwrap();
    let mut worker = Worker::of(&made);
    let mut wanted = Vec::new();
    for slide in 0..153u64 {
        let name = format!("s{slide}");
        let kills = slide < 150;
        worker.open(slide, &name);
        worker.row(slide, 0, if kills { 13.0 } else { 4.0 });
        worker.end(slide);
        wanted.extend(match kills {
            true => [
                format!("slide `{name}` failed: plugin `sins` 0.1.0's process was killed by signal 6 (Aborted) [E0521] at slide `{name}`, tile (0, 0)"),
                "seal Some(Aborted)".into(),
            ],
            false => [format!("{name} 4 2 0.5"), "seal Some(Complete)".into()],
        });
    }
    assert_eq!(worker.heard.0, wanted);
    let comes = "; what it held of its slide is lost, and the next slide gets another process";
    let said = made.said();
    assert_eq!(said.lines().count(), 150, "{said}");
    assert!(said.lines().all(|line| line.ends_with(comes)), "{said}");
}

/// As by a thread of the plugin's, or a system that is short of memory.
#[test]
fn a_process_that_ends_when_no_slide_has_it_costs_none() {
    let made = made("sins.pool", "dies-idle", &way(true)).unwrap();
    let mut worker = Worker::of(&made);
    for (slide, name) in [(0, "a"), (1, "b")] {
        worker.open(slide, name);
        worker.row(slide, 0, 4.0);
        worker.end(slide);
        // It has a second.
        std::thread::sleep(std::time::Duration::from_secs(2));
    }
    let all = [
        "a 4 2 0.5",
        "seal Some(Complete)",
        "b 4 2 0.5",
        "seal Some(Complete)",
    ];
    assert_eq!(worker.heard.0, all);
    let said = made.said();
    let told = "plugin `sins` 0.1.0's process was killed by signal 14 (Alarm clock) [E0521] between two calls";
    assert!(said.contains(told), "{said}");
}

#[test]
fn a_plugin_that_never_comes_up_again_is_given_up_by_words() {
    let folder = tempfile::tempdir().unwrap();
    let way = Way {
        out: folder.path().to_owned(),
        ..way(true)
    };
    let made = made("sins.pool", "once", &way).unwrap();
    let mut worker = Worker::of(&made);
    for slide in 0..110 {
        worker.open(slide, "a");
        worker.row(slide, 0, 13.0);
        worker.end(slide);
    }
    let failed: Vec<_> = worker.heard.0.iter().step_by(2).collect();
    assert_eq!(failed.len(), 110);
    assert!(
        failed[0].ends_with("at slide `a`, tile (0, 0)"),
        "{failed:?}"
    );
    assert!(
        failed[1].ends_with("was killed by signal 6 (Aborted) [E0521] while it was made"),
        "{failed:?}"
    );
    let over = "died more than 100 times in a row before it was ready [E0521] and is not started again in this run";
    assert!(failed[109].ends_with(over), "{failed:?}");
    let said = made.said();
    for part in [
        "; the next slide gets another (1 of 100)",
        "; it is not started again",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// A batch of features is copied for a process, into 1 MiB at least; a sixteenth of the run's memory is 64 MiB.
#[test]
fn of_processes_that_keep_too_much_the_greediest_is_ended_and_the_others_go_on() {
    let made = made("sins.pool", "hoard", &way(true)).unwrap();
    let mut worker = Worker::of(&made);
    let mut rows = [0i64; 3];
    // So many batches of slide `a`, `b` or `c`, which are kept.
    let mut keeps = |worker: &mut Worker, slide: usize, batches: usize| {
        for _ in 0..256 * batches {
            worker.row(slide as u64, rows[slide], 7.0);
            rows[slide] += 1;
        }
    };
    for (slide, name) in ["a", "b", "c"].into_iter().enumerate() {
        worker.open(slide as u64, name);
    }
    keeps(&mut worker, 0, 1);
    keeps(&mut worker, 1, 41);
    keeps(&mut worker, 2, 22);
    assert_eq!(made.said(), "");
    // It is found out by a call of the one that keeps least.
    keeps(&mut worker, 0, 1);
    let said = made.said();
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in [
        "broke the contract [E0520]: it keeps 64 batches",
        "; what it held of its slide is lost, and the next slide gets another process",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    (0..3).for_each(|slide| worker.end(slide));
    let lost = "lost what it held of the slide when it panicked, hung or died [E0521]";
    assert_eq!(
        worker.heard.0,
        [
            "a 3584 1024 256",
            "seal Some(Complete)",
            &format!("slide `b` failed: plugin `sins` 0.1.0 {lost}"),
            "seal Some(Aborted)",
            "c 39424 11264 2816",
            "seal Some(Complete)",
        ]
    );
}

#[test]
fn a_place_that_comes_twice_fails_the_slide_at_a_reduce_that_takes_each_once() {
    for isolated in [false, true] {
        let made = made("sins.once", "", &way(isolated)).unwrap();
        let mut worker = Worker::of(&made);
        worker.open(0, "a");
        worker.open(1, "b");
        for i in 0..3 {
            worker.row(0, i, 1.0);
            worker.row(1, i, 1.0);
        }
        worker.row(0, 1, 2.0);
        worker.end(0);
        worker.end(1);
        assert_eq!(
            worker.heard.0,
            [
                "slide `a` failed: tile (8, 0) was withdrawn, or sent a second time, and the stage is batch-only: plugin `sins` 0.1.0 takes what holds once",
                "seal Some(Aborted)",
                "b 3 6 1.5",
                "seal Some(Complete)",
            ],
            "isolated: {isolated}"
        );
        assert!(made.said().is_empty(), "{}", made.said());
    }
}

#[test]
fn a_sink_writes_the_same_and_a_slide_that_its_process_held_is_an_error() {
    for how in ["", "abort"] {
        let texts = [false, true].map(|isolated| {
            if !isolated && how == "abort" {
                return Vec::new();
            }
            let folder = tempfile::tempdir().unwrap();
            let way = Way {
                out: folder.path().to_owned(),
                ..way(isolated)
            };
            let made = made("sins.write", how, &way).unwrap();
            let Prepared::Sink(make) = &made.prepared else {
                panic!("no sink");
            };
            let mut sink = make();
            let mut said = Vec::new();
            for slide in 0..2 {
                let id = SlideId::new(0, slide);
                sink.opened(id, &info(["a", "b"][slide as usize])).unwrap();
                let (key, body) = feature(slide, 1, if slide == 0 { 13.0 } else { 4.0 });
                sink.row(0, key, body).unwrap();
                let ended = sink.ended(id, &[done()]);
                sink.closed(id);
                said.push(ended.map_or_else(
                    |error| error.what,
                    |()| {
                        let file = folder.path().join(["a.txt", "b.txt"][slide as usize]);
                        std::fs::read_to_string(file).unwrap()
                    },
                ));
            }
            sink.finish().unwrap();
            said
        });
        match how {
            "" => assert_eq!(texts[0], texts[1]),
            _ => {
                assert!(
                    texts[1][0].contains("(Aborted) [E0521] at slide `a`"),
                    "{texts:?}"
                );
                assert_eq!(texts[1][1], "4\n");
            }
        }
    }
}

/// All that a source sends of its slides, with the tiles' first bytes or why they could not be read.
fn sourced(how: &str, isolated: bool) -> Vec<String> {
    let made = made("sins.source", how, &way(isolated)).unwrap();
    let Prepared::Source(source) = &made.prepared else {
        panic!("no source");
    };
    let mut said = Vec::new();
    for slide in source.slides() {
        let mut opened = source.open(slide).unwrap();
        said.push(format!("{:?}", opened.info));
        loop {
            match opened.script.next() {
                Step::Tile { tile, rev, .. } => {
                    let mut into = vec![0; 192];
                    let read = opened.reader.read(tile, rev, &mut into);
                    said.push(format!("{tile:?} {:?}", read.map(|()| into[191])));
                }
                Step::Done => break,
                other => said.push(format!("{other:?}")),
            }
        }
    }
    said
}

#[test]
fn a_list_of_slides_without_end_is_refused() {
    let error = made("sins.source", "endless", &way(false)).err().unwrap();
    assert!(
        error.what.contains("its list of slides does not end"),
        "{error}"
    );
}

#[test]
fn a_slide_that_was_opened_against_the_rules_is_closed() {
    for isolated in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let way = Way {
            out: folder.path().to_owned(),
            ..way(isolated)
        };
        let made = made("sins.source", "breach", &way).unwrap();
        let Prepared::Source(source) = &made.prepared else {
            panic!("no source");
        };
        let slides = source.slides();
        let closed = folder.path().join("closed");
        assert!(source.open(&slides[0]).is_ok() && !closed.exists());
        let refused = source.open(&slides[1]).err().unwrap();
        assert!(refused.what.contains("[E0520]"), "{}", refused.what);
        assert!(closed.exists(), "isolated: {isolated}");
    }
}

/// The plugin ends the process when a slide that panicked is used or closed.
#[test]
fn a_slide_whose_read_panicked_fails_and_is_touched_no_more() {
    for isolated in [false, true] {
        let (well, said) = (sourced("", false), sourced("panic", isolated));
        assert_eq!(said[..6], well[..6]);
        assert_eq!(said[said.len() - 6..], well[well.len() - 6..]);
        let of_second = said[6..said.len() - 6].join("\n");
        assert!(of_second.contains("panicked [E0522]"), "{of_second}");
        assert!(of_second.contains("SlideFailed"), "{of_second}");
        assert!(
            of_second.contains("panicked before [E0522], and this slide is asked for no more"),
            "{of_second}"
        );
    }
}

#[test]
fn of_a_slide_that_is_done_nothing_is_lost_when_its_process_dies_as_it_is_closed() {
    let made = made("sins.source", "die-in-close", &way(true)).unwrap();
    let Prepared::Source(source) = &made.prepared else {
        panic!("no source");
    };
    for slide in source.slides() {
        let opened = source.open(slide).unwrap();
        drop(opened);
    }
    let said = made.said();
    assert_eq!(said.lines().count(), 3, "{said}");
    let comes = "` was closed; the next slide gets another process";
    assert!(said.lines().all(|line| line.ends_with(comes)), "{said}");
}

#[test]
fn a_source_gives_the_same_and_a_slide_whose_process_dies_fails() {
    assert_eq!(sourced("", true), sourced("", false));
    let (well, said) = (sourced("", true), sourced("abort", true));
    // The first and the last slide are the same.
    assert_eq!(said[..6], well[..6]);
    assert_eq!(said[said.len() - 6..], well[well.len() - 6..]);
    let of_second = said[6..said.len() - 6].join("\n");
    assert!(
        of_second.contains("(Aborted) [E0521] at slide `s1`, tile (16, 0)"),
        "{of_second}"
    );
    assert!(of_second.contains("SlideFailed"), "{of_second}");
}
