//! The engine: what it costs a tile beyond reading, and tiles/s of reading and scoring by number of workers.

use std::path::Path;
use std::sync::Arc;
use weir_benches::clock::{machine, process_cpu};
use weir_benches::{Result, free as free_scorer, generated};
use weir_model::{Choice, Encoder, Weights, folder, save};
use weir_pipeline::check::{Overrides, check_text};
use weir_pipeline::model::{ModelHeader, ModelInput, ModelKind};
use weir_pipeline::{NoPlugins, Registry};
use weir_record::TileId;
use weir_runtime::Options;
use weir_runtime::stage::StageType;
use weir_slide::{Edge, OpenOptions, Tiling, open};

/// Side of the free scorer's tiles, px: small, so that there are many and what the engine does shows beside reading.
const FREE_PX: u32 = 32;

/// Runs a pipeline file's text and says what it took: CPU and wall, seconds.
fn run(text: &str) -> Result<(f64, f64)> {
    let types: Vec<StageType> = weir_stages::types()
        .iter()
        .copied()
        .chain([free_scorer::TYPE])
        .collect();
    let registry = Registry::new(types.iter().map(|kind| kind.schema));
    let file = generated::folder().join("bench.weir.toml");
    let checked = check_text(
        &file,
        text,
        &Overrides::default(),
        &registry,
        &NoPlugins,
        &|_| None,
    );
    let Some(plan) = checked.plan else {
        let titles: Vec<String> = checked
            .diagnostics
            .iter()
            .map(|d| d.title.clone())
            .collect();
        return Err(titles.join("; ").into());
    };
    let (cpu, start) = (process_cpu()?, std::time::Instant::now());
    let outcome = weir_runtime::run(Arc::new(plan), &types, Options::default())
        .map_err(|error| format!("{error:?}"))?;
    let took = (
        process_cpu()?.saturating_sub(cpu).as_secs_f64(),
        start.elapsed().as_secs_f64(),
    );
    if outcome.exit_code() != 0 {
        return Err(format!("the run ended with exit code {}", outcome.exit_code()).into());
    }
    Ok(took)
}

/// All tiles of `px` px at `mpp` read in file order by this thread alone: CPU seconds, tiles.
fn read_alone(path: &Path, px: u32, mpp: f64) -> Result<(f64, usize)> {
    let slide = open(path, &OpenOptions::default())?;
    let tiling = Tiling::new(slide.facts(), px, mpp, 0, Edge::Drop)?;
    let mut tiles: Vec<TileId> = tiling.tiles().collect();
    tiling.file_order(&mut tiles, slide.facts(), 64 << 20);
    let cpu = process_cpu()?;
    let mut pixels = vec![0; (px * px * 3) as usize];
    for &tile in &tiles {
        slide.read(tiling.region(tile), 0, px, px, &mut pixels)?;
        std::hint::black_box(&pixels);
    }
    Ok((
        process_cpu()?.saturating_sub(cpu).as_secs_f64(),
        tiles.len(),
    ))
}

fn head(slide: &Path, px: u32, mpp: f64, run: &str) -> String {
    format!(
        "weir = 1\n[run]\nmemory = \"256MiB\"\nout = \"out\"\n{run}\n[stage.tiles]\nuse = \"tile-reader\"\nslides = [{:?}]\nsize = {px}\nmpp = {mpp:?}\ntissue = \"none\"\n",
        slide.display().to_string()
    )
}

const REST: &str = "[stage.top]\nuse = \"top-k\"\nin = \"score\"\nhighest = 8\nlowest = 8\n[stage.chosen]\nuse = \"tile-fetch\"\nin = \"top\"\n[stage.end]\nuse = \"null-sink\"\nin = \"chosen\"\n";

fn free() -> Result<()> {
    let path = generated::slide(&generated::SMALL)?;
    let mpp = open(&path, &OpenOptions::default())?
        .facts()
        .require_mpp()?
        .0
        .0;
    let text = format!(
        "{}[stage.score]\nuse = \"free-scorer\"\nin = \"tiles\"\n{REST}",
        head(&path, FREE_PX, mpp, "workers = 1")
    );
    println!(
        "A free scorer on tiles of {FREE_PX} px at level 0 (tile-reader, free scorer, top-k, tile-fetch, sink):\n"
    );
    println!("| run | CPU us a tile, run | reading alone | the engine's part | wanted |");
    println!("|---|---|---|---|---|");
    for round in 1..=3 {
        let (alone, tiles) = read_alone(&path, FREE_PX, mpp)?;
        let (cpu, _) = run(&text)?;
        let each = |seconds: f64| seconds / tiles as f64 * 1e6;
        println!(
            "| {round} ({tiles} tiles) | {:.2} | {:.2} | {:.2} | <= 5 |",
            each(cpu),
            each(alone),
            each(cpu - alone)
        );
    }
    Ok(())
}

/// An untrained scorer of the demo's architecture.
fn scorer(px: u32, mpp: f64) -> Result<std::path::PathBuf> {
    let header = ModelHeader {
        format: 1,
        kind: ModelKind::Scorer,
        arch: "small".into(),
        feature: 128,
        hidden: 0,
        gated: false,
        classes: vec!["normal".into(), "tumour".into()],
        positive: "tumour".into(),
        input: ModelInput {
            size: px,
            mpp,
            mean: [0.8, 0.65, 0.75],
            std: [0.15, 0.2, 0.15],
        },
        normalise: String::new(),
        link: String::new(),
        power: None,
        contract: String::new(),
        sha256: "0".repeat(64),
        training: None,
        folder: Default::default(),
    };
    let place = generated::folder().join("scorer");
    let weights = Weights::start(&folder::parameters(&header)?, 1);
    save(&place, &header, &weights)?;
    Ok(place)
}

fn scored() -> Result<()> {
    const PX: u32 = 50;
    let path = generated::slide(&generated::SMALL)?;
    let mpp = 2.0
        * open(&path, &OpenOptions::default())?
            .facts()
            .require_mpp()?
            .0
            .0;
    let model = scorer(PX, mpp)?;
    let encoder = Encoder::load(&ModelHeader::load(&model)?, &Choice::default())?;
    let tiles = read_alone(&path, PX, mpp)?.1;
    println!(
        "\nReading and scoring {tiles} tiles of {PX} px (network `small`, {}):\n",
        encoder.chosen().key()
    );
    println!("| workers | helpers | tiles/s | CPU us a tile |");
    println!("|---|---|---|---|");
    for (workers, helpers) in [(1, 1), (1, 2), (2, 2), (4, 2)] {
        let text = format!(
            "{}[model.a]\npath = {:?}\n[stage.score]\nuse = \"scorer\"\nin = \"tiles\"\nmodel = \"a\"\n{REST}",
            head(
                &path,
                PX,
                mpp,
                &format!("workers = {workers}\nhelpers = {helpers}")
            ),
            model.display().to_string(),
        );
        let (cpu, wall) = run(&text)?;
        println!(
            "| {workers} | {helpers} | {:.0} | {:.0} |",
            tiles as f64 / wall,
            cpu / tiles as f64 * 1e6
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    println!("Engine: {}\n", machine());
    free()?;
    scored()
}
