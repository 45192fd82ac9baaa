//! The types of numbers in files of features, little-endian.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::fmt;

/// A type of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    F16,
    Bf16,
    F32,
    F64,
    I16,
    I32,
    I64,
    U16,
    U32,
    U64,
}

/// Number of a type at the start of `bytes`, which are as many as it has.
macro_rules! value {
    ($type:ty, $bytes:expr) => {{
        let mut own = [0; size_of::<$type>()];
        own.copy_from_slice($bytes);
        <$type>::from_le_bytes(own)
    }};
}

impl Number {
    /// Bytes of a number.
    pub(super) fn bytes(self) -> usize {
        match self {
            Number::F16 | Number::Bf16 | Number::I16 | Number::U16 => 2,
            Number::F32 | Number::I32 | Number::U32 => 4,
            Number::F64 | Number::I64 | Number::U64 => 8,
        }
    }

    /// Whether features may be of it.
    pub(super) fn holds_features(self) -> bool {
        matches!(self, Number::F16 | Number::Bf16 | Number::F32)
    }

    /// The numbers of `bytes` as features: exact.
    pub(super) fn features(self, bytes: &[u8], into: &mut [f32]) {
        let each = into.iter_mut().zip(bytes.chunks_exact(self.bytes()));
        match self {
            Number::F32 => each.for_each(|(to, of)| *to = value!(f32, of)),
            Number::F16 => halves(bytes, into),
            // The upper half of an f32, so that a shift is all; of a NaN, which no pool takes, not even the bits matter.
            Number::Bf16 => {
                for (to, of) in into.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *to = f32::from_bits(u32::from(u16::from_le_bytes(*of)) << 16);
                }
            }
            other => each.for_each(|(to, of)| *to = other.value(of) as f32),
        }
    }

    /// The numbers of `bytes`; exact up to 2^53.
    pub(super) fn values(self, bytes: &[u8], into: &mut Vec<f64>) {
        into.clear();
        into.extend(bytes.chunks_exact(self.bytes()).map(|of| self.value(of)));
    }

    fn value(self, of: &[u8]) -> f64 {
        match self {
            Number::F16 => value!(f16, of).to_f64(),
            Number::Bf16 => value!(bf16, of).to_f64(),
            Number::F32 => f64::from(value!(f32, of)),
            Number::F64 => value!(f64, of),
            Number::I16 => f64::from(value!(i16, of)),
            Number::I32 => f64::from(value!(i32, of)),
            Number::I64 => value!(i64, of) as f64,
            Number::U16 => f64::from(value!(u16, of)),
            Number::U32 => f64::from(value!(u32, of)),
            Number::U64 => value!(u64, of) as f64,
        }
    }
}

/// Many at once: the processor's instruction for it is asked for once a block, which would otherwise cost more than the conversion.
fn halves(bytes: &[u8], into: &mut [f32]) {
    const BLOCK: usize = 128;
    let mut block = [f16::ZERO; BLOCK];
    for (to, of) in into.chunks_mut(BLOCK).zip(bytes.chunks(2 * BLOCK)) {
        for (half, of) in block.iter_mut().zip(of.as_chunks::<2>().0) {
            *half = f16::from_le_bytes(*of);
        }
        let count = to.len().min(of.len() / 2);
        block[..count].convert_to_f32_slice(&mut to[..count]);
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Number::F16 => "f16",
            Number::Bf16 => "bf16",
            Number::F32 => "f32",
            Number::F64 => "f64",
            Number::I16 => "i16",
            Number::I32 => "i32",
            Number::I64 => "i64",
            Number::U16 => "u16",
            Number::U32 => "u32",
            Number::U64 => "u64",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bf16_is_the_number_that_it_is_alone() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut into = vec![0.0f32; 1 << 16];
        Number::Bf16.features(&bytes, &mut into);
        for (bits, got) in (0..=u16::MAX).zip(into) {
            let wanted = bf16::from_bits(bits).to_f32();
            assert!(
                got == wanted || (got.is_nan() && wanted.is_nan()),
                "{bits:#x}: {got}"
            );
        }
    }

    #[test]
    fn every_half_is_the_number_that_it_is_alone() {
        // More than whole blocks of them.
        let all: Vec<u16> = (0..=u16::MAX).chain(1..50).collect();
        let bytes: Vec<u8> = all.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let mut into = vec![0.0f32; all.len()];
        Number::F16.features(&bytes, &mut into);
        for (bits, got) in all.iter().zip(into) {
            let wanted = f16::from_bits(*bits).to_f32();
            assert!(
                got == wanted || (got.is_nan() && wanted.is_nan()),
                "{bits:#x}: {got}"
            );
        }
    }
}
