//! Devices, dtypes, columns, batches.

use crate::Str;
use crate::row::{Row, Slide};
use std::ffi::c_void;

/// `weir_device`, DLPack's DLDevice.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// [`CPU`], [`CUDA`] or [`PINNED`].
    pub kind: i32,
    /// Number of the device.
    pub id: i32,
}

/// [`Device::kind`]: the processor's memory.
pub const CPU: i32 = 1;
/// [`Device::kind`]: a CUDA device's memory.
pub const CUDA: i32 = 2;
/// [`Device::kind`]: the processor's, pinned for a CUDA device.
pub const PINNED: i32 = 3;

/// `weir_dtype`, DLPack's DLDataType.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dtype {
    /// 0 int, 1 uint, 2 float, 4 bfloat, 6 bool.
    pub code: u8,
    /// Bits of a number.
    pub bits: u8,
    /// 1.
    pub lanes: u16,
}

impl Dtype {
    /// u8.
    pub const U8: Dtype = Dtype::new(1, 8);
    /// u32.
    pub const U32: Dtype = Dtype::new(1, 32);
    /// u64.
    pub const U64: Dtype = Dtype::new(1, 64);
    /// i32.
    pub const I32: Dtype = Dtype::new(0, 32);
    /// i64.
    pub const I64: Dtype = Dtype::new(0, 64);
    /// f16.
    pub const F16: Dtype = Dtype::new(2, 16);
    /// bf16.
    pub const BF16: Dtype = Dtype::new(4, 16);
    /// f32.
    pub const F32: Dtype = Dtype::new(2, 32);
    /// f64.
    pub const F64: Dtype = Dtype::new(2, 64);

    const fn new(code: u8, bits: u8) -> Dtype {
        Dtype {
            code,
            bits,
            lanes: 1,
        }
    }

    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        (self.bits as usize * self.lanes as usize).div_ceil(8)
    }
}

/// `WEIR_COLUMN_WRITABLE`.
pub const WRITABLE: u32 = 1;

/// `weir_column`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// As `pixels`.
    pub name: Str,
    /// A pointer a row.
    pub rows: *const *mut c_void,
    /// Of a row.
    pub shape: *const i64,
    /// In elements; null: dense.
    pub strides: *const i64,
    /// Elements of each row where a dimension is -1.
    pub lengths: *const u64,
    /// Bytes from row to row, or 0.
    pub pitch: i64,
    /// Where the rows lie.
    pub device: Device,
    /// Of an element.
    pub dtype: Dtype,
    /// Numbers of `shape`.
    pub ndim: i32,
    /// [`WRITABLE`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// `weir_batch`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Bytes of this struct that exist.
    pub struct_size: u32,
    /// Rows.
    pub n_rows: u32,
    /// Columns.
    pub n_columns: u32,
    /// Slides that the rows are of.
    pub n_slides: u32,
    /// `n_rows` of them.
    pub rows: *const Row,
    /// `n_columns` of them.
    pub columns: *const Column,
    /// `n_slides` of them.
    pub slides: *const *const Slide,
}
