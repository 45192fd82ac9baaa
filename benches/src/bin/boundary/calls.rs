//! What a call costs, and what is done before it.

use super::{BATCH, Pass, verdict};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_benches::Result;
use weir_record::{Body, Grid, Key, Lease, SlideId, SlideInfo, SlideKey, TileBuf, TileId};
use weir_runtime::stage::{Batch, Work};

/// Calls of so many rows each into the plugin and into the built-in stage, so many rows in all; prints them, and what a batch takes.
pub(super) fn table(plugin: &dyn Work, of: Vec<usize>, calls: u32) -> Result<()> {
    println!("| call | built in | plugin in process | over it | wanted | | over it, a tile |");
    println!("|---|---|---|---|---|---|---|");
    for rows in of {
        let mut rows_of = Batch::new(alike(rows)?, 1);
        let calls = calls / rows as u32;
        let built_in = call(&Pass, &mut rows_of, calls)?;
        let foreign = call(plugin, &mut rows_of, calls)?;
        let over = foreign - built_in;
        let of_a_tile = over / rows as f64;
        println!(
            "| {rows} tiles | {built_in:.0} ns | {foreign:.0} ns | {over:.0} ns | <= 25 ns | {} | {of_a_tile:.1} ns |",
            verdict(over <= 25.0)
        );
    }
    let [single, full] = [making(1, true)?, making(BATCH, true)?];
    let apart = making(BATCH, false)?;
    println!(
        "\nBefore a call of any stage, built in or not, a batch is made, and let go of behind it: of one tile in {single:.0} ns, of {BATCH} in {full:.0} ns, of which {:.0} ns ({:.1} a tile) lay its rows out as plugins read them.",
        full - apart,
        (full - apart) / BATCH as f64
    );
    Ok(())
}

/// A row of a batch.
type Row = (Key, Body, Arc<SlideInfo>, Option<Lease>);

fn alike(rows: usize) -> Result<Vec<Row>> {
    let info = Arc::new(SlideInfo {
        grids: vec![Grid {
            footprint: 256.0,
            mpp: 0.5,
            px: 256,
        }],
        ..SlideInfo::unopened("a".into(), SlideKey(1), "a.tiff".into())
    });
    let rows = (0..rows).map(|i| {
        let pixels = vec![0; TileBuf::bytes(256, 256)];
        let tile = TileBuf::new(256, 256, pixels.into(), None).ok_or("no tile")?;
        let key = Key {
            slide: SlideId::new(0, 0),
            tile: TileId::new(0, 0, 256 * i as i64, 0).ok_or("no place")?,
            rev: 0,
        };
        Ok((key, Body::Pixels(Arc::new(tile)), info.clone(), None))
    });
    rows.collect()
}

/// Nanoseconds that making a batch of so many rows takes, and letting go of it; the least of some rounds. In a batch whose rows are alike
/// they are laid out as plugins read them.
fn making(of: usize, alike: bool) -> Result<f64> {
    const BATCHES: usize = 1000;
    let mut row = self::alike(of)?;
    if !alike {
        // Of another slide, as far as a batch looks.
        row[1].2 = Arc::new(SlideInfo::clone(&row[1].2));
    }
    let like = || {
        row.iter()
            .map(|(key, body, info, _)| (*key, body.clone(), info.clone(), None))
            .collect::<Vec<Row>>()
    };
    let mut best = Duration::MAX;
    for _ in 0..9 {
        let rows: Vec<Vec<Row>> = (0..BATCHES).map(|_| like()).collect();
        let start = Instant::now();
        for rows in rows {
            drop(black_box(Batch::new(rows, 1)));
        }
        best = best.min(start.elapsed() / BATCHES as u32);
    }
    Ok(best.as_secs_f64() * 1e9)
}

/// Nanoseconds of a call, the least of some rounds.
fn call(work: &dyn Work, batch: &mut Batch, calls: u32) -> Result<f64> {
    let mut best = Duration::MAX;
    for _ in 0..9 {
        let start = Instant::now();
        for _ in 0..calls {
            work.run(batch)?;
        }
        best = best.min(start.elapsed() / calls);
    }
    Ok(best.as_secs_f64() * 1e9)
}
