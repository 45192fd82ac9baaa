//! One budget holds, however slow the slowest stage.

use crate::program::tiled::Tiled;
use crate::program::{command, record, said, tissue, weir};
use serde_json::Value;

/// A slide of 160 x 128 tiles of 256 px: 4 GB of pixels in a file of a few MB, since only 64 of its tiles differ.
const COLUMNS: u32 = 160;
const ROWS: u32 = 128;
const TILES: u64 = (COLUMNS * ROWS) as u64;

#[test]
fn a_slow_consumer_of_pixels_holds_the_reader_back_within_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let slide = Tiled {
        width: COLUMNS * 256,
        height: ROWS * 256,
        tile: 256,
        mpp: Some(0.5),
    };
    let kind = |column: u32, row: u32| u64::from(column % 8 + 8 * (row % 8));
    slide
        .write(&folder.path().join("large.tiff"), &kind, &|c, r, pixels| {
            tissue(kind(c, r), pixels)
        })
        .unwrap();
    let file = folder.path().join("slow.weir.toml");
    let text = r#"weir = 1

[run]
memory = "256MiB"
out = "out"

[stage.tiles]
use = "tile-reader"
slides = ["large.tiff"]
size = 256
mpp = 0.5
tissue = "none"

[stage.slow]
use = "null-sink"
in = "tiles"
pause = "5ms"
"#;
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();

    let graph: Value =
        serde_json::from_str(&weir(["graph", file, "--as", "json"]).exits(0).out).unwrap();
    let beyond = graph["memory"]["beyond_bytes"]
        .as_u64()
        .expect("what is not in the budget");

    let said = said(command(["run", file])).exits(0);
    let record = record(&folder.path().join("out"));
    assert_eq!(record["slides"]["large"]["tiles"], TILES);
    assert_eq!(
        record["slides"]["large"]["ledgers"]["slow.tiles"]["value"],
        TILES
    );
    let memory = &record["memory"];
    let (budget, held) = (
        memory["budget"].as_u64().unwrap(),
        memory["budget_peak"].as_u64().unwrap(),
    );
    assert_eq!(budget, 256 << 20);
    assert!(held <= budget, "{held} leased of {budget}");
    // The reader alone would have all of the slide's 4 GB waiting before the consumer is done with a tenth of it.
    assert!(held > 0 && held < TILES * 256 * 256 * 3 / 10, "{held}");
    let resident = memory["resident_peak"].as_u64().unwrap();
    println!(
        "{TILES} tiles in {:?}: {} MiB resident, {} MiB allowed",
        said.took,
        resident >> 20,
        (budget + beyond) >> 20
    );
    assert!(
        resident <= budget + beyond,
        "{resident} of {budget} + {beyond}"
    );
    // 5 ms a tile were really spent.
    assert!(said.took.as_millis() as u64 >= 5 * TILES, "{:?}", said.took);
}
