//! What a loaded plugin hands over is held against its manifest, and its entry is called once whatever comes of it.
#![allow(clippy::unwrap_used)]

mod programs;

use programs::{Made, Way, admitted, compiled_text, node, values};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use weir_plugin_host::{Described, Loaded, Log, Plugins, Refusal};

/// A filter; what differs from plugin to plugin.
#[derive(Clone, Copy)]
struct Source<'a> {
    /// Of its manifest.
    version: &'a str,
    /// Of its manifest.
    concurrency: &'a str,
    /// Of its table.
    flags: &'a str,
    /// Its tables.
    stages: &'a str,
    /// How many it says that they are.
    count: &'a str,
    /// The header's minor version that it was built against.
    minor: &'a str,
    /// The table's id.
    id: &'a str,
    /// The text that it hands over as its manifest's.
    text: &'a str,
    /// Where its entry leaves a byte each time that it is called.
    mark: &'a Path,
}

impl Source<'_> {
    /// One that keeps all rules.
    fn sound(mark: &Path) -> Source<'_> {
        Source {
            version: "0.1.0",
            concurrency: "serial",
            flags: "0",
            stages: "&same",
            count: "sizeof stages / sizeof *stages",
            minor: "WEIR_ABI_MINOR",
            id: "\"probe.same\"",
            text: "weir_manifest",
            mark,
        }
    }

    fn build(&self, so: &Path) -> PathBuf {
        self.linked(so, &[])
    }

    /// The same, linked so.
    fn linked(&self, so: &Path, flags: &[&str]) -> PathBuf {
        let manifest = format!(
            r#"{{ "weir-abi": "1.0", "name": "probe", "version": "{}", "summary": "For tests", "stages": [
              {{ "id": "probe.same", "summary": "Hands tiles on", "rows": "filter", "concurrency": "{}",
                "in": [ {{ "name": "tiles", "kind": "pixels", "shape": ["height", "width", 3], "mpp": "mpp" }} ],
                "out": [ {{ "name": "tiles", "kind": "pixels", "shape": ["height", "width", 3], "mpp": "mpp" }} ] }} ] }}"#,
            self.version, self.concurrency
        );
        let text = format!(
            r#"#include <fcntl.h>
#include <unistd.h>
#include "weir_plugin.h"
WEIR_MANIFEST({manifest:?});
static weir_status create(const weir_host *h, weir_call *c, const weir_value *v, uint32_t n, void **self) {{
  (void)h; (void)c; (void)v; (void)n; *self = 0; return WEIR_OK;
}}
static void destroy(void *self) {{ (void)self; }}
static weir_status process(void *self, weir_call *c, uint32_t port, const weir_batch *in) {{
  (void)self; (void)c; (void)port; (void)in; return WEIR_OK;
}}
static const weir_stage same = {{ .struct_size = sizeof same, .flags = {}, .id = {}, .create = create, .destroy = destroy, .process = process }};
static const weir_stage *const stages[] = {{ {} }};
static const weir_plugin plugin = {{ .struct_size = sizeof plugin, .abi_minor = {}, .manifest = {},
                                    .stages = stages, .n_stages = {} }};
WEIR_EXPORT weir_status weir_plugin_v1(const weir_host *host, weir_call *call, const weir_plugin **out) {{
  int mark = open({:?}, O_CREAT | O_WRONLY | O_APPEND, 0644);
  (void)host; (void)call;
#ifdef SAYS
  host->log(call, WEIR_LOG_INFO, (weir_str){{ SAYS, sizeof SAYS - 1 }});
#endif
  if (write(mark, "x", 1) != 1) return WEIR_E_FAIL;
  close(mark);
  *out = &plugin;
  return WEIR_OK;
}}
"#,
            self.flags, self.id, self.stages, self.minor, self.text, self.count, self.mark
        );
        compiled_text(&text, so, flags)
    }
}

fn loaded(path: &Path) -> Result<&'static Loaded, Refusal> {
    Loaded::new(&admitted(path, "probe"))
}

#[test]
fn the_flags_of_a_stage_say_what_its_manifest_says() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    for (n, (concurrency, flags, said)) in [
        ("serial", "0", None),
        ("per-worker", "0", None),
        ("parallel", "WEIR_STAGE_PARALLEL", None),
        ("parallel", "WEIR_STAGE_PARALLEL | WEIR_STAGE_DETERMINISTIC", None),
        (
            "serial",
            "WEIR_STAGE_PARALLEL",
            Some("stage `probe.same` has `concurrency` serial in the manifest, and its table says WEIR_STAGE_PARALLEL"),
        ),
        (
            "per-worker",
            "WEIR_STAGE_PARALLEL",
            Some("`concurrency` per-worker in the manifest, and its table says WEIR_STAGE_PARALLEL"),
        ),
        (
            "parallel",
            "WEIR_STAGE_DETERMINISTIC",
            Some("`concurrency` parallel in the manifest, and its table does not say WEIR_STAGE_PARALLEL"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let source = Source {
            concurrency,
            flags,
            ..Source::sound(&mark)
        };
        let found = loaded(&source.build(&folder.path().join(format!("lib{n}.so"))));
        match said {
            None => assert!(found.is_ok(), "{found:?}"),
            Some(said) => {
                let refusal = found.unwrap_err();
                assert_eq!(refusal.code, "E0513");
                assert!(refusal.what.contains(said), "{refusal}");
            }
        }
    }
}

#[test]
fn a_plugin_of_a_later_header_is_refused_whatever_its_manifest_says() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let source = Source {
        minor: "WEIR_ABI_MINOR + 7",
        ..Source::sound(&mark)
    };
    let refusal = loaded(&source.build(&folder.path().join("libprobe.so"))).unwrap_err();
    assert_eq!(refusal.code, "E0513");
    let said = "it was built against ABI 1.7 (abi_minor), and its manifest says 1.0";
    assert!(refusal.what.contains(said), "{refusal}");
}

#[test]
fn two_tables_of_one_id_are_refused_and_the_entry_is_not_called_again() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let source = Source {
        stages: "&same, &same",
        ..Source::sound(&mark)
    };
    let file = source.build(&folder.path().join("libprobe.so"));
    let first = loaded(&file).unwrap_err();
    assert_eq!(first.code, "E0513");
    assert!(
        first.what.contains("two stages have the id `probe.same`"),
        "{first}"
    );
    let copy = folder.path().join("copy.so");
    std::fs::copy(&file, &copy).unwrap();
    for path in [&file, &copy] {
        let again = loaded(path).unwrap_err();
        assert_eq!((again.code, &again.what), (first.code, &first.what));
        assert_eq!(again.path.as_deref(), Some(path.as_path()));
    }
    assert_eq!(std::fs::read(&mark).unwrap(), b"x");
}

/// The system's loader knows a library by its file's name, which here is that of a descriptor, and gives it again for that name.
#[test]
fn a_plugin_that_comes_after_a_refused_one_is_itself() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..20 {
        let mark = folder.path().join(format!("mark{n}"));
        let source = Source {
            version: &format!("0.4.{n}"),
            stages: if n % 2 == 0 { "&same, &same" } else { "&same" },
            ..Source::sound(&mark)
        };
        let found = loaded(&source.build(&folder.path().join(format!("lib{n}.so"))));
        assert_eq!(found.is_ok(), n % 2 == 1, "{n}: {found:?}");
        assert_eq!(std::fs::read(&mark).unwrap(), b"x", "{n}");
    }
}

#[test]
fn what_was_loaded_is_not_entered_again() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let source = Source {
        version: "0.1.1",
        ..Source::sound(&mark)
    };
    let file = source.build(&folder.path().join("libprobe.so"));
    assert!(std::ptr::eq(loaded(&file).unwrap(), loaded(&file).unwrap()));
    assert_eq!(std::fs::read(&mark).unwrap(), b"x");
}

#[test]
fn two_plugins_of_a_run_with_one_stage_type_are_refused_with_both() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let mut plugins = Plugins::default();
    let mut schema = None;
    for version in ["0.2.0", "0.3.0"] {
        let source = Source {
            version,
            ..Source::sound(&mark)
        };
        let file = source.build(&folder.path().join(format!("lib{version}.so")));
        schema = Some(&Described::read(&file).unwrap().schemas()[0]);
        plugins.loaded.push(loaded(&file).unwrap());
    }
    let way = Way::of(false, 8);
    let node = node("own", schema.unwrap(), values([]), &way);
    let error = Made::of(&node, plugins, &way).err().unwrap();
    for part in ["[E0524]", "probe 0.2.0 (SHA-256 ", "probe 0.3.0 (SHA-256 "] {
        assert!(error.what.contains(part), "{error}");
    }
}

/// Each would have the host read where nothing of the plugin's is.
#[test]
fn tables_that_are_none_are_refused_before_they_are_read_to_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let sound = Source::sound(&mark);
    let endless = "(const char[512]){ [0 ... 511] = 'x' }";
    for (n, (source, said)) in [
        (
            Source {
                count: "UINT32_MAX",
                ..sound
            },
            "it says that it has 4294967295 stages",
        ),
        (
            Source {
                id: endless,
                ..sound
            },
            "an id has no end within 256 bytes",
        ),
        (
            Source {
                text: endless,
                ..sound
            },
            "the text that it hands over is another one than its file's",
        ),
        (
            Source {
                text: "\"{}\"",
                ..sound
            },
            "the text that it hands over is another one than its file's",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let refusal = loaded(&source.build(&folder.path().join(format!("lib{n}.so")))).unwrap_err();
        assert_eq!(refusal.code, "E0513");
        assert!(refusal.what.contains(said), "{refusal}");
    }
}

/// What a plugin asks for is made at once: a size must neither end the process nor come round to a small one.
#[test]
fn an_output_whose_rows_no_memory_holds_is_refused_before_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let source = Source {
        version: "0.5.0",
        ..Source::sound(&mark)
    };
    let file = source.build(&folder.path().join("libprobe.so"));
    let schema = &Described::read(&file).unwrap().schemas()[0];
    let way = Way::of(false, 8);
    let made = |height: u64, width: u64| {
        let mut node = node("own", schema, values([]), &way);
        node.shapes = vec![vec![height, width, 3]];
        let plugins = Plugins {
            loaded: vec![loaded(&file).unwrap()],
            ..Plugins::default()
        };
        Made::of(&node, plugins, &way).err()
    };
    assert!(made(10_000, 10_000).is_none());
    for (height, width) in [
        (1 << 62, 4),
        (1 << 31, 1 << 31),
        (u64::MAX, 1),
        (70_000, 70_000),
    ] {
        let error = made(height, width).unwrap();
        assert!(
            error.what.contains("no row has more than 1073741824 bytes"),
            "{error}"
        );
    }
}

#[test]
fn a_library_that_is_not_there_is_named_and_an_rpath_only_where_it_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let beside = folder.path().join("libbeside.so");
    let text = "int beside(void); int beside(void) { return 1; }";
    compiled_text(text, &beside, &["-Wl,-soname,libbeside.so"]);
    let beside = beside.to_str().unwrap();
    for (n, (path, spoken)) in [
        ("-Wl,-rpath,/nowhere", false),
        ("-Wl,--enable-new-dtags,-rpath,$ORIGIN", true),
        (
            "-Wl,--disable-new-dtags,-rpath,/nowhere:${ORIGIN}/lib",
            true,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let version = format!("0.6.{n}");
        let source = Source {
            version: &version,
            ..Source::sound(&mark)
        };
        let so = folder.path().join(format!("lib{n}.so"));
        let so = source.linked(&so, &[path, "-Wl,--no-as-needed", beside]);
        let refusal = loaded(&so).unwrap_err();
        assert_eq!(refusal.code, "E0509", "{refusal}");
        assert!(refusal.what.contains("libbeside.so"), "{refusal}");
        assert_eq!(
            refusal.help.contains("$ORIGIN"),
            spoken,
            "{path}: {refusal}"
        );
    }
}

/// Its constructor waits until somebody was told; then its entry says something.
#[test]
fn a_plugin_that_takes_long_to_be_loaded_is_told_of_and_what_its_entry_says_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let slow = folder.path().join("slow.h");
    let told = folder.path().join("told");
    let text = format!(
        r#"#include <unistd.h>
__attribute__((constructor)) static void slow(void) {{
  for (int i = 0; i < 6000 && access({told:?}, F_OK); i++) usleep(10000);
}}
#define SAYS "here I am"
"#
    );
    std::fs::write(&slow, text).unwrap();
    let mark = folder.path().join("mark");
    let so = folder.path().join("libslow.so");
    let file = Source::sound(&mark).linked(&so, &["-include", slow.to_str().unwrap()]);
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = lines.clone();
    let log = Log::to(move |level, stage, text| {
        let line = format!("{} {stage}: {text}", level.name());
        heard.lock().unwrap().push(line);
        std::fs::write(&told, "").unwrap();
    });
    let patience = Duration::from_millis(50);
    assert!(Loaded::heard(&admitted(&file, "probe"), &log, patience).is_ok());
    let lines = lines.lock().unwrap();
    let first = lines.first().unwrap();
    assert!(
        first.starts_with("warning probe: plugin `probe` 0.1.0 has been in `dlopen` for "),
        "{first}"
    );
    assert!(first.contains("[E0523]") && first.ends_with("`weir_plugin_v1`"));
    let said = lines.iter().filter(|line| line.starts_with("info "));
    assert_eq!(said.collect::<Vec<_>>(), ["info probe: here I am"]);
}
