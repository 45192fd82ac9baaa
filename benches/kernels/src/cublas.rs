//! A product of large matrices by cuBLAS, where it is installed: the ceiling of the matrix units.

use crate::Fault;
use libloading::Library;
use std::ffi::{c_int, c_void};
use weir_kernels::Dtype;
use weir_kernels::cuda::stream::Stream;

type Handle = *mut c_void;
type Create = unsafe extern "C" fn(*mut Handle) -> c_int;
type Destroy = unsafe extern "C" fn(Handle) -> c_int;
type SetStream = unsafe extern "C" fn(Handle, *mut c_void) -> c_int;
type GemmEx = unsafe extern "C" fn(
    Handle,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    *const c_void,
    *const c_void,
    c_int,
    c_int,
    *const c_void,
    c_int,
    c_int,
    *const c_void,
    *mut c_void,
    c_int,
    c_int,
    c_int,
    c_int,
) -> c_int;

/// cublas_api.h and library_types.h: no transposition; element types; f32 sums; its own choice of algorithm.
const PLAIN: c_int = 0;
const CUDA_R_32F: c_int = 0;
const CUDA_R_16BF: c_int = 14;
const COMPUTE_32F: c_int = 68;
const DEFAULT: c_int = -1;

/// The library, bound to a stream.
pub struct Cublas {
    handle: Handle,
    gemm: GemmEx,
    destroy: Destroy,
    // Keeps the calls valid.
    _library: Library,
}

impl Cublas {
    /// Names under which it is looked for; WEIR_CUBLAS names a file before them.
    const NAMES: [&'static str; 3] = ["libcublas.so.13", "libcublas.so.12", "libcublas.so"];

    /// Finds the library and gives it the stream.
    pub fn find(stream: &Stream) -> Result<Cublas, Fault> {
        let named = std::env::var("WEIR_CUBLAS").ok();
        let names = named.as_deref().into_iter().chain(Self::NAMES);
        // SAFETY: cuBLAS runs nothing when it is loaded but its own set-up.
        let found = names.filter_map(|name| unsafe { Library::new(name) }.ok());
        let Some(library) = found.into_iter().next() else {
            return Err(Fault::failed(
                "no cuBLAS was found, so no product could be measured",
                "name the file of libcublas in WEIR_CUBLAS",
            ));
        };
        let missing =
            |error: libloading::Error| Fault::failed(format!("this cuBLAS is none: {error}"), "");
        stream.gpu().bind()?;
        // SAFETY: the types are those of cublas_api.h, the same in all versions from 11 on; the handle is made before it is
        // used and destroyed once, and the stream outlives this value's use in `Card`.
        unsafe {
            let create = *library
                .get::<Create>(b"cublasCreate_v2\0")
                .map_err(missing)?;
            let destroy = *library
                .get::<Destroy>(b"cublasDestroy_v2\0")
                .map_err(missing)?;
            let set = *library
                .get::<SetStream>(b"cublasSetStream_v2\0")
                .map_err(missing)?;
            let gemm = *library.get::<GemmEx>(b"cublasGemmEx\0").map_err(missing)?;
            let mut handle = std::ptr::null_mut();
            done("create a handle", create(&mut handle))?;
            let cublas = Cublas {
                handle,
                gemm,
                destroy,
                _library: library,
            };
            done("take the stream", set(handle, stream.raw()))?;
            Ok(cublas)
        }
    }

    /// Enqueues C = A B of `n` x `n` matrices at these device addresses.
    pub fn product(&self, dtype: Dtype, n: usize, a: u64, b: u64, c: u64) -> Result<(), Fault> {
        let kind = if dtype == Dtype::F32 {
            CUDA_R_32F
        } else {
            CUDA_R_16BF
        };
        let side = c_int::try_from(n).map_err(|_| Fault::internal("a product of such size"))?;
        let (one, zero) = (1.0f32, 0.0f32);
        // SAFETY: the caller's addresses are of n * n elements of this type on the stream's device; alpha and beta are f32,
        // as COMPUTE_32F wants them, and are read before the call returns.
        let status = unsafe {
            (self.gemm)(
                self.handle,
                PLAIN,
                PLAIN,
                side,
                side,
                side,
                (&raw const one).cast(),
                a as *const c_void,
                kind,
                side,
                b as *const c_void,
                kind,
                side,
                (&raw const zero).cast(),
                c as *mut c_void,
                kind,
                side,
                COMPUTE_32F,
                DEFAULT,
            )
        };
        done("multiply", status)
    }
}

impl Drop for Cublas {
    fn drop(&mut self) {
        // SAFETY: made by `find`, destroyed once.
        unsafe { (self.destroy)(self.handle) };
    }
}

fn done(doing: &str, status: c_int) -> Result<(), Fault> {
    if status == 0 {
        return Ok(());
    }
    Err(Fault::failed(
        format!("cuBLAS could not {doing}: status {status}"),
        "",
    ))
}
