//! What ONNX Runtime allocates for a session on the processor: an arena that is the session's own and has an end.
//!
//! Weights, layers and results of a session lie in one arena. A session has no option for the arena's size, but with
//! `session.use_env_allocators` it takes the one that is registered with the environment while it is made, and keeps it when another
//! is registered or that one is taken off; so each session gets its own. An arena that is full is an error of the load or the pass
//! that asked, and of no other.

use crate::runtime::Library;
use ort::AsPointer;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use std::ffi::CStr;
use std::sync::{Mutex, PoisonError};

/// The arena grows by what is asked for: by doubling it would be full at half of what it may hold.
const AS_REQUESTED: i32 = 1;
/// As ONNX Runtime would choose.
const DEFAULT: i32 = -1;

/// What an arena holds, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Taken from the system.
    pub allocated: u64,
    /// Of it in use.
    pub used: u64,
}

/// Makes a session with an arena of at most `bytes`: `make` must ask for the environment's allocators.
///
/// # Errors
/// What ONNX Runtime says; those of `make`.
pub fn within<T, E: From<ort::Error>>(
    library: &Library,
    bytes: u64,
    make: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    // One after the other: the environment has one arena at a time. What it guards has no state to spoil.
    static MAKING: Mutex<()> = Mutex::new(());
    let _guard = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let registered = Registered::new(library, bytes)?;
    let made = make();
    drop(registered);
    made
}

/// What the arena of a session that was made [`within`] holds.
///
/// # Errors
/// What ONNX Runtime says.
pub fn held(session: &ort::session::Session) -> ort::Result<Held> {
    let allocator = Allocator::new(session, memory(AllocatorType::Device)?)?;
    let mut pairs = std::ptr::null_mut();
    // SAFETY: the allocator lives, and what is written to is alive.
    let status = unsafe { (ort::api().AllocatorGetStats)(allocator.ptr(), &mut pairs) };
    // SAFETY: it is the status of a function of the library.
    unsafe { ort::Error::result_from_status(status)? };
    let pairs = Pairs(pairs);
    Ok(Held {
        allocated: pairs.number(c"TotalAllocated"),
        used: pairs.number(c"InUse"),
    })
}

/// Whether ONNX Runtime says that an arena is full. It has no code for that: these are its arena's words.
pub fn is_full(error: &ort::Error) -> bool {
    const FULL: [&str; 3] = [
        "Available memory of",
        "Failed to allocate memory",
        "bad_alloc",
    ];
    let what = error.to_string();
    FULL.iter().any(|words| what.contains(words))
}

fn memory(of: AllocatorType) -> ort::Result<MemoryInfo<'static>> {
    MemoryInfo::new(AllocationDevice::CPU, 0, of, MemoryType::Default)
}

/// An arena that the environment has as long as this lives; sessions keep it longer.
struct Registered<'l> {
    library: &'l Library,
    memory: MemoryInfo<'static>,
}

impl<'l> Registered<'l> {
    fn new(library: &'l Library, bytes: u64) -> ort::Result<Registered<'l>> {
        let memory = memory(AllocatorType::Arena)?;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut made = std::ptr::null_mut();
        // SAFETY: what is written to is alive.
        let status = unsafe {
            (ort::api().CreateArenaCfg)(bytes, AS_REQUESTED, DEFAULT, DEFAULT, &mut made)
        };
        // SAFETY: it is the status of a function of the library.
        unsafe { ort::Error::result_from_status(status)? };
        let form = Form(made);
        // SAFETY: the environment, the description of the memory and the form live; the form is read and not kept.
        let status = unsafe {
            (ort::api().CreateAndRegisterAllocator)(
                library.environment.ptr().cast_mut(),
                memory.ptr(),
                form.0,
            )
        };
        // SAFETY: it is the status of a function of the library.
        unsafe { ort::Error::result_from_status(status)? };
        Ok(Registered { library, memory })
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        // SAFETY: environment and description live.
        let status = unsafe {
            (ort::api().UnregisterAllocator)(
                self.library.environment.ptr().cast_mut(),
                self.memory.ptr(),
            )
        };
        // The next one that is registered takes its place; until then nobody asks for it.
        // SAFETY: it is the status of a function of the library.
        let _ = unsafe { ort::Error::result_from_status(status) };
    }
}

/// How an arena is to be.
struct Form(*mut ort::sys::OrtArenaCfg);

impl Drop for Form {
    fn drop(&mut self) {
        // SAFETY: it was made by the library, and nobody else has it.
        unsafe { (ort::api().ReleaseArenaCfg)(self.0) }
    }
}

/// What the library says of something, by names.
struct Pairs(*mut ort::sys::OrtKeyValuePairs);

impl Pairs {
    /// The number of this name; 0 where nothing was counted yet.
    fn number(&self, name: &CStr) -> u64 {
        if self.0.is_null() {
            return 0;
        }
        // SAFETY: the pairs live, and the name ends with a NUL.
        let text = unsafe { (ort::api().GetKeyValue)(self.0, name.as_ptr()) };
        if text.is_null() {
            return 0;
        }
        // SAFETY: a text of the pairs, which live.
        let text = unsafe { CStr::from_ptr(text) };
        text.to_str()
            .ok()
            .and_then(|it| it.parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for Pairs {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: they were made by the library, and nobody else has them.
            unsafe { (ort::api().ReleaseKeyValuePairs)(self.0) }
        }
    }
}
