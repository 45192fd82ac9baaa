//! Host and C plugin in one process touch no memory that is not theirs: under Valgrind, which sees every access of both, and with the
//! plugin under AddressSanitizer, whose runtime then has all of the process's heap. Each finds, by its name, every kind of error that
//! is put into a plugin.
#![allow(clippy::unwrap_used)]

mod programs;
mod sins;

use programs::{Made, Way, compiled, compiled_text, here, node, plugins, values};
use sins::{batch, feature, info, made, of_one_slide, outcomes, tile, tiles, way};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use weir_pipeline::Value;
use weir_plugin_host::{Described, openers};
use weir_record::{Body, End, Event, Key, SlideId, SlideInfo, Tally, TileBuf, TileId};
use weir_runtime::stage::{Batch, Completed, Cx, Emit, Prepared, Step};
use weir_slide::{OpenOptions, Region, open_and_tell};

/// The library of blur-c that the process below loads.
const BLUR: &str = "WEIR_TEST_BLUR";

/// The library of `lives.c` that it loads, and the error that this makes; none: all of its life.
const LIVES: &str = "WEIR_TEST_LIVES";
const PLANT: &str = "WEIR_TEST_PLANT";

/// What Valgrind ends with when it found something; nothing else does.
const FOUND: i32 = 99;

/// Of a tile, px.
const SIDE: u32 = 16;

// ---------------------------------------------------------------------------------------------------------- blur-c

/// blur-c, compiled with these flags; `planted` reads a line behind the last of each tile.
fn blur(folder: &Path, flags: &[&str], planted: bool) -> PathBuf {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sound = std::fs::read_to_string(plugins.join("blur-c/blur.c")).unwrap();
    let last = "for (int64_t y = 1; y + 1 < height; y++)";
    assert!(sound.contains(last));
    let (name, text) = match planted {
        true => (
            "planted",
            sound.replace(last, "for (int64_t y = 1; y < height; y++)"),
        ),
        false => ("sound", sound),
    };
    compiled_text(&text, &folder.join(format!("lib{name}.so")), flags)
}

/// Eight tiles, each in memory of its own: of one grey, and checkered.
fn checkered() -> Batch {
    let rows = (0..8_i64).map(|i| {
        let pixels = (0..TileBuf::bytes(SIDE, SIDE)).map(|at| match (i % 2, at / 3 % 2) {
            (1, 1) => 255,
            _ => 10,
        });
        let data: Vec<u8> = pixels.collect();
        let key = Key {
            slide: SlideId::new(0, 1),
            tile: TileId::new(0, 0, i * 16, 0).unwrap(),
            rev: 0,
        };
        let tile = TileBuf::new(SIDE, SIDE, data.into(), None).unwrap();
        (key, Body::Pixels(Arc::new(tile)), info("a"), None)
    });
    Batch::new(rows.collect(), 1)
}

/// Batches, errors, rows alone, copies, batches that are kept and released late, counters, calls that end on another thread: of
/// blur-c, and of the C plugin whose author errs in every way that a process survives.
#[test]
#[ignore = "run by the tests below, under what watches memory"]
fn alone_calls_of_every_kind() {
    let Some(library) = std::env::var_os(BLUR) else {
        panic!("{BLUR} names no library");
    };
    let library = Path::new(&library);
    let (own, schemas) = (
        Way::of(false, SIDE),
        Described::read(library).unwrap().schemas(),
    );
    let least = values([("sharpness-min", Value::Float(25.0))]);
    let node = node("sharp", &schemas[0], least, &own);
    let sharp = Made::of(&node, plugins(library, "blur-c", &own), &own).unwrap();
    for _ in 0..3 {
        let mut all = checkered();
        sharp.work().run(&mut all).unwrap();
        for i in 0..all.len() {
            let kept = matches!(all.outcome(i, 0), Some(Body::Pixels(_)));
            assert_eq!(kept, i % 2 == 1, "row {i}");
        }
    }
    drop(sharp);
    let here = way(false);
    for (id, hows) in [
        (
            "sins.pass",
            &[
                "", "skip", "fail", "lose", "later", "row", "status", "count", "log", "twice",
            ][..],
        ),
        (
            "sins.invert",
            &["", "edit", "double", "port", "retain", "retain-third"][..],
        ),
        ("sins.mean", &["", "nan"][..]),
    ] {
        for how in hows {
            let made = made(id, how, &here).unwrap();
            outcomes(made.work(), &tiles());
            // The plugin is shown these where their batch has them, and may keep them when that is gone.
            let rows = of_one_slide();
            for _ in 0..3 {
                outcomes(made.work(), &rows);
            }
            // What was kept of this call is released in the next one, or when the instance is destroyed.
            let _ = made.work().run(&mut batch(&[tile(0, 0, 1)]));
        }
    }
    assert!(made("sins.pass", "refuse", &here).is_err());
}

// ------------------------------------------------------------------------------------------------------------ lives

/// What a stage sent, as text.
#[derive(Default)]
struct Heard(Vec<String>);

impl Emit for Heard {
    fn version(&mut self, _: usize, _: SlideId, tile: TileId, body: Body) -> u32 {
        self.0.push(match body {
            Body::Feature(feature) => format!("{} {:?}", tile.x(), &feature[..]),
            Body::Ext(table) => String::from_utf8_lossy(&table.bytes).into_owned(),
            other => format!("{other:?}"),
        });
        0
    }
    fn seal(&mut self, _: usize, _: SlideId, _: Option<End>) {}
    fn event(&mut self, _: SlideId, event: Event) {
        self.0.push(format!("{event:?}"));
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

/// Stage `id` of the library, in folder `out`.
fn lived(library: &Path, id: &str, plant: &str, out: &Path) -> Made {
    let way = Way {
        out: out.to_owned(),
        ..Way::of(false, SIDE)
    };
    let schemas = Described::read(library).unwrap().schemas();
    let schema = schemas.iter().find(|schema| schema.name == id).unwrap();
    let plant = values([("plant", Value::Text(plant.into()))]);
    let node = node("own", schema, plant, &way);
    Made::of(&node, plugins(library, "lives", &way), &way).unwrap()
}

/// Calls that end in them, and calls that end later, on another thread, several at a time; the tiles go after each call.
fn a_map(library: &Path, plant: &str) {
    let out = std::env::temp_dir();
    let made = lived(library, "lives.mean", plant, &out);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..4 {
                    let mut all = checkered();
                    made.work().run(&mut all).unwrap();
                    for i in 0..all.len() {
                        let Some(Body::Feature(feature)) = all.outcome(i, 0) else {
                            panic!("row {i}");
                        };
                        assert_eq!(feature[0], 10.0);
                    }
                }
            });
        }
    });
}

/// Two slides, of which the second is open when the first is closed. Everything of a slide goes when it is closed.
fn a_reduce(library: &Path, plant: &str) {
    let made = lived(library, "lives.double", plant, &std::env::temp_dir());
    let Prepared::Reduce(make) = &made.prepared else {
        panic!("no reduce");
    };
    let (mut reduce, mut heard) = (make(), Heard::default());
    let mut cx = Cx::new(&mut heard);
    let slides = [0, 1].map(|slide| SlideId::new(0, slide));
    for slide in slides {
        let id = ["a slide with a name of its own", "another one"][slide.number() as usize];
        reduce.opened(slide, &info(id), &mut cx);
        for i in 0..5 {
            let (key, body) = feature(slide.number(), i, i as f32);
            reduce.row(0, key, Some(body), &mut cx);
        }
    }
    for slide in slides {
        reduce.complete(0, slide, &done(), &mut cx);
        // A live slide: a tile is replaced, and its rows are asked for once more.
        let (key, body) = feature(slide.number(), 1, 50.0);
        reduce.row(0, Key { rev: 1, ..key }, Some(body), &mut cx);
        reduce.complete(0, slide, &done(), &mut cx);
        reduce.closed(slide);
    }
    drop(reduce);
    let tables = heard.0.iter().filter(|row| row.contains("name")).count();
    assert_eq!(tables, 2, "{:?}", heard.0);
    let last = "8 [100.0, 4.0, 1.0]".to_owned();
    assert!(heard.0.contains(&last), "{:?}", heard.0);
}

/// A sink that writes when it is destroyed: into its folder, and what it kept of slides that are long closed.
fn a_sink(library: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let made = lived(library, "lives.write", "", folder.path());
    let Prepared::Sink(make) = &made.prepared else {
        panic!("no sink");
    };
    let mut sink = make();
    for slide in 0..3 {
        let id = SlideId::new(0, slide);
        sink.opened(id, &info(["a", "b", "c"][slide as usize]))
            .unwrap();
        for i in 0..4 {
            let (key, body) = feature(slide, i, 1.0);
            sink.row(0, key, body).unwrap();
        }
        sink.ended(id, &[done()]).unwrap();
        sink.closed(id);
    }
    sink.finish().unwrap();
    drop((sink, made));
    let text = std::fs::read_to_string(folder.path().join("lives.txt")).unwrap();
    assert_eq!(text, "12 12");
}

/// Slides that end early, by an error, and with holes; each tile is read after all were asked for, on two threads.
fn a_source(library: &Path) {
    let made = lived(library, "lives.tiles", "", &std::env::temp_dir());
    let Prepared::Source(source) = &made.prepared else {
        panic!("no source");
    };
    let mut ends = Vec::new();
    for slide in source.slides() {
        let mut opened = source.open(slide).unwrap();
        let (mut tiles, mut told) = (Vec::new(), Vec::new());
        loop {
            match opened.script.next() {
                Step::Tile { tile, rev, .. } => tiles.push((tile, rev)),
                Step::Done => break,
                Step::Seal { .. } => {}
                Step::Outcome { body, .. } => told.push(format!("{body:?}")),
                Step::Event(event) => told.push(format!("{event:?}")),
                other => panic!("{other:?}"),
            }
        }
        // The slide is over, and is read from.
        let told = Mutex::new(told);
        std::thread::scope(|scope| {
            for half in tiles.chunks(tiles.len().div_ceil(2)) {
                let (reader, told) = (&opened.reader, &told);
                scope.spawn(move || {
                    for &(tile, rev) in half {
                        let mut into = vec![0; TileBuf::bytes(SIDE, SIDE)];
                        if let Err(error) = reader.read(tile, rev, &mut into) {
                            told.lock().unwrap().push(format!("{error:?}"));
                        }
                    }
                });
            }
        });
        ends.push((
            slide.id.clone(),
            tiles.len(),
            told.into_inner().unwrap().join(" "),
        ));
    }
    let [early, holes, torn] = &ends[..] else {
        panic!("{ends:?}");
    };
    assert_eq!((early.1, early.2.as_str()), (3, ""));
    assert_eq!(
        (torn.1, torn.2.contains("it is torn")),
        (2, true),
        "{torn:?}"
    );
    assert_eq!(holes.1, 7);
    assert!(
        holes.2.contains("cannot be had") && holes.2.contains("cannot be read"),
        "{holes:?}"
    );
}

/// A slide whose handle is opened again after every damage; two threads, so that there are several handles.
fn a_reader(library: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lives");
    std::fs::write(&path, "LIVES").unwrap();
    let options = OpenOptions {
        openers: openers(&plugins(library, "lives", &Way::of(false, SIDE))),
        ..OpenOptions::default()
    };
    let (slide, _) = open_and_tell(&path, &options).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut into = vec![0; 8 * 8 * 3];
                for at in 0..48_u32 {
                    let (x, y) = (at % 8 * 8, at / 8 * 8);
                    let region = Region {
                        x: x.into(),
                        y: y.into(),
                        w: 8.0,
                        h: 8.0,
                    };
                    let damaged = (x..x + 8).contains(&20) && (y..y + 8).contains(&10);
                    let read = slide.read(region, 0, 8, 8, &mut into);
                    assert_eq!(read.is_err(), damaged, "({x}, {y}): {read:?}");
                }
            });
        }
    });
    assert_eq!(slide.associated("label").unwrap().pixels, [7; 45]);
    let again = slide.reopen().unwrap();
    drop(slide);
    assert_eq!(again.thumbnail(16).unwrap().width, 16);
}

/// What a plugin of each kind does at its hardest; or the one stage that errs.
#[test]
#[ignore = "run by the tests below, under what watches memory"]
fn alone_lives_of_every_kind() {
    let Some(library) = std::env::var_os(LIVES) else {
        panic!("{LIVES} names no library");
    };
    let library = Path::new(&library);
    match std::env::var(PLANT).as_deref() {
        Ok(plant @ ("lent" | "output")) => a_map(library, plant),
        Ok(plant) => a_reduce(library, plant),
        Err(_) => {
            a_map(library, "");
            a_map(library, "late");
            a_reduce(library, "");
            a_sink(library);
            a_source(library);
            a_reader(library);
        }
    }
}

/// Errors of `lives.c`: what is planted, in which of its functions, and what it is called by AddressSanitizer and by Valgrind.
const PLANTED: [(&str, &str, &str, &str); 3] = [
    (
        "lent",
        "reads_a_lent_row",
        "heap-use-after-free",
        "inside a block of size 768 free'd",
    ),
    (
        "output",
        "writes_past_a_row",
        "heap-buffer-overflow",
        "0 bytes after a block of size 12 alloc'd",
    ),
    (
        "text",
        "reads_a_slides_text",
        "heap-use-after-free",
        "inside a block of size 11 free'd",
    ),
];

// --------------------------------------------------------------------------------------------------------- watchers

/// A test of this program alone, in a process of its own.
fn alone(program: &mut Command, test: &str, variables: &[(&str, &Path)]) -> Output {
    program
        .args(["--exact", test, "--ignored"])
        .args(["--test-threads", "1"])
        .envs(variables.iter().copied())
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap()
}

fn told(output: &Output) -> String {
    [&output.stdout[..], &output.stderr]
        .map(String::from_utf8_lossy)
        .concat()
}

/// What is run by one of the watchers: a test of this program, and its variables.
type Watch = fn(&str, &[(&str, &Path)]) -> Output;

fn under_valgrind(test: &str, variables: &[(&str, &Path)]) -> Output {
    let mut valgrind = Command::new("valgrind");
    valgrind
        .arg(format!("--error-exitcode={FOUND}"))
        .args(["--quiet", "--leak-check=full", "--show-leak-kinds=definite"])
        .args(["--errors-for-leak-kinds=definite", "--fair-sched=yes"])
        .arg(std::env::current_exe().unwrap());
    alone(&mut valgrind, test, variables)
}

/// The host is not compiled with it, which takes a compiler that is not stable; but its allocations, and what it copies and frees, go
/// through the sanitizer's runtime, which comes first in the process. Leaks are Valgrind's affair: the compiler that is started here
/// has some.
fn under_the_sanitizer(test: &str, variables: &[(&str, &Path)]) -> Output {
    let found = Command::new("gcc")
        .arg("-print-file-name=libasan.so")
        .output()
        .unwrap();
    let runtime = String::from_utf8(found.stdout).unwrap();
    let mut program = Command::new(std::env::current_exe().unwrap());
    program
        .env("LD_PRELOAD", runtime.trim())
        .env("ASAN_OPTIONS", "detect_leaks=0:abort_on_error=0");
    alone(&mut program, test, variables)
}

fn is_clean(watch: Watch, test: &str, variables: &[(&str, &Path)]) {
    let said = watch(test, variables);
    assert_eq!(said.status.code(), Some(0), "{}", told(&said));
}

/// That the watcher finds something, with these words.
#[track_caller]
fn finds(watch: Watch, test: &str, variables: &[(&str, &Path)], words: &[&str]) {
    let output = watch(test, variables);
    let said = told(&output);
    assert_ne!(output.status.code(), Some(0), "{said}");
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
}

const CALLS: &str = "alone_calls_of_every_kind";
const LIFE: &str = "alone_lives_of_every_kind";

#[test]
fn host_and_c_plugins_are_clean_under_valgrind() {
    let found = Command::new("valgrind").arg("--version").output();
    assert!(
        found.is_ok(),
        "valgrind is missing: `make test` installs it, and `make packages` alone"
    );
    let folder = tempfile::tempdir().unwrap();
    is_clean(
        under_valgrind,
        CALLS,
        &[(BLUR, &blur(folder.path(), &[], false))],
    );
    let words = ["memfd:weir-plugin", "0 bytes after a block of size 768"];
    let planted = blur(folder.path(), &[], true);
    finds(under_valgrind, CALLS, &[(BLUR, &planted)], &words);
    let lives = folder.path().join("liblives.so");
    compiled(&here("programs/lives.c"), &lives, &[]);
    is_clean(under_valgrind, LIFE, &[(LIVES, &lives)]);
    for (plant, _, _, words) in PLANTED {
        let variables = [(LIVES, lives.as_path()), (PLANT, Path::new(plant))];
        finds(
            under_valgrind,
            LIFE,
            &variables,
            &["memfd:weir-plugin", words],
        );
    }
}

#[test]
fn host_and_c_plugins_are_clean_with_the_address_sanitizer() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["-fsanitize=address"];
    let sound = blur(folder.path(), &flags, false);
    is_clean(under_the_sanitizer, CALLS, &[(BLUR, &sound)]);
    let words = ["heap-buffer-overflow", "luma"];
    let planted = blur(folder.path(), &flags, true);
    finds(under_the_sanitizer, CALLS, &[(BLUR, &planted)], &words);
    let lives = folder.path().join("liblives.so");
    compiled(&here("programs/lives.c"), &lives, &flags);
    is_clean(under_the_sanitizer, LIFE, &[(LIVES, &lives)]);
    for (plant, function, words, _) in PLANTED {
        let variables = [(LIVES, lives.as_path()), (PLANT, Path::new(plant))];
        finds(under_the_sanitizer, LIFE, &variables, &[function, words]);
    }
}
