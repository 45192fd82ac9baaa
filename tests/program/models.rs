//! Small models with random weights, and pipelines that use them: for tests that need answers, not good ones.

use std::path::{Path, PathBuf};
use weir_model::{Weights, folder, save};
use weir_pipeline::model::{ModelHeader, ModelInput, ModelKind};

/// Writes the two models `a` and `b` for tiles of `size` px at `mpp` um/px into `folder`. The same bytes at each call.
pub fn write(folder: &Path, size: u32, mpp: f64) {
    write_wide(folder, size, mpp, 32);
}

/// The same for vectors of `feature` numbers.
pub fn write_wide(folder: &Path, size: u32, mpp: f64, feature: u32) {
    for (name, kind) in [("a", ModelKind::Scorer), ("b", ModelKind::Bag)] {
        let bag = kind == ModelKind::Bag;
        let header = ModelHeader {
            format: 1,
            kind,
            arch: "small".into(),
            feature,
            hidden: if bag { 16 } else { 0 },
            gated: bag,
            classes: vec!["normal".into(), "tumour".into()],
            positive: "tumour".into(),
            input: ModelInput {
                size,
                mpp,
                mean: [0.7, 0.5, 0.7],
                std: [0.2, 0.2, 0.2],
            },
            normalise: if bag {
                "squared-average".into()
            } else {
                String::new()
            },
            link: if bag { "sigmoid".into() } else { String::new() },
            power: None,
            contract: if bag {
                "ordered-f32/1".into()
            } else {
                String::new()
            },
            sha256: String::new(),
            training: None,
            folder: PathBuf::new(),
        };
        let weights = Weights::start(&folder::parameters(&header).unwrap(), 7);
        save(&folder.join(name), &header, &weights).unwrap();
    }
}

/// What a test pipeline is made of.
pub struct Pipeline<'a> {
    /// Texts of `slides`.
    pub slides: &'a [&'a str],
    /// Tile size, px.
    pub size: u32,
    /// um/px.
    pub mpp: f64,
    /// Further lines of `[run]`.
    pub run: &'a str,
    /// Further lines of the tile-reader.
    pub reader: &'a str,
}

impl Pipeline<'_> {
    /// Writes models and `test.weir.toml` into `folder`: the demo's graph without pictures. Returns the file.
    pub fn write(&self, folder: &Path) -> PathBuf {
        write(&folder.join("models"), self.size, self.mpp);
        let slides: Vec<String> = self
            .slides
            .iter()
            .map(|slide| format!("{slide:?}"))
            .collect();
        let text = format!(
            r#"weir = 1

[run]
out = "out"
{run}

[model.a]
path = "models/a"

[model.b]
path = "models/b"

[stage.tiles]
use = "tile-reader"
slides = [{slides}]
size = {size}
mpp = {mpp:?}
{reader}

[stage.score]
use = "scorer"
in = "tiles"
model = "a"

[stage.top]
use = "top-k"
in = "score"
highest = 16
lowest = 16

[stage.chosen]
use = "tile-fetch"
in = "top"

[stage.encode]
use = "encoder"
in = "chosen"
model = "b"

[stage.pool]
use = "attention-pool"
in = "encode"
model = "b"

[stage.classify]
use = "classifier"
in = "pool.bag"
model = "b"

[stage.predictions]
use = "predictions-sink"
in = {{ predictions = "classify" }}

[stage.table]
use = "tiles-sink"
in = {{ scores = "score", attention = "pool.attention" }}
"#,
            run = self.run,
            slides = slides.join(", "),
            size = self.size,
            mpp = self.mpp,
            reader = self.reader,
        );
        let file = folder.join("test.weir.toml");
        std::fs::write(&file, text).unwrap();
        file
    }
}
