//! A head's matrices as the kernels of (c) read them, packed once a device and type.

use super::Gpu;
use super::buffer::Buffer;
use super::fault::CudaError;
use crate::attention::AttentionHead;
use crate::linear::Linear;
use crate::view::Dtype;
use half::{bf16, f16};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

/// Columns of a chunk: 128 units of V and the same of U, or 256 units of V. cuda/gated.cuh.
pub(super) const CHUNK: usize = 256;
/// Bytes of a column that one step of cuda/gated_mma.cu takes.
const STEP_BYTES: usize = 64;
/// Components of a tile of cuda/gated_tiles.cuh.
pub(super) const TILE: usize = 128;
/// Components that one step of cuda/gated_wgmma.cu takes.
pub(super) const WGMMA_STEP: usize = 64;

/// How a matrix lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// Column by column, each padded with zeros to whole steps: cuda/gated_mma.cu.
    Columns(Dtype),
    /// Column by column in f32, each padded with zeros to whole tiles: `rows` of cuda/gated_backward.cu.
    Tiles,
    /// Step by step, as core matrices of 8 columns of 16 bytes: cuda/gated_wgmma.cu. The type is a half.
    Cores(Dtype),
}

/// On a device.
pub(super) struct PlacedHead {
    pub matrix: Buffer<u8>,
    /// Per column.
    pub bias: Buffer<f32>,
    /// Per column, of its unit.
    pub weight: Buffer<f32>,
    pub chunks: usize,
}

/// A head's forms on the devices that used it.
#[derive(Debug, Default)]
pub(crate) struct PlacedHeads {
    placed: Mutex<HashMap<(usize, Form), Arc<PlacedHead>>>,
}

/// V, or U, and the unit that a column of the chunks belongs to.
fn source(head: &AttentionHead, column: usize) -> Option<(&Linear, usize)> {
    let (chunk, place) = (column / CHUNK, column % CHUNK);
    let (layer, unit) = match head.gate() {
        Some(gate) if place >= CHUNK / 2 => (gate, chunk * CHUNK / 2 + place - CHUNK / 2),
        Some(_) => (head.value(), chunk * CHUNK / 2 + place),
        None => (head.value(), column),
    };
    (unit < head.weight().len()).then_some((layer, unit))
}

/// Chunks of a head.
pub(super) fn chunks(head: &AttentionHead) -> usize {
    let columns = head.weight().len() * if head.gate().is_some() { 2 } else { 1 };
    columns.div_ceil(CHUNK)
}

fn bytes(dtype: Dtype, x: f32) -> ([u8; 4], usize) {
    let half = |bits: u16| {
        let [low, high] = bits.to_le_bytes();
        ([low, high, 0, 0], 2)
    };
    match dtype {
        Dtype::F16 => half(f16::from_f32(x).to_bits()),
        Dtype::Bf16 => half(bf16::from_f32(x).to_bits()),
        _ => (x.to_le_bytes(), 4),
    }
}

/// The matrix in that form.
fn pack(head: &AttentionHead, form: Form) -> Vec<u8> {
    let (d, columns) = (head.inputs(), chunks(head) * CHUNK);
    let (dtype, column_bytes) = match form {
        Form::Columns(dtype) => {
            let bytes = (d * dtype.bytes()).next_multiple_of(STEP_BYTES);
            (dtype, bytes)
        }
        Form::Tiles => (Dtype::F32, d.next_multiple_of(TILE) * 4),
        Form::Cores(dtype) => (dtype, d.next_multiple_of(WGMMA_STEP) * dtype.bytes()),
    };
    let mut packed = vec![0u8; columns * column_bytes];
    for column in 0..columns {
        let Some((layer, unit)) = source(head, column) else {
            continue;
        };
        for k in 0..d {
            let (bytes, size) = bytes(dtype, layer.weight(unit, k));
            let at = match form {
                Form::Columns(_) | Form::Tiles => column * column_bytes + k * size,
                Form::Cores(_) => core_place(column, k, d.div_ceil(WGMMA_STEP)),
            };
            packed[at..at + size].copy_from_slice(&bytes[..size]);
        }
    }
    packed
}

/// Byte of element (column, k) in [`Form::Cores`]: chunk, step, then within 256 columns x 64 components the core matrices
/// along k, within them those along the columns, eight columns of eight components each.
fn core_place(column: usize, k: usize, steps: usize) -> usize {
    let (chunk, n) = (column / CHUNK, column % CHUNK);
    let (step, k) = (k / WGMMA_STEP, k % WGMMA_STEP);
    let tile = (chunk * steps + step) * CHUNK * WGMMA_STEP * 2;
    tile + (k / 8) * (CHUNK * 16) + (n / 8) * 128 + (n % 8) * 16 + (k % 8) * 2
}

impl fmt::Debug for PlacedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} chunks, {} bytes", self.chunks, self.matrix.len())
    }
}

impl PlacedHeads {
    /// The head on that device, packed and carried over the first time.
    pub(super) fn on(
        &self,
        gpu: &Gpu,
        head: &AttentionHead,
        form: Form,
    ) -> Result<Arc<PlacedHead>, CudaError> {
        // A panic while it is held leaves the map whole.
        let mut placed = self
            .placed
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let key = (gpu.device().ordinal, form);
        if let Some(placed) = placed.get(&key) {
            return Ok(placed.clone());
        }
        let columns = 0..chunks(head) * CHUNK;
        let per_column = |of: &dyn Fn(&Linear, usize) -> f32| -> Vec<f32> {
            let value = |column| source(head, column).map_or(0.0, |(layer, unit)| of(layer, unit));
            columns.clone().map(value).collect()
        };
        let new = Arc::new(PlacedHead {
            matrix: gpu.keep(&pack(head, form))?,
            bias: gpu.keep(&per_column(&|layer, unit| layer.bias(unit)))?,
            weight: gpu.keep(&per_column(&|_, unit| head.weight()[unit]))?,
            chunks: chunks(head),
        });
        placed.insert(key, new.clone());
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_of_the_core_matrices_has_a_place_of_its_own() {
        let steps = 3;
        let mut seen = vec![false; 2 * CHUNK * steps * WGMMA_STEP];
        for column in 0..2 * CHUNK {
            for k in 0..steps * WGMMA_STEP {
                let place = core_place(column, k, steps);
                assert_eq!(place % 2, 0);
                assert!(
                    !std::mem::replace(&mut seen[place / 2], true),
                    "{column} {k}"
                );
            }
        }
        assert!(seen.into_iter().all(|seen| seen));
    }

    #[test]
    fn a_gated_head_has_the_units_of_v_and_of_u_in_one_chunk() {
        let layer = |from: f32| Linear::new(&[from; 130], &vec![0.0; 130]);
        let head = AttentionHead::new(layer(1.0), Some(layer(2.0)), vec![1.0; 130], 0.0);
        assert_eq!(chunks(&head), 2);
        let of =
            |column: usize| source(&head, column).map(|(layer, unit)| (layer.weight(0, 0), unit));
        assert_eq!(of(3), Some((1.0, 3)));
        assert_eq!(of(131), Some((2.0, 3)));
        assert_eq!(of(256 + 1), Some((1.0, 129)));
        assert_eq!((of(256 + 2), of(256 + 130)), (None, None));
        let plain = AttentionHead::new(layer(1.0), None, vec![1.0; 130], 0.0);
        assert_eq!(chunks(&plain), 1);
        assert_eq!(source(&plain, 129).map(|(_, unit)| unit), Some(129));
    }
}
