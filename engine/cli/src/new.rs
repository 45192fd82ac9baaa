//! `weir new pipeline`: a file to start from.

use crate::message::{Done, Refusal};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;
use weir_pipeline::ModelHeader;
use weir_runtime::exit;

/// Writes a pipeline over the models `a` (scorer) and `b` (bag) in the folder `models`, with the tile size and resolution that
/// they were trained on, so that the file is right as it stands.
pub fn pipeline(file: &Path, models: &Path, out: &mut dyn Write) -> Done {
    let header = |name: &str| {
        ModelHeader::load(&models.join(name)).map_err(|fault| {
            Refusal::usage(
                fault,
                "give the folder that holds the models `a` and `b` with --models, as `weir train` writes it or as pipelines/models/demo",
            )
        })
    };
    let (a, b) = (header("a")?, header("b")?);
    if (a.input.size, a.input.mpp) != (b.input.size, b.input.mpp) {
        return Err(Refusal::usage(
            format!(
                "the models in {} take different tiles: a {} px at {} um/px, b {} px at {} um/px",
                models.display(),
                a.input.size,
                a.input.mpp,
                b.input.size,
                b.input.mpp
            ),
            "use two models that were trained together",
        ));
    }
    let text = text(&a, &path_from(file, models)?);
    let mut made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(file)
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Refusal::usage(
                format!("{} is there already", file.display()),
                "name another file; nothing is overwritten",
            ),
            _ => Refusal::usage(
                format!("{} cannot be written: {error}", file.display()),
                "name a file in a folder that exists",
            ),
        })?;
    made.write_all(text.as_bytes())
        .map_err(|error| Refusal::failed(format!("{}: {error}", file.display()), ""))?;
    writeln!(out, "wrote {}", file.display())?;
    writeln!(out, "next: weir run {} slides=SLIDE.svs", file.display())?;
    Ok(exit::DONE)
}

/// `to` as the file says it: relative paths of a file start at its own folder.
fn path_from(file: &Path, to: &Path) -> Result<String, Refusal> {
    let no_folder = |path: &Path, error: std::io::Error| {
        Refusal::usage(
            format!("{} cannot be found: {error}", path.display()),
            "name a file in a folder that exists",
        )
    };
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let from = folder
        .canonicalize()
        .map_err(|error| no_folder(folder, error))?;
    let target = to.canonicalize().map_err(|error| no_folder(to, error))?;
    let shared = from
        .components()
        .zip(target.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = from.components().count() - shared;
    let mut path = std::path::PathBuf::new();
    path.extend(std::iter::repeat_n("..", up));
    path.extend(target.components().skip(shared));
    Ok(path.to_string_lossy().into_owned())
}

fn text(model: &ModelHeader, models: &str) -> String {
    let (size, mpp) = (model.input.size, model.input.mpp);
    // Debug quotes a text as TOML does, but for characters that no path should have.
    let (a, b) = (format!("{models}/a"), format!("{models}/b"));
    let (a, b) = (format!("{a:?}"), format!("{b:?}"));
    format!(
        r#"# Score every tile, keep the best and the worst, attend to them, classify the slide.
#   weir validate FILE slides=...     every mistake at once
#   weir graph FILE slides=... --slides    a dry run: tiles, bytes, memory
#   weir run FILE slides=...
weir = 1

[var.slides]
type = "list"
doc = "Slides, folders, globs, or a manifest CSV (slide,label,split,patient,mpp)"
default = []

[run]
memory = "1GiB"            # everything that grows; sources wait when it is used up
out = "out"

[model.a]                  # scores tiles
path = {a}

[model.b]                  # encoder, attention and classifier
path = {b}

[stage.tiles]
use = "tile-reader"
slides = "${{slides}}"
size = {size}                  # px at mpp, as the models were trained
mpp = {mpp:?}                  # um/px
tissue = "otsu"

[stage.score]
use = "scorer"
in = "tiles"
model = "a"

[stage.top]
use = "top-k"
in = "score"
highest = 32
lowest = 32

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

[stage.heatmap]
use = "heatmap-sink"
in = {{ scores = "score", attention = "pool.attention" }}
"#
    )
}
