//! A plugin in a process of its own answers as it does in this one, and whatever it does there only its own rows fail.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use weir_pipeline::{Node, Plan, RunSettings, Schema, StageRun, Value, Values};
use weir_plugin_host::{
    Admitted, Ask, Counters, Described, Isolated, Loaded, Log, Plugins, Policy, Program, stage_type,
};
use weir_record::{
    Body, Budget, End, Feature, Key, Skip, Slab, SlideId, SlideInfo, SlideKey, Tally, TileBuf,
    TileId,
};
use weir_runtime::stage::{
    Batch, Completed, Cx, Emit, Prepare, Prepared, Shared, StageError, Step, Work,
};

// ------------------------------------------------------------------------------------------------------- the plugin

fn built() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let so = folder.path().join("libsins.so");
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let flags = "-std=c11 -Wall -Wextra -Werror -shared -fPIC -O1 -pthread";
        let built = Command::new("gcc")
            .args(flags.split(' '))
            .arg("-I")
            .args([here.join("../abi"), PathBuf::from("-o"), so.clone()])
            .args([here.join("tests/sins.c"), PathBuf::from("-lm")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&built.stderr).into_owned();
        assert!(built.status.success(), "{said}");
        (folder, so)
    });
    path
}

fn admitted() -> Admitted {
    let ask = Ask {
        name: "sins".into(),
        ..Ask::default()
    };
    Admitted::new(Described::read(built()).unwrap(), &ask, Policy::Any).unwrap()
}

fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_plugin-host-child"), [])
}

type Lines = Arc<Mutex<Vec<String>>>;

/// A stage of the plugin, and what it said.
struct Made {
    prepared: Prepared,
    lines: Lines,
    counters: Counters,
    stop: weir_runtime::Stop,
}

/// How a stage is made.
#[derive(Clone)]
struct Way {
    isolated: bool,
    timeout: Duration,
    out: PathBuf,
    program: Program,
}

fn way(isolated: bool) -> Way {
    Way {
        isolated,
        timeout: Duration::from_secs(20),
        out: std::env::temp_dir(),
        program: program(),
    }
}

fn made(id: &str, how: &str, way: &Way) -> Result<Made, StageError> {
    let schemas = Described::read(built()).unwrap().schemas();
    let schema: &'static Schema = schemas.iter().find(|schema| schema.name == id).unwrap();
    let shapes = schema.outs.iter().map(|port| match port.kind {
        weir_pipeline::Kind::Features => vec![3],
        weir_pipeline::Kind::Pixels => vec![8, 8, 3],
        _ => vec![],
    });
    let node = Node {
        name: "own".into(),
        schema,
        values: Values(BTreeMap::from([("how".into(), Value::Text(how.into()))])),
        inputs: Vec::new(),
        run: StageRun {
            timeout: Some(way.timeout),
            ..StageRun::default()
        },
        shapes: shapes.collect(),
    };
    let plan = Plan {
        name: "test".into(),
        file: PathBuf::new(),
        run: RunSettings {
            out: way.out.clone(),
            helpers: 2,
            ..RunSettings::default()
        },
        models: BTreeMap::new(),
        plugins: Vec::new(),
        nodes: Vec::new(),
        hash: String::new(),
    };
    let lines = Lines::default();
    let heard = lines.clone();
    let mut plugins = Plugins {
        log: Log::to(move |_, stage, text| heard.lock().unwrap().push(format!("{stage}: {text}"))),
        ..Plugins::default()
    };
    if way.isolated {
        plugins
            .isolated
            .push(Isolated::new(Arc::new(admitted()), way.program.clone()).unwrap());
    } else {
        plugins.loaded.push(Loaded::new(&admitted()).unwrap());
    }
    let (counters, stop) = (plugins.counters.clone(), plugins.stop.clone());
    let shared = Shared::default();
    let budget = Budget::new(1 << 30);
    shared
        .get_or_try("", || Ok::<_, StageError>(plugins))
        .unwrap();
    let prepare = Prepare {
        plan: &plan,
        node: &node,
        shared: &shared,
        budget: &budget,
        slab: &Slab::within(&budget),
    };
    let prepared = (stage_type(schema).prepare)(&prepare)?;
    Ok(Made {
        prepared,
        lines,
        counters,
        stop,
    })
}

impl Made {
    fn work(&self) -> &dyn Work {
        match &self.prepared {
            Prepared::Work(work) => work.as_ref(),
            _ => panic!("no map or filter"),
        }
    }

    fn said(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }
}

// ------------------------------------------------------------------------------------------------------------- rows

fn info(id: &str) -> Arc<SlideInfo> {
    Arc::new(SlideInfo::unopened(
        id.into(),
        SlideKey(7),
        format!("{id}.svs"),
    ))
}

type Value1 = (Key, Body, Arc<SlideInfo>);

/// Tile `i` of a slide; the one whose first byte is 13 is where the plugin sins.
fn tile(slide: u64, i: i64, first: u8) -> Value1 {
    let pixels = (0..192).map(|b| if b == 0 { first } else { (b * 7 + i * 3) as u8 });
    let data: Vec<u8> = pixels.collect();
    let key = Key {
        slide: SlideId::new(0, slide),
        tile: TileId::new(0, 0, i * 8, 0).unwrap(),
        rev: 0,
    };
    let tile = TileBuf::new(8, 8, data.into(), None).unwrap();
    let id = ["a", "b", "c", "d"][slide as usize];
    (key, Body::Pixels(Arc::new(tile)), info(id))
}

/// Sixteen tiles of two slides, of which number 5 is marked.
fn tiles() -> Vec<Value1> {
    (0..16)
        .map(|i| tile(u64::from(i >= 8), i, if i == 5 { 13 } else { 40 }))
        .collect()
}

fn batch(rows: &[Value1]) -> Batch {
    let rows = rows
        .iter()
        .map(|(key, body, info)| (*key, body.clone(), info.clone(), None));
    Batch::new(rows.collect(), 1)
}

/// The outcomes of rows as the runtime gets them: all at once, else row by row; `Err` where a row fails alone.
fn outcomes(work: &dyn Work, rows: &[Value1]) -> Vec<Result<Body, String>> {
    let mut all = batch(rows);
    if work.run(&mut all).is_ok() {
        return (0..rows.len())
            .map(|i| Ok(all.outcome(i, 0).unwrap().clone()))
            .collect();
    }
    rows.iter()
        .map(|row| {
            let mut one = batch(std::slice::from_ref(row));
            work.run(&mut one)
                .map(|()| one.outcome(0, 0).unwrap().clone())
                .map_err(|error| error.what)
        })
        .collect()
}

fn print(outcome: &Result<Body, String>) -> String {
    match outcome {
        Ok(Body::Pixels(tile)) => format!("pixels {:?}", tile.pixels()),
        Ok(Body::Feature(feature)) => {
            format!(
                "feature {:?}",
                feature.iter().map(|f| f.to_bits()).collect::<Vec<_>>()
            )
        }
        Ok(Body::Skip(Skip::Dropped { reason, .. })) => format!("skip {reason}"),
        Ok(Body::Fail(failure)) => format!("fail {} {}", failure.what, failure.help),
        Ok(other) => format!("{other:?}"),
        Err(what) => format!("error {what}"),
    }
}

fn printed(id: &str, how: &str, way: &Way) -> Vec<String> {
    let made = made(id, how, way).unwrap();
    outcomes(made.work(), &tiles()).iter().map(print).collect()
}

// ------------------------------------------------------------------------------------------------------------- tests

#[test]
fn an_isolated_stage_answers_as_it_does_in_this_process_to_the_bit() {
    for (id, hows) in [
        (
            "sins.pass",
            &[
                "", "skip", "fail", "lose", "later", "row", "status", "panic", "count",
            ][..],
        ),
        ("sins.invert", &["", "edit", "double", "port", "retain"][..]),
        ("sins.mean", &["", "nan"][..]),
    ] {
        for how in hows {
            let here = printed(id, how, &way(false));
            let there = printed(id, how, &way(true));
            assert_eq!(here, there, "{id} {how}");
        }
    }
}

#[test]
fn a_row_that_ends_the_process_fails_alone_and_is_named() {
    for (id, how, said) in [
        ("sins.pass", "abort", "was killed by signal 6 (Aborted)"),
        (
            "sins.pass",
            "segv",
            "was killed by signal 11 (Segmentation fault)",
        ),
        ("sins.pass", "exit", "ended with exit status 7"),
        ("sins.pass", "term", "was killed by signal 15 (Terminated)"),
        ("sins.pass", "fork", "ended with exit status 9"),
        (
            "sins.pass",
            "input",
            "was killed by signal 11 (Segmentation fault)",
        ),
        ("sins.mean", "abort", "was killed by signal 6 (Aborted)"),
        (
            "sins.mean",
            "overrun",
            "was killed by signal 11 (Segmentation fault)",
        ),
        (
            "sins.mean",
            "underrun",
            "was killed by signal 11 (Segmentation fault)",
        ),
        (
            "sins.invert",
            "overrun",
            "was killed by signal 11 (Segmentation fault)",
        ),
        (
            "sins.invert",
            "segv",
            "was killed by signal 11 (Segmentation fault)",
        ),
    ] {
        let well = printed(id, "", &way(false));
        let made = made(id, how, &way(true)).unwrap();
        let outcomes = outcomes(made.work(), &tiles());
        for (row, outcome) in outcomes.iter().enumerate() {
            match row {
                5 => {
                    let what = outcome.as_ref().unwrap_err();
                    let place = "at slide `a`, tile (40, 0)";
                    assert_eq!(
                        *what,
                        format!("plugin `sins` 0.1.0's process {said} [E0521] {place}"),
                        "{id} {how}"
                    );
                }
                _ => assert_eq!(print(outcome), well[row], "{id} {how}"),
            }
        }
        let log = made.said();
        assert!(
            log.contains("at 16 tiles, (0, 0) of slide `a` to (120, 0) of slide `b`"),
            "{log}"
        );
        assert!(log.contains("it is started again (2 of 100)"), "{log}");
    }
}

#[test]
fn a_loop_without_end_is_ended_when_its_time_is_over() {
    let way = Way {
        timeout: Duration::from_millis(300),
        ..way(true)
    };
    let made = made("sins.pass", "loop", &way).unwrap();
    let since = Instant::now();
    let outcomes = outcomes(made.work(), &tiles());
    assert!(since.elapsed() < Duration::from_secs(5));
    let failed: Vec<_> = outcomes.iter().filter_map(|it| it.as_ref().err()).collect();
    assert_eq!(
        failed,
        ["plugin `sins` 0.1.0 did not answer within 300ms [E0523] at slide `a`, tile (40, 0)"]
    );
}

#[test]
fn a_process_that_sends_junk_or_hangs_up_fails_its_row_and_nothing_else() {
    for (how, said) in [
        ("junk", "broke the contract [E0520]: its process sent"),
        ("close", "'s process "),
    ] {
        let made = made("sins.pass", how, &way(true)).unwrap();
        let outcomes = outcomes(made.work(), &tiles());
        for (row, outcome) in outcomes.iter().enumerate() {
            match (row, outcome) {
                (5, Err(what)) => assert!(what.contains(said), "{what}"),
                (5, Ok(_)) | (_, Err(_)) => panic!("{how} {row}: {outcome:?}"),
                _ => {}
            }
        }
    }
}

#[test]
fn a_call_that_is_ended_against_the_rules_fails_and_the_process_goes_on() {
    for how in ["gone", "pending"] {
        let way = Way {
            timeout: Duration::from_millis(300),
            ..way(true)
        };
        let made = made("sins.pass", how, &way).unwrap();
        let outcomes = outcomes(made.work(), &tiles());
        assert!(outcomes[5].is_err());
        assert_eq!(outcomes.iter().filter(|it| it.is_err()).count(), 1, "{how}");
    }
}

#[test]
fn a_run_that_is_being_stopped_reaches_the_process() {
    let made = made("sins.pass", "until-stopped", &way(true)).unwrap();
    let stop = made.stop.clone();
    let asked = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        stop.request();
    });
    let since = Instant::now();
    let error = made.work().run(&mut batch(&tiles())).unwrap_err();
    assert!(since.elapsed() < Duration::from_secs(2));
    assert!(
        error.what.contains("stopped, as it was asked to"),
        "{error}"
    );
    asked.join().unwrap();
}

#[test]
fn memory_without_end_is_refused_by_words() {
    let made = made("sins.invert", "much", &way(true)).unwrap();
    // The same batch is made over and over; each is kept.
    let error = made.work().run(&mut batch(&tiles())).unwrap_err();
    let told = [
        "the host gives a plugin no more",
        "too many batches at once",
    ];
    assert!(told.iter().any(|told| error.what.contains(told)), "{error}");
}

#[test]
fn what_create_says_is_heard_and_a_process_that_dies_in_it_is_told() {
    let error = |how| made("sins.pass", how, &way(true)).err().unwrap();
    let refused = error("refuse");
    assert_eq!(
        (refused.what.as_str(), refused.help.as_str()),
        ("parameter `how`: no", "say something else")
    );
    assert_eq!(
        error("die-in-create").what,
        "plugin `sins` 0.1.0's process was killed by signal 6 (Aborted) [E0521] while it was made"
    );
    let none = Way {
        program: Program::new("/nonexistent/weir", []),
        ..way(true)
    };
    let unstarted = made("sins.pass", "", &none).err().unwrap();
    assert!(unstarted.what.contains("cannot be started"), "{unstarted}");
    let deaf = Way {
        program: Program::new("/bin/false", []),
        ..way(true)
    };
    let unstarted = made("sins.pass", "", &deaf).err().unwrap();
    assert!(
        unstarted.what.contains("ended with exit status 1"),
        "{unstarted}"
    );
}

#[test]
fn lines_and_counters_come_through() {
    for how in ["log", "count"] {
        let made = made("sins.pass", how, &way(true)).unwrap();
        made.work().run(&mut batch(&tiles())).unwrap();
        match how {
            "log" => assert_eq!(made.said(), "own: hello"),
            _ => assert_eq!(made.counters.all()["own"]["rows"], 16),
        }
    }
}

#[test]
fn a_stage_whose_processes_keep_dying_is_given_up_by_words() {
    let made = made("sins.pass", "exit", &way(true)).unwrap();
    let bad = [tile(0, 0, 13)];
    let good = [tile(0, 0, 1)];
    let mut last = String::new();
    for _ in 0..110 {
        last = made.work().run(&mut batch(&bad)).unwrap_err().what;
    }
    assert!(last.contains("died more than 100 times [E0521]"), "{last}");
    let error = made.work().run(&mut batch(&good)).unwrap_err();
    assert!(
        error.what.contains("is not started again in this run"),
        "{error}"
    );
}

fn children() -> Vec<String> {
    let mut all = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path().join("children");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        all.extend(text.split_whitespace().map(str::to_owned));
    }
    all
}

/// Bytes of a process that are in memory.
fn resident(pid: &str) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Other tests have processes and files of their own: these run in a process of their own too.
#[test]
#[ignore = "run by a_thousand_calls_leave_nothing_behind"]
fn alone_a_thousand_calls() {
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let _ = built();
    {
        let _ = made("sins.invert", "retain", &way(true)).unwrap();
    }
    let before = files();
    let made_ = made("sins.invert", "retain", &way(true)).unwrap();
    let rows = tiles();
    let call = || made_.work().run(&mut batch(&rows)).unwrap();
    (0..100).for_each(|_| call());
    let child = children().pop().unwrap();
    let (own, its, open) = (resident("self"), resident(&child), files());
    let open_there = || {
        std::fs::read_dir(format!("/proc/{child}/fd"))
            .unwrap()
            .count()
    };
    let there = open_there();
    (0..1000).for_each(|_| call());
    assert_eq!((files(), open_there()), (open, there));
    let grown = |now: usize, before: usize| now.saturating_sub(before);
    assert!(grown(resident("self"), own) < 4 << 20);
    assert!(grown(resident(&child), its) < 4 << 20);
    drop(made_);
    assert_eq!((files(), children()), (before, Vec::<String>::new()));

    // Deaths leave nothing either: no zombie, no file, none of what the plugin forked.
    let made_ = made("sins.pass", "fork", &way(true)).unwrap();
    let open = files();
    for _ in 0..5 {
        made_.work().run(&mut batch(&[tile(0, 0, 13)])).unwrap_err();
    }
    assert_eq!((files(), children().len()), (open, 1));
    drop(made_);
    let forked = || {
        let of = program_name();
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter(|entry| {
            let comm = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            comm.contains(of)
                && std::fs::read_to_string(entry.path().join("environ"))
                    .unwrap_or_default()
                    .contains("WEIR_TEST_ALONE=1")
        })
        .count()
    };
    let until = Instant::now() + Duration::from_secs(2);
    while forked() > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((files(), forked()), (before, 0));

    // A plugin's thread that goes on after the end ends with its process.
    let made_ = made("sins.pass", "thread", &way(true)).unwrap();
    made_.work().run(&mut batch(&rows)).unwrap();
    drop(made_);
    assert_eq!((files(), children().len()), (before, 0));
}

fn program_name() -> &'static str {
    "plugin-host-child"
}

#[test]
fn a_thousand_calls_leave_nothing_behind() {
    let run = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "alone_a_thousand_calls",
            "--ignored",
            "--nocapture",
        ])
        .env("WEIR_TEST_ALONE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(
        run.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&run.stdout)
    );
}

/// What a plugin prints is no output of the host's.
#[test]
#[ignore = "run by what_a_plugin_prints_goes_to_standard_error"]
fn alone_printing() {
    let made = made("sins.pass", "print", &way(true)).unwrap();
    made.work().run(&mut batch(&tiles())).unwrap();
}

#[test]
fn what_a_plugin_prints_goes_to_standard_error() {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "alone_printing", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    assert!(run.status.success());
    assert!(!String::from_utf8_lossy(&run.stdout).contains("printed"));
    assert!(String::from_utf8_lossy(&run.stderr).contains("printed"));
}

// ------------------------------------------------------------------------------------------- reduces, sinks, sources

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

fn feature(slide: u64, i: i64, first: f32) -> (Key, Body) {
    let key = Key {
        slide: SlideId::new(0, slide),
        tile: TileId::new(0, 0, i * 8, 0).unwrap(),
        rev: 0,
    };
    let numbers = vec![first, 2.0, 0.5];
    (key, Body::Feature(Arc::new(Feature::new(numbers, None))))
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
fn a_reduce_sums_the_same_and_a_slide_that_its_process_held_fails_when_that_dies() {
    assert_eq!(pooled("", true), pooled("", false));
    let heard = pooled("abort", true);
    assert_eq!(
        heard,
        [
            "slide `a` failed: plugin `sins` 0.1.0's process was killed by signal 6 (Aborted) [E0521] at slide `a`, tiles (2048, 0) to (2392, 0)",
            "seal Some(Aborted)",
            "slide `b` failed: plugin `sins` 0.1.0 lost what it held of the slide when it panicked, hung or died [E0521]",
            "seal Some(Aborted)",
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
