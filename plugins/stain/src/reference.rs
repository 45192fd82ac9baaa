//! A target or source out of a file: a picture, whose statistics are taken, or a file of `stain.measure`.

use crate::density::Light;
use crate::lab::Lab;
use crate::macenko::{Estimate, Scratch};
use crate::normaliser::Target;
use crate::picture;
use crate::reinhard;
use crate::statistics::{FILE, Statistics};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which statistics are wanted, and how they are taken.
pub struct Wanted<'a> {
    /// Macenko's stains, else Reinhard's colours.
    pub stains: bool,
    /// How stained pixels are told and stains estimated.
    pub estimate: &'a Estimate,
    /// Whether glass stays out.
    pub keep_glass: bool,
}

impl Wanted<'_> {
    fn method(&self) -> &'static str {
        if self.stains { "macenko" } else { "reinhard" }
    }

    fn light(&self) -> &Light {
        &self.estimate.light
    }

    /// Of a picture or of a file of statistics. The error names neither parameter nor file.
    pub fn read(&self, path: &Path) -> Result<Target, String> {
        if path
            .extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("json"))
        {
            let statistics = Statistics::read(path)?;
            return self.of(&statistics);
        }
        let pixels = picture::read(path)?;
        let taken = if self.stains {
            self.estimate
                .stains(&pixels, &mut Scratch::default())
                .map(Target::Stains)
        } else {
            let Estimate { light, least, .. } = self.estimate;
            reinhard::colours(&Lab::default(), light, self.keep_glass, *least, &pixels)
                .map(Target::Colours)
        };
        taken.map_err(|why| format!("no stain can be told from it: {why}"))
    }

    /// The wanted part of statistics.
    pub fn of(&self, statistics: &Statistics) -> Result<Target, String> {
        statistics.fits(self.light(), self.keep_glass)?;
        let found = if self.stains {
            statistics.macenko.map(Target::Stains)
        } else {
            statistics.reinhard.map(Target::Colours)
        };
        found.ok_or_else(|| {
            let why = statistics.missing.join("; ");
            let why = if why.is_empty() {
                String::new()
            } else {
                format!(" ({why})")
            };
            format!("it has no statistics for {}{why}", self.method())
        })
    }

    /// Targets by slide, of one file or of all slides' folders in a folder. The error names the file, not the parameter.
    pub fn sources(&self, path: &Path) -> Result<BTreeMap<String, Target>, String> {
        let files = if path.is_dir() {
            files(path)?
        } else {
            vec![path.to_owned()]
        };
        let mut sources = BTreeMap::new();
        for file in &files {
            let named = |what: String| format!("{}: {what}", file.display());
            let statistics = Statistics::read(file).map_err(named)?;
            let target = self.of(&statistics).map_err(named)?;
            if sources.insert(statistics.slide.clone(), target).is_some() {
                return Err(named(format!(
                    "slide `{}` has another file in this folder",
                    statistics.slide
                )));
            }
        }
        Ok(sources)
    }
}

/// `SLIDE/stain.json` of every slide, in the order of their names.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries =
        std::fs::read_dir(folder).map_err(|error| format!("it cannot be read: {error}"))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path().join(FILE))
        .filter(|file| file.is_file())
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(format!("none of its folders has a file {FILE}"));
    }
    Ok(files)
}
