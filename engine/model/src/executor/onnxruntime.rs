//! The fast executor: ONNX Runtime, loaded at run time where it is found.
//!
//! On the processor each thread that calls has a session; on a CUDA device batches take turns ([`super::device_batch`]) on one
//! ([`super::bound`]).

use super::bound::Bound;
use super::device_batch::DeviceBatch;
use super::{Device, Executor, ExecutorError, finite};
use crate::input::Input;
use crate::network::Network;
use crate::weights::Weights;
use crate::{kernels, onnx};
use ort::environment::Environment;
use ort::ep;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::TensorRef;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use weir_kernels::cuda::stream::Stream;

/// ONNX Runtime's library, loaded; there is at most one in a process.
pub struct Library {
    /// The file.
    pub path: PathBuf,
    /// As `1.32.0`.
    pub version: String,
    environment: Environment,
}

/// ONNX Runtime is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The files that were looked for, or the one that did not load.
    pub tried: Vec<PathBuf>,
    /// What was wrong with the file, where there was one.
    pub what: Option<String>,
    /// Whether the user named the file.
    pub named: bool,
}

impl Missing {
    /// In a few words, for the line that says which executor was chosen.
    pub fn short(&self) -> &'static str {
        if self.what.is_some() {
            "ONNX Runtime's library did not load"
        } else {
            "ONNX Runtime's library was not found"
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())?;
        if let Some(what) = &self.what {
            write!(f, ": {what}")?;
        }
        f.write_str("; looked for")?;
        for (place, path) in self.tried.iter().enumerate() {
            let comma = if place == 0 { " " } else { ", " };
            write!(f, "{comma}{}", path.display())?;
        }
        f.write_str(
            "; `make setup` takes it out of the PyPI wheel `onnxruntime`, or set WEIR_ONNXRUNTIME to the file, or use the executor `burn`",
        )
    }
}

/// The library: the one that `named`, WEIR_ONNXRUNTIME or ORT_DYLIB_PATH says, else the first that is there of
/// `.onnxruntime/` beside the program and in the checkout that it was built in, LD_LIBRARY_PATH and the system's folders.
///
/// The first one that loads stays for the process.
pub fn library(named: Option<&Path>) -> Result<&'static Library, ExecutorError> {
    static LOADED: OnceLock<Library> = OnceLock::new();
    static LOADING: Mutex<()> = Mutex::new(());
    // Held while loading, so that two models do not load it twice; what it guards has no state to spoil.
    let _guard = LOADING
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(library) = LOADED.get() {
        return Ok(library);
    }
    let (path, named) = find(named).map_err(ExecutorError::Missing)?;
    let library = load(&path, named).map_err(ExecutorError::Missing)?;
    Ok(LOADED.get_or_init(|| library))
}

fn find(named: Option<&Path>) -> Result<(PathBuf, bool), Missing> {
    weir_libraries::onnxruntime(named)
        .map(|found| (found.path, found.named))
        .map_err(|missing| Missing {
            tried: missing.tried,
            what: missing.named.then(|| "there is no such file".to_string()),
            named: missing.named,
        })
}

fn load(path: &Path, named: bool) -> Result<Library, Missing> {
    let missing = |what: String| Missing {
        tried: vec![path.to_path_buf()],
        what: Some(what),
        named,
    };
    // A relative path would be looked for beside the program first.
    let absolute = std::path::absolute(path).map_err(|error| missing(error.to_string()))?;
    let environment = ort::init_from(&absolute)
        .map_err(|error| missing(error.to_string()))?
        .with_telemetry(false)
        .build()
        .map_err(|error| missing(error.to_string()))?;
    Ok(Library {
        path: path.to_path_buf(),
        version: version(ort::info())
            .or_else(|| stamp(path))
            .unwrap_or_else(|| "unknown".to_string()),
        environment,
    })
}

/// The version in a build's description, as `1.32.0` of `... git-branch=rel-1.32.0, git-commit-id=0123abc, ...`; builds of
/// other branches say none.
fn version(info: &str) -> Option<String> {
    let rest = info.split("git-branch=rel-").nth(1)?;
    rest.split([',', ' ']).next().map(str::to_string)
}

/// The version that stands in the library's own symbols, as `1.32.0` of `VERS_1.32.0`.
fn stamp(path: &Path) -> Option<String> {
    const MARK: &[u8] = b"VERS_";
    const LONGEST: usize = 32;
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).ok()?);
    let mut held: Vec<u8> = Vec::new();
    loop {
        let block = file.fill_buf().ok()?;
        let (read, over) = (block.len(), block.is_empty());
        held.extend_from_slice(block);
        file.consume(read);
        // A mark near the end of what is held is looked at again, whole, with the next block.
        let sure = if over {
            held.len()
        } else {
            held.len().saturating_sub(LONGEST)
        };
        let mut marks = held
            .windows(MARK.len())
            .take(sure)
            .enumerate()
            .filter(|(_, window)| *window == MARK);
        let found = marks.find_map(|(at, _)| {
            let rest = &held[at + MARK.len()..];
            let end = rest.iter().position(|byte| *byte == 0)?;
            let text = std::str::from_utf8(&rest[..end]).ok()?;
            let numbers = text.split('.').all(|part| part.parse::<u16>().is_ok());
            (numbers && text.contains('.')).then(|| text.to_string())
        });
        if found.is_some() || over {
            return found;
        }
        held.drain(..sure);
    }
}

/// A session of one thread, deterministic kernels only; on the processor, or by the provider that is given, of that device.
pub(super) fn session(
    library: &'static Library,
    graph: &[u8],
    provider: Option<(ep::ExecutionProviderDispatch, Device)>,
) -> Result<Session, ExecutorError> {
    let failed = |doing| {
        move |what: String| ExecutorError::Library {
            executor: "onnxruntime",
            doing,
            what,
        }
    };
    let single_threaded = || -> ort::Result<SessionBuilder> {
        Ok(Session::builder(&library.environment)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            .with_deterministic_compute(true)?
            .with_optimization_level(GraphOptimizationLevel::All)?)
    };
    let mut builder =
        single_threaded().map_err(|error| failed("set its options")(error.to_string()))?;
    if let Some((provider, device)) = provider {
        builder = builder
            .with_execution_providers([provider])
            .map_err(|error| ExecutorError::Device {
                device: device.to_string(),
                executor: "onnxruntime",
                what: error.to_string(),
                help: "take the library of the PyPI wheel `onnxruntime-gpu` with CUDA and cuDNN as its notes say and set WEIR_ONNXRUNTIME to it, or use `cpu`",
            })?;
    }
    builder
        .commit_from_memory(graph)
        .map_err(|error| failed("take the network's graph")(error.to_string()))
}

/// Runs a network as an ONNX graph that weir wrote.
pub struct OnnxRuntime {
    library: &'static Library,
    way: Way,
}

enum Way {
    Processor(Processor),
    /// One session: a batch has the stream's turn, and the weights lie on the device once.
    Device(Box<Mutex<DeviceBatch<Bound>>>, Device),
}

impl OnnxRuntime {
    /// The network on `device`, there in `stream` or, where that is not given, in one of its own; the first session is built at
    /// once, so that what is wrong shows here.
    pub fn new(
        library: &'static Library,
        network: &Network,
        weights: &Weights,
        input: &Input,
        device: Device,
        stream: Option<&Stream>,
    ) -> Result<OnnxRuntime, ExecutorError> {
        let graph = onnx::write(network, weights, input.size())?;
        let way = match device {
            Device::Cpu => Way::Processor(Processor::new(library, graph, input)?),
            Device::Cuda(number) => {
                // A stream of another device would run the network there.
                let own = |stream: &&Stream| stream.gpu().device().ordinal == number as usize;
                let stream = match stream.filter(own) {
                    Some(stream) => stream.clone(),
                    None => kernels::stream(number).map_err(|error| ExecutorError::Device {
                        device: device.to_string(),
                        executor: "onnxruntime",
                        what: error.to_string(),
                        help: "`weir doctor` says what of CUDA was found; or use `cpu`",
                    })?,
                };
                let shape = (input.size(), network.feature);
                let bound = Bound::on_device(library, &graph, shape, &stream)?;
                let batch = DeviceBatch::new(bound, &stream, input, network.feature);
                Way::Device(Box::new(Mutex::new(batch)), device)
            }
        };
        Ok(OnnxRuntime { library, way })
    }
}

/// Sessions on the processor.
struct Processor {
    library: &'static Library,
    graph: Vec<u8>,
    input: Input,
    /// Sessions that no call uses now. A call needs one for itself, so there are as many as threads called at once.
    free: Mutex<Vec<Session>>,
}

impl Processor {
    fn new(
        library: &'static Library,
        graph: Vec<u8>,
        input: &Input,
    ) -> Result<Processor, ExecutorError> {
        let first = session(library, &graph, None)?;
        Ok(Processor {
            library,
            graph,
            input: input.clone(),
            free: Mutex::new(vec![first]),
        })
    }

    fn forward(&self, tiles: &[&[u8]]) -> Result<Vec<Vec<f32>>, ExecutorError> {
        let free = self.free.lock().ok().and_then(|mut free| free.pop());
        let mut session = free.map_or_else(|| session(self.library, &self.graph, None), Ok)?;
        let features = self.run(&mut session, tiles);
        if let Ok(mut free) = self.free.lock() {
            free.push(session);
        }
        features
    }

    fn run(&self, session: &mut Session, tiles: &[&[u8]]) -> Result<Vec<Vec<f32>>, ExecutorError> {
        let failed = |error: ort::Error| ExecutorError::Library {
            executor: "onnxruntime",
            doing: "run the network",
            what: error.to_string(),
        };
        let size = self.input.size();
        let mut numbers = Vec::new();
        let mut features = Vec::with_capacity(tiles.len());
        for (place, tile) in tiles.iter().enumerate() {
            numbers.clear();
            self.input.append(tile, &mut numbers)?;
            let tensor = TensorRef::from_array_view(([1, 3, size, size], numbers.as_slice()))
                .map_err(failed)?;
            let outputs = session
                .run(ort::inputs![onnx::INPUT => tensor])
                .map_err(failed)?;
            let (_, values) = outputs[onnx::OUTPUT]
                .try_extract_tensor::<f32>()
                .map_err(failed)?;
            features.push(finite(place, values.to_vec())?);
        }
        Ok(features)
    }
}

impl Executor for OnnxRuntime {
    fn forward(&self, tiles: &[&[u8]]) -> Result<Vec<Vec<f32>>, ExecutorError> {
        match &self.way {
            Way::Processor(processor) => processor.forward(tiles),
            Way::Device(batch, _) => batch
                .lock()
                // A panic leaves memory and slots as they belong together.
                .unwrap_or_else(PoisonError::into_inner)
                .forward(tiles),
        }
    }

    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    fn version(&self) -> &str {
        &self.library.version
    }

    fn device(&self) -> String {
        match &self.way {
            Way::Processor(_) => Device::Cpu.to_string(),
            Way::Device(_, device) => device.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_version_is_read_from_the_description_or_from_the_symbols() {
        let said =
            "ORT Build Info: git-branch=rel-1.32.0, git-commit-id=0123abc, build type=Release";
        assert_eq!(version(said).as_deref(), Some("1.32.0"));
        assert_eq!(version("git-commit-id=0123abc"), None);

        // Wherever the mark stands, also across the blocks in which the file is read.
        let file = tempfile::NamedTempFile::new().unwrap();
        for at in [0, 100, 65_530, 65_536, 131_060] {
            let mut bytes = vec![7; at];
            bytes.extend(b"VERS_x\0VERS_1.32.0\0GLIBC_2.5\0");
            bytes.resize(bytes.len() + 70_000, 9);
            std::fs::write(file.path(), &bytes).unwrap();
            assert_eq!(stamp(file.path()).as_deref(), Some("1.32.0"), "{at}");
        }
        std::fs::write(file.path(), "nothing").unwrap();
        assert_eq!(stamp(file.path()), None);
    }
}
