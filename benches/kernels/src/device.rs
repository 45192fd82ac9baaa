//! A CUDA device under the bench: arrays that lie there, times by its own events, its ceilings.

use crate::Fault;
use crate::clock::{Patience, Samples, sample};
use crate::cost::Ceilings;
use crate::cublas::Cublas;
use crate::data::{Array, Random};
use crate::machine::Machine;
use crate::shapes::Outputs;
use crate::work::{Memory, Work};
use std::collections::BTreeMap;
use std::time::Duration;
use weir_kernels::cuda::buffer::Buffer;
use weir_kernels::cuda::launch::Function;
use weir_kernels::cuda::stream::Stream;
use weir_kernels::cuda::{CudaError, Gpu};
use weir_kernels::view::{Layout, Place, dense};
use weir_kernels::{Dtype, KernelError, Kernels, View, ViewMut};

impl From<CudaError> for Fault {
    fn from(error: CudaError) -> Fault {
        Fault::failed(error.to_string(), "")
    }
}

enum Owned {
    F32(Buffer<f32>),
    F16(Buffer<half::f16>),
    Bf16(Buffer<half::bf16>),
    U8(Buffer<u8>),
    U32(Buffer<u32>),
    I32(Buffer<i32>),
}

macro_rules! owned {
    ($owned:expr, $buffer:ident => $body:expr) => {
        match $owned {
            Owned::F32($buffer) => $body,
            Owned::F16($buffer) => $body,
            Owned::Bf16($buffer) => $body,
            Owned::U8($buffer) => $body,
            Owned::U32($buffer) => $body,
            Owned::I32($buffer) => $body,
        }
    };
}

/// A rate that bounds nothing, for a card of which none is known; JSON has no infinity.
pub(crate) const UNKNOWN: f64 = 1e18;

/// An array that lies on the device.
pub struct Held {
    owned: Owned,
    dtype: Dtype,
    place: Place,
}

impl Held {
    /// A copy of an array of the host.
    pub fn of(gpu: &Gpu, array: &Array) -> Result<Held, CudaError> {
        Ok(Held {
            owned: match array {
                Array::F32(data) => Owned::F32(gpu.keep(data)?),
                Array::F16(data) => Owned::F16(gpu.keep(data)?),
                Array::Bf16(data) => Owned::Bf16(gpu.keep(data)?),
                Array::U8(data) => Owned::U8(gpu.keep(data)?),
                Array::U32(data) => Owned::U32(gpu.keep(data)?),
                Array::I32(data) => Owned::I32(gpu.keep(data)?),
            },
            dtype: array.dtype(),
            place: gpu.place(),
        })
    }

    /// A copy on the host, after what `stream` has so far.
    pub fn fetch(&self, stream: &Stream) -> Result<Array, CudaError> {
        Ok(match &self.owned {
            Owned::F32(buffer) => Array::F32(buffer.read(stream)?),
            Owned::F16(buffer) => Array::F16(buffer.read(stream)?),
            Owned::Bf16(buffer) => Array::Bf16(buffer.read(stream)?),
            Owned::U8(buffer) => Array::U8(buffer.read(stream)?),
            Owned::U32(buffer) => Array::U32(buffer.read(stream)?),
            Owned::I32(buffer) => Array::I32(buffer.read(stream)?),
        })
    }

    fn layout<const N: usize>(&self, shape: [usize; N]) -> Result<Layout<N>, KernelError> {
        let (address, len) = owned!(&self.owned, b => (b.span().address(), b.len()));
        let wanted: usize = shape.iter().product();
        if wanted > len {
            return Err(KernelError {
                kernel: "view",
                shape: format!("{shape:?} {}", self.dtype),
                cause: weir_kernels::Cause::Shape {
                    argument: "data",
                    expected: format!("at least {wanted} elements"),
                    got: len.to_string(),
                },
            });
        }
        Ok(Layout {
            address,
            dtype: self.dtype,
            shape,
            strides: dense(shape),
            place: self.place,
        })
    }
}

impl Memory for Held {
    fn view<const N: usize>(&self, shape: [usize; N]) -> Result<View<'_, N>, KernelError> {
        let layout = self.layout(shape)?;
        // SAFETY: the elements lie in this buffer, which is initialised and borrowed for as long.
        Ok(unsafe { View::foreign(layout) })
    }

    fn view_mut<const N: usize>(
        &mut self,
        shape: [usize; N],
    ) -> Result<ViewMut<'_, N>, KernelError> {
        let layout = self.layout(shape)?;
        // SAFETY: the elements lie in this buffer, dense, and it is borrowed exclusively for as long.
        Ok(unsafe { ViewMut::foreign(layout) })
    }
}

/// A case's inputs and outputs on the device.
pub struct Resident {
    sets: Vec<BTreeMap<&'static str, Held>>,
    outputs: Vec<Held>,
}

impl Resident {
    /// Copies of them; the outputs are poisoned.
    pub fn new(gpu: &Gpu, work: &Work) -> Result<Resident, CudaError> {
        let outputs = work.outputs();
        Ok(Resident {
            sets: work
                .sets
                .iter()
                .map(|set| {
                    set.iter()
                        .map(|(name, array)| Ok((*name, Held::of(gpu, array)?)))
                        .collect()
                })
                .collect::<Result<_, CudaError>>()?,
            outputs: outputs
                .iter()
                .map(|(_, array, _)| Held::of(gpu, array))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The call, on what lies there.
    pub fn run(
        &mut self,
        work: &Work,
        kernels: &dyn Kernels,
        set: usize,
    ) -> Result<(), KernelError> {
        let set = set % self.sets.len();
        let inputs = (&self.sets[set], &self.sets[set]);
        let outputs = &mut self.outputs.iter_mut();
        work.call(&work.case, kernels, inputs, work.tape(set), None, outputs)
    }

    fn output_bytes(&self) -> usize {
        let bytes = |held: &Held| owned!(&held.owned, b => b.len()) * held.dtype.bytes();
        self.outputs.iter().map(bytes).sum()
    }

    /// The outputs on the host.
    pub fn fetch(&self, work: &Work, stream: &Stream) -> Result<Outputs, CudaError> {
        let mut out = work.outputs();
        for ((_, array, _), held) in out.iter_mut().zip(&self.outputs) {
            *array = held.fetch(stream)?;
        }
        Ok(out)
    }
}

/// A device that is measured.
pub struct Card {
    /// Its kernels, in the order of one stream.
    pub stream: Stream,
    /// Twice its L2, written between samples.
    flush: Buffer<u8>,
}

impl Card {
    /// Device `ordinal`.
    pub fn open(ordinal: usize) -> Result<Card, Fault> {
        let gpu = Gpu::open(ordinal).map_err(|reason| {
            Fault::failed(
                reason.to_string(),
                "`weir doctor` says what was found; --device cpu measures the processor",
            )
        })?;
        let l2 = usize::try_from(gpu.device().l2).unwrap_or(64 << 20);
        Ok(Card {
            flush: gpu.allocate((2 * l2).max(128 << 20))?,
            stream: gpu.stream()?,
        })
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        self.stream.gpu()
    }

    /// Leaves nothing of what was used before in L2.
    pub fn flush(&self) -> Result<(), CudaError> {
        self.stream.fill(self.flush.span(), 1)
    }

    /// Seconds of what `work` enqueues, by the device's own clock.
    pub fn time(&self, work: impl FnOnce() -> Result<(), Fault>) -> Result<f64, Fault> {
        let timer = self.stream.timer()?;
        work()?;
        Ok(f64::from(timer.stop()?) / 1e3)
    }

    /// What stands at the head of a run.
    pub fn machine(&self, processor: Machine) -> Machine {
        let device = self.gpu().device();
        let cuda = format!("CUDA {}", self.gpu().driver());
        // Every source comes from the same place.
        let function = self.gpu().function("pool", "weir_pool_f32");
        Machine {
            device: self.stream.device(),
            name: format!(
                "{}, {} multiprocessors",
                device.name, device.multiprocessors
            ),
            cache: usize::try_from(device.l2).unwrap_or(0),
            driver: Some(match self.ask("driver_version") {
                Some(version) => format!("{version} ({cuda})"),
                None => cuda,
            }),
            compiler: function.ok().map(|function| function.image().to_owned()),
            clocks: self.clocks(),
            ..processor
        }
    }

    /// Clocks of multiprocessors and memory, temperature, power, as `nvidia-smi` says them; `None` where it does not.
    pub fn clocks(&self) -> Option<String> {
        self.ask("clocks.sm,clocks.mem,temperature.gpu,power.draw")
    }

    fn ask(&self, what: &str) -> Option<String> {
        let output = std::process::Command::new("nvidia-smi")
            .args([
                &format!("--query-gpu={what}"),
                "--format=csv,noheader",
                &format!("--id={}", self.gpu().device().ordinal),
            ])
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    }

    /// Device memory of a call beside its inputs, bytes: its results, and what a stream that does nothing else holds then.
    pub fn memory(&self, work: &Work, resident: &mut Resident) -> Result<f64, Fault> {
        let fresh = self.gpu().stream()?;
        resident.run(work, &fresh, 0)?;
        fresh.synchronize()?;
        Ok((resident.output_bytes() + fresh.scratch_bytes()?) as f64)
    }

    /// The ceilings; some seconds. Where no product can be measured, the card's known figure stands in, and the second
    /// result says so.
    pub fn ceilings(&self) -> Result<(Ceilings, Option<String>), Fault> {
        let gpu = self.gpu();
        let (free, _) = gpu.memory()?;
        let bytes = (free / 4).min(2 << 30);
        let (from, to) = (gpu.allocate::<u8>(bytes)?, gpu.allocate::<u8>(bytes)?);
        // Random, since zeros can move and multiply faster than real data.
        let noise = Random::new(3).array(Dtype::U8, 1 << 24, 1.0);
        if let Array::U8(noise) = &noise {
            for part in 0..bytes / noise.len() {
                if let Some(span) = from.span().part(part * noise.len(), noise.len()) {
                    self.stream.upload(noise, span)?;
                }
            }
        }
        let copy = self.steady(|| Ok(self.stream.copy(from.span(), to.span())?))?;
        let copy = 2.0 * bytes as f64 / copy.median();
        drop((from, to));
        let mut ceilings = Ceilings {
            read: copy,
            copy,
            product: 0.0,
            product_half: 0.0,
        };
        let why = match self.products(&mut ceilings) {
            Ok(()) => return Ok((ceilings, None)),
            Err(fault) => fault.what,
        };
        let name = gpu.device().name.to_lowercase();
        let known = crate::cards::CARDS
            .iter()
            .find(|card| name.contains(card.name));
        ceilings.product = known.map_or(UNKNOWN, |card| card.product);
        ceilings.product_half = known.map_or(UNKNOWN, |card| card.product_half);
        Ok((ceilings, Some(why)))
    }

    fn products(&self, ceilings: &mut Ceilings) -> Result<(), Fault> {
        let gpu = self.gpu();
        let cublas = Cublas::find(&self.stream)?;
        for (dtype, n) in [(Dtype::Bf16, 8192), (Dtype::F32, 4096)] {
            let side = Random::new(5).array(dtype, n * n, 1.0);
            let (a, b) = (Held::of(gpu, &side)?, Held::of(gpu, &side)?);
            let c = Held::of(gpu, &Array::poisoned(dtype, n * n))?;
            let address = |held: &Held| owned!(&held.owned, b => b.span().address());
            let took =
                self.steady(|| cublas.product(dtype, n, address(&a), address(&b), address(&c)))?;
            let rate = 2.0 * (n as f64).powi(3) / took.median();
            if dtype == Dtype::F32 {
                ceilings.product = rate;
            } else {
                ceilings.product_half = rate;
            }
        }
        Ok(())
    }

    fn steady(&self, mut work: impl FnMut() -> Result<(), Fault>) -> Result<Samples, Fault> {
        for _ in 0..3 {
            work()?;
        }
        let patience = Patience {
            least: 9,
            most: 60,
            limit: Duration::from_millis(500),
        };
        sample(patience, |_| self.time(&mut work))
    }

    /// How often each loaded kernel was launched so far.
    pub fn launched(&self) -> BTreeMap<&'static str, u64> {
        let functions = self.gpu().functions();
        let times = |function: &Function| (function.name(), function.launched().times);
        functions.iter().map(times).collect()
    }

    /// Launches since `before`, and what the kernels launched use: registers, shared bytes, blocks a multiprocessor.
    pub fn since(&self, before: &BTreeMap<&'static str, u64>) -> Result<(u64, String), Fault> {
        let mut launches = 0;
        let mut words = Vec::new();
        for function in self.gpu().functions() {
            let before = before.get(function.name()).copied().unwrap_or(0);
            let times = function.launched().times;
            if times > before {
                launches += times - before;
                words.push(resources(&function)?);
            }
        }
        Ok((launches, words.join("; ")))
    }
}

fn resources(function: &Function) -> Result<String, Fault> {
    let used = function.resources();
    let mut words = format!("{} {} regs", function.name(), used.registers);
    if used.local > 0 {
        words += &format!(", {} B LOCAL", used.local);
    }
    if let Some(grid) = function.launched().last {
        let threads = grid.threads.iter().product();
        let blocks = function.blocks_per_multiprocessor(threads, grid.shared)?;
        let shared = grid.shared + used.shared;
        words += &format!(", {shared} B shared, {blocks} x {threads} threads");
    }
    Ok(words)
}
