//! The settings of `[run]`.

use std::path::PathBuf;
use std::time::Duration;

/// `[run]` with its defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSettings {
    /// Timely workers in a process.
    pub workers: usize,
    /// Threads that run maps and filters.
    pub helpers: usize,
    /// Threads that read and decode.
    pub readers: usize,
    /// Devices, as `auto`, `cpu`, `cuda:0`.
    pub devices: Vec<String>,
    /// Bytes of everything that grows.
    pub memory: u64,
    /// Slides that may be open at once.
    pub open_slides: usize,
    /// Seed of everything that is random.
    pub seed: u64,
    /// What happens when a slide fails.
    pub on_error: OnError,
    /// Fraction of failed tiles above which a slide fails.
    pub max_failed: f64,
    /// Fraction of failed selected tiles above which a slide fails.
    pub max_failed_picked: f64,
    /// How often a tile is tried again before it counts as failed.
    pub retries: u32,
    /// um/px of slides that say nothing.
    pub default_mpp: Option<f64>,
    /// `auto`, `burn`, `onnxruntime`.
    pub executor: String,
    /// Publish while slides are open.
    pub live: bool,
    /// Least time between two publications of a slide.
    pub live_tick: Duration,
    /// Least time between two selections of a slide.
    pub select_tick: Duration,
    /// Address of the metrics page; not served by this version.
    pub metrics: Option<String>,
    /// `error`, `warn`, `info`, `debug`.
    pub log: String,
    /// Folder of the outputs.
    pub out: PathBuf,
}

/// What happens to the run when a slide fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The others go on.
    Continue,
    /// The run ends at the first failed slide.
    Stop,
}

impl Default for RunSettings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        RunSettings {
            workers: 1,
            helpers: cores,
            readers: cores,
            devices: vec!["auto".into()],
            memory: 1 << 30,
            open_slides: 4,
            seed: 0,
            on_error: OnError::Continue,
            max_failed: 0.01,
            max_failed_picked: 0.10,
            retries: 1,
            default_mpp: None,
            executor: "auto".into(),
            live: false,
            live_tick: Duration::from_millis(100),
            select_tick: Duration::from_secs(1),
            metrics: None,
            log: "warn".into(),
            out: PathBuf::from("out"),
        }
    }
}
