//! The loops of [`super::features`] for processors with AVX2 and F16C; elsewhere they are not there, and the portable ones
//! run. The memory is the limit: wider vectors would not be faster.

#[cfg(target_arch = "x86_64")]
pub(super) use there::{Eight, accumulate, products, scaled};

#[cfg(not(target_arch = "x86_64"))]
pub(super) use missing::{Eight, accumulate, products, scaled};

#[cfg(not(target_arch = "x86_64"))]
mod missing {
    use super::super::features::Feature;

    pub trait Eight {}
    impl<T> Eight for T {}

    pub fn accumulate<T: Feature>(_: &[&[T]], _: &[f32], _: &mut [f32]) -> Option<i32> {
        None
    }
    pub fn products<T: Feature>(_: &[T], _: &[f32], _: &mut [f32]) -> Option<i32> {
        None
    }
    pub fn scaled<T: Feature>(_: f32, _: &[f32], _: &mut [T]) -> bool {
        false
    }
}

#[cfg(target_arch = "x86_64")]
mod there {
    use super::super::features::Feature;
    use half::{bf16, f16};
    use std::arch::x86_64::*;

    /// Rows that one sweep over the total takes.
    const SWEEP: usize = 8;
    /// Bytes that a row is asked for ahead of time.
    const AHEAD: usize = 256;

    /// A type of which eight become a vector of f32.
    pub trait Eight: Sized {
        /// Eight of them, exactly.
        ///
        /// # Safety
        /// Eight elements can be read at `from`, and the processor has AVX2 and F16C.
        unsafe fn eight(from: *const Self) -> __m256;

        /// Eight of them, each to the nearest, ties to even.
        ///
        /// # Safety
        /// Eight elements can be written at `to`, and the processor has AVX2 and F16C.
        unsafe fn narrow_eight(value: __m256, to: *mut Self);
    }

    impl Eight for f32 {
        #[inline(always)]
        unsafe fn eight(from: *const f32) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn narrow_eight(value: __m256, to: *mut f32) {
            // SAFETY: the caller's.
            unsafe { _mm256_storeu_ps(to, value) }
        }
    }

    impl Eight for f16 {
        #[inline(always)]
        unsafe fn eight(from: *const f16) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
        }

        #[inline(always)]
        unsafe fn narrow_eight(value: __m256, to: *mut f16) {
            // SAFETY: the caller's.
            unsafe {
                let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value);
                _mm_storeu_si128(to.cast(), halves);
            }
        }
    }

    impl Eight for bf16 {
        #[inline(always)]
        unsafe fn eight(from: *const bf16) -> __m256 {
            // SAFETY: the caller's.
            unsafe {
                let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32(words, 16))
            }
        }

        #[inline(always)]
        unsafe fn narrow_eight(value: __m256, to: *mut bf16) {
            // SAFETY: the caller's.
            unsafe {
                let bits = _mm256_castps_si256(value);
                let upper = _mm256_srli_epi32(bits, 16);
                let odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
                let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
                let round = _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
                // A number that is none stays none: rounded, it could become infinite.
                let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
                let none = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
                let words = _mm256_blendv_epi8(round, quiet, none);
                let (low, high) = (
                    _mm256_castsi256_si128(words),
                    _mm256_extracti128_si256::<1>(words),
                );
                _mm_storeu_si128(to.cast(), _mm_packus_epi32(low, high));
            }
        }
    }

    fn vectors() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")
    }

    /// As [`super::super::features::accumulate`]; the greatest feature's bits without the sign. Every row is as long as
    /// `total`, and there is an `e` for each.
    pub fn accumulate<T: Feature>(rows: &[&[T]], e: &[f32], total: &mut [f32]) -> Option<i32> {
        assert!(rows.len() == e.len() && rows.iter().all(|row| row.len() == total.len()));
        // SAFETY: the processor has what the function is compiled for, and the rows are as long as `total`.
        vectors().then(|| unsafe { accumulate_vectors(rows, e, total) })
    }

    /// The places of <row, u>; the greatest feature's bits without the sign. `u` is as long as `row`, and `places`, all zero,
    /// as long as a stretch.
    pub fn products<T: Feature>(row: &[T], u: &[f32], places: &mut [f32]) -> Option<i32> {
        assert!(row.len() == u.len() && places.len().is_multiple_of(32));
        // SAFETY: the processor has what the function is compiled for; `u` is as long as `row`.
        vectors().then(|| unsafe { places_vectors(row, u, places) })
    }

    /// As [`Feature::scaled`]; false where the processor has no such vectors. `u` is as long as `out`.
    pub fn scaled<T: Feature>(factor: f32, u: &[f32], out: &mut [T]) -> bool {
        assert_eq!(u.len(), out.len());
        let there = vectors();
        if there {
            // SAFETY: the processor has what the function is compiled for; `u` is as long as `out`.
            unsafe { scaled_vectors(factor, u, out) };
        }
        there
    }

    /// # Safety
    /// The processor has AVX2 and F16C, and `u` is as long as `out`.
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn scaled_vectors<T: Feature>(factor: f32, u: &[f32], out: &mut [T]) {
        let whole = out.len() - out.len() % 8;
        let times = _mm256_set1_ps(factor);
        for c in (0..whole).step_by(8) {
            // SAFETY: c + 8 components exist in both.
            unsafe {
                let value = _mm256_mul_ps(times, _mm256_loadu_ps(u.as_ptr().add(c)));
                T::narrow_eight(value, out.as_mut_ptr().add(c));
            }
        }
        for (out, u) in out[whole..].iter_mut().zip(&u[whole..]) {
            *out = T::narrow(factor * u);
        }
    }

    /// # Safety
    /// The processor has AVX2 and F16C, and every row is as long as `total`.
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn accumulate_vectors<T: Feature>(rows: &[&[T]], e: &[f32], total: &mut [f32]) -> i32 {
        let mut greatest = 0;
        let mut at = 0;
        while at < rows.len() {
            // SAFETY: the caller's, and the rows exist.
            greatest = greatest.max(unsafe {
                if rows.len() - at >= SWEEP {
                    at += SWEEP;
                    sweep::<T, SWEEP>(&rows[at - SWEEP..], &e[at - SWEEP..], total)
                } else {
                    at += 1;
                    sweep::<T, 1>(&rows[at - 1..], &e[at - 1..], total)
                }
            });
        }
        greatest
    }

    /// One sweep over `total` with the first `N` rows.
    ///
    /// What a row needs next is asked for [`AHEAD`] bytes before, in the row itself, and at its end in the row that follows
    /// it in the next sweep: were whole rows asked for ahead of time, rows of a power of two would push each other out of
    /// the nearest cache, whose places they share.
    ///
    /// # Safety
    /// The processor has AVX2 and F16C, there are `N` rows, and every row is as long as `total`.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn sweep<T: Feature, const N: usize>(
        rows: &[&[T]],
        e: &[f32],
        total: &mut [f32],
    ) -> i32 {
        let from: [*const T; N] = std::array::from_fn(|k| rows[k].as_ptr());
        let next: [*const T; N] =
            std::array::from_fn(|k| rows.get(N + k).unwrap_or(&rows[k]).as_ptr());
        let factor: [__m256; N] = std::array::from_fn(|k| _mm256_set1_ps(e[k]));
        let magnitude = _mm256_set1_epi32(0x7fff_ffff);
        let mut greatest = _mm256_setzero_si256();
        let width = total.len();
        let sums = total.as_mut_ptr();
        let ahead = AHEAD / size_of::<T>();
        let own = width.saturating_sub(ahead);
        let mut c = 0;
        for (until, ahead_of, skip) in [
            (own, &from, ahead),
            (width, &next, 0usize.wrapping_sub(own)),
        ] {
            while c < until && c + 16 <= width {
                // SAFETY: c + 16 components exist in `total` and in each row; asking ahead reads nothing.
                unsafe {
                    let mut low = _mm256_loadu_ps(sums.add(c));
                    let mut high = _mm256_loadu_ps(sums.add(c + 8));
                    for k in 0..N {
                        let at = c.wrapping_add(skip);
                        _mm_prefetch::<_MM_HINT_T0>(ahead_of[k].wrapping_add(at).cast());
                        let h = T::eight(from[k].add(c));
                        let j = T::eight(from[k].add(c + 8));
                        low = _mm256_add_ps(low, _mm256_mul_ps(factor[k], h));
                        high = _mm256_add_ps(high, _mm256_mul_ps(factor[k], j));
                        let h = _mm256_and_si256(_mm256_castps_si256(h), magnitude);
                        let j = _mm256_and_si256(_mm256_castps_si256(j), magnitude);
                        greatest = _mm256_max_epi32(greatest, _mm256_max_epi32(h, j));
                    }
                    _mm256_storeu_ps(sums.add(c), low);
                    _mm256_storeu_ps(sums.add(c + 8), high);
                }
                c += 16;
            }
        }
        let mut all = [0i32; 8];
        // SAFETY: `all` has room for eight.
        unsafe { _mm256_storeu_si256(all.as_mut_ptr().cast(), greatest) };
        let mut greatest = all.into_iter().fold(0, i32::max);
        for (c, total) in total.iter_mut().enumerate().skip(c) {
            for k in 0..N {
                let h = rows[k][c].wide();
                greatest = greatest.max(h.abs().to_bits() as i32);
                *total += e[k] * h;
            }
        }
        greatest
    }

    /// # Safety
    /// The processor has AVX2 and F16C, and `u` is as long as `row`.
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn places_vectors<T: Feature>(row: &[T], u: &[f32], places: &mut [f32]) -> i32 {
        let magnitude = _mm256_set1_epi32(0x7fff_ffff);
        let mut greatest = _mm256_setzero_si256();
        let stretch = places.len();
        let whole = row.len() - row.len() % 8;
        // Four vectors of places at a time stay in registers over all stretches.
        for from in (0..stretch).step_by(32) {
            let mut sums = [_mm256_setzero_ps(); 4];
            let mut c = from;
            while c < whole {
                for (k, sum) in sums.iter_mut().enumerate() {
                    let c = c + 8 * k;
                    if c < whole {
                        // SAFETY: c + 8 components exist in both.
                        unsafe {
                            let h = T::eight(row.as_ptr().add(c));
                            let u = _mm256_loadu_ps(u.as_ptr().add(c));
                            *sum = _mm256_add_ps(*sum, _mm256_mul_ps(h, u));
                            let h = _mm256_and_si256(_mm256_castps_si256(h), magnitude);
                            greatest = _mm256_max_epi32(greatest, h);
                        }
                    }
                }
                c += stretch;
            }
            for (k, sum) in sums.into_iter().enumerate() {
                // SAFETY: a stretch is a whole number of 32 places.
                unsafe { _mm256_storeu_ps(places.as_mut_ptr().add(from + 8 * k), sum) };
            }
        }
        let mut all = [0i32; 8];
        // SAFETY: `all` has room for eight.
        unsafe { _mm256_storeu_si256(all.as_mut_ptr().cast(), greatest) };
        let mut greatest = all.into_iter().fold(0, i32::max);
        for c in whole..row.len() {
            let h = row[c].wide();
            greatest = greatest.max(h.abs().to_bits() as i32);
            places[c % stretch] += h * u[c];
        }
        greatest
    }
}
