//! The feature files that a parameter `slides` names: files, folders, patterns, manifests, as the engine's own sources take them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use weir_plugin::{Error, Result};

/// What a file in a folder ends in.
const ENDINGS: [&str; 2] = ["h5", "hdf5"];

/// A file of features, and what a manifest says of its slide.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Unique in a list: a manifest's name, else the file's stem.
    pub id: String,
    /// As it was written; of a manifest, beside it.
    pub path: PathBuf,
    /// Of a manifest.
    pub patient: String,
    /// Of a manifest.
    pub label: String,
    /// Of a manifest.
    pub split: String,
    /// Of a manifest: size of a level-0 px, um.
    pub mpp: Option<f64>,
}

impl Entry {
    fn bare(path: PathBuf) -> Entry {
        let id = path.file_stem().unwrap_or_default().to_string_lossy();
        Entry {
            id: id.into_owned(),
            path,
            ..Entry::default()
        }
    }
}

/// The files that `inputs` name, sorted by id.
///
/// # Errors
/// What names nothing, is no manifest, or names two files with one id.
pub fn entries(inputs: &[String]) -> Result<Vec<Entry>> {
    let mut by_id: BTreeMap<String, Entry> = BTreeMap::new();
    for input in inputs {
        let path = Path::new(input);
        let found = if !path.exists() && is_pattern(input) {
            pattern(input)?
        } else if path.is_dir() {
            folder(input)?
        } else if !path.exists() {
            return Err(Error::new(format!("{input}: no such file or folder"))
                .help("check the path: it is relative to the pipeline's file"));
        } else if path
            .extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("csv"))
        {
            manifest(input)?
        } else {
            vec![Entry::bare(path.to_owned())]
        };
        for entry in found {
            match by_id.get_mut(&entry.id) {
                None => {
                    by_id.insert(entry.id.clone(), entry);
                }
                Some(known) if same(&known.path, &entry.path) => merge(known, entry)?,
                Some(known) => {
                    return Err(Error::new(format!(
                        "two files have the id `{}`: {} and {}",
                        entry.id,
                        known.path.display(),
                        entry.path.display()
                    ))
                    .help(
                        "list them in a manifest with the columns slide,path and give each its own name in `slide`",
                    ));
                }
            }
        }
    }
    Ok(by_id.into_values().collect())
}

/// A file that is named twice is one slide: what says more about it stands.
fn merge(known: &mut Entry, other: Entry) -> Result<()> {
    let id = known.id.clone();
    let text = |name: &str, known: &mut String, other: String| {
        if known.is_empty() {
            *known = other;
        } else if !other.is_empty() && *known != other {
            return Err(twice(&id, name, known, &other));
        }
        Ok(())
    };
    text("label", &mut known.label, other.label)?;
    text("split", &mut known.split, other.split)?;
    text("patient", &mut known.patient, other.patient)?;
    match (known.mpp, other.mpp) {
        (Some(a), Some(b)) if a != b => Err(twice(&id, "mpp", &a.to_string(), &b.to_string())),
        (a, b) => {
            known.mpp = a.or(b);
            Ok(())
        }
    }
}

fn twice(id: &str, name: &str, a: &str, b: &str) -> Error {
    Error::new(format!(
        "the slide `{id}` is listed twice, with {name} {a} and {b}"
    ))
    .help("give each slide one line")
}

fn same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn is_pattern(input: &str) -> bool {
    input.contains(['*', '?', '[', '{'])
}

fn ends_as_one(path: &Path) -> bool {
    path.extension()
        .is_some_and(|end| ENDINGS.iter().any(|known| end.eq_ignore_ascii_case(known)))
}

fn walk(from: &Path) -> impl Iterator<Item = PathBuf> {
    walkdir::WalkDir::new(from)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_map(std::result::Result::ok)
        .filter(|file| file.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
}

fn folder(input: &str) -> Result<Vec<Entry>> {
    let files = walk(Path::new(input)).filter(|path| ends_as_one(path));
    let entries: Vec<Entry> = files.map(Entry::bare).collect();
    match entries.is_empty() {
        false => Ok(entries),
        true => Err(
            Error::new(format!("{input}: the folder holds no feature file"))
                .help("feature files in folders end in .h5 or .hdf5"),
        ),
    }
}

fn pattern(input: &str) -> Result<Vec<Entry>> {
    let glob = globset::GlobBuilder::new(input)
        .literal_separator(true)
        .build()
        .map_err(|error| {
            Error::new(format!("{input}: is no pattern: {}", error.kind()))
                .help("close its brackets")
        })?
        .compile_matcher();
    // The walk begins at the folder that stands before the first sign of a pattern.
    let fixed: PathBuf = Path::new(input)
        .components()
        .take_while(|part| !is_pattern(&part.as_os_str().to_string_lossy()))
        .collect();
    let here = fixed.as_os_str().is_empty();
    let from = if here { Path::new(".") } else { &fixed };
    let plain = |path: PathBuf| match path.strip_prefix(".") {
        Ok(plain) if here => plain.to_owned(),
        _ => path,
    };
    let files = walk(from).map(plain).filter(|path| glob.is_match(path));
    let entries: Vec<Entry> = files.map(Entry::bare).collect();
    match entries.is_empty() {
        false => Ok(entries),
        true => Err(Error::new(format!("{input}: matches no file")).help("check the pattern")),
    }
}

/// CSV: columns slide, path, label, split, patient, mpp in any order, `slide` (or TRIDENT's `wsi`) alone needed.
fn manifest(input: &str) -> Result<Vec<Entry>> {
    let path = Path::new(input);
    let unreadable = |error: csv::Error| Error::new(format!("{input}: cannot be read: {error}"));
    let mut table = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .flexible(true)
        .comment(Some(b'#'))
        .from_path(path)
        .map_err(unreadable)?;
    let header = table.headers().map_err(unreadable)?.clone();
    let column = |name: &str| {
        let title = |title: &str| {
            title
                .trim_start_matches('\u{feff}')
                .eq_ignore_ascii_case(name)
        };
        header.iter().position(title)
    };
    let Some(slide) = column("slide").or_else(|| column("wsi")) else {
        return Err(Error::new(format!("{input}: it has no column `slide`"))
            .help("a manifest begins with slide,label,split,patient,mpp (slide alone is needed)"));
    };
    let [at, label, split, patient, mpp] = ["path", "label", "split", "patient", "mpp"].map(column);
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut entries = Vec::new();
    for record in table.records() {
        let record = record.map_err(unreadable)?;
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |column: Option<usize>| {
            let text = column.and_then(|column| record.get(column));
            text.filter(|text| !text.is_empty())
        };
        let Some(name) = cell(Some(slide)) else {
            continue;
        };
        let mut entry = match cell(at) {
            Some(at) => Entry {
                id: name.to_owned(),
                ..Entry::bare(folder.join(at))
            },
            None => named(folder, name),
        };
        if !entry.path.is_file() {
            return Err(Error::new(format!(
                "{input}:{line}: there is no file {}",
                entry.path.display()
            ))
            .help(
                "paths in a manifest are relative to the manifest; correct the line or remove it",
            ));
        }
        if let Some(text) = cell(mpp) {
            match text.parse::<f64>() {
                Ok(mpp) if mpp.is_finite() && mpp > 0.0 => entry.mpp = Some(mpp),
                _ => {
                    return Err(Error::new(format!("{input}:{line}: `{text}` is no mpp"))
                        .help("give um per px as a positive number, or leave it empty"));
                }
            }
        }
        let text = |column: Option<usize>| cell(column).unwrap_or_default().to_owned();
        (entry.label, entry.split, entry.patient) = (text(label), text(split), text(patient));
        entries.push(entry);
    }
    match entries.is_empty() {
        false => Ok(entries),
        true => {
            Err(Error::new(format!("{input}: lists no slide")).help("add a line for each slide"))
        }
    }
}

/// The file that a manifest's `slide` stands for: the path itself, or the one feature file beside the manifest with that stem.
fn named(folder: &Path, name: &str) -> Entry {
    let path = folder.join(name);
    if path.is_file() {
        return Entry::bare(path);
    }
    let with = |end: &str| folder.join(format!("{name}.{end}"));
    let mut beside = ENDINGS
        .iter()
        .map(|end| with(end))
        .filter(|path| path.is_file());
    match (beside.next(), beside.next()) {
        (Some(path), None) => Entry {
            id: Path::new(name).file_name().map_or_else(
                || name.to_owned(),
                |name| name.to_string_lossy().into_owned(),
            ),
            path,
            ..Entry::default()
        },
        _ => Entry::bare(path),
    }
}
