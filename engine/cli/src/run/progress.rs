//! What a run says while it runs: a line that changes on a terminal, JSON lines otherwise, always on standard error.

use crate::args::Format;
use crate::message::Manner;
use crate::shown;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use weir_pipeline::{Plan, Rows};
use weir_runtime::Progress;

/// How often the counters are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How often a JSON line is written.
const LINE: Duration = Duration::from_secs(5);
/// The time over which the rate is measured.
const WINDOW: Duration = Duration::from_secs(10);

/// The counters of a run at one moment; also a line that a process says to the one that started it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    event: Kind,
    /// Slides.
    pub slides: u64,
    /// Slides that were opened, done ones included.
    pub slides_opened: u64,
    /// Slides that nothing more will be made of, failed ones included.
    pub slides_done: u64,
    /// Slides that failed.
    pub slides_failed: u64,
    /// Tiles of the slides that were opened.
    pub tiles: u64,
    /// Tiles that were read, failed ones included.
    pub tiles_read: u64,
    /// Tiles that every stage before a selection is done with: how far the run is.
    pub tiles_done: u64,
    /// Tiles that could not be read.
    pub tiles_failed: u64,
    /// Time that each stage's code ran, ms.
    pub busy: Vec<(String, u64)>,
}

/// Marks a line of progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    #[default]
    Progress,
}

impl Counts {
    /// The counters now; `scanning` are the stages that every tile goes through.
    pub fn of(progress: &Progress, scanning: &[usize]) -> Self {
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let read = get(&progress.tiles_read);
        let done = scanning
            .iter()
            .filter_map(|index| progress.stages.get(*index))
            .map(|stage| get(&stage.made.value) + get(&stage.made.skip) + get(&stage.made.fail))
            .min();
        Counts {
            event: Kind::Progress,
            slides: get(&progress.slides),
            slides_opened: get(&progress.slides_opened),
            slides_done: get(&progress.slides_done),
            slides_failed: get(&progress.slides_failed),
            tiles: get(&progress.tiles),
            tiles_read: read,
            tiles_done: done.unwrap_or(read).min(read),
            tiles_failed: get(&progress.tiles_failed),
            busy: progress
                .stages
                .iter()
                .map(|stage| (stage.name.clone(), get(&stage.busy) / 1_000_000))
                .collect(),
        }
    }

    /// A line that another process wrote; `None` for every other line.
    pub fn parse(line: &str) -> Option<Self> {
        line.starts_with('{')
            .then(|| serde_json::from_str(line).ok())
            .flatten()
    }

    /// Of all processes together.
    pub fn sum(all: &[Counts]) -> Self {
        let mut sum = Counts::default();
        for counts in all {
            sum.slides += counts.slides;
            sum.slides_opened += counts.slides_opened;
            sum.slides_done += counts.slides_done;
            sum.slides_failed += counts.slides_failed;
            sum.tiles += counts.tiles;
            sum.tiles_read += counts.tiles_read;
            sum.tiles_done += counts.tiles_done;
            sum.tiles_failed += counts.tiles_failed;
            for (name, ms) in &counts.busy {
                match sum.busy.iter_mut().find(|(known, _)| known == name) {
                    Some((_, all)) => *all += ms,
                    None => sum.busy.push((name.clone(), *ms)),
                }
            }
        }
        sum
    }

    /// The stage whose code ran longest, and its share of all stages' time.
    fn busiest(&self) -> Option<(&str, f64)> {
        let all: u64 = self.busy.iter().map(|(_, ms)| ms).sum();
        let (name, most) = self.busy.iter().max_by_key(|(_, ms)| *ms)?;
        (all > 0).then(|| (name.as_str(), *most as f64 / all as f64))
    }

    /// Tiles of all slides, those that are not open yet taken to have as many as the others.
    fn tiles_expected(&self) -> u64 {
        if self.slides_opened == 0 {
            return self.tiles;
        }
        let unopened = self.slides.saturating_sub(self.slides_opened);
        self.tiles + unopened * self.tiles / self.slides_opened
    }
}

/// The stages that every tile goes through: maps and filters before any selection.
pub fn scanning(plan: &Plan) -> Vec<usize> {
    let mut scanning: Vec<usize> = Vec::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        let works = matches!(node.schema.rows, Rows::Map | Rows::Filter);
        let from_source =
            |from: &usize| plan.nodes[*from].schema.rows == Rows::Source || scanning.contains(from);
        if works && node.inputs.iter().all(|edge| from_source(&edge.node)) {
            scanning.push(index);
        }
    }
    scanning
}

/// Shows counters as they change.
pub struct Display {
    how: How,
    since: Instant,
    seen: VecDeque<(Instant, u64)>,
    written: Option<Instant>,
    last: Counts,
}

enum How {
    Silent,
    Terminal(ProgressBar),
    Lines,
    /// Every look is a line, for the process that started this one.
    Led,
}

impl Display {
    /// As the terminal and the flags say; `title` begins the line.
    pub fn new(manner: &Manner, title: &str) -> Self {
        let how = if manner.quiet {
            How::Silent
        } else if manner.format == Format::Human && io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            // The template is a constant; were it wrong, the plain bar would do.
            if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:20}] {wide_msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(title.to_owned());
            How::Terminal(bar)
        } else {
            How::Lines
        };
        Display::with(how)
    }

    /// For a process that another one leads.
    pub fn led() -> Self {
        Display::with(How::Led)
    }

    fn with(how: How) -> Self {
        Display {
            how,
            since: Instant::now(),
            seen: VecDeque::new(),
            written: None,
            last: Counts::default(),
        }
    }

    /// Takes the counters as they are now.
    pub fn show(&mut self, counts: &Counts) {
        let now = Instant::now();
        self.seen.push_back((now, counts.tiles_done));
        while self.seen.len() > 2 && self.seen.get(1).is_some_and(|(at, _)| now - *at > WINDOW) {
            self.seen.pop_front();
        }
        self.last = counts.clone();
        let due = self.written.unwrap_or(self.since) + LINE <= now;
        match &self.how {
            How::Silent => {}
            How::Terminal(bar) => {
                bar.set_length(counts.tiles_expected());
                bar.set_position(counts.tiles_done);
                bar.set_message(self.text());
            }
            How::Lines if due => self.write_line(now),
            How::Lines => {}
            How::Led => {
                if let Ok(line) = serde_json::to_string(counts) {
                    let _ = writeln!(io::stderr().lock(), "{line}");
                }
            }
        }
    }

    /// Writes a line of text on standard error without tearing the line of progress.
    pub fn line(&self, text: &str) {
        let write = || {
            let _ = writeln!(io::stderr().lock(), "{text}");
        };
        match &self.how {
            How::Terminal(bar) => bar.suspend(write),
            _ => write(),
        }
    }

    /// The run is over: the line goes.
    pub fn finish(&self) {
        match &self.how {
            How::Terminal(bar) => bar.finish_and_clear(),
            How::Lines if self.written.is_some() => self.write(&self.last),
            _ => {}
        }
    }

    fn write_line(&mut self, now: Instant) {
        self.written = Some(now);
        self.write(&self.last);
    }

    fn write(&self, counts: &Counts) {
        let bottleneck = counts.busiest();
        let line = serde_json::json!({
            "event": "progress",
            "slides": counts.slides,
            "slides_done": counts.slides_done,
            "slides_failed": counts.slides_failed,
            "tiles": counts.tiles_expected(),
            "tiles_read": counts.tiles_read,
            "tiles_done": counts.tiles_done,
            "tiles_failed": counts.tiles_failed,
            "tiles_per_s": self.rate().map(f64::round),
            "seconds": self.since.elapsed().as_secs(),
            "seconds_left": self.left().map(|left| left.as_secs()),
            "bottleneck": bottleneck.map(|(name, _)| name),
            "bottleneck_share": bottleneck.map(|(_, share)| (share * 100.0).round() / 100.0),
        });
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    fn text(&self) -> String {
        let counts = &self.last;
        let mut parts = vec![format!("{}/{} slides", counts.slides_done, counts.slides)];
        if counts.slides_failed > 0 {
            parts.push(format!("{} failed", counts.slides_failed));
        }
        if let Some(rate) = self.rate() {
            parts.push(format!("{} tiles/s", shown::count(rate.round() as u64)));
        }
        if counts.tiles_failed > 0 {
            parts.push(format!(
                "{} failed",
                shown::counted(counts.tiles_failed, "tile")
            ));
        }
        if let Some(left) = self.left().filter(|left| left.as_secs() > 0) {
            parts.push(format!("{} left", shown::time(left)));
        }
        if let Some((stage, share)) = counts.busiest() {
            parts.push(format!("{stage} {:.0} %", share * 100.0));
        }
        parts.join(", ")
    }

    /// Tiles a second over the last seconds.
    fn rate(&self) -> Option<f64> {
        let ((first, before), (last, after)) = (self.seen.front()?, self.seen.back()?);
        let seconds = last.duration_since(*first).as_secs_f64();
        (seconds > 0.5).then(|| after.saturating_sub(*before) as f64 / seconds)
    }

    fn left(&self) -> Option<Duration> {
        let rate = self.rate().filter(|rate| *rate > 0.0)?;
        let tiles = self
            .last
            .tiles_expected()
            .checked_sub(self.last.tiles_done)?;
        Duration::try_from_secs_f64(tiles as f64 / rate).ok()
    }
}

/// Watches a run's counters until it is dropped.
pub struct Watch {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Shows `progress` on `display` from now on.
    pub fn start(
        progress: Arc<Progress>,
        scanning: Vec<usize>,
        mut display: Display,
    ) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let thread = std::thread::Builder::new()
            .name("progress".into())
            .spawn(move || {
                loop {
                    let last = seen.load(Ordering::SeqCst);
                    display.show(&Counts::of(&progress, &scanning));
                    if last {
                        break;
                    }
                    std::thread::park_timeout(LOOK);
                }
                display.finish();
            })?;
        Ok(Watch {
            over,
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A display that panicked has said so by itself.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn counts(tiles: u64) -> Counts {
        Counts {
            slides: 4,
            slides_opened: 2,
            tiles,
            tiles_read: tiles / 2,
            tiles_done: tiles / 4,
            busy: vec![("read".into(), 10), ("score".into(), 30)],
            ..Counts::default()
        }
    }

    #[test]
    fn what_a_process_says_of_itself_is_read_back() {
        let line = serde_json::to_string(&counts(100)).unwrap();
        assert_eq!(Counts::parse(&line), Some(counts(100)));
        assert_eq!(Counts::parse("error: something"), None);
        assert_eq!(Counts::parse("{\"level\":\"error\"}"), None);
    }

    #[test]
    fn processes_add_up() {
        let sum = Counts::sum(&[counts(100), counts(50)]);
        assert_eq!((sum.slides, sum.tiles, sum.tiles_read), (8, 150, 75));
        assert_eq!(sum.tiles_done, 37);
        assert_eq!(sum.busiest(), Some(("score", 0.75)));
    }

    #[test]
    fn slides_that_are_not_open_are_expected_to_be_like_the_others() {
        assert_eq!(counts(100).tiles_expected(), 200);
        assert_eq!(Counts::default().tiles_expected(), 0);
    }
}
