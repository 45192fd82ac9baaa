//! (e) on the processor: bytes of interleaved pixels to planes of numbers.
//!
//! An output is byte * scale + shift, one f32 product and one f32 sum, never fused; then, for f16 and bf16, one rounding to
//! nearest, ties to even. It is a function of the byte and the channel alone, so a crop, a flip or a pitch never changes it.
//!
//! Pixels that lie side by side (any row pitch) are taken 16 at a time where the machine has AVX2: three loads of 16 bytes,
//! three shuffles a plane, and the flip is in the shuffle. Other strides are walked one number at a time.

use super::Cpu;
use crate::check::tiles::{check, refuse};
use crate::error::{Cause, KernelError};
use crate::kernels::TileForm;
use crate::view::{Dtype, Element, Layout, Place, View, ViewMut};
use half::{bf16, f16};
use rayon::prelude::*;

/// Numbers that a thread takes at least: starting it costs more than writing fewer.
const GRAIN: usize = 1 << 15;

/// What an output may be.
trait Number: Element {
    /// To nearest, ties to even.
    fn of(value: f32) -> Self;
}

impl Number for f32 {
    #[inline]
    fn of(value: f32) -> f32 {
        value
    }
}

impl Number for f16 {
    #[inline]
    fn of(value: f32) -> f16 {
        f16::from_f32(value)
    }
}

impl Number for bf16 {
    #[inline]
    fn of(value: f32) -> bf16 {
        bf16::from_f32(value)
    }
}

pub(super) fn normalise(
    cpu: &Cpu,
    tiles: View<'_, 4>,
    form: TileForm,
    out: ViewMut<'_, 4>,
) -> Result<(), KernelError> {
    check(&tiles, &form, &out)?;
    for (argument, got) in [("tiles", tiles.layout().place), ("out", out.layout().place)] {
        if got != Place::Host {
            let expected = Place::Host;
            let cause = Cause::Place {
                argument,
                expected,
                got,
            };
            return Err(refuse(&tiles, &form, &out, cause));
        }
    }
    match out.dtype() {
        Dtype::F16 => run::<f16>(cpu, tiles.layout(), &form, out.layout()),
        Dtype::Bf16 => run::<bf16>(cpu, tiles.layout(), &form, out.layout()),
        _ => run::<f32>(cpu, tiles.layout(), &form, out.layout()),
    }
    Ok(())
}

/// All rows of all tiles, shared out among the threads; with one thread the caller's is that one. The layouts are checked, lie
/// on the host, and no two rows of `out` share an element.
fn run<T: Number>(cpu: &Cpu, tiles: &Layout<4>, form: &TileForm, out: &Layout<4>) {
    let [count, _, height, width] = out.shape;
    if out.is_empty() {
        return;
    }
    let packed = tiles.strides[3] == 1 && tiles.strides[2] == 3;
    let dense = out.strides[3] == 1 || width <= 1;
    let alone = cpu.threads() == 1;
    let grain = GRAIN.div_ceil(3 * width.max(1));
    // Rows that follow one another without a gap, here and there, are one long row. So a tile of 256 px takes one thread 25 us; row by
    // row, handed to a thread of the pool, it took more than twice that.
    let follow = tiles.strides[1] == 3 * width && out.strides[2] == width;
    let at_once = match packed && dense && follow && !form.flip {
        true if alone => height,
        true => height.min(grain),
        false => 1,
    };
    let lines = height.div_ceil(at_once);
    let rows = |number: usize| {
        let (tile, y) = (number / lines, number % lines * at_once);
        let pixels = width * at_once.min(height - y);
        let from = tile * tiles.strides[0]
            + (form.corner[0] + y) * tiles.strides[1]
            + form.corner[1] * tiles.strides[2];
        let plane = |c: usize| {
            let at = tile * out.strides[0] + c * out.strides[1] + y * out.strides[2];
            (out.address as *mut T).wrapping_add(at)
        };
        let from = (tiles.address as *const u8).wrapping_add(from);
        if packed && dense {
            // SAFETY: the pixels lie side by side inside `tiles`, a view of u8 that nobody writes.
            let bytes = unsafe { std::slice::from_raw_parts(from, 3 * pixels) };
            // SAFETY: they lie inside `out`, whose rows and planes share no element; each is taken by one thread.
            let planes = std::array::from_fn(|c| unsafe {
                std::slice::from_raw_parts_mut(plane(c), pixels)
            });
            line(bytes, from.wrapping_add(tiles.strides[1]), form, planes);
        } else {
            for c in 0..3 {
                for x in 0..pixels {
                    let column = if form.flip { pixels - 1 - x } else { x };
                    let channel = usize::from(form.channels[c]);
                    let at = column * tiles.strides[2] + channel * tiles.strides[3];
                    // SAFETY: the pixel lies inside `tiles`: `check` holds corner and shape against it.
                    let byte = unsafe { from.wrapping_add(at).read() };
                    let value = T::of(f32::from(byte) * form.scale[c] + form.shift[c]);
                    // SAFETY: the element lies inside `out`, and no other thread has its row.
                    unsafe { plane(c).wrapping_add(x * out.strides[3]).write(value) };
                }
            }
        }
    };
    let least = grain.div_ceil(at_once);
    let all = count * lines;
    if alone || all <= least {
        (0..all).for_each(rows);
    } else {
        cpu.threads.install(|| {
            let all = (0..all).into_par_iter().with_min_len(least);
            all.for_each(rows);
        });
    }
}

/// A row of pixels to a row of each plane; at `next` lies the one that follows, if there is one.
fn line<T: Number>(bytes: &[u8], next: *const u8, form: &TileForm, planes: [&mut [T]; 3]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("f16c") {
        // SAFETY: the machine has both.
        unsafe { x86::line(bytes, next, form, planes) };
        return;
    }
    plain(bytes, form, planes);
}

/// One number at a time.
#[inline]
fn plain<T: Number>(bytes: &[u8], form: &TileForm, planes: [&mut [T]; 3]) {
    for (c, plane) in planes.into_iter().enumerate() {
        let channel = usize::from(form.channels[c]);
        let value = |px: &[u8]| T::of(f32::from(px[channel]) * form.scale[c] + form.shift[c]);
        let pixels = bytes.chunks_exact(3);
        if form.flip {
            for (to, px) in plane.iter_mut().zip(pixels.rev()) {
                *to = value(px);
            }
        } else {
            for (to, px) in plane.iter_mut().zip(pixels) {
                *to = value(px);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Number;
    use crate::kernels::TileForm;
    use crate::view::Dtype;
    use std::arch::x86_64::*;

    /// Pixels of a block.
    const BLOCK: usize = 16;

    /// `[channel][third]`: where in that third of a block's 48 bytes the channel's bytes lie; 0x80 gives a zero.
    const PICK: [[[u8; 16]; 3]; 3] = picks(false);
    /// The same, last pixel first.
    const PICK_FLIPPED: [[[u8; 16]; 3]; 3] = picks(true);

    const fn picks(flip: bool) -> [[[u8; 16]; 3]; 3] {
        let mut picks = [[[0x80; 16]; 3]; 3];
        let mut channel = 0;
        while channel < 3 {
            let mut px = 0;
            while px < BLOCK {
                let at = 3 * px + channel;
                let to = if flip { BLOCK - 1 - px } else { px };
                picks[channel][at / 16][to] = (at % 16) as u8;
                px += 1;
            }
            channel += 1;
        }
        picks
    }

    /// [`super::line`], 16 pixels at a time.
    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn line<T: Number>(
        bytes: &[u8],
        next: *const u8,
        form: &TileForm,
        mut planes: [&mut [T]; 3],
    ) {
        let pixels = planes.iter().fold(bytes.len() / 3, |n, p| n.min(p.len()));
        let blocks = pixels / BLOCK;
        let picks = if form.flip { &PICK_FLIPPED } else { &PICK };
        let masks: [[__m128i; 3]; 3] = std::array::from_fn(|c| {
            std::array::from_fn(|third| load(&picks[usize::from(form.channels[c])][third]))
        });
        let scale = form.scale.map(|scale| _mm256_set1_ps(scale));
        let shift = form.shift.map(|shift| _mm256_set1_ps(shift));
        for block in 0..blocks {
            let x = block * BLOCK;
            let from = if form.flip {
                // Rows that are read from their end, one after the other, are a stream that no processor foresees.
                _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(3 * x).cast());
                pixels - x - BLOCK
            } else {
                x
            };
            let (thirds, _) = bytes[3 * from..3 * (from + BLOCK)].as_chunks::<16>();
            let [a, b, c] = [load(&thirds[0]), load(&thirds[1]), load(&thirds[2])];
            for (channel, plane) in planes.iter_mut().enumerate() {
                let mask = &masks[channel];
                let picked = _mm_or_si128(
                    _mm_or_si128(_mm_shuffle_epi8(a, mask[0]), _mm_shuffle_epi8(b, mask[1])),
                    _mm_shuffle_epi8(c, mask[2]),
                );
                let number = |bytes: __m128i| {
                    let value = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
                    _mm256_add_ps(_mm256_mul_ps(value, scale[channel]), shift[channel])
                };
                let (low, high) = (number(picked), number(_mm_srli_si128::<8>(picked)));
                store(&mut plane[x..x + BLOCK], low, high);
            }
        }
        // What is left stands at the end of the planes, and with a flip at the front of the row.
        let done = blocks * BLOCK;
        let left = if form.flip {
            &bytes[..3 * (pixels - done)]
        } else {
            &bytes[3 * done..3 * pixels]
        };
        super::plain(left, form, planes.map(|plane| &mut plane[done..pixels]));
    }

    #[target_feature(enable = "avx2")]
    fn load(bytes: &[u8; 16]) -> __m128i {
        // SAFETY: 16 bytes are there; the load asks for no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    /// 16 numbers, rounded to nearest, ties to even.
    #[target_feature(enable = "avx2,f16c")]
    fn store<T: Number>(to: &mut [T], low: __m256, high: __m256) {
        assert_eq!(to.len(), BLOCK);
        let to = to.as_mut_ptr();
        let narrow = match T::DTYPE {
            Dtype::F16 => {
                const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
                let low = _mm256_cvtps_ph::<NEAREST>(low);
                _mm256_set_m128i(_mm256_cvtps_ph::<NEAREST>(high), low)
            }
            Dtype::Bf16 => {
                // No NaN comes here: scale and shift are finite.
                let round = |value: __m256| {
                    let bits = _mm256_castps_si256(value);
                    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
                    let half = _mm256_add_epi32(_mm256_set1_epi32(0x7FFF), odd);
                    _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, half))
                };
                let pairs = _mm256_packus_epi32(round(low), round(high));
                _mm256_permute4x64_epi64::<0b11_01_10_00>(pairs)
            }
            _ => {
                // SAFETY: T is f32 and 16 of them are there.
                unsafe {
                    _mm256_storeu_ps(to.cast(), low);
                    _mm256_storeu_ps(to.cast::<f32>().add(8), high);
                }
                return;
            }
        };
        // SAFETY: T has two bytes and 16 of them are there.
        unsafe { _mm256_storeu_si256(to.cast(), narrow) }
    }
}
