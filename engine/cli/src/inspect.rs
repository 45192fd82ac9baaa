//! `weir inspect`: what a slide is.

use crate::args::Format;
use crate::message::{Done, Manner, Refusal};
use crate::plugin;
use crate::shown;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_plugin_host::manifest::Cache;
use weir_plugin_host::scan::scan;
use weir_plugin_host::{Isolated, Loaded, PATIENCE, Plugins, Policy, Program};
use weir_record::{Mpp, MppOrigin};
use weir_runtime::exit;
use weir_slide::{Choice, Facts, OpenOptions, SlideError, SlideReader};

/// Longest side of the overview that is read to see whether the pixels can be had, px.
const OVERVIEW: u32 = 1024;

/// Opens `slide`, reads a small overview of it, and prints what was found.
pub fn inspect(slide: &Path, options: OpenOptions, manner: &Manner, out: &mut dyn Write) -> Done {
    let refused = |error: SlideError| {
        Refusal::failed(
            format!("{}: {}", error.path, error.what_and_where()),
            error.help,
        )
    };
    let mut caches = BTreeMap::new();
    let (reader, choice) = match weir_slide::open_and_tell(slide, &options) {
        Err(error) if error.declines() && slide.is_file() => {
            with_plugins(slide, options, manner, error, &mut caches).map_err(refused)?
        }
        other => other.map_err(refused)?,
    };
    let cache = caches.get(&choice.reader);
    let facts = reader.facts();
    let problems = problems(reader.as_ref());
    match manner.format {
        Format::Json => writeln!(out, "{}", json(facts, &choice, cache, &problems))?,
        _ => out.write_all(text(facts, &choice, cache, &problems).as_bytes())?,
    }
    Ok(if problems.is_empty() {
        exit::DONE
    } else {
        exit::PARTLY
    })
}

/// Asks the readers of the plugins in the folders. A pipeline names its plugins; here none is named, so every one that has a
/// reader, by its manifest, is loaded. `caches` gets what each reader keeps of all slides, where it keeps anything.
fn with_plugins(
    slide: &Path,
    options: OpenOptions,
    manner: &Manner,
    declined: SlideError,
    caches: &mut BTreeMap<String, Cache>,
) -> Result<(Arc<dyn SlideReader>, Choice), SlideError> {
    let Ok(catalogue) = crate::plugin::catalogue(false) else {
        // What the machine's owner allows cannot be read: nothing is run.
        return Err(declined);
    };
    if catalogue.rules().plugins != Policy::Any {
        manner.warning(
            "readers of plugins are not asked: only plugins that a pipeline names may be used here",
            &catalogue.rules().said_by.to_string(),
        );
        return Err(declined);
    }
    for refusal in catalogue.folders().left_out() {
        manner.warning(&refusal.to_string(), "");
    }
    let mut plugins = Plugins {
        log: plugin::log(*manner),
        ..Plugins::default()
    };
    // Ids of readers, and whose they are.
    let mut asked: BTreeMap<String, PathBuf> = BTreeMap::new();
    for listed in scan(catalogue.folders())
        .into_iter()
        .flat_map(|scanned| scanned.files)
    {
        let (Ok(admitted), None) = (listed.plugin, listed.shadowed_by) else {
            continue;
        };
        if admitted.manifest().readers.is_empty() {
            continue;
        }
        let readers = admitted.manifest().readers.clone();
        let mut ids = readers.iter().map(|reader| &reader.id);
        if let Some((id, other)) = ids.find_map(|id| Some((id, asked.get(id)?))) {
            let what = format!(
                "[E0524] {}: it has a slide reader `{id}`, and {} has one too",
                listed.path.display(),
                other.display()
            );
            manner.warning(&what, "this one is not asked");
            continue;
        }
        let loaded = match catalogue.rules().isolate {
            true => Isolated::new(Arc::new(admitted), Program::default()).and_then(|isolated| {
                isolated.loaded()?;
                plugins.isolated.push(isolated);
                Ok(())
            }),
            false => Loaded::heard(&admitted, &plugins.log, options.timeout.unwrap_or(PATIENCE))
                .map(|loaded| plugins.loaded.push(loaded)),
        };
        match loaded {
            Ok(()) => {
                for reader in readers {
                    caches.extend(reader.cache.map(|cache| (reader.id.clone(), cache)));
                    asked.insert(reader.id, listed.path.clone());
                }
            }
            Err(refusal) => manner.warning(&refusal.to_string(), ""),
        }
    }
    let options = OpenOptions {
        openers: weir_plugin_host::openers(&plugins),
        ..options
    };
    weir_slide::open_and_tell(slide, &options)
}

/// Which reader took the slide, and why, in a line.
fn why(choice: &Choice) -> String {
    let Some(native) = &choice.native else {
        return "native reader; no other was asked".into();
    };
    let score = |id: &str| {
        let asked = choice.asked.iter().find(|asked| asked.id == id);
        asked.map_or(0, |asked| asked.score)
    };
    let mut text = format!(
        "{}, sure by {} of 100; the native reader declined: {}",
        choice.reader,
        score(&choice.reader),
        native.what_and_where()
    );
    for asked in choice.asked.iter().filter(|it| it.id != choice.reader) {
        let _ = match &asked.declined {
            Some(error) => write!(
                text,
                "; {} (sure by {}) declined: {}",
                asked.id, asked.score, error.what
            ),
            None => write!(text, "; {} was sure by {}", asked.id, asked.score),
        };
    }
    text
}

/// What would stand in the way of a run.
fn problems(reader: &dyn SlideReader) -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(error) = reader.facts().require_mpp() {
        problems.push(format!("{}; {}", error.what, error.help));
    }
    match reader.thumbnail(OVERVIEW) {
        Err(error) => problems.push(format!(
            "no overview can be read: {}",
            error.what_and_where()
        )),
        Ok(picture) if !picture.unread.is_empty() => {
            let places: Vec<String> = picture
                .unread
                .iter()
                .take(8)
                .map(|region| {
                    format!(
                        "({:.0}, {:.0}) {:.0} x {:.0} px",
                        region.x, region.y, region.w, region.h
                    )
                })
                .collect();
            let rest = picture.unread.len() - places.len();
            let more = if rest > 0 {
                format!(" and {rest} more")
            } else {
                String::new()
            };
            problems.push(format!(
                "{} of the overview cannot be read, in level-0 px: {}{more}; tiles that touch them will fail",
                shown::counted(picture.unread.len() as u64, "place"),
                places.join(", "),
            ));
        }
        Ok(_) => {}
    }
    problems
}

/// Who said how large a pixel is, in words.
pub fn origin(origin: MppOrigin) -> &'static str {
    match origin {
        MppOrigin::Given => "given on the command line or in the manifest",
        MppOrigin::Vendor => "the vendor's key",
        MppOrigin::Resolution => "the TIFF resolution tag",
        MppOrigin::Objective => "the objective's power",
        MppOrigin::Default => "default-mpp of the pipeline",
    }
}

fn text(facts: &Facts, choice: &Choice, cache: Option<&Cache>, problems: &[String]) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<12}{value}");
    };
    line("slide", facts.path.clone());
    line(
        "reader",
        format!("{}, made by {}", facts.reader, facts.vendor),
    );
    line("chosen", why(choice));
    if let Some(cache) = cache {
        line("cache", plugin::cache(cache));
    }
    let (width, height) = (facts.width(), facts.height());
    match facts.mpp {
        Some((Mpp(mpp), who)) => {
            let side = |px: u64| px as f64 * mpp / 1000.0;
            line(
                "size",
                format!(
                    "{width} x {height} px, {:.1} x {:.1} mm",
                    side(width),
                    side(height)
                ),
            );
            line("mpp", format!("{mpp} um/px, from {}", origin(who)));
        }
        None => {
            line("size", format!("{width} x {height} px"));
            line("mpp", "not known".into());
        }
    }
    line("file", shown::bytes(facts.input.0));
    for (number, level) in facts.levels.iter().enumerate() {
        let name = if number == 0 { "levels" } else { "" };
        line(
            name,
            format!(
                "{number}: {} x {} px, 1/{}, {} x {} tiles of {} x {} px, {}",
                level.width,
                level.height,
                level.downsample,
                level.columns,
                level.rows,
                level.tile_width,
                level.tile_height,
                level.encoding
            ),
        );
    }
    for (number, picture) in facts.associated.iter().enumerate() {
        let name = if number == 0 { "associated" } else { "" };
        line(
            name,
            format!(
                "{}: {} x {} px",
                picture.name, picture.width, picture.height
            ),
        );
    }
    for (number, (key, value)) in facts.properties.iter().enumerate() {
        let name = if number == 0 { "properties" } else { "" };
        line(name, format!("{key} = {}", one_line(value)));
    }
    if problems.is_empty() {
        line("problems", "none".into());
    }
    for (number, problem) in problems.iter().enumerate() {
        let name = if number == 0 { "problems" } else { "" };
        line(name, problem.clone());
    }
    text
}

/// A property as one line of at most 160 characters: some hold whole XML documents.
fn one_line(value: &str) -> String {
    let flat = value.split_whitespace().collect::<Vec<_>>().join(" ");
    match flat.char_indices().nth(160) {
        Some((end, _)) => format!("{}...", &flat[..end]),
        None => flat,
    }
}

fn json(facts: &Facts, choice: &Choice, cache: Option<&Cache>, problems: &[String]) -> Value {
    json!({
        "slide": facts.path,
        "reader": facts.reader,
        "chosen": {
            "reader": choice.reader,
            "native_declined": choice.native.as_ref().map(SlideError::what_and_where),
            "asked": choice.asked.iter().map(|asked| json!({
                "reader": asked.id,
                "score": asked.score,
                "declined": asked.declined.as_ref().map(SlideError::what_and_where),
            })).collect::<Vec<_>>(),
        },
        "cache_bytes": cache.and_then(|cache| cache.size().ok()),
        "vendor": facts.vendor,
        "width": facts.width(),
        "height": facts.height(),
        "mpp": facts.mpp.map(|(mpp, _)| mpp.0),
        "mpp_origin": facts.mpp.map(|(_, origin)| origin.to_string()),
        "bytes": facts.input.0,
        "levels": facts.levels.iter().map(|level| json!({
            "width": level.width, "height": level.height, "downsample": level.downsample,
            "tile_width": level.tile_width, "tile_height": level.tile_height,
            "columns": level.columns, "rows": level.rows, "encoding": level.encoding,
        })).collect::<Vec<_>>(),
        "associated": facts.associated.iter().map(|picture| json!({
            "name": picture.name, "width": picture.width, "height": picture.height,
        })).collect::<Vec<_>>(),
        "properties": facts.properties,
        "problems": problems,
    })
}
