//! Who writes files of a slide, and when the last of them may be written.
//!
//! `prediction.json` says that a slide is done, so it is written when every other file of the slide is on disk: a run that is
//! killed between two files leaves a slide that the next run computes again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use weir_record::SlideId;
use weir_runtime::stage::StageError;

/// Writes the last file, given the names of the others; `None` when one of them could not be written.
pub(crate) type Last = Box<dyn FnOnce(Option<Vec<String>>) -> Result<(), StageError> + Send>;

/// The sinks of this process that write files of slides. One for the process, in `Shared`.
#[derive(Default)]
pub(crate) struct Writers(Mutex<State>);

#[derive(Default)]
struct State {
    /// File to stage; the one that waits for the others is not among them.
    files: BTreeMap<&'static str, String>,
    last: Option<String>,
    slides: HashMap<SlideId, Progress>,
}

#[derive(Default)]
struct Progress {
    /// Stage to its file; `None` when it could not be written, the inner one when there is none to write.
    wrote: BTreeMap<String, Option<Option<&'static str>>>,
    last: Option<Last>,
}

impl Writers {
    /// `stage` writes `file` in each slide's folder.
    pub(crate) fn enlist(&self, stage: &str, file: &'static str) -> Result<(), StageError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.files.entry(file).or_insert_with(|| stage.to_owned());
        one_writer(known, stage, file)
    }

    /// `stage` writes `file` when the others are done.
    pub(crate) fn enlist_last(&self, stage: &str, file: &'static str) -> Result<(), StageError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.last.get_or_insert_with(|| stage.to_owned());
        one_writer(known, stage, file)
    }

    /// `stage` is done with the slide: it wrote its file, there is none to write, or it failed.
    pub(crate) fn wrote(
        &self,
        slide: SlideId,
        stage: &str,
        file: Option<Option<&'static str>>,
    ) -> Result<(), StageError> {
        self.step(slide, |progress| {
            progress.wrote.insert(stage.to_owned(), file);
        })
    }

    /// What to do when all others are done with the slide.
    pub(crate) fn last(&self, slide: SlideId, last: Last) -> Result<(), StageError> {
        self.step(slide, |progress| progress.last = Some(last))
    }

    fn step(&self, slide: SlideId, what: impl FnOnce(&mut Progress)) -> Result<(), StageError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_none() {
            return Ok(());
        }
        let stages: BTreeSet<String> = state.files.values().cloned().collect();
        let progress = state.slides.entry(slide).or_default();
        what(progress);
        let ready = progress.last.is_some()
            && stages
                .iter()
                .all(|stage| progress.wrote.contains_key(stage));
        // Taken out, so that a slide that is reopened and ends anew is written anew.
        let progress = if ready {
            state.slides.remove(&slide)
        } else {
            None
        };
        drop(state);
        let Some(Progress {
            wrote,
            last: Some(last),
        }) = progress
        else {
            return Ok(());
        };
        let files: Option<Vec<Option<&'static str>>> = wrote.into_values().collect();
        last(files.map(|files| files.into_iter().flatten().map(str::to_owned).collect()))
    }
}

fn one_writer(known: &str, stage: &str, file: &str) -> Result<(), StageError> {
    if known == stage {
        return Ok(());
    }
    Err(StageError::new(
        format!("the stages `{known}` and `{stage}` both write the file {file} of each slide"),
        "remove one of them",
    ))
}

/// Removes a file of an earlier run, when there is one.
pub(crate) fn remove(path: &Path) -> Result<(), StageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StageError::new(
            format!(
                "{} of an earlier run cannot be removed: {error}",
                path.display()
            ),
            "remove it, since it does not belong to this run's prediction",
        )),
        _ => Ok(()),
    }
}

/// What is wrong when a file cannot be written.
pub(crate) fn cannot_write(path: &Path, error: &io::Error) -> StageError {
    StageError::new(
        format!("{} cannot be written: {error}", path.display()),
        "make room or give another folder with --out; then run again: slides that are done are not computed again",
    )
}
