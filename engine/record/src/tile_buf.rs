//! A tile's pixels and the lease on their bytes.

use crate::{Lease, SlabBuf};

/// Pixels of a tile: u8, interleaved RGB, rows top to bottom without padding, `height * width * 3` bytes.
///
/// Dropping it gives the bytes back to the [`Slab`](crate::Slab) and the lease back to the [`Budget`](crate::Budget).
#[derive(Debug)]
pub struct TileBuf {
    width: u32,
    height: u32,
    // Field order is drop order: the buffer returns to the slab before the lease wakes who waits for it.
    data: SlabBuf,
    lease: Option<Lease>,
}

impl TileBuf {
    /// Channels of a pixel.
    pub const CHANNELS: usize = 3;

    /// Bytes of a tile of `width` x `height` px.
    pub fn bytes(width: u32, height: u32) -> usize {
        width as usize * height as usize * Self::CHANNELS
    }

    /// A tile over `data`, whose length must be [`TileBuf::bytes`]; `None` when it is not.
    pub fn new(width: u32, height: u32, data: SlabBuf, lease: Option<Lease>) -> Option<Self> {
        (data.len() == Self::bytes(width, height)).then_some(TileBuf {
            width,
            height,
            data,
            lease,
        })
    }

    /// px.
    #[inline]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// px.
    #[inline]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Interleaved RGB, [height, width, 3].
    #[inline]
    pub fn pixels(&self) -> &[u8] {
        &self.data
    }

    /// Interleaved RGB, [height, width, 3].
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// Bytes of the lease; zero when there is none.
    pub fn leased(&self) -> usize {
        self.lease.as_ref().map_or(0, Lease::bytes)
    }

    /// The lease.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }
}
