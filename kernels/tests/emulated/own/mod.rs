//! Kernels of `emulator/tests`, and what must come of them.

mod copies;
mod driver;
mod machine;
mod matrices;
mod threads;
