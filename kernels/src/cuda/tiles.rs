//! (e) on a device.

use super::launch::{Argument, Grid};
use super::stream::Stream;
use super::work::Placed;
use crate::check::tiles::{check, describe, refuse};
use crate::error::{Cause, KernelError};
use crate::kernels::TileForm;
use crate::view::{Dtype, Layout, View, ViewMut};

/// Those of cuda/tiles.cu: threads of a block, pixels of a unit and its bytes, pixels a thread of the second kernel.
const THREADS: usize = 256;
const UNIT: usize = 16;
const UNIT_BYTES: usize = 48;
const EACH: usize = 4;
/// A warp stages 32 units.
const SHARED: u32 = (THREADS * UNIT_BYTES) as u32;
/// Pixels of a launch: they are numbered in 32 bits. More tiles take more launches.
const PIXELS: usize = 1 << 31;

pub(super) fn normalise(
    stream: &Stream,
    tiles: View<'_, 4>,
    form: TileForm,
    out: ViewMut<'_, 4>,
) -> Result<(), KernelError> {
    check(&tiles, &form, &out)?;
    if out.layout().is_empty() {
        return Ok(());
    }
    let [count, _, height, width] = out.shape();
    let tile_pixels = height * width;
    if tile_pixels > PIXELS {
        let cause = Cause::Limit {
            what: "pixels of a tile",
            limit: PIXELS,
            got: tile_pixels,
        };
        return Err(refuse(&tiles, &form, &out, cause));
    }
    let shape = describe(&tiles, &form, &out);
    let mut work = stream.begin("tiles", shape)?;
    let from = work.input("tiles", part(&tiles, &form, [height, width]))?;
    let to = work.output("out", out)?;
    let units = in_units(&from, &to);
    let kind = match to.dtype {
        Dtype::F16 => ["weir_tiles_units_f16", "weir_tiles_pixels_f16"],
        Dtype::Bf16 => ["weir_tiles_units_bf16", "weir_tiles_pixels_bf16"],
        _ => ["weir_tiles_units_f32", "weir_tiles_pixels_f32"],
    };
    let function = work.function("tiles", kind[usize::from(!units)])?;
    let [a, b, c] = form.scale;
    let [d, e, f] = form.shift;
    let channels = u32::from_le_bytes([form.channels[0], form.channels[1], form.channels[2], 0]);
    let last: [Argument; 3] = [
        [a, b, c, d, e, f].into(),
        channels.into(),
        u32::from(form.flip).into(),
    ];
    let long = |stride: usize| Argument::from(stride as u64);
    let at_once = PIXELS / tile_pixels;
    for first in (0..count).step_by(at_once) {
        let tiles = (count - first).min(at_once);
        let source = from.address + (first * from.strides[0]) as u64;
        let target = to.address + (first * to.strides[0] * to.dtype.bytes()) as u64;
        // What is counted, and how much of it makes a row and a tile: units or pixels.
        let size = if units { UNIT } else { 1 };
        let counts = [tiles * tile_pixels, width, tile_pixels].map(|n| (n / size) as u32);
        let mut arguments: Vec<Argument> = vec![source.into(), target.into()];
        arguments.extend(counts.map(Argument::from));
        arguments.extend([from.strides[0], from.strides[1]].map(long));
        let a_block = if units {
            arguments.extend([to.strides[0], to.strides[1], to.strides[2]].map(long));
            THREADS
        } else {
            arguments.extend([from.strides[2], from.strides[3]].map(long));
            arguments.extend(to.strides.map(long));
            THREADS * EACH
        };
        arguments.extend(last);
        let grid = Grid::new(counts[0].div_ceil(a_block as u32), THREADS as u32);
        let grid = if units { grid.shared(SHARED) } else { grid };
        // SAFETY: `check` holds the part and the result against each other, so that every pixel of both is there; the
        // arguments are those of the kernel, in its order.
        unsafe { work.launch(&function, grid, &arguments)? };
    }
    work.finish()
}

/// The part of the tiles that is taken, so that no more is carried over.
fn part<'a>(tiles: &View<'a, 4>, form: &TileForm, size: [usize; 2]) -> View<'a, 4> {
    let layout = *tiles.layout();
    let skipped = form.corner[0] * layout.strides[1] + form.corner[1] * layout.strides[2];
    let layout = Layout {
        address: layout.address + skipped as u64,
        shape: [layout.shape[0], size[0], size[1], 3],
        ..layout
    };
    // SAFETY: a part of a view: `check` holds corner and size against it.
    unsafe { View::foreign(layout) }
}

/// Whether every unit of 16 pixels begins at a multiple of 16 bytes, in the tiles and in each plane.
fn in_units(from: &Placed<4>, to: &Placed<4>) -> bool {
    let size = to.dtype.bytes();
    let even =
        |strides: &[usize], size: usize| strides.iter().all(|n| (n * size).is_multiple_of(16));
    to.shape[3].is_multiple_of(UNIT)
        && from.strides[2..] == [3, 1]
        && to.strides[3] == 1
        && from.address.is_multiple_of(16)
        && to.address.is_multiple_of(16)
        && even(&from.strides[..2], 1)
        && even(&to.strides[..3], size)
}
