//! weir-kernels
