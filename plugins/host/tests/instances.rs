//! How many instances of a stage there are, in this process and in processes of their own, and that what they allocate is counted
//! as often.
#![allow(clippy::unwrap_used)]

mod programs;

use programs::{Made, Way, compiled_text, node, plugins, values};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use weir_pipeline::{PluginAsk, Plugins, RunSettings, Value};
use weir_plugin_host::{Catalogue, Described, Folders, Rules};
use weir_record::{Body, Key, SlideId, SlideInfo, SlideKey, TileBuf, TileId};
use weir_runtime::stage::Batch;

/// Side of a tile, px.
const SIDE: u32 = 8;

/// A feature of each tile: the process and the instance that made it. A call takes so long that others have to wait for it. One of a
/// tile whose first byte is 13 panics, one of 14 takes longer, and their instances are never done with being destroyed.
const CODE: &str = r#"
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>
static _Atomic int made;
typedef struct { const weir_host *host; int number; volatile int stays; } own;
static weir_status create(const weir_host *host, weir_call *call, const weir_value *values, uint32_t n, void **self) {
  (void)call; (void)values; (void)n;
  own *it = calloc(1, sizeof *it);
  if (!it) return WEIR_E_MEMORY;
  *it = (own){host, ++made, 0};
  *self = it;
  return WEIR_OK;
}
static void destroy(void *self) {
  while (((own *)self)->stays) usleep(1000);
  free(self);
}
static weir_status process(void *self, weir_call *call, uint32_t port, const weir_batch *batch) {
  own *it = self;
  uint32_t source[256];
  (void)port;
  if (*(const uint8_t *)batch->columns[0].rows[0] == 13) {
    it->stays = 1;
    return WEIR_E_PANIC;
  }
  if (*(const uint8_t *)batch->columns[0].rows[0] == 14) {
    it->stays = 1;
    usleep(2000000);
  }
  for (uint32_t i = 0; i < batch->n_rows; i++) source[i] = i;
  weir_batch *out = it->host->batch_new(call, 0, batch->n_rows, source);
  if (!out) return WEIR_E_MEMORY;
  usleep(60000);
  for (uint32_t i = 0; i < batch->n_rows; i++) {
    float *to = (float *)out->columns[0].rows[i];
    to[0] = (float)getpid(); to[1] = (float)it->number; to[2] = 0;
  }
  return it->host->emit(call, 0, out);
}
static weir_status withdraw(void *self, weir_call *call, uint32_t port, const weir_row *rows, uint32_t n) {
  (void)self; (void)call; (void)port; (void)rows; (void)n;
  return WEIR_OK;
}
static weir_status complete(void *self, weir_call *call, const weir_slide *slide, uint32_t rev, uint32_t end) {
  (void)self; (void)call; (void)slide; (void)rev; (void)end;
  return WEIR_OK;
}
"#;

/// (id, `concurrency`), of a map each; the sink `WRITE` is per-worker.
const MAPS: [(&str, &str); 3] = [
    ("many.serial", "serial"),
    ("many.parallel", "parallel"),
    ("many.own", "per-worker"),
];
const WRITE: &str = "many.write";

fn manifest() -> String {
    let memory = r#""memory":"memory","params":[{"name":"memory","type":"bytes","default":"8MiB","doc":"What it allocates"}]"#;
    let tiles = r#""name":"tiles","kind":"pixels","shape":["height","width",3],"mpp":"mpp""#;
    let maps = MAPS.map(|(id, concurrency)| {
        format!(
            r#"{{"id":"{id}","summary":"Says who it is","rows":"map","concurrency":"{concurrency}",{memory},"in":[{{{tiles}}}],"out":[{{"name":"features","kind":"features","shape":[3]}}]}}"#
        )
    });
    let write = format!(
        r#"{{"id":"{WRITE}","summary":"Writes nothing","rows":"sink","concurrency":"per-worker",{memory},"in":[{{{tiles}}}]}}"#
    );
    format!(
        r#"{{"weir-abi":"1.0","name":"many","version":"1.0.0","summary":"Counts its instances","stages":[{},{write}]}}"#,
        maps.join(",")
    )
}

fn built() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let table = |name: &str, id: &str, flags: &str, more: &str| {
            format!(
                "static const weir_stage {name} = {{.struct_size = sizeof(weir_stage), .flags = {flags}, .id = \"{id}\", .create = create, .destroy = destroy, .process = process{more}}};\n"
            )
        };
        let text = [
            format!(
                "#include \"weir_plugin.h\"\nWEIR_MANIFEST({:?});\n{CODE}",
                manifest()
            ),
            table("SERIAL", MAPS[0].0, "0", ""),
            table("PARALLEL", MAPS[1].0, "WEIR_STAGE_PARALLEL", ""),
            table("OWN", MAPS[2].0, "0", ""),
            table(
                "WRITE",
                WRITE,
                "0",
                ", .remove = withdraw, .complete_slide = complete",
            ),
            r#"static const weir_stage *const STAGES[] = {&SERIAL, &PARALLEL, &OWN, &WRITE};
static const weir_plugin PLUGIN = {.struct_size = sizeof PLUGIN, .abi_minor = WEIR_ABI_MINOR, .manifest = weir_manifest, .stages = STAGES, .n_stages = 4};
WEIR_EXPORT weir_status weir_plugin_v1(const weir_host *host, weir_call *call, const weir_plugin **out) {
  (void)host; (void)call; *out = &PLUGIN; return WEIR_OK;
}
"#
            .to_owned(),
        ];
        let so = folder.path().join("libmany.so");
        compiled_text(&text.concat(), &so, &[]);
        (folder, so)
    });
    path
}

/// A tile of its own for each thread and call.
fn batch(number: i64) -> Batch {
    batch_of(number, 0)
}

/// It with that first byte.
fn batch_of(number: i64, first: u8) -> Batch {
    let info = SlideInfo::unopened("a".into(), SlideKey(7), "a.svs".into());
    let key = Key {
        slide: SlideId::new(0, 0),
        tile: TileId::new(0, 0, number * 8, 0).unwrap(),
        rev: 0,
    };
    let mut pixels = vec![0; TileBuf::bytes(SIDE, SIDE)];
    pixels[0] = first;
    let tile = TileBuf::new(SIDE, SIDE, pixels.into(), None).unwrap();
    let body = Body::Pixels(Arc::new(tile));
    Batch::new(vec![(key, body, Arc::new(info), None)], 1)
}

/// A stage of the plugin.
fn made(id: &str, way: &Way) -> Made {
    let schemas = Described::read(built()).unwrap().schemas();
    let schema = schemas.iter().find(|schema| schema.name == id).unwrap();
    let memory = values([("memory", Value::Bytes(8 << 20))]);
    let stage = node("own", schema, memory, way);
    Made::of(&stage, plugins(built(), "many", way), way).unwrap()
}

/// Who answered when two threads, as many as the run's helpers, called at the same time: processes and instances in them.
fn answered(id: &str, isolated: bool) -> (BTreeSet<u32>, BTreeSet<(u32, u32)>) {
    let made = made(id, &Way::of(isolated, SIDE));
    let work = made.work();
    let who = std::thread::scope(|scope| {
        let threads = [0, 1].map(|thread| {
            scope.spawn(move || {
                (0..8)
                    .map(|call| {
                        let mut batch = batch(thread * 8 + call);
                        work.run(&mut batch).unwrap();
                        match batch.outcome(0, 0).unwrap() {
                            Body::Feature(feature) => (feature[0] as u32, feature[1] as u32),
                            other => panic!("{other:?}"),
                        }
                    })
                    .collect::<Vec<_>>()
            })
        });
        threads.map(|thread| thread.join().unwrap()).concat()
    });
    (
        who.iter().map(|(process, _)| *process).collect(),
        who.into_iter().collect(),
    )
}

#[test]
fn in_this_process_only_what_asks_for_it_has_several_instances() {
    for ((id, _), instances) in MAPS.into_iter().zip([1, 1, 2]) {
        let (processes, all) = answered(id, false);
        assert_eq!(processes, [std::process::id()].into(), "{id}");
        assert_eq!(all.len(), instances, "{id}: {all:?}");
    }
}

#[test]
fn isolated_a_stage_whose_calls_may_run_at_once_has_several_processes_of_one_instance_each() {
    for ((id, _), count) in MAPS.into_iter().zip([1, 2, 2]) {
        let (processes, all) = answered(id, true);
        assert!(!processes.contains(&std::process::id()), "{id}");
        assert_eq!(processes.len(), count, "{id}: {all:?}");
        assert_eq!(all.len(), count, "{id}: {all:?}");
    }
}

/// It has five seconds to destroy its instance, after which it is ended.
#[test]
fn a_process_whose_instance_panicked_and_takes_long_to_be_destroyed_holds_up_no_call_of_the_others()
{
    let made = made("many.own", &Way::of(true, SIDE));
    let work = made.work();
    let over = AtomicBool::new(false);
    let (panicked, longest) = std::thread::scope(|scope| {
        let panics = scope.spawn(|| {
            let began = Instant::now();
            assert!(work.run(&mut batch_of(0, 13)).is_err());
            over.store(true, Ordering::SeqCst);
            began.elapsed()
        });
        let mut longest = Duration::ZERO;
        for call in 1.. {
            let began = Instant::now();
            work.run(&mut batch(call)).unwrap();
            longest = longest.max(began.elapsed());
            if over.load(Ordering::SeqCst) {
                break;
            }
        }
        (panics.join().unwrap(), longest)
    });
    assert!(panicked >= Duration::from_secs(5), "{panicked:?}");
    assert!(longest < Duration::from_millis(4500), "{longest:?}");
}

/// Each call takes longer than others wait for it, so that its instance is given up; then each would take its time again.
#[test]
fn instances_that_were_given_up_and_hang_when_they_are_destroyed_are_waited_for_together() {
    let way = Way {
        timeout: Duration::from_secs(1),
        ..Way::of(false, SIDE)
    };
    let made = made("many.serial", &way);
    let work = made.work();
    std::thread::scope(|scope| {
        for call in 0..7 {
            scope.spawn(move || work.run(&mut batch_of(call, 14)).unwrap());
        }
    });
    let lines = made.lines.clone();
    let began = Instant::now();
    drop(made);
    let took = began.elapsed();
    let lines = lines.lock().unwrap();
    let left = lines.iter().filter(|line| line.contains("in `destroy`"));
    assert!(left.count() > 4, "{lines:?}");
    assert!(took < 6 * way.timeout, "{took:?}");
}

#[test]
fn what_a_stage_allocates_is_counted_for_each_of_its_instances() {
    let run = RunSettings {
        workers: 3,
        helpers: 5,
        open_slides: 7,
        ..RunSettings::default()
    };
    for (isolate, counts) in [(false, [1, 1, 5, 7]), (true, [1, 5, 5, 7])] {
        let catalogue = Catalogue::new(Folders::default(), Rules::default());
        let plugin = catalogue
            .plugin(&PluginAsk {
                name: "many".into(),
                path: Some(built().to_owned()),
                isolate,
                ..PluginAsk::default()
            })
            .unwrap();
        let ids = MAPS.map(|(id, _)| id).into_iter().chain([WRITE]);
        for (id, count) in ids.zip(counts) {
            let stage = plugin.memory.iter().find(|stage| stage.stage == id);
            let stage = stage.unwrap();
            assert_eq!(stage.param, "memory");
            assert_eq!(
                stage.instances.count(&run),
                count,
                "{id}, isolated: {isolate}"
            );
        }
    }
}
