//! Reduces, sinks and sources in a process of their own do as they do in this one; when it dies, the slides that it held fail.
#![allow(clippy::unwrap_used)]

mod programs;
mod sins;

use sins::{Way, feature, info, made, way};
use std::sync::Arc;
use weir_record::{Body, End, SlideId, SlideInfo, Tally, TileId};
use weir_runtime::stage::{Completed, Cx, Emit, Prepared, Step};

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

/// A reduce over slides `a` and `b`, whose rows come in turns; slide `a` has a row that may kill.
fn pooled(how: &str, isolated: bool) -> Vec<String> {
    let made = made("sins.pool", how, &way(isolated)).unwrap();
    let Prepared::Reduce(make) = &made.prepared else {
        panic!("no reduce");
    };
    let mut reduce = make();
    let mut heard = Heard::default();
    let slides: Vec<SlideId> = (0..3).map(|slide| SlideId::new(0, slide)).collect();
    let mut cx = Cx::new(&mut heard);
    for &slide in &slides[..2] {
        reduce.opened(slide, &info(["a", "b"][slide.number() as usize]), &mut cx);
    }
    // More than are handed over at once.
    for i in 0..300 {
        for slide in 0..2 {
            let kills = slide == 0 && i == 290;
            let (key, body) = feature(slide, i, if kills { 13.0 } else { 1.0 });
            reduce.row(0, key, Some(body), &mut cx);
        }
    }
    for &slide in &slides[..2] {
        reduce.complete(0, slide, &done(), &mut cx);
        reduce.closed(slide);
    }
    // A slide that begins later knows nothing of it.
    reduce.opened(slides[2], &info("c"), &mut cx);
    let (key, body) = feature(2, 0, 5.0);
    reduce.row(0, key, Some(body), &mut cx);
    reduce.complete(0, slides[2], &done(), &mut cx);
    reduce.closed(slides[2]);
    heard.0
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
