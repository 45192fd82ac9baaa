//! `predictions.csv` and `predictions.jsonl`: predictions of all slides of a run.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_record::{Failure, Prediction, SlideInfo, State};
use weir_runtime::stage::StageError;

use crate::prediction_file::class_name;
use crate::tiles::{number, number64};
use crate::writers::cannot_write;

/// A slide's entry in the tables.
pub(crate) type Entry = (Arc<SlideInfo>, Option<Failure>, Prediction);

/// The state as files spell it.
pub(crate) fn state_name(state: State) -> &'static str {
    match state {
        State::Provisional => "provisional",
        State::Final => "final",
        State::Incomplete => "incomplete",
        State::Failed => "failed",
        State::Interrupted => "interrupted",
        State::NoTissue => "no-tissue",
    }
}

/// `predictions.csv`: a row a slide, in the order given (by id); a column a class.
pub(crate) fn table<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> io::Result<Vec<u8>> {
    let mut classes: Vec<&str> = Vec::new();
    for (_, _, prediction) in entries.clone() {
        for class in &prediction.classes {
            if !classes.contains(&class.as_str()) {
                classes.push(class);
            }
        }
    }
    let mut table = csv::Writer::from_writer(Vec::new());
    let mut head: Vec<String> = [
        "slide",
        "patient",
        "label",
        "split",
        "state",
        "class",
        "probability",
    ]
    .map(str::to_owned)
    .into();
    head.extend(classes.iter().map(|class| format!("p_{class}")));
    head.extend(["members", "tiles", "failed", "mpp", "flags", "reason"].map(str::to_owned));
    table.write_record(&head)?;
    for (info, failure, prediction) in entries {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let probability = prediction
            .class
            .and_then(|class| prediction.probabilities.get(class as usize));
        let mut row = vec![
            info.id.clone(),
            text(&info.patient),
            text(&info.label),
            text(&info.split),
            state_name(prediction.state).to_owned(),
            class_name(prediction).unwrap_or_default(),
            probability.map_or_else(String::new, |p| number(*p)),
        ];
        row.extend(classes.iter().map(|class| {
            let at = prediction.classes.iter().position(|known| known == class);
            at.and_then(|at| prediction.probabilities.get(at))
                .map_or_else(String::new, |p| number(*p))
        }));
        row.extend([
            prediction.bag.n.to_string(),
            info.tiles.to_string(),
            failed(prediction).to_string(),
            info.mpp
                .map_or_else(String::new, |(mpp, _)| number64(mpp.0)),
            prediction.bag.flags.names().join(" "),
            failure
                .as_ref()
                .map_or_else(String::new, |failure| failure.what.clone()),
        ]);
        table.write_record(&row)?;
    }
    table.into_inner().map_err(|error| error.into_error())
}

/// Failed tiles of both domains.
fn failed(prediction: &Prediction) -> u64 {
    prediction.bag.coverage.source.fail + prediction.bag.coverage.selected.fail
}

/// A line of `predictions.jsonl`.
#[derive(Serialize)]
struct Line<'a> {
    slide: &'a str,
    patient: Option<&'a str>,
    state: State,
    class: Option<String>,
    classes: &'a [String],
    probabilities: &'a [f32],
    logits: &'a [f32],
    members: u64,
    tiles: u64,
    failed: u64,
    flags: Vec<&'static str>,
    contract: &'a str,
    reason: Option<&'a str>,
    plan: &'a str,
}

/// `predictions.jsonl`: appended to and synced, a slide at a time; the last line of a slide holds. A line that says what the
/// slide's last line says is not written again, and a last line that a killed run left half is cut off. One run writes it at a
/// time: the program locks the folder.
pub(crate) struct Log {
    path: PathBuf,
    open: Option<File>,
    last: HashMap<String, String>,
}

impl Log {
    /// Nothing is touched before the first line.
    pub(crate) fn new(path: PathBuf) -> Self {
        Log {
            path,
            open: None,
            last: HashMap::new(),
        }
    }

    pub(crate) fn append(
        &mut self,
        info: &SlideInfo,
        failure: Option<&Failure>,
        prediction: &Prediction,
        plan: &str,
    ) -> Result<(), StageError> {
        let line = Line {
            slide: &info.id,
            patient: info.patient.as_deref(),
            state: prediction.state,
            class: class_name(prediction),
            classes: &prediction.classes,
            probabilities: &prediction.probabilities,
            logits: &prediction.logits,
            members: prediction.bag.n,
            tiles: info.tiles,
            failed: failed(prediction),
            flags: prediction.bag.flags.names(),
            contract: &prediction.bag.contract,
            reason: failure.map(|failure| failure.what.as_str()),
            plan,
        };
        serde_json::to_string(&line)
            .map_err(io::Error::from)
            .and_then(|line| self.write(&info.id, line))
            .map_err(|error| cannot_write(&self.path, &error))
    }

    fn write(&mut self, slide: &str, line: String) -> io::Result<()> {
        let mut file = match self.open.take() {
            Some(file) => file,
            None => self.reopen()?,
        };
        if self.last.get(slide) != Some(&line) {
            file.write_all(format!("{line}\n").as_bytes())?;
            file.sync_data()?;
            self.last.insert(slide.to_owned(), line);
        }
        // After an error the file is opened anew, which cuts off what was half written.
        self.open = Some(file);
        Ok(())
    }

    /// Reads what earlier runs wrote and stands behind its last whole line.
    fn reopen(&mut self) -> io::Result<File> {
        #[derive(Deserialize)]
        struct Slide {
            slide: String,
        }
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&self.path)?;
        let (mut whole, mut line) = (0, Vec::new());
        let mut lines = BufReader::new(&file);
        while lines.read_until(b'\n', &mut line)? > 0 && line.last() == Some(&b'\n') {
            whole += line.len() as u64;
            line.pop();
            if let Ok(Slide { slide }) = serde_json::from_slice(&line)
                && let Ok(line) = String::from_utf8(std::mem::take(&mut line))
            {
                self.last.insert(slide, line);
            }
            line.clear();
        }
        file.set_len(whole)?;
        file.seek(SeekFrom::End(0))?;
        Ok(file)
    }
}
