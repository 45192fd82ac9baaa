//! Just enough of a launcher for the emulator's own kernels, by cudarc's thin layer over the driver.

use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub enum Value {
    /// An address of the device.
    Address(u64),
    /// A signed number.
    Number(i32),
}

/// Device memory; given back at the end.
pub struct Memory {
    pub address: u64,
    pub bytes: usize,
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated by `Machine`, given back once. A failing test may end with work under way: the result is not looked at.
        let _ = unsafe { result::free_sync(self.address) };
    }
}

pub struct Machine {
    pub context: Arc<CudaContext>,
    pub stream: Arc<CudaStream>,
}

impl Machine {
    pub fn new() -> Machine {
        let context = CudaContext::new(0).expect("the emulated device");
        let stream = context.new_stream().expect("a stream");
        Machine { context, stream }
    }

    /// Memory that nobody has written.
    pub fn memory(&self, bytes: usize) -> Memory {
        // SAFETY: a context is current.
        let address = unsafe { result::malloc_sync(bytes) }.expect("device memory");
        Memory { address, bytes }
    }

    /// Memory with these numbers, brought by the machine's stream.
    pub fn input<T: Copy>(&self, values: &[T]) -> Memory {
        let memory = self.memory(size_of_val(values));
        // SAFETY: the memory has the values' size; pageable memory is read before the call returns.
        unsafe { result::memcpy_htod_async(memory.address, values, self.stream.cu_stream()) }
            .expect("a copy");
        memory
    }

    /// What the memory holds once the machine's stream has come this far.
    pub fn output<T: Copy + Default>(&self, memory: &Memory) -> Vec<T> {
        let mut values = vec![T::default(); memory.bytes / size_of::<T>()];
        // SAFETY: the vector has the memory's size; into pageable memory the call returns when the copy is done.
        unsafe { result::memcpy_dtoh_async(&mut values, memory.address, self.stream.cu_stream()) }
            .expect("a copy");
        self.stream.synchronize().expect("the stream runs");
        values
    }

    pub fn function(&self, name: &str) -> Result<sys::CUfunction, DriverError> {
        let image = CString::new(format!(
            ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry {name}(\n)\n"
        ))
        .expect("names hold no zero byte");
        self.context.bind_to_thread()?;
        // SAFETY: the image ends with a zero byte and outlives the call; modules are never unloaded.
        unsafe {
            let module = result::module::load_data(image.as_ptr().cast())?;
            result::module::get_function(
                module,
                CString::new(name).expect("names hold no zero byte"),
            )
        }
    }

    pub fn launch(
        &self,
        name: &str,
        blocks: u32,
        threads: u32,
        shared: u32,
        values: &[Value],
    ) -> Result<(), DriverError> {
        self.launch_on(&self.stream, name, blocks, threads, shared, values)
    }

    pub fn launch_on(
        &self,
        stream: &CudaStream,
        name: &str,
        blocks: u32,
        threads: u32,
        shared: u32,
        values: &[Value],
    ) -> Result<(), DriverError> {
        let function = self.function(name)?;
        let mut values: Vec<Value> = values.to_vec();
        let mut pointers: Vec<*mut c_void> = values
            .iter_mut()
            .map(|value| match value {
                Value::Address(address) => std::ptr::from_mut(address).cast(),
                Value::Number(number) => std::ptr::from_mut(number).cast(),
            })
            .collect();
        // SAFETY: the cases give each kernel the arguments that it declares; the driver copies them before it returns.
        unsafe {
            result::launch_kernel(
                function,
                (blocks, 1, 1),
                (threads, 1, 1),
                shared,
                stream.cu_stream(),
                &mut pointers,
            )
        }
    }
}

/// Numbers that look random and are the same everywhere, in -1..1, with few enough bits that sums of products are exact.
pub fn numbers(count: usize) -> Vec<f32> {
    let mut state = 1_u64;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 60) as f32 / 8.0 - 1.0
        })
        .collect()
}
