//! What this machine can do at best, measured in the process that is measured against it.

use crate::Fault;
use crate::clock::{Patience, Samples, sample, time};
use crate::cost::Ceilings;
use crate::data::{Array, Random};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Duration;
use weir_kernels::Dtype;

/// Numbers of the arrays that are read and copied: the 20,000 x 1,024 of the largest bag, f32.
const LEN: usize = 20_000 * 1024;

/// Threads of the processor that measure its ceilings, and empty its caches.
#[derive(Debug)]
pub struct Processor {
    threads: rayon::ThreadPool,
    flush: Vec<u64>,
}

impl Processor {
    /// With so many threads.
    pub fn new(threads: usize, cache: usize) -> Result<Processor, Fault> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        Ok(Processor {
            threads: pool.map_err(|error| {
                Fault::failed(
                    format!("could not start {threads} threads: {error}"),
                    "name fewer with --threads",
                )
            })?,
            // Twice the last cache, read and never written: what it leaves there costs nobody a write.
            flush: vec![1; 2 * cache / 8],
        })
    }

    /// Leaves nothing of what was used before in the caches.
    pub fn flush(&self) {
        black_box(self.threads.install(|| {
            self.flush
                .par_chunks(1 << 16)
                .map(|chunk| chunk.iter().fold(0u64, |sum, x| sum.wrapping_add(*x)))
                .sum::<u64>()
        }));
    }

    /// Reads an array once, on all threads, and does nothing with it.
    pub fn read(&self, array: &Array) -> u64 {
        /// Bytes that a thread takes at once.
        const CHUNK: usize = 1 << 19;
        fn sum<T: Copy + Sync>(data: &[T], bits: impl Fn(T) -> u32 + Sync) -> u64 {
            data.par_chunks(CHUNK / size_of::<T>())
                .map(|chunk| {
                    // Several sums, so that no addition waits for the one before it.
                    let mut sums = [0u32; 32];
                    let parts = chunk.chunks_exact(32);
                    let rest = parts.remainder();
                    for part in parts {
                        for (sum, x) in sums.iter_mut().zip(part) {
                            *sum = sum.wrapping_add(bits(*x));
                        }
                    }
                    let rest = rest.iter().fold(0u32, |s, x| s.wrapping_add(bits(*x)));
                    u64::from(sums.iter().fold(rest, |s, x| s.wrapping_add(*x)))
                })
                .sum()
        }
        let total = self.threads.install(|| match array {
            Array::F32(data) => sum(data, f32::to_bits),
            Array::F16(data) => sum(data, |x| u32::from(x.to_bits())),
            Array::Bf16(data) => sum(data, |x| u32::from(x.to_bits())),
            Array::U8(data) => sum(data, u32::from),
            Array::U32(data) => sum(data, |x| x),
            Array::I32(data) => sum(data, |x| x as u32),
        });
        black_box(total)
    }

    /// The ceilings; about a second.
    pub fn ceilings(&self) -> Result<(Ceilings, [Samples; 3]), Fault> {
        let patience = Patience {
            least: 9,
            most: 40,
            limit: Duration::from_millis(400),
        };
        let from = Random::new(1).array(Dtype::F32, LEN, 1.0);
        let read = sample(patience, |_| Ok(time(|| self.read(&from)).1))?;
        let mut to = vec![0.0f32; LEN];
        let source = from.floats()?;
        let copy = sample(patience, |_| Ok(time(|| self.copy(source, &mut to)).1))?;
        drop(to);
        let (m, n, k) = (4096, 512, 1024);
        let product = sample(
            Patience {
                least: 5,
                limit: Duration::from_millis(700),
                ..patience
            },
            |_| Ok(self.product(source, m, n, k)),
        )?;
        // The best is the ceiling: what a neighbour on the machine takes away is no limit of it.
        let bytes = (LEN * 4) as f64;
        let flops = 2.0 * (m * n * k) as f64 / product.least();
        let ceilings = Ceilings {
            read: bytes / read.least(),
            copy: 2.0 * bytes / copy.least(),
            product: flops,
            product_half: flops,
        };
        Ok((ceilings, [read, copy, product]))
    }

    fn copy(&self, from: &[f32], to: &mut [f32]) {
        self.threads.install(|| {
            to.par_chunks_mut(1 << 18)
                .zip(from.par_chunks(1 << 18))
                .for_each(|(to, from)| to.copy_from_slice(from));
        });
        black_box(to);
    }

    /// Seconds of a product `[m, k]` x `[k, n]` by the `gemm` crate, a matrix library that is not (c)'s own loop.
    fn product(&self, numbers: &[f32], m: usize, n: usize, k: usize) -> f64 {
        let (a, b) = (&numbers[..m * k], &numbers[m * k..m * k + k * n]);
        let mut c = vec![0.0f32; m * n];
        let threads = self.threads.current_num_threads();
        let parallel = if threads > 1 {
            gemm::Parallelism::Rayon(threads)
        } else {
            gemm::Parallelism::None
        };
        let ((), took) = time(|| {
            self.threads.install(|| {
                // SAFETY: row-major matrices of m x k, k x n and m x n elements, as the slices above are long; `c` is
                // borrowed by nobody else.
                unsafe {
                    gemm::gemm(
                        m,
                        n,
                        k,
                        c.as_mut_ptr(),
                        1,
                        n as isize,
                        false,
                        a.as_ptr(),
                        1,
                        k as isize,
                        b.as_ptr(),
                        1,
                        n as isize,
                        0.0,
                        1.0,
                        false,
                        false,
                        false,
                        parallel,
                    );
                }
            });
        });
        black_box(&c);
        took
    }
}
