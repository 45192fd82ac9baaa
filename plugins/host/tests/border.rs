//! Values cross the border where they lie: what a plugin reads is the value's own memory, what it makes is the next stage's, and what
//! it passes on is the very value that came. Through the whole of a stage, as the runtime calls it.
#![allow(clippy::unwrap_used)]

mod programs;

use programs::{Made, Way, compiled_text, node, plugins, values};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use weir_plugin_host::Described;
use weir_record::{
    Body, Feature, Key, Scores, SlideId, SlideInfo, SlideKey, Table, TileBuf, TileId,
};
use weir_runtime::stage::Batch;

/// Side of a tile, px.
const SIDE: u32 = 8;
/// Tiles of a batch.
const ROWS: usize = 5;

/// Of each row, where its value lies, as three numbers of 24 bits and fewer.
const LOOK: &str = r#"
static const weir_host *host;
static weir_status create(const weir_host *h, weir_call *call, const weir_value *values, uint32_t n, void **self) {
  (void)call; (void)values; (void)n; host = h; *self = 0;
  return WEIR_OK;
}
static void destroy(void *self) { (void)self; }
static void told(float *to, const void *at) {
  uint64_t word = (uint64_t)(uintptr_t)at;
  to[0] = (float)(word >> 48); to[1] = (float)(word >> 24 & 0xFFFFFF); to[2] = (float)(word & 0xFFFFFF);
}
static weir_status look(void *self, weir_call *call, uint32_t port, const weir_batch *batch) {
  uint32_t source[64];
  (void)self; (void)port;
  for (uint32_t i = 0; i < batch->n_rows; i++) source[i] = i;
  weir_batch *out = host->batch_new(call, 0, batch->n_rows, source);
  if (!out) return WEIR_E_MEMORY;
  for (uint32_t i = 0; i < batch->n_rows; i++) told(out->columns[0].rows[i], batch->columns[0].rows[i]);
  return host->emit(call, 0, out);
}
static weir_status make(void *self, weir_call *call, uint32_t port, const weir_batch *batch) {
  uint32_t source[64];
  (void)self; (void)port;
  for (uint32_t i = 0; i < batch->n_rows; i++) source[i] = i;
  weir_batch *tiles = host->batch_new(call, 1, batch->n_rows, source);
  weir_batch *where = tiles ? host->batch_new(call, 0, batch->n_rows, source) : 0;
  if (!where) return WEIR_E_MEMORY;
  for (uint32_t i = 0; i < batch->n_rows; i++) told(where->columns[0].rows[i], tiles->columns[0].rows[i]);
  weir_status said = host->emit(call, 1, tiles);
  return said ? said : host->emit(call, 0, where);
}
static weir_status pass(void *self, weir_call *call, uint32_t port, const weir_batch *batch) {
  uint32_t source[64];
  (void)self; (void)port;
  for (uint32_t i = 0; i < batch->n_rows; i++) source[i] = i;
  return host->pass(call, 0, source, batch->n_rows);
}
"#;

const TILES: &str = r#"{"name":"tiles","kind":"pixels","shape":["height","width",3],"mpp":"mpp"}"#;
const WHERE: &str = r#"{"name":"where","kind":"features","shape":[3]}"#;

/// Name, function, what it takes, what it gives.
fn stages() -> Vec<(&'static str, &'static str, &'static str, String)> {
    let where_ = WHERE.to_owned();
    vec![
        ("pixels", "look", TILES, where_.clone()),
        (
            "features",
            "look",
            r#"{"name":"features","kind":"features","shape":["width"]}"#,
            where_.clone(),
        ),
        (
            "scores",
            "look",
            r#"{"name":"scores","kind":"scores","shape":["height","width",2]}"#,
            where_.clone(),
        ),
        (
            "tables",
            "look",
            r#"{"name":"tables","kind":"table"}"#,
            where_,
        ),
        ("make", "make", TILES, format!("{WHERE},{TILES}")),
        ("pass", "pass", TILES, TILES.to_owned()),
    ]
}

fn built() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let all = stages();
        let listed = all.iter().map(|(name, _, takes, gives)| {
            format!(
                r#"{{"id":"border.{name}","summary":"For tests","rows":"map","in":[{takes}],"out":[{gives}]}}"#
            )
        });
        let listed: Vec<String> = listed.collect();
        let manifest = format!(
            r#"{{"weir-abi":"1.0","name":"border","version":"1.0.0","summary":"For tests","stages":[{}]}}"#,
            listed.join(",")
        );
        let tables = all.iter().map(|(name, function, ..)| {
            format!(
                "static const weir_stage {name}_stage = {{.struct_size = sizeof(weir_stage), .id = \"border.{name}\", .create = create, .destroy = destroy, .process = {function}}};\n"
            )
        });
        let tables: String = tables.collect();
        let names: Vec<String> = all.iter().map(|(name, ..)| format!("&{name}_stage")).collect();
        let text = format!(
            "#include \"weir_plugin.h\"\nWEIR_MANIFEST({manifest:?});\n{LOOK}{tables}static const weir_stage *const STAGES[] = {{{}}};\n\
             static const weir_plugin PLUGIN = {{.struct_size = sizeof PLUGIN, .abi_minor = WEIR_ABI_MINOR, .manifest = weir_manifest, .stages = STAGES, .n_stages = {}}};\n\
             WEIR_EXPORT weir_status weir_plugin_v1(const weir_host *h, weir_call *call, const weir_plugin **out) {{ (void)h; (void)call; *out = &PLUGIN; return WEIR_OK; }}\n",
            names.join(", "),
            names.len(),
        );
        let so = folder.path().join("libborder.so");
        compiled_text(&text, &so, &[]);
        (folder, so)
    });
    path
}

/// A batch of `bodies` that went through the stage `name`.
fn through(name: &str, bodies: Vec<Body>) -> Batch {
    let way = Way::of(false, SIDE);
    let described = Described::read(built()).unwrap();
    let schema = described
        .schemas()
        .iter()
        .find(|schema| schema.name == format!("border.{name}"))
        .unwrap();
    let made = Made::of(
        &node("own", schema, values([]), &way),
        plugins(built(), "border", &way),
        &way,
    );
    let made = made.unwrap();
    let info = SlideInfo::unopened("a".into(), SlideKey(1), "a.svs".into());
    let info = Arc::new(info);
    let rows = bodies.into_iter().enumerate().map(|(i, body)| {
        let key = Key {
            slide: SlideId::new(0, 0),
            tile: TileId::new(0, 0, i as i64, 0).unwrap(),
            rev: 0,
        };
        (key, body, info.clone(), None)
    });
    let mut batch = Batch::new(rows.collect(), schema.outs.len());
    made.work().run(&mut batch).unwrap();
    batch
}

fn tiles() -> Vec<Body> {
    let tile = |i: usize| {
        let data = vec![i as u8; TileBuf::bytes(SIDE, SIDE)];
        Body::Pixels(Arc::new(
            TileBuf::new(SIDE, SIDE, data.into(), None).unwrap(),
        ))
    };
    (0..ROWS).map(tile).collect()
}

/// Where the memory of a value lies, of its first column.
fn lies(body: &Body) -> u64 {
    let at: *const u8 = match body {
        Body::Pixels(tile) => tile.pixels().as_ptr(),
        Body::Feature(feature) => feature.as_ptr().cast(),
        Body::Score(scores) => std::ptr::from_ref(&scores.score).cast(),
        Body::Ext(table) => table.bytes.as_ptr(),
        other => panic!("{other:?}"),
    };
    at.addr() as u64
}

/// What the plugin said of where row `i` lies.
fn told(batch: &Batch, i: usize) -> u64 {
    match batch.outcome(i, 0) {
        Some(Body::Feature(parts)) => {
            (parts[0] as u64) << 48 | (parts[1] as u64) << 24 | parts[2] as u64
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_plugin_reads_tiles_vectors_scores_and_tables_where_they_lie() {
    let features =
        (0..ROWS).map(|i| Body::Feature(Arc::new(Feature::new(vec![i as f32; 4], None))));
    let scores = (0..ROWS).map(|i| {
        Body::Score(Arc::new(Scores {
            score: i as f32,
            probabilities: vec![0.5, 0.5],
        }))
    });
    let tables = (0..ROWS).map(|i| {
        Body::Ext(Arc::new(Table {
            format: "probe.same/1".into(),
            bytes: vec![i as u8; 9],
        }))
    });
    for (name, bodies) in [
        ("pixels", tiles()),
        ("features", features.collect()),
        ("scores", scores.collect()),
        ("tables", tables.collect()),
    ] {
        let batch = through(name, bodies);
        for i in 0..ROWS {
            assert_eq!(told(&batch, i), lies(batch.body(i)), "{name}, row {i}");
        }
    }
}

#[test]
fn a_tile_that_a_plugin_makes_is_the_memory_that_it_wrote_to() {
    let batch = through("make", tiles());
    for i in 0..ROWS {
        let made = batch.outcome(i, 1).unwrap();
        assert_eq!(told(&batch, i), lies(made), "row {i}");
        assert_ne!(told(&batch, i), lies(batch.body(i)));
    }
}

#[test]
fn a_tile_that_a_plugin_passes_on_is_the_one_that_came() {
    let batch = through("pass", tiles());
    for i in 0..ROWS {
        match (batch.body(i), batch.outcome(i, 0).unwrap()) {
            (Body::Pixels(came), Body::Pixels(went)) => assert!(Arc::ptr_eq(came, went), "{i}"),
            other => panic!("{other:?}"),
        }
    }
}
