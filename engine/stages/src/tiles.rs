//! Tiles of open slides, as the sinks that show tiles keep them until a slide ends.

/// Bytes that a tile takes, for reservations.
pub(crate) const BYTES: u64 = 64;
