//! In this process too each open slide has an instance of a reduce or sink to itself: a panic takes that slide alone, and what the
//! manifest says of calls at once holds over all of them.
#![allow(clippy::unwrap_used)]

mod programs;

use programs::{Made, Way, compiled_text, node, plugins, values};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant};
use weir_pipeline::Value;
use weir_plugin_host::Described;
use weir_record::{Body, End, Event, Key, SlideId, SlideInfo, SlideKey, Tally, TileBuf, TileId};
use weir_runtime::stage::{Completed, Cx, Emit, Prepared, Reduce, Sink};

/// Side of a tile, px.
const SIDE: u32 = 8;

/// Of a slide each instance says who it is, how many instances there were and are gone, how many calls there were at most at once in all
/// of them, how many tiles of the slide it has, and how many calls about another slide came between. It panics at a tile whose first
/// byte is 13; one of 14 takes two seconds, and so does destroying an instance that had one of 16; of one of 15 it takes for ever.
const CODE: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
typedef struct { int made, gone, inside, most; } shared;
typedef struct { const weir_host *host; shared *of; uint64_t slide; int number, tiles, mixed, stays; } own;

static void in(own *it, uint64_t slide) {
  const int now = __atomic_add_fetch(&it->of->inside, 1, __ATOMIC_SEQ_CST);
  int most = it->of->most;
  while (now > most && !__atomic_compare_exchange_n(&it->of->most, &most, now, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
  if (it->slide == UINT64_MAX) it->slide = slide;
  if (it->slide != slide) it->mixed++;
  usleep(2000);
}
static weir_status out(own *it, weir_status said) {
  __atomic_sub_fetch(&it->of->inside, 1, __ATOMIC_SEQ_CST);
  return said;
}
static weir_status made(const weir_host *host, shared *of, void **self) {
  own *it = calloc(1, sizeof *it);
  if (!it) return WEIR_E_MEMORY;
  *it = (own){host, of, UINT64_MAX, __atomic_add_fetch(&of->made, 1, __ATOMIC_SEQ_CST), 0, 0, 0};
  *self = it;
  return WEIR_OK;
}
static void destroy(void *self) {
  own *it = self;
  if (it->stays == 16) usleep(2000000);
  for (volatile int on = it->stays == 15; on;) usleep(1000);
  __atomic_add_fetch(&it->of->gone, 1, __ATOMIC_SEQ_CST);
  free(it);
}
static weir_status process(void *self, weir_call *call, uint32_t port, const weir_batch *batch) {
  own *it = self;
  (void)port;
  in(it, batch->rows[0].key.slide);
  it->tiles += (int)batch->n_rows;
  const uint8_t first = *(const uint8_t *)batch->columns[0].rows[0];
  if (first == 14) usleep(2000000);
  if (first == 15 || first == 16) it->stays = first;
  if (first != 13) return out(it, WEIR_OK);
  const weir_error error = {{"src/lib.rs:1: on purpose", 24}, {0, 0}, {0, 0}};
  it->host->fail(call, &error);
  return out(it, WEIR_E_PANIC);
}
static weir_status withdraw(void *self, weir_call *call, uint32_t port, const weir_row *rows, uint32_t n) {
  own *it = self;
  (void)call, (void)port;
  in(it, rows[0].key.slide);
  it->tiles -= (int)n;
  return out(it, WEIR_OK);
}
static int told(own *it, char *into, size_t len) {
  return snprintf(into, len, "%d %d %d %d %d %d", it->number, it->of->made, it->of->gone, it->of->most, it->tiles, it->mixed);
}
static weir_status answer(void *self, weir_call *call, const weir_slide *slide, uint32_t rev, uint32_t end) {
  own *it = self;
  char text[200];
  (void)rev, (void)end;
  in(it, slide->number);
  return out(it, it->host->table(call, 0, UINT32_MAX, text, (size_t)told(it, text, sizeof text)));
}
static weir_status log_it(void *self, weir_call *call, const weir_slide *slide, uint32_t rev, uint32_t end) {
  own *it = self;
  char text[200];
  (void)rev, (void)end;
  in(it, slide->number);
  it->host->log(call, WEIR_LOG_INFO, (weir_str){text, (size_t)told(it, text, sizeof text)});
  return out(it, WEIR_OK);
}
static void forget(void *self, uint64_t slide) {
  own *it = self;
  in(it, slide);
  it->slide = UINT64_MAX;
  it->tiles = it->mixed = 0;
  out(it, WEIR_OK);
}
static weir_status finish(void *self, weir_call *call) { (void)self, (void)call; return WEIR_OK; }
"#;

/// Its stages: (id, `rows`, `concurrency`, whether it has a `finish`). Each test has its own, since what they count is the process's.
const STAGES: [(&str, &str, &str, bool); 10] = [
    ("turns.serial", "reduce", "serial", false),
    ("turns.parallel", "reduce", "parallel", false),
    ("turns.own", "reduce", "per-worker", false),
    ("turns.panics", "reduce", "serial", false),
    ("turns.forgets", "reduce", "serial", false),
    ("turns.slow", "reduce", "serial", false),
    ("turns.stays", "reduce", "serial", false),
    ("turns.lingers", "reduce", "serial", false),
    ("turns.write", "sink", "serial", false),
    ("turns.whole", "sink", "serial", true),
];

fn built() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let about = STAGES.map(|(id, rows, concurrency, _)| {
            let out = match rows {
                "reduce" => r#","out":[{"name":"told","kind":"table"}]"#,
                _ => "",
            };
            format!(
                r#"{{"id":"{id}","summary":"Counts","rows":"{rows}","concurrency":"{concurrency}","in":[{{"name":"tiles","kind":"pixels","shape":["height","width",3],"mpp":"mpp"}}]{out}}}"#
            )
        });
        let manifest = format!(
            r#"{{"weir-abi":"1.0","name":"turns","version":"1.0.0","summary":"Counts","stages":[{}]}}"#,
            about.join(",")
        );
        let mut text = format!("#include \"weir_plugin.h\"\nWEIR_MANIFEST({manifest:?});\n{CODE}");
        for (at, (id, rows, concurrency, finishes)) in STAGES.into_iter().enumerate() {
            let flags = match concurrency {
                "parallel" => "WEIR_STAGE_PARALLEL",
                _ => "0",
            };
            let complete = if rows == "reduce" { "answer" } else { "log_it" };
            let finish = if finishes { "finish" } else { "NULL" };
            text += &format!(
                "static shared S{at};
static weir_status create{at}(const weir_host *host, weir_call *call, const weir_value *values, uint32_t n, void **self) {{
  (void)call, (void)values, (void)n;
  return made(host, &S{at}, self);
}}
static const weir_stage T{at} = {{.struct_size = sizeof(weir_stage), .flags = {flags}, .id = \"{id}\", .create = create{at}, .destroy = destroy, .process = process, .remove = withdraw, .complete_slide = {complete}, .close_slide = forget, .finish = {finish}}};\n"
            );
        }
        let tables = (0..STAGES.len()).map(|at| format!("&T{at}"));
        text += &format!(
            "static const weir_stage *const STAGES[] = {{{}}};
static const weir_plugin PLUGIN = {{.struct_size = sizeof PLUGIN, .abi_minor = WEIR_ABI_MINOR, .manifest = weir_manifest, .stages = STAGES, .n_stages = {}}};
WEIR_EXPORT weir_status weir_plugin_v1(const weir_host *host, weir_call *call, const weir_plugin **out) {{
  (void)host, (void)call;
  *out = &PLUGIN;
  return WEIR_OK;
}}
",
            tables.collect::<Vec<_>>().join(", "),
            STAGES.len()
        );
        let so = folder.path().join("libturns.so");
        compiled_text(&text, &so, &[]);
        (folder, so)
    });
    path
}

fn made(id: &str, timeout: Duration) -> Made {
    made_so(id, timeout, false)
}

fn made_so(id: &str, timeout: Duration, isolated: bool) -> Made {
    let way = Way {
        timeout,
        ..Way::of(isolated, SIDE)
    };
    let schemas = Described::read(built()).unwrap().schemas();
    let schema = schemas.iter().find(|schema| schema.name == id).unwrap();
    let none: [(&str, Value); 0] = [];
    let stage = node("own", schema, values(none), &way);
    Made::of(&stage, plugins(built(), "turns", &way), &way).unwrap()
}

/// Longer than any call here takes.
const LONG: Duration = Duration::from_secs(60);

/// What an instance says of a slide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    number: u32,
    made: u32,
    gone: u32,
    most: u32,
    tiles: u32,
    mixed: u32,
}

impl Told {
    fn of(text: &str) -> Told {
        let all: Vec<u32> = text.split(' ').map(|n| n.parse().unwrap()).collect();
        let [number, made, gone, most, tiles, mixed] = all[..] else {
            panic!("{text}");
        };
        Told {
            number,
            made,
            gone,
            most,
            tiles,
            mixed,
        }
    }
}

/// What was told of each slide, in order, and why slides failed.
#[derive(Default)]
struct Heard {
    told: BTreeMap<u64, Vec<Told>>,
    failed: BTreeMap<u64, String>,
}

impl Emit for Heard {
    fn version(&mut self, _: usize, slide: SlideId, _: TileId, body: Body) -> u32 {
        if let Body::Ext(table) = body {
            let text = String::from_utf8_lossy(&table.bytes).into_owned();
            let told = self.told.entry(slide.number()).or_default();
            told.push(Told::of(&text));
        }
        0
    }
    fn seal(&mut self, _: usize, _: SlideId, _: Option<End>) {}
    fn event(&mut self, slide: SlideId, event: Event) {
        if let Event::SlideFailed(failure) = event {
            self.failed.insert(slide.number(), failure.what);
        }
    }
    fn info(&self, _: SlideId) -> Option<Arc<SlideInfo>> {
        None
    }
}

fn id(slide: u64) -> SlideId {
    SlideId::new(0, slide)
}

fn info(slide: u64) -> Arc<SlideInfo> {
    let name = format!("slide-{slide}");
    Arc::new(SlideInfo::unopened(name.clone(), SlideKey(slide), name))
}

/// Tile `number` of a slide, whose first byte is `first`.
fn tile(slide: u64, number: i64, rev: u32, first: u8) -> (Key, Body) {
    let key = Key {
        slide: id(slide),
        tile: TileId::new(0, 0, number * 8, 0).unwrap(),
        rev,
    };
    let mut pixels = vec![0; TileBuf::bytes(SIDE, SIDE)];
    pixels[0] = first;
    let tile = TileBuf::new(SIDE, SIDE, pixels.into(), None).unwrap();
    (key, Body::Pixels(Arc::new(tile)))
}

fn done(end: Option<End>) -> Completed {
    Completed {
        through: 0,
        end,
        tally: Tally::default(),
    }
}

/// A reduce of one worker, and what it said.
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

    fn open(&mut self, slide: u64) {
        let mut cx = Cx::new(&mut self.heard);
        self.reduce.opened(id(slide), &info(slide), &mut cx);
    }

    fn row(&mut self, slide: u64, number: i64, rev: u32, first: u8) {
        let (key, body) = tile(slide, number, rev, first);
        let mut cx = Cx::new(&mut self.heard);
        self.reduce.row(0, key, Some(body), &mut cx);
    }

    fn complete(&mut self, slide: u64, end: Option<End>) {
        let mut cx = Cx::new(&mut self.heard);
        self.reduce.complete(0, id(slide), &done(end), &mut cx);
        self.reduce.tick(&mut cx);
    }

    fn close(&mut self, slide: u64) {
        self.reduce.closed(id(slide));
    }
}

/// Twice three open slides on each of two workers, their rows in turn, in a live run: what was told of each, first while more came.
fn two_workers(name: &str) -> BTreeMap<u64, Vec<Told>> {
    let made = made(name, LONG);
    let together = Barrier::new(2);
    std::thread::scope(|scope| {
        let workers = [0, 1].map(|worker| {
            let (made, together) = (&made, &together);
            scope.spawn(move || {
                let mut worker_of = Worker::of(made);
                for wave in 0..2 {
                    let slides: Vec<u64> =
                        (0..3).map(|slide| 10 * wave + 2 * slide + worker).collect();
                    together.wait();
                    slides.iter().for_each(|&slide| worker_of.open(slide));
                    for number in 0..5 {
                        for &slide in &slides {
                            worker_of.row(slide, number, 0, 40);
                        }
                    }
                    for &slide in &slides {
                        worker_of.complete(slide, None);
                        // A tile in the place of another, and one more.
                        worker_of.row(slide, 2, 1, 41);
                        worker_of.row(slide, 5, 0, 41);
                    }
                    for &slide in &slides {
                        worker_of.complete(slide, Some(End::Complete));
                    }
                    together.wait();
                    slides.iter().for_each(|&slide| worker_of.close(slide));
                }
                assert_eq!(worker_of.heard.failed, BTreeMap::new());
                worker_of.heard.told
            })
        });
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    })
}

/// How many calls there were at once, of a stage of which all else is as it must be.
fn at_once(name: &str) -> u32 {
    let all = two_workers(name);
    assert_eq!(all.len(), 12);
    let mut most = 0;
    let mut waves = [BTreeSet::new(), BTreeSet::new()];
    for (&slide, told) in &all {
        let [provisional, last] = told[..] else {
            panic!("slide {slide}: {told:?}");
        };
        // All calls about it went to one instance, and none about another one.
        assert_eq!((provisional.tiles, last.tiles), (5, 6), "slide {slide}");
        assert_eq!(provisional.number, last.number, "slide {slide}");
        assert_eq!((provisional.mixed, last.mixed), (0, 0), "slide {slide}");
        waves[usize::from(slide >= 10)].insert(last.number);
        // As many as were open at once, which the second six take over.
        assert!(last.made <= 6, "{last:?}");
        assert_eq!(last.gone, 0, "{last:?}");
        most = most.max(last.most);
    }
    assert_eq!(waves[0], (1..=6).collect());
    assert_eq!(waves[1], waves[0]);
    most
}

#[test]
fn a_serial_reduce_has_one_call_at_a_time_over_the_instances_of_all_its_slides() {
    assert_eq!(at_once("turns.serial"), 1);
}

#[test]
fn a_reduce_that_says_so_has_calls_of_several_slides_at_once() {
    assert_eq!(at_once("turns.parallel"), 2);
    assert_eq!(at_once("turns.own"), 2);
}

#[test]
fn a_reduce_that_panics_loses_the_slide_in_hand_and_no_other() {
    let made = made("turns.panics", LONG);
    let mut worker = Worker::of(&made);
    (0..3).for_each(|slide| worker.open(slide));
    for slide in 0..3 {
        worker.row(slide, 0, 0, 40);
    }
    worker.row(1, 1, 0, 13);
    for slide in 0..3 {
        worker.row(slide, 2, 0, 40);
        worker.complete(slide, Some(End::Complete));
        worker.close(slide);
    }
    let failed = &worker.heard.failed;
    assert_eq!(failed.keys().collect::<Vec<_>>(), [&1]);
    let what = "plugin `turns` 1.0.0 panicked [E0522]: src/lib.rs:1: on purpose";
    assert_eq!(failed[&1], what);
    // What panicked is not used for the next slides, nor destroyed.
    (3..6).for_each(|slide| worker.open(slide));
    for slide in 3..6 {
        worker.row(slide, 0, 0, 40);
        worker.complete(slide, Some(End::Complete));
    }
    let told = &worker.heard.told;
    let of = |slide: u64| (told[&slide][0].number, told[&slide][0].tiles);
    assert_eq!([of(0), of(2)], [(1, 2), (3, 2)]);
    let numbers: BTreeSet<u32> = (3..6).map(|slide| of(slide).0).collect();
    assert_eq!(numbers, [1, 3, 4].into());
    assert_eq!(told[&5][0].gone, 0);
}

#[test]
fn instances_of_slides_that_were_open_when_a_worker_ended_are_destroyed_when_all_have() {
    let made = made("turns.forgets", LONG);
    let (mut ends, mut goes_on) = (Worker::of(&made), Worker::of(&made));
    ends.open(0);
    ends.row(0, 0, 0, 40);
    drop(ends);
    goes_on.open(1);
    goes_on.row(1, 0, 0, 40);
    goes_on.complete(1, Some(End::Complete));
    let told = goes_on.heard.told[&1][0];
    assert_eq!((told.made, told.gone), (2, 0));
    drop((goes_on, made));
    let made = self::made("turns.forgets", LONG);
    let mut next = Worker::of(&made);
    next.open(2);
    next.complete(2, Some(End::Complete));
    let told = next.heard.told[&2][0];
    assert_eq!((told.made, told.gone), (3, 2));
}

/// Of many that hang each would take its time; one that does not hang is destroyed as ever.
#[test]
fn instances_that_hang_when_they_are_destroyed_are_waited_for_together() {
    let time = Duration::from_secs(3);
    let made = made("turns.stays", time);
    let mut worker = Worker::of(&made);
    for slide in 0..10 {
        worker.open(slide);
        worker.row(slide, 0, 0, if slide == 5 { 40 } else { 15 });
    }
    let began = Instant::now();
    drop(worker);
    let lines = made.lines.clone();
    drop(made);
    let took = began.elapsed();
    assert!(time <= took && took < 4 * time, "{took:?}");
    let said = lines.lock().unwrap().join("\n");
    let line =
        "own: plugin `turns` 1.0.0 has been in `destroy` for 3s [E0523], and is left in it: ";
    assert!(said.contains(line), "{said}");
    let made = self::made("turns.stays", LONG);
    let mut next = Worker::of(&made);
    let gone = (0..600).find_map(|slide| {
        next.open(slide);
        next.complete(slide, Some(End::Complete));
        std::thread::sleep(Duration::from_millis(100));
        let gone = next.heard.told[&slide][0].gone;
        (gone > 0).then_some(gone)
    });
    assert_eq!(gone, Some(1));
}

/// What the quick ones between them do not need is its own.
#[test]
fn an_instance_that_is_slow_to_be_destroyed_after_one_that_hangs_is_let_finish() {
    let made = made("turns.lingers", Duration::from_secs(8));
    let mut worker = Worker::of(&made);
    for slide in 0..8 {
        let first = match slide {
            0 => 15,
            7 => 16,
            _ => 40,
        };
        worker.open(slide);
        worker.row(slide, 0, 0, first);
    }
    let lines = made.lines.clone();
    drop((worker, made));
    let said = lines.lock().unwrap().join("\n");
    assert_eq!(said.matches("in `destroy`").count(), 1, "{said}");
    let made = self::made("turns.lingers", LONG);
    let mut next = Worker::of(&made);
    next.open(8);
    next.complete(8, Some(End::Complete));
    assert_eq!(next.heard.told[&8][0].gone, 7);
}

#[test]
fn processes_that_hang_when_their_instances_are_destroyed_are_waited_for_together() {
    let made = made_so("turns.stays", LONG, true);
    let mut worker = Worker::of(&made);
    for slide in 0..6 {
        worker.open(slide);
        worker.row(slide, 0, 0, 15);
    }
    let began = Instant::now();
    drop((worker, made));
    // Each has five seconds.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_call_that_others_wait_for_long_is_told_of_and_they_are_not() {
    let made = made("turns.slow", Duration::from_millis(100));
    let begun = Barrier::new(2);
    std::thread::scope(|scope| {
        for slide in 0..2 {
            let (made, begun) = (&made, &begun);
            scope.spawn(move || {
                let mut worker = Worker::of(made);
                worker.open(slide);
                begun.wait();
                worker.row(slide, 0, 0, 14);
                worker.complete(slide, Some(End::Complete));
                assert_eq!(worker.heard.failed, BTreeMap::new());
            });
        }
    });
    let said = made.said();
    let line = "own: plugin `turns` 1.0.0 has been in `process` of slide `slide-";
    let told = said.lines().filter_map(|said| said.strip_prefix(line));
    let mut slides: Vec<&str> = told.filter_map(|rest| rest.get(..1)).collect();
    slides.dedup();
    // First the one, while the other waits; then that.
    assert_eq!(slides.len(), 2, "{said}");
    assert_ne!(slides[0], slides[1], "{said}");
}

/// Three slides at a sink, the second of which panics: which had an error, and what was told of the others.
fn sunk(name: &str) -> (Vec<u64>, Vec<Told>) {
    let made = made(name, LONG);
    let Prepared::Sink(make) = &made.prepared else {
        panic!("no sink");
    };
    let mut sink: Box<dyn Sink> = make();
    for slide in 0..3 {
        sink.opened(id(slide), &info(slide)).unwrap();
        let (key, body) = tile(slide, 0, 0, 40);
        sink.row(0, key, body).unwrap();
    }
    let (key, body) = tile(1, 1, 0, 13);
    let error = sink.row(0, key, body).unwrap_err();
    assert!(error.what.contains("panicked [E0522]"), "{error}");
    let mut lost = Vec::new();
    for slide in 0..3 {
        if sink.ended(id(slide), &[done(Some(End::Complete))]).is_err() {
            lost.push(slide);
        }
    }
    (0..3).for_each(|slide| sink.closed(id(slide)));
    assert_eq!(sink.finish().is_err(), name == "turns.whole");
    let lines = made.said();
    let told = lines.lines().filter_map(|line| line.strip_prefix("own: "));
    let told = told.filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    (lost, told.map(Told::of).collect())
}

#[test]
fn a_sink_that_panics_loses_the_slide_in_hand_and_no_other_unless_it_has_one_instance_for_all() {
    let (lost, told) = sunk("turns.write");
    assert_eq!(lost, [1]);
    let told: Vec<_> = told.iter().map(|told| (told.number, told.tiles)).collect();
    assert_eq!(told, [(1, 1), (3, 1)]);
    // What it writes at the end of the run is of all slides.
    let (lost, told) = sunk("turns.whole");
    assert_eq!((lost, told), (vec![0, 1, 2], vec![]));
}
