//! The command line, from which `--help`, the man page and the completions come.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use weir_pipeline::units;

/// A streaming dataflow engine for whole-slide histopathology images. Research software, not a medical device.
#[derive(Debug, Parser)]
#[command(name = "weir", version, arg_required_else_help = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How messages are printed.
    #[arg(long, global = true, value_enum, default_value = "human")]
    pub format: Format,
    /// Whether messages are coloured.
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub color: Color,
    /// Print less: no progress, no summary.
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// How messages are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// One line each: `file:line:column: error[CODE]: message`.
    Short,
    /// One JSON object a line.
    Json,
}

/// Whether messages are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a pipeline.
    Run(Run),
    /// Check pipeline files; print every mistake at once.
    Validate(Validate),
    /// Print a pipeline's graph, with types and memory.
    Graph(Graph),
    /// List the stage types, or describe one.
    Stages(Stages),
    /// Explain a diagnostic.
    Explain {
        /// As E0302.
        code: String,
    },
    /// Print the JSON Schema of pipeline files, for editors.
    Schema {
        /// A plugin's file or name: its stage types are known too. May be repeated.
        #[arg(long = "plugin", value_name = "FILE|NAME")]
        plugins: Vec<PathBuf>,
    },
    /// Print a pipeline after variables and --set, with where each value came from.
    Show(File),
    /// Say what a slide is: levels, resolution and who said so, reader, associated images.
    Inspect {
        /// The slide.
        slide: PathBuf,
        /// Size of a level-0 pixel, um, instead of what the file says.
        #[arg(long)]
        mpp: Option<f64>,
        /// How long a plugin's slide reader may take to look at the slide, to open it or to read a region, before it is ended where
        /// plugins have processes of their own, and told of elsewhere: 60 s, or as "5m".
        #[arg(long, value_name = "TIME", value_parser = duration)]
        timeout: Option<Duration>,
    },
    /// Say what this machine has and what is missing, each with the remedy.
    Doctor {
        /// The folder whose disk is looked at.
        #[arg(short, long, default_value = "out")]
        out: PathBuf,
    },
    /// Run the [[test]] tables of a pipeline.
    Test {
        #[command(flatten)]
        file: File,
        /// Only the test of this name.
        #[arg(long)]
        only: Option<String>,
    },
    /// Measure what this machine and weir on it can do.
    Bench {
        /// What.
        #[command(subcommand)]
        what: Bench,
    },
    /// Train a scorer and a bag model from slide labels.
    Train(Train),
    /// Write a new file to start from.
    New {
        /// What.
        #[command(subcommand)]
        what: New,
    },
    /// Look at plugins, pin them, and check that they keep the rules. Only `check` and `inspect --file` run their code.
    Plugin {
        /// What.
        #[command(subcommand)]
        what: Plugin,
    },
    /// Run a plugin for another process of weir.
    #[command(name = "plugin-host", hide = true)]
    PluginHost,
    /// Print completions for a shell.
    Completions {
        /// bash, zsh, fish, elvish, powershell.
        shell: clap_complete::Shell,
    },
    /// Print a man page.
    Man {
        /// Of this command; of weir itself when none is given.
        command: Option<String>,
    },
}

/// A pipeline file and what overrides it.
#[derive(Args, Clone, Debug)]
pub struct File {
    /// The pipeline file.
    pub file: PathBuf,
    /// Values of the file's variables.
    #[arg(value_name = "NAME=VALUE")]
    pub variables: Vec<String>,
    /// A value for any key, as `stage.top.highest=64`; it is TOML and checked like the file.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Arguments of `weir run`.
#[derive(Args, Clone, Debug)]
pub struct Run {
    #[command(flatten)]
    pub file: File,
    /// Folder of the outputs, instead of `run.out`.
    #[arg(short, long)]
    pub out: Option<PathBuf>,
    /// Timely workers in each process, instead of `run.workers`.
    #[arg(short, long)]
    pub workers: Option<usize>,
    /// auto, cpu, cuda:0; instead of `run.devices`.
    #[arg(long)]
    pub device: Option<String>,
    /// auto, burn, onnxruntime; instead of `run.executor`.
    #[arg(long)]
    pub executor: Option<String>,
    /// Refuse plugins whose hash the file does not name, as `weir plugin pin` writes it.
    #[arg(long)]
    pub locked: bool,
    /// Compute slides again that an earlier run finished.
    #[arg(long)]
    pub again: bool,
    /// Only every n-th slide, starting with the i-th: i/n with i from 1. For batches of independent jobs; afterwards, a run
    /// without --shard gathers the tables.
    #[arg(long, value_name = "I/N", conflicts_with_all = ["processes", "hosts"])]
    pub shard: Option<String>,
    /// Start this many processes on this machine.
    #[arg(long, value_name = "N", conflicts_with = "hosts")]
    pub processes: Option<usize>,
    /// Join a cluster: a file with one host:port a line, the same for every process.
    #[arg(long, value_name = "FILE", requires = "process")]
    pub hosts: Option<PathBuf>,
    /// This process's line in --hosts, from 0.
    #[arg(long, value_name = "I", requires = "hosts")]
    pub process: Option<usize>,
    /// How long to wait for the other processes.
    #[arg(long, value_name = "SECONDS", default_value = "30")]
    pub join_timeout: u64,
    /// Another weir started this process and tells it on standard input when to stop.
    #[arg(long, hide = true)]
    pub led: bool,
    /// Write a trace for Perfetto or chrome://tracing.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
}

/// Arguments of `weir validate`.
#[derive(Args, Clone, Debug)]
pub struct Validate {
    /// Pipeline files, and folders that are searched for *.weir.toml.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Values of the files' variables.
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub variables: Vec<String>,
    /// A value for any key.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Exit with 2 for warnings too.
    #[arg(long)]
    pub deny_warnings: bool,
}

/// Arguments of `weir graph`.
#[derive(Args, Clone, Debug)]
pub struct Graph {
    #[command(flatten)]
    pub file: File,
    /// How the graph is drawn.
    #[arg(long = "as", value_enum, default_value = "text")]
    pub drawing: Drawing,
    /// A dry run: open every slide, count its tiles and bytes.
    #[arg(long)]
    pub slides: bool,
}

/// How a graph is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Drawing {
    /// For a terminal.
    Text,
    /// For Graphviz.
    Dot,
    /// For Markdown pages.
    Mermaid,
    /// For programs.
    Json,
}

/// Arguments of `weir stages`.
#[derive(Args, Clone, Debug)]
pub struct Stages {
    /// A stage type; all when none is given. A plugin's, as stain.normalise, is looked for by the name before the dot.
    pub name: Option<String>,
    /// A plugin's file or name: its stage types are known too. May be repeated.
    #[arg(long = "plugin", value_name = "FILE|NAME")]
    pub plugins: Vec<PathBuf>,
    /// Markdown instead of text.
    #[arg(long)]
    pub markdown: bool,
}

/// Arguments of `weir train`.
#[derive(Args, Clone, Debug)]
pub struct Train {
    /// What to train and how: a TOML file.
    pub recipe: PathBuf,
    /// Folder with the slides and their manifest.
    #[arg(long)]
    pub data: PathBuf,
    /// Folder of the run: metrics, curves, checkpoints, models.
    #[arg(short, long)]
    pub out: PathBuf,
    /// Go on from the checkpoints in --out.
    #[arg(long)]
    pub resume: bool,
    /// cpu, cuda:0: where bags are pooled and the pool's gradient is taken, with the same bits; networks train on the processor.
    #[arg(long, default_value = "cpu")]
    pub device: String,
}

/// What `weir new` writes.
#[derive(Debug, Subcommand)]
pub enum New {
    /// A pipeline that validates.
    Pipeline {
        /// The file to write; never overwritten.
        file: PathBuf,
        /// Folder with the models `a` and `b`, as `weir train` writes it.
        #[arg(long, default_value = "pipelines/models/demo")]
        models: PathBuf,
    },
}

/// What `weir plugin` does.
#[derive(Debug, Subcommand)]
pub enum Plugin {
    /// List the plugins that are found by their names, the files that cannot be used, each with the reason, and the folders that are
    /// looked into.
    List,
    /// Say what a plugin is: hash, ABI, version, licence, stage types with ports and parameters, slide readers.
    Inspect {
        /// Its file, or its name.
        #[arg(value_name = "FILE|NAME")]
        plugin: PathBuf,
        /// What this file is to the plugin, as a model to `onnx`; for that the plugin is loaded.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Write a project that builds, with one stage, to start from.
    New(crate::plugin::New),
    /// Hold a plugin to the rules: each test runs in a process of its own.
    ///
    /// Of the file: manifest-valid, scan-time, rtld-now, loads, entry-twice, unknown-extension. Of a stage: params-defaults, params-edge,
    /// params-fuzz-in-range, create-destroy-100, error-has-message; with inputs also one-row, empty-batch, max-rows, input-untouched,
    /// output-matches-port-type, output-written, no-overrun, panic-contained, thread-hop, parallel-stress, determinism, pending-completes-once,
    /// cancel-while-pending, batches-given-back, 10k-batches-steady-memory. Of a reduce or a sink also flush-order, remove-undoes, slides-apart. Of a
    /// source: slides-listed, steps-in-order, read-fills-all, reads-at-once, same-tiles-twice, open-close-50. Of a slide reader:
    /// sniff-noise, open-refuses, facts-coherent, regions-agree, no-overrun, outside-white, pictures, reads-at-once, open-close-50.
    /// plugins/README.md says what each looks for.
    Check(crate::plugin::Check),
    /// One of those tests.
    #[command(hide = true)]
    Trial(crate::plugin::Trial),
    /// Write the hashes of a pipeline's plugins into its file, so that no other bytes are run.
    Pin {
        /// The pipeline file; comments and layout stay.
        file: PathBuf,
        /// Only this plugin.
        name: Option<String>,
    },
}

/// What `weir bench` measures.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// The kernels: time, share of the machine's limit, error against f64, whether bits stay; forward and backward.
    Kernels(Kernels),
}

/// Arguments of `weir bench kernels`.
#[derive(Args, Clone, Debug)]
pub struct Kernels {
    /// Only cases with all these words in their name, as `pool.forward f32 d1024`; `-ragged` leaves a word out.
    #[arg(
        long,
        value_name = "WORDS",
        default_value = "",
        allow_hyphen_values = true
    )]
    pub filter: String,
    /// cpu, cuda:0.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Threads of the processor; 0 for one a core.
    #[arg(long, value_name = "N", default_value = "0")]
    pub threads: usize,
    /// For how long; cases nearest the middle of the grid come first.
    #[arg(long, value_name = "SECONDS", conflicts_with = "quick")]
    pub budget: Option<f64>,
    /// A quarter of a minute instead of one and a half.
    #[arg(long)]
    pub quick: bool,
    /// Only whether results are right and their bits stay, over small shapes; exits with 1 where not.
    #[arg(long)]
    pub check: bool,
    /// Print what cards' limits allow, without a card: h200, h100, b200, a100, l40s, l4, rtx4090; all when none is named.
    #[arg(long, value_name = "CARD", num_args = 0.., value_delimiter = ',')]
    pub predict: Option<Vec<String>>,
    /// Write JSON lines; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Compare with the JSON lines of an earlier run; exits with 1 where something became slower.
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Show beside it what other libraries took: the file that benches/peers/pool.py wrote.
    #[arg(long, value_name = "FILE")]
    pub peers: Option<PathBuf>,
    /// Write a trace of the cases for Perfetto or chrome://tracing; NVTX ranges go out where NVIDIA's library is.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Draw the roofline: a .png or .svg.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}

/// A time with its unit, as in a pipeline.
fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text).ok_or_else(|| "write it with its unit, as 20ms, 60s or 5m".into())
}
