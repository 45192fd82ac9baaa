//! The slides that a source's parameter `slides` names.

use std::path::{Path, PathBuf};

use weir_pipeline::{Node, Value};
use weir_runtime::stage::StageError;
use weir_slide::input::{self, Files};
use weir_slide::{InputError, SlideEntry};

/// The slides that `inputs` name, sorted by id; their paths stand as they were written.
pub(crate) fn entries(inputs: &[String], kind: &Files) -> Result<Vec<SlideEntry>, StageError> {
    let here = Path::new(".");
    let mut entries = input::files(inputs, here, kind).map_err(|errors| refused(&errors))?;
    for entry in &mut entries {
        let plain: Option<PathBuf> = entry.path.strip_prefix(here).map(Path::to_path_buf).ok();
        entry.path = plain.unwrap_or_else(|| entry.path.clone());
    }
    Ok(entries)
}

/// What the slides of a stage are, where it has a parameter `slides`; `endings` are those of further readers' files.
pub fn of_node(
    node: &Node,
    endings: &[String],
) -> Option<Result<Vec<SlideEntry>, Vec<InputError>>> {
    let Some(Value::Texts(inputs)) = node.values.0.get("slides") else {
        return None;
    };
    let kind = if node.schema.name == crate::embedding_reader::SCHEMA.name {
        Files::FEATURES
    } else {
        Files::SLIDES.and(endings)
    };
    Some(input::files(inputs, Path::new("."), &kind))
}

fn refused(errors: &[InputError]) -> StageError {
    match errors {
        [one] => StageError::new(format!("{}: {}", one.place, one.what), one.help.clone()),
        several => {
            let lines: Vec<String> = several.iter().map(|error| format!("\n  {error}")).collect();
            StageError::new(
                format!(
                    "{} of the slides cannot be taken:{}",
                    several.len(),
                    lines.concat()
                ),
                "",
            )
        }
    }
}
