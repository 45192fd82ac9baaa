//! Functions of the device, and launching them.

use super::Context;
use super::buffer::{Number, Span};
use super::fault::CudaError;
use super::module::Module;
use super::stream::Stream;
use cudarc::driver::{result, sys};
use std::ffi::c_void;
use std::fmt;
use std::sync::{Arc, Mutex};

/// Shared memory that a kernel may have without asking for it, bytes.
const SHARED_UNASKED: u32 = 48 << 10;

/// The shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks in x, y, z.
    pub blocks: [u32; 3],
    /// Threads of a block in x, y, z.
    pub threads: [u32; 3],
    /// Dynamic shared memory of a block, bytes.
    pub shared: u32,
}

impl Grid {
    /// `blocks` blocks of `threads` threads in one dimension.
    pub fn new(blocks: u32, threads: u32) -> Grid {
        Grid {
            blocks: [blocks, 1, 1],
            threads: [threads, 1, 1],
            shared: 0,
        }
    }

    /// So many blocks in y.
    pub fn rows(mut self, blocks: u32) -> Grid {
        self.blocks[1] = blocks;
        self
    }

    /// So many blocks in z.
    pub fn layers(mut self, blocks: u32) -> Grid {
        self.blocks[2] = blocks;
        self
    }

    /// That much dynamic shared memory a block, bytes.
    pub fn shared(mut self, bytes: u32) -> Grid {
        self.shared = bytes;
        self
    }
}

/// Bytes of the largest argument.
const LARGEST: usize = 64;

/// A kernel's argument, by value: a number, an address, or a small struct of them.
#[derive(Clone, Copy)]
pub struct Argument {
    // The driver reads as many bytes as the kernel's parameter has, which are aligned as the parameter is.
    memory: Aligned,
    bytes: usize,
    alignment: usize,
}

#[derive(Clone, Copy)]
#[repr(align(8))]
struct Aligned([u8; LARGEST]);

impl Argument {
    fn number<const N: usize>(bytes: [u8; N]) -> Argument {
        let mut memory = [0; LARGEST];
        memory[..N].copy_from_slice(&bytes);
        Argument {
            memory: Aligned(memory),
            bytes: N,
            alignment: N,
        }
    }

    /// A struct of these fields, as C lays it out: each at a multiple of its alignment, the whole a multiple of the largest.
    ///
    /// # Panics
    /// If it has more than 64 bytes.
    pub fn of(fields: &[Argument]) -> Argument {
        let mut memory = [0; LARGEST];
        let (mut end, mut alignment) = (0usize, 1);
        for field in fields {
            let from = end.next_multiple_of(field.alignment);
            end = from + field.bytes;
            alignment = alignment.max(field.alignment);
            assert!(end <= LARGEST, "an argument of more than {LARGEST} bytes");
            memory[from..end].copy_from_slice(field.value());
        }
        Argument {
            memory: Aligned(memory),
            // LARGEST is a multiple of every alignment.
            bytes: end.next_multiple_of(alignment),
            alignment,
        }
    }

    fn value(&self) -> &[u8] {
        &self.memory.0[..self.bytes]
    }
}

impl fmt::Debug for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes {:02x?}", self.bytes, self.value())
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl From<$number> for Argument {
            fn from(number: $number) -> Argument {
                Argument::number(number.to_ne_bytes())
            }
        }

        impl<const N: usize> From<[$number; N]> for Argument {
            /// An array, or a struct of that many of them.
            fn from(numbers: [$number; N]) -> Argument {
                const { assert!(N * size_of::<$number>() <= LARGEST) };
                Argument::of(&numbers.map(Argument::from))
            }
        }
    )*};
}
numbers!(u8, i32, u32, i64, u64, f32, f64);

impl<T: Number> From<Span<T>> for Argument {
    fn from(span: Span<T>) -> Argument {
        span.address().into()
    }
}

/// What a function uses of a multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// 32-bit registers a thread.
    pub registers: u32,
    /// Static shared memory a block, bytes.
    pub shared: u32,
    /// Local memory a thread (spills and stack), bytes.
    pub local: u32,
    /// Constant memory, bytes.
    pub constant: u32,
    /// Threads that a block may have.
    pub threads: u32,
    /// Architecture of the code, as 90 of sm_90.
    pub binary: u32,
    /// Architecture of the PTX it was made of, as 80 of compute_80.
    pub ptx: u32,
}

/// A kernel, loaded. Cheap to clone.
#[derive(Clone)]
pub struct Function {
    pub(crate) inner: Arc<Loaded>,
}

pub(crate) struct Loaded {
    name: &'static str,
    raw: sys::CUfunction,
    resources: Resources,
    /// Dynamic shared memory that the function may have now. Locked while the driver is told: of two threads that ask for
    /// different sizes the smaller must not have the last word.
    allowed: Mutex<u32>,
    launched: Mutex<Launched>,
    module: Arc<Module>,
}

/// What a function was launched for so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Launched {
    /// How often.
    pub times: u64,
    /// The shape of the last time.
    pub last: Option<Grid>,
}

// SAFETY: the driver's functions may be used from any thread whose current context is theirs.
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

impl Function {
    pub(crate) fn load(module: Arc<Module>, name: &'static str) -> Result<Function, CudaError> {
        let raw = module.function(name)?;
        use sys::CUfunction_attribute_enum as Attribute;
        let ask = |which: Attribute| {
            // SAFETY: the function is of a module that `module` keeps.
            unsafe { result::function::get_function_attribute(raw, which) }
                .map(|value| u32::try_from(value).unwrap_or(0))
                .map_err(|error| CudaError::driver(format!("ask for `{name}`'s attributes"), error))
        };
        let resources = Resources {
            registers: ask(Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?,
            shared: ask(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
            local: ask(Attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
            constant: ask(Attribute::CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES)?,
            threads: ask(Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            binary: ask(Attribute::CU_FUNC_ATTRIBUTE_BINARY_VERSION)?,
            ptx: ask(Attribute::CU_FUNC_ATTRIBUTE_PTX_VERSION)?,
        };
        Ok(Function {
            inner: Arc::new(Loaded {
                name,
                raw,
                resources,
                allowed: Mutex::new(SHARED_UNASKED.saturating_sub(resources.shared)),
                launched: Mutex::default(),
                module,
            }),
        })
    }

    /// The kernel's name.
    pub fn name(&self) -> &'static str {
        self.inner.name
    }

    /// What it uses.
    pub fn resources(&self) -> Resources {
        self.inner.resources
    }

    /// How often it was launched, by any stream, and with what shape the last time.
    pub fn launched(&self) -> Launched {
        *self.log()
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Launched> {
        // A count and a shape are whole whenever a panic comes.
        self.inner
            .launched
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Where its code came from, as `CUBIN for sm_90a by NVRTC 12.4`.
    pub fn image(&self) -> &str {
        self.inner.module.image()
    }

    /// Blocks of that many threads and that much dynamic shared memory (bytes) that fit on a multiprocessor at once.
    pub fn blocks_per_multiprocessor(&self, threads: u32, shared: u32) -> Result<u32, CudaError> {
        self.context().bind()?;
        self.allow(shared)?;
        let threads = i32::try_from(threads).unwrap_or(i32::MAX);
        // SAFETY: the function is loaded.
        unsafe {
            result::occupancy::max_active_block_per_multiprocessor(
                self.inner.raw,
                threads,
                shared as usize,
            )
        }
        .map(|blocks| u32::try_from(blocks).unwrap_or(0))
        .map_err(|error| CudaError::driver(format!("ask for `{}`'s occupancy", self.name()), error))
    }

    fn context(&self) -> &Context {
        self.inner.module.context()
    }

    fn refuse(&self, what: String) -> CudaError {
        CudaError::Launch {
            kernel: self.name().to_string(),
            what,
        }
    }

    /// Lets the function have that much dynamic shared memory.
    fn allow(&self, shared: u32) -> Result<(), CudaError> {
        // A number is whole whenever a panic comes.
        let mut allowed =
            (self.inner.allowed.lock()).unwrap_or_else(|poisoned| poisoned.into_inner());
        if shared <= *allowed {
            return Ok(());
        }
        let most = self.context().device().shared_per_block;
        let fixed = self.inner.resources.shared;
        if shared.saturating_add(fixed) > most {
            return Err(self.refuse(format!(
                "it wants {shared} bytes of dynamic and {fixed} of static shared memory a block, and {} has {most}",
                self.context().device().name
            )));
        }
        let value = i32::try_from(shared).unwrap_or(i32::MAX);
        // SAFETY: the function is loaded.
        unsafe {
            result::function::set_function_attribute(
                self.inner.raw,
                sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                value,
            )
        }
        .map_err(|error| {
            CudaError::driver(
                format!("let `{}` have {shared} bytes of shared memory", self.name()),
                error,
            )
        })?;
        *allowed = shared;
        Ok(())
    }

    /// Enqueues the kernel on `stream`. What the driver would refuse without a word of why is refused here with one.
    ///
    /// # Safety
    /// With these arguments the kernel reads and writes only memory of the device that is there until it is done.
    pub unsafe fn launch(
        &self,
        stream: &Stream,
        grid: Grid,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        self.check(grid, arguments)?;
        self.context().bind()?;
        self.allow(grid.shared)?;
        let mut pointers: Vec<*mut c_void> = arguments
            .iter()
            .map(|argument| argument.memory.0.as_ptr().cast_mut().cast())
            .collect();
        let ([bx, by, bz], [tx, ty, tz]) = (grid.blocks, grid.threads);
        let open = stream.opened(self.name())?;
        // SAFETY: the function and the stream are alive, each pointer is to a value of at least its parameter's size (which
        // the driver copies before it returns and does not change), and the rest is the caller's promise.
        unsafe {
            result::launch_kernel(
                self.inner.raw,
                (bx, by, bz),
                (tx, ty, tz),
                grid.shared,
                stream.cu(),
                &mut pointers,
            )
        }
        .map_err(|error| {
            let shape = format!(
                "{bx} x {by} x {bz} blocks of {tx} x {ty} x {tz} threads, {} bytes of shared memory",
                grid.shared
            );
            CudaError::driver(format!("launch `{}` ({shape})", self.name()), error)
        })?;
        let mut log = self.log();
        log.times += 1;
        log.last = Some(grid);
        drop(log);
        stream.closed(open)
    }

    fn check(&self, grid: Grid, arguments: &[Argument]) -> Result<(), CudaError> {
        let ([bx, by, bz], [tx, ty, tz]) = (grid.blocks, grid.threads);
        if [bx, by, bz, tx, ty, tz].contains(&0) {
            return Err(self.refuse(format!("its grid is empty: {grid:?}")));
        }
        if bx > i32::MAX as u32 || by > 65_535 || bz > 65_535 {
            return Err(self.refuse(format!(
                "{bx} x {by} x {bz} blocks are more than 2147483647 x 65535 x 65535"
            )));
        }
        let threads = u64::from(tx) * u64::from(ty) * u64::from(tz);
        let most = self.inner.resources.threads;
        if most > 0 && threads > u64::from(most) {
            return Err(self.refuse(format!(
                "{threads} threads a block are more than the {most} that its registers allow"
            )));
        }
        let Some(parameters) = self.inner.module.parameters(self.name()) else {
            return Ok(());
        };
        if parameters.len() != arguments.len() {
            return Err(self.refuse(format!(
                "it takes {} arguments and was given {}",
                parameters.len(),
                arguments.len()
            )));
        }
        for (place, (wanted, given)) in parameters.iter().zip(arguments).enumerate() {
            if *wanted != given.bytes {
                return Err(self.refuse(format!(
                    "argument {place} has {wanted} bytes and was given {}",
                    given.bytes
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_laid_out_as_c_does() {
        #[repr(C)]
        struct Mixed {
            small: u8,
            long: u64,
            number: f32,
        }
        let argument = Argument::of(&[7u8.into(), (1u64 << 40).into(), 1.5f32.into()]);
        assert_eq!(argument.value().len(), size_of::<Mixed>());
        assert_eq!(argument.value()[0], 7);
        let at = |from: usize| -> [u8; 4] { std::array::from_fn(|k| argument.value()[from + k]) };
        let (long, number) = (
            std::mem::offset_of!(Mixed, long),
            std::mem::offset_of!(Mixed, number),
        );
        assert_eq!(at(long + 4), 256u32.to_ne_bytes());
        assert_eq!(at(number), 1.5f32.to_ne_bytes());
        // Bits that are no number stay what they are.
        let bits = Argument::from([i32::MIN + 1, -1, 0x7F80_0001]);
        let expected = [i32::MIN + 1, -1, 0x7F80_0001].map(i32::to_ne_bytes);
        assert_eq!(bits.value(), expected.as_flattened());
    }
}
