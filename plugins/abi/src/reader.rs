//! Slide readers.

use crate::host::Host;
use crate::status::Status;
use crate::{Call, Str};
use std::ffi::{c_char, c_void};

/// `weir_level`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Level {
    /// px.
    pub width: i64,
    /// px.
    pub height: i64,
    /// Level-0 px a px of this level.
    pub downsample: f64,
    /// px; 0: no native tiles.
    pub tile_width: i64,
    /// px; 0: no native tiles.
    pub tile_height: i64,
}

/// `weir_picture`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Picture {
    /// As `label`.
    pub name: Str,
    /// px.
    pub width: i64,
    /// px.
    pub height: i64,
}

/// `weir_property`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Property {
    /// As `aperio.AppMag`.
    pub key: Str,
    /// As it stands in the file.
    pub value: Str,
}

/// Nobody said the size of a pixel.
pub const MPP_UNKNOWN: u32 = 0;
/// A vendor's key said it.
pub const MPP_VENDOR: u32 = 1;
/// A resolution tag said it.
pub const MPP_RESOLUTION: u32 = 2;
/// It comes from the objective's power.
pub const MPP_OBJECTIVE: u32 = 3;

/// `weir_facts`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Bytes of this struct that exist.
    pub struct_size: u32,
    /// [`MPP_UNKNOWN`] to [`MPP_OBJECTIVE`].
    pub mpp_origin: u32,
    /// As `aperio-svs`.
    pub format: Str,
    /// As `aperio`.
    pub vendor: Str,
    /// um/px of level 0.
    pub mpp_x: f64,
    /// um/px of level 0.
    pub mpp_y: f64,
    /// `n_levels` of them.
    pub levels: *const Level,
    /// `n_pictures` of them.
    pub pictures: *const Picture,
    /// `n_properties` of them.
    pub properties: *const Property,
    /// At least one.
    pub n_levels: u32,
    /// Pictures.
    pub n_pictures: u32,
    /// Properties.
    pub n_properties: u32,
    /// Zero.
    pub reserved: u32,
}

/// `read_region` of one handle may run on several threads at once.
pub const PARALLEL: u32 = 1;
/// After an error the handle is of no use.
pub const SPOILS: u32 = 2;

/// `weir_reader`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    /// Bytes of this struct that exist.
    pub struct_size: u32,
    /// [`PARALLEL`], [`SPOILS`].
    pub flags: u32,
    /// The manifest's; terminated.
    pub id: *const c_char,
    /// How surely a file is this reader's, 0 to 100.
    pub sniff: Option<unsafe extern "C" fn(path: Str, head: *const u8, len: usize) -> i32>,
    /// Opens a slide.
    pub open: Option<
        unsafe extern "C" fn(*const Host, *mut Call, path: Str, handle: *mut *mut c_void) -> Status,
    >,
    /// What was found in it.
    pub info:
        Option<unsafe extern "C" fn(*mut c_void, *mut Call, out: *mut *const Facts) -> Status>,
    /// Pixels of a level.
    pub read_region: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *mut Call,
            level: u32,
            x: i64,
            y: i64,
            width: u32,
            height: u32,
            into: *mut u8,
            pitch: usize,
        ) -> Status,
    >,
    /// A picture that is no level; optional.
    pub picture: Option<
        unsafe extern "C" fn(*mut c_void, *mut Call, i: u32, into: *mut u8, pitch: usize) -> Status,
    >,
    /// Closes it.
    pub close: Option<unsafe extern "C" fn(*mut c_void)>,
}
