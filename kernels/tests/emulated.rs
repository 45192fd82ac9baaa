//! The emulator proves itself: each adversarial mode sees what it is there for, in small kernels with planted bugs.

#[path = "emulated/mod.rs"]
mod emulated;
#[path = "emulated/own/mod.rs"]
mod own;
