//! Paths, folders, patterns and manifests to a sorted list of slides.

use crate::open::begins_as_slide;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use weir_record::SlideKey;

/// A slide to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct SlideEntry {
    /// The name of the manifest's `slide` column where that is no path, else the file's stem. Unique in a list.
    pub id: String,
    /// Where it is; relative paths of a manifest are relative to the manifest's folder.
    pub path: PathBuf,
    /// True class.
    pub label: Option<String>,
    /// train, val, test.
    pub split: Option<String>,
    /// Patient.
    pub patient: Option<String>,
    /// Size of a level-0 pixel, um.
    pub mpp: Option<f64>,
}

impl SlideEntry {
    /// The first 64 bits of the SHA-256 of the id.
    pub fn key(&self) -> SlideKey {
        slide_key(&self.id)
    }
}

/// The first 64 bits of the SHA-256 of a slide's id.
pub fn slide_key(id: &str) -> SlideKey {
    SlideKey::from_digest(&Sha256::digest(id.as_bytes()).into())
}

/// What is wrong with a list of inputs: what, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError {
    /// The input, with the line for a manifest, as `slides.csv:7`.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: String,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.what, self.help)
    }
}

impl std::error::Error for InputError {}

/// Which files of a folder are meant; named files are taken whatever they end in.
#[derive(Clone, Debug)]
pub struct Files {
    /// What one of them is called.
    name: &'static str,
    /// Endings, without the dot.
    endings: &'static [&'static str],
    /// Further endings, of further readers; what such a file begins with is their affair.
    more: Vec<String>,
    /// Ends of names that belong to another file, which they lie beside.
    beside: &'static [&'static str],
    /// Whether a file begins as one of them does.
    begins: fn(&Path) -> bool,
}

impl Files {
    /// Slides.
    pub const SLIDES: Files = Files {
        name: "slide",
        endings: &["svs", "tif", "tiff", "ndpi", "scn", "btf"],
        more: Vec::new(),
        beside: &[],
        begins: begins_as_slide,
    };

    /// Files of feature vectors, one a slide.
    pub const FEATURES: Files = Files {
        name: "feature file",
        endings: &["safetensors", "npy", "h5"],
        more: Vec::new(),
        beside: &[".coords.npy"],
        begins: |_| true,
    };

    /// Files of a source that takes those with these endings, without the dot; what they begin with is its affair.
    pub fn ending_in(endings: &[String]) -> Files {
        Files {
            name: "file",
            endings: &[],
            more: endings.to_vec(),
            beside: &[],
            begins: |_| true,
        }
    }

    /// The same, and files that end in one of `endings` (without the dot), which further readers take.
    #[must_use]
    pub fn and(mut self, endings: &[String]) -> Files {
        let new = |ending: &&String| !self.endings.contains(&ending.as_str());
        self.more = endings.iter().filter(new).cloned().collect();
        self
    }

    fn has(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let own = ends_in(path, self.endings.iter().copied());
        (own || self.has_more(path)) && !self.beside.iter().any(|end| name.ends_with(end))
    }

    fn has_more(&self, path: &Path) -> bool {
        ends_in(path, self.more.iter().map(String::as_str))
    }

    /// Whether the file begins as one of them does, as far as that is known here.
    fn begins(&self, path: &Path) -> bool {
        self.has_more(path) || (self.begins)(path)
    }
}

fn ends_in<'a>(path: &Path, mut endings: impl Iterator<Item = &'a str>) -> bool {
    path.extension()
        .is_some_and(|ending| endings.any(|known| ending.eq_ignore_ascii_case(known)))
}

/// The slides that `inputs` name, sorted by id: [`files`] of [`Files::SLIDES`].
pub fn slides(inputs: &[String], base: &Path) -> Result<Vec<SlideEntry>, Vec<InputError>> {
    files(inputs, base, &Files::SLIDES)
}

/// The slides whose files `inputs` name, sorted by id.
///
/// An input is a file, a folder (searched with its subfolders), a pattern with `*`, `?`, `[..]` or `{..}`, or a manifest that ends
/// in `.csv`: columns `slide,label,split,patient,mpp` in any order, `slide` alone needed, or TRIDENT's `wsi,mpp`. In a manifest, a
/// `slide` that names no file is looked for among the files beside it by stem; a column `path` says where it is and leaves `slide`
/// free to be any name. A relative input is relative to `base`.
pub fn files(
    inputs: &[String],
    base: &Path,
    kind: &Files,
) -> Result<Vec<SlideEntry>, Vec<InputError>> {
    let mut found: Vec<(SlideEntry, String)> = Vec::new();
    let mut errors = Vec::new();
    for input in inputs {
        let path = base.join(input);
        let result = if is_pattern(input) && !path.exists() {
            pattern(input, base, kind)
        } else if path.is_dir() {
            folder(input, &path, kind)
        } else if !path.exists() {
            Err(vec![InputError {
                place: input.clone(),
                what: "no such file or folder".into(),
                help: format!("check the path, which is relative to {}", base.display()),
            }])
        } else if path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("csv"))
        {
            manifest(input, &path, kind)
        } else {
            Ok(vec![(bare(path), input.clone())])
        };
        match result {
            Ok(entries) => found.extend(entries),
            Err(more) => errors.extend(more),
        }
    }
    // The same file named twice, by a folder and by a manifest say, is one slide: what says more about it stands.
    let mut by_id: BTreeMap<String, (SlideEntry, String)> = BTreeMap::new();
    for (entry, place) in found {
        match by_id.get_mut(&entry.id) {
            None => {
                by_id.insert(entry.id.clone(), (entry, place));
            }
            Some((known, _)) if same_file(&known.path, &entry.path) => {
                if let Err(what) = merge(known, entry) {
                    errors.push(InputError {
                        place,
                        what,
                        help: "give each slide one line".into(),
                    });
                }
            }
            Some((known, other)) => errors.push(InputError {
                what: format!(
                    "two slides have the id `{}`: {} (from {other}) and {}",
                    entry.id,
                    known.path.display(),
                    entry.path.display()
                ),
                place,
                help: "list them in a manifest with the columns slide,path and give each its own name in `slide`".into(),
            }),
        }
    }
    if errors.is_empty() {
        Ok(by_id.into_values().map(|(entry, _)| entry).collect())
    } else {
        Err(errors)
    }
}

fn bare(path: PathBuf) -> SlideEntry {
    SlideEntry {
        id: stem(&path),
        path,
        label: None,
        split: None,
        patient: None,
        mpp: None,
    }
}

/// The file's name without its ending; `.ome.tif` counts as one ending.
fn stem(path: &Path) -> String {
    let stem = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    match stem.strip_suffix(".ome") {
        Some(short) if !short.is_empty() => short.to_string(),
        _ => stem,
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Adds what `from` says to `into`; a contradiction is an error.
fn merge(into: &mut SlideEntry, from: SlideEntry) -> Result<(), String> {
    fn one<T: PartialEq + fmt::Debug>(
        name: &str,
        id: &str,
        into: &mut Option<T>,
        from: Option<T>,
    ) -> Result<(), String> {
        match (&into, from) {
            (Some(a), Some(b)) if *a != b => Err(format!(
                "the slide `{id}` is listed twice, with {name} {a:?} and {b:?}"
            )),
            (None, from) => {
                *into = from;
                Ok(())
            }
            _ => Ok(()),
        }
    }
    let id = into.id.clone();
    one("label", &id, &mut into.label, from.label)?;
    one("split", &id, &mut into.split, from.split)?;
    one("patient", &id, &mut into.patient, from.patient)?;
    one("mpp", &id, &mut into.mpp, from.mpp)
}

fn is_pattern(input: &str) -> bool {
    input.contains(['*', '?', '[', '{'])
}

type Found = Result<Vec<(SlideEntry, String)>, Vec<InputError>>;

fn folder(input: &str, path: &Path, kind: &Files) -> Found {
    let mut entries = Vec::new();
    let mut errors = Vec::new();
    for file in walkdir::WalkDir::new(path)
        .follow_links(true)
        .sort_by_file_name()
    {
        match file {
            Ok(file) if file.file_type().is_file() && kind.has(file.path()) => {
                entries.push((bare(file.into_path()), input.to_string()));
            }
            Ok(_) => {}
            Err(error) => errors.push(InputError {
                place: input.into(),
                what: format!("cannot be searched: {error}"),
                help: "check its permissions and links".into(),
            }),
        }
    }
    if entries.is_empty() && errors.is_empty() {
        errors.push(InputError {
            place: input.into(),
            what: format!("the folder holds no {}", kind.name),
            help: format!(
                "{}s in folders end in {}",
                kind.name,
                kind.endings
                    .iter()
                    .copied()
                    .chain(kind.more.iter().map(String::as_str))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        });
    }
    if errors.is_empty() {
        Ok(entries)
    } else {
        Err(errors)
    }
}

fn pattern(input: &str, base: &Path, kind: &Files) -> Found {
    let fault = |what: String, help: &str| {
        vec![InputError {
            place: input.into(),
            what,
            help: help.into(),
        }]
    };
    let glob = globset::GlobBuilder::new(&base.join(input).to_string_lossy())
        .literal_separator(true)
        .build()
        .map_err(|error| {
            fault(
                format!("is no pattern: {}", error.kind()),
                "quote it, and close its brackets",
            )
        })?
        .compile_matcher();
    // The walk begins at the folder that stands before the first sign of a pattern.
    let fixed: PathBuf = Path::new(input)
        .components()
        .take_while(|part| !is_pattern(&part.as_os_str().to_string_lossy()))
        .collect();
    let entries: Vec<_> = walkdir::WalkDir::new(base.join(fixed))
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_map(Result::ok)
        .filter(|file| {
            let name = file.file_name().to_string_lossy();
            let belongs = kind.beside.iter().any(|end| name.ends_with(end));
            file.file_type().is_file() && glob.is_match(file.path()) && !belongs
        })
        .map(|file| (bare(file.into_path()), input.to_string()))
        .collect();
    if entries.is_empty() {
        return Err(fault("matches no file".into(), "check the pattern"));
    }
    Ok(entries)
}

fn manifest(input: &str, path: &Path, kind: &Files) -> Found {
    let fault = |line: Option<u64>, what: String, help: &str| InputError {
        place: line.map_or_else(|| input.to_string(), |line| format!("{input}:{line}")),
        what,
        help: help.into(),
    };
    let mut table = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .flexible(true)
        .comment(Some(b'#'))
        .from_path(path)
        .map_err(|error| vec![fault(None, format!("cannot be read: {error}"), "check it")])?;
    let header = table
        .headers()
        .map_err(|error| vec![fault(None, format!("cannot be read: {error}"), "check it")])?
        .clone();
    let column = |name: &str| {
        header.iter().position(|title| {
            title
                .trim_start_matches('\u{feff}')
                .eq_ignore_ascii_case(name)
        })
    };
    let Some(slide) = column("slide").or_else(|| column("wsi")) else {
        return Err(vec![fault(
            Some(1),
            format!(
                "has no column `slide`; its columns are: {}",
                header.iter().collect::<Vec<_>>().join(", ")
            ),
            "a manifest begins with slide,label,split,patient,mpp (slide alone is needed) or wsi,mpp",
        )]);
    };
    let (at, label, split, patient, mpp) = (
        column("path"),
        column("label"),
        column("split"),
        column("patient"),
        column("mpp"),
    );
    let folder = path.parent().unwrap_or(Path::new("."));
    let (mut entries, mut errors) = (Vec::new(), Vec::new());
    for record in table.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = error.position().map(csv::Position::line);
                errors.push(fault(
                    line,
                    format!("cannot be read: {error}"),
                    "check the line",
                ));
                continue;
            }
        };
        let line = record.position().map(csv::Position::line);
        let cell = |column: Option<usize>| {
            column
                .and_then(|column| record.get(column))
                .filter(|text| !text.is_empty())
        };
        let Some(name) = cell(Some(slide)) else {
            if record.iter().any(|text| !text.is_empty()) {
                errors.push(fault(
                    line,
                    "the slide's name is empty".into(),
                    "fill it in",
                ));
            }
            continue;
        };
        let (path, id) = match cell(at) {
            Some(at) => (folder.join(at), name.to_string()),
            None => match beside(folder, name, kind) {
                Some(path) => {
                    let id = if path == folder.join(name) {
                        stem(&path)
                    } else {
                        name.to_string()
                    };
                    (path, id)
                }
                None => (folder.join(name), stem(Path::new(name))),
            },
        };
        if !path.is_file() {
            errors.push(fault(
                line,
                format!("there is no file {}", path.display()),
                "paths in a manifest are relative to the manifest; correct the line or remove it",
            ));
            continue;
        }
        let mpp = match cell(mpp).map(|text| (text, text.parse::<f64>())) {
            None => None,
            Some((_, Ok(mpp))) if mpp.is_finite() && mpp > 0.0 => Some(mpp),
            Some((text, _)) => {
                errors.push(fault(
                    line,
                    format!("`{text}` is no mpp"),
                    "give um per px as a positive number, or leave it empty",
                ));
                continue;
            }
        };
        entries.push((
            SlideEntry {
                id,
                path,
                label: cell(label).map(Into::into),
                split: cell(split).map(Into::into),
                patient: cell(patient).map(Into::into),
                mpp,
            },
            line.map_or_else(|| input.to_string(), |line| format!("{input}:{line}")),
        ));
    }
    if entries.is_empty() && errors.is_empty() {
        errors.push(fault(
            None,
            "lists no slide".into(),
            "add a line for each slide",
        ));
    }
    if errors.is_empty() {
        Ok(entries)
    } else {
        Err(errors)
    }
}

/// The file that a manifest's `slide` stands for: the path itself, or the one slide beside the manifest with that stem.
fn beside(folder: &Path, name: &str, kind: &Files) -> Option<PathBuf> {
    let path = folder.join(name);
    if path.is_file() {
        return Some(path);
    }
    let parent = path.parent()?;
    let wanted = path.file_name()?.to_string_lossy().into_owned();
    let mut found: Vec<PathBuf> = std::fs::read_dir(parent)
        .ok()?
        .filter_map(Result::ok)
        .map(|file| file.path())
        .filter(|path| kind.has(path) && stem(path) == wanted && kind.begins(path))
        .collect();
    found.sort();
    (found.len() == 1).then(|| found.remove(0))
}
