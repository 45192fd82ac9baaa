//! Kernels without a GPU: the unchanged `.cu` files, compiled by g++ into a `libcuda.so` that runs them in the fiber emulator,
//! under the crate's own launcher in a child process.
//!
//! A **case** is an ignored test that launches and checks something. A **test** runs cases in child processes, each on a
//! variant of the library and under a setting, and looks at what came of it:
//!
//! ```ignore
//! #[path = "emulated/mod.rs"]
//! mod emulated;
//! use emulated::{PLAIN, SANITIZED, Setting, run};
//!
//! #[test]
//! #[ignore = "a case, run by the test below"]
//! fn case_pool() {
//!     if !emulated::inside() { return; }
//!     let pooled = launch_and_compare_with_f64();
//!     emulated::say("bits", format!("{pooled:08x?}"));
//! }
//!
//! #[test]
//! fn pooling_gives_the_same_bits_in_any_order() {
//!     let first = run(PLAIN, &Setting::default(), "case_pool").passed().said("bits");
//!     for seed in 1..4 {
//!         assert_eq!(run(PLAIN, &Setting { seed, ..Setting::default() }, "case_pool").passed().said("bits"), first);
//!     }
//!     run(SANITIZED, &Setting::default(), "case_pool").passed();
//! }
//! ```
//!
//! Another program runs on it where its command goes through [`under`].
//!
//! Planted bugs are `PLAIN.patched(&[Patch { file: "cuda/pool.cu", find: "a < b", put: "a <= b" }])`: the text must occur
//! exactly once. `run(..).failed_with("heap-buffer-overflow")` says that the bug was seen, and by what.

// Each test binary uses its own part of this.
#![allow(dead_code, unused_imports)]

mod build;
mod child;
mod gpu;

pub use build::library;
pub use child::{Outcome, inside, run, say, under};
pub use gpu::{gpu, options};

/// Which library the child process finds as `libcuda.so`.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Which kernels it holds.
    pub sources: Sources,
    /// Address and undefined-behaviour sanitizers over kernels and emulator.
    pub sanitized: bool,
    /// Planted bugs.
    pub patches: &'static [Patch],
}

/// Which `.cu` files become kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    /// `cuda/*.cu`, the crate's own.
    Kernels,
    /// `emulator/tests/*.cu`, which prove the emulator itself.
    OfTheEmulator,
}

/// One change to one source.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Patch {
    /// Path below `kernels/`, such as `cuda/pool.cu`.
    pub file: &'static str,
    /// Text that occurs exactly once in it.
    pub find: &'static str,
    /// What stands there instead.
    pub put: &'static str,
}

/// The crate's kernels as they are.
pub const PLAIN: Variant = Variant {
    sources: Sources::Kernels,
    sanitized: false,
    patches: &[],
};

/// The crate's kernels under the sanitizers.
pub const SANITIZED: Variant = Variant {
    sanitized: true,
    ..PLAIN
};

/// The emulator's own kernels.
pub const OF_THE_EMULATOR: Variant = Variant {
    sources: Sources::OfTheEmulator,
    ..PLAIN
};

impl Variant {
    /// The same with planted bugs.
    pub const fn patched(self, patches: &'static [Patch]) -> Variant {
        Variant { patches, ..self }
    }

    /// The same under the sanitizers.
    pub const fn sanitized(self) -> Variant {
        Variant {
            sanitized: true,
            ..self
        }
    }
}

/// How the emulated machine behaves.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Order of threads and blocks: 0 ascending, else drawn from it.
    pub seed: u64,
    /// Asynchronous copies and products happen as late as the waits allow; else as early as possible.
    pub late: bool,
    /// Streams run only when something waits for them.
    pub lazy: bool,
    /// Multiprocessors that the device reports.
    pub multiprocessors: u32,
    /// Compute capability that it reports.
    pub capability: (u32, u32),
    /// Blocks (or clusters) that run at the same time, an OS thread each.
    pub workers: u32,
    /// Driver version, 1000 major + 10 minor.
    pub driver: u32,
    /// Further variables of the child's environment.
    pub environment: Vec<(&'static str, String)>,
    /// Seconds after which the child is ended and the test fails.
    pub patience: u64,
}

impl Default for Setting {
    fn default() -> Setting {
        Setting {
            seed: 0,
            late: true,
            lazy: false,
            multiprocessors: 132,
            capability: (9, 0),
            workers: 1,
            driver: 13000,
            environment: Vec::new(),
            patience: 120,
        }
    }
}
