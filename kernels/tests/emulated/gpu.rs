//! The emulated device through the crate's own launcher.

use weir_kernels::cuda::module::Images;
use weir_kernels::cuda::{Gpu, Options};

/// How it is opened: its driver has the kernels in itself and takes any binary for them, so nothing is compiled and nothing cached.
pub fn options() -> Options {
    Options {
        images: Images::Fixed(b"\x7fELF".to_vec()),
        cache: None,
        ..Options::default()
    }
}

/// The device of a case, in the child process.
pub fn gpu() -> Gpu {
    Gpu::open_with(0, options()).expect("the emulated device")
}
