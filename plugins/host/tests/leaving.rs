//! When a plugin's instances are destroyed: as soon as nothing more comes to their stage, where that is all of the plugin that runs in
//! their process; else when nothing flows any more, one after the other. And how many there are meanwhile.
#![allow(clippy::unwrap_used)]

mod programs;
mod sins;

use programs::{Made, Way, compiled_text, node, plugins, values};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use weir_plugin_host::Described;
use weir_runtime::stage::Prepared;

/// The sin fails a tile that it works on when something of the plugin was destroyed, and ends the process where two are at a time.
#[test]
fn no_stage_of_a_plugin_is_destroyed_while_another_works_nor_two_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let way = Way {
        out: folder.path().to_owned(),
        ..sins::way(false)
    };
    let chain = ["source", "pass", "invert", "mean", "write"].map(|name| (name, "orderly"));
    let outcome = sins::ran(&chain, &way);
    assert_eq!(outcome.slides.len(), 3);
    for slide in outcome.slides.values() {
        assert!(slide.failures.is_empty(), "{:?}", slide.failures);
    }
}

const ALONE: &str = r#"
#include <stdio.h>
#include <unistd.h>
#include "weir_plugin.h"
#define TILES "{\"name\":\"tiles\",\"kind\":\"pixels\",\"shape\":[\"height\",\"width\",3],\"mpp\":\"mpp\"}"
WEIR_MANIFEST("{\"weir-abi\":\"1.0\",\"name\":\"alone\",\"version\":\"1.0.0\",\"summary\":\"For tests\",\"stages\":["
  "{\"id\":\"alone.map\",\"summary\":\"For tests\",\"rows\":\"map\",\"concurrency\":\"parallel\",\"in\":[" TILES "],\"out\":[" TILES "]}]}");
static _Atomic int made, inside;
static weir_status create(const weir_host *h, weir_call *call, const weir_value *values, uint32_t n, void **self) {
  char path[4096];
  (void)h, (void)call, (void)values, (void)n;
  snprintf(path, sizeof path, "%s.made-%d", GONE, ++made);
  fclose(fopen(path, "w"));
  *self = 0;
  return WEIR_OK;
}
static void destroy(void *self) { (void)self; fclose(fopen(GONE, "w")); }
/* Four calls at once, which all panic. */
static weir_status process(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  (void)self, (void)call, (void)port, (void)in;
  inside++;
  for (int i = 0; i < 60000 && inside < 4; i++) usleep(1000);
  return WEIR_E_PANIC;
}
static const weir_stage MAP = {.struct_size = sizeof MAP, .flags = WEIR_STAGE_PARALLEL, .id = "alone.map", .create = create, .destroy = destroy, .process = process};
static const weir_stage *const STAGES[] = {&MAP};
static const weir_plugin PLUGIN = {.struct_size = sizeof PLUGIN, .abi_minor = WEIR_ABI_MINOR, .manifest = weir_manifest, .stages = STAGES, .n_stages = 1};
WEIR_EXPORT weir_status weir_plugin_v1(const weir_host *h, weir_call *call, const weir_plugin **out) {
  (void)h, (void)call;
  *out = &PLUGIN;
  return WEIR_OK;
}
"#;

/// The stage of that plugin, and the file that it writes when it is destroyed; with ends of their own those that it writes when it is made.
fn alone(folder: &Path, isolated: bool) -> (Made, PathBuf) {
    let gone = folder.join("gone");
    let text = format!("#define GONE {:?}\n{ALONE}", gone.display().to_string());
    let so = compiled_text(&text, &folder.join("libalone.so"), &[]);
    let way = Way::of(isolated, 16);
    let schemas = Described::read(&so).unwrap().schemas();
    let node = node("own", &schemas[0], values([]), &way);
    let made = Made::of(&node, plugins(&so, "alone", &way), &way).unwrap();
    (made, gone)
}

#[test]
fn a_stage_that_is_all_that_runs_of_its_plugin_is_destroyed_once_it_is_left_by_all() {
    for isolated in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (made, gone) = alone(folder.path(), isolated);
        let Prepared::Work(work) = made.prepared else {
            panic!("no map");
        };
        // Two workers.
        let other = work.clone();
        work.leave()();
        assert!(!gone.exists());
        let ending = other.leave();
        let until = Instant::now() + Duration::from_secs(60);
        while !gone.exists() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(gone.exists());
        ending();
    }
}

#[test]
fn calls_that_panic_in_the_same_instance_have_one_made_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (made, gone) = alone(folder.path(), false);
    std::thread::scope(|threads| {
        for i in 0..4 {
            let made = &made;
            threads.spawn(move || {
                let mut batch = sins::batch(&[sins::tile(0, i, 1)]);
                made.work().run(&mut batch).unwrap_err();
            });
        }
    });
    assert!(!gone.exists(), "one was destroyed while others worked");
    drop(made);
    let all = std::fs::read_dir(folder.path()).unwrap();
    let names = all.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.contains(".made-")).count(), 2);
}
