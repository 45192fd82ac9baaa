//! How near (b) comes to a plain read of the same bytes on the same threads. Not run by default: it measures, and wants a
//! quiet machine. `cargo test --release -p weir-kernels --test pace -- --ignored --nocapture`
#![allow(clippy::unwrap_used)]

mod bags;

use bags::{Case, Gradients, Odd, Results, Stored, Type, pooled};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;
use weir_kernels::Cpu;
use weir_kernels::kernels::Rule;
use weir_kernels::normalise::{Link, Normalisation};

const TIMES: usize = 25;

/// Best of some runs, ms.
fn best(mut what: impl FnMut()) -> f64 {
    (0..TIMES)
        .map(|_| {
            let start = Instant::now();
            what();
            start.elapsed().as_secs_f64() * 1e3
        })
        .fold(f64::INFINITY, f64::min)
}

/// Reads every word once and keeps nothing but its exclusive or.
fn read(words: &[u64], threads: &rayon::ThreadPool) {
    let all = |part: &[u64]| {
        let mut sums = [0u64; 32];
        for words in part.chunks_exact(32) {
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum ^= word;
            }
        }
        black_box(sums);
    };
    threads.install(|| words.par_chunks(1 << 16).for_each(all));
}

fn words(features: &Stored) -> &[u64] {
    fn of<T>(v: &[T]) -> &[u64] {
        // SAFETY: any bits are a u64, and only the aligned middle is taken.
        unsafe { v.align_to().1 }
    }
    match features {
        Stored::F32(v) => of(v),
        Stored::F16(v) => of(v),
        Stored::Bf16(v) => of(v),
    }
}

#[test]
#[ignore = "measures"]
fn the_pool_runs_near_the_pace_of_a_plain_read() {
    for threads in [1, 2] {
        let cpu = Cpu::new(threads).unwrap();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        for kind in [Type::F32, Type::F16, Type::Bf16] {
            let case = (0..)
                .map(|seed| Case::with(seed, &[20_000], 1024, kind, false, &[Odd::Nothing]))
                .find(|case| case.stride == case.width)
                .unwrap();
            let words = words(&case.features);
            let bytes = words.len() * 8;
            let plain = best(|| read(words, &pool));
            for normalisation in [Normalisation::SquaredAverage, Normalisation::Softmax] {
                let rule = Rule {
                    normalisation,
                    link: Link::None,
                };
                let mut results = Results::new(&case);
                let forward = best(|| results.pool(&cpu, &case, rule));
                let again = best(|| read(words, &pool));
                let plain = plain.min(again);
                println!(
                    "{threads} threads, {kind:?} 20000 x 1024, {normalisation:?}: read {plain:.2} ms ({:.1} GB/s), pool {forward:.2} ms = {:.3}",
                    bytes as f64 / plain / 1e6,
                    forward / plain
                );
            }
            let rule = Rule {
                normalisation: Normalisation::SquaredAverage,
                link: Link::None,
            };
            let state = pooled(&cpu, &case, rule);
            let mut to = Gradients::new(&case);
            let backward = best(|| to.pool(&cpu, &case, rule, &state, false));
            println!("{threads} threads, {kind:?}: backward {backward:.2} ms");
        }
    }
}
