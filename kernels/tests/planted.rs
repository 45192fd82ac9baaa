//! Planted bugs in the crate's kernels: each is caught, by name and by the report that is meant for it. What a test lets
//! through here it would let through when it is written by mistake.

#[path = "emulated/mod.rs"]
mod emulated;

mod bags;
#[path = "planted/cases.rs"]
mod cases;

use emulated::{PLAIN, Patch, Setting, run};

/// A mistake, and how it shows.
struct Bug {
    /// What was done wrong.
    name: &'static str,
    patch: Patch,
    /// Of [`cases`].
    case: &'static str,
    seed: u64,
    /// Under the sanitizers.
    sanitized: bool,
    /// What must be printed.
    report: &'static str,
}

/// What a case prints where a result is not the processor's.
const DIFFERS: &str = "is not the processor's";

const BAGS: &str = "cuda/bags.cuh";
const POOL: &str = "cuda/pool.cu";
const WEIGHTS: &str = "cuda/weights.cu";
const TOP_K: &str = "cuda/top_k.cu";
const TILES: &str = "cuda/tiles.cu";

fn caught(bugs: &'static [Bug]) {
    for bug in bugs {
        let variant = PLAIN.patched(std::slice::from_ref(&bug.patch));
        let variant = if bug.sanitized {
            variant.sanitized()
        } else {
            variant
        };
        let setting = Setting {
            seed: bug.seed,
            // The sanitizer sees the end of each array, not that of the stream's scratch memory.
            environment: vec![("WEIR_CHECK_MEMORY", "1".to_owned())],
            ..Setting::default()
        };
        println!("planted: {}", bug.name);
        run(variant, &setting, &format!("cases::{}", bug.case)).failed_with(bug.report);
    }
}

#[test]
fn without_bugs_the_cases_pass() {
    for case in ["case_pool", "case_top_k", "case_tiles"] {
        for (seed, sanitized) in [(0, false), (3, false), (3, true)] {
            let variant = if sanitized { PLAIN.sanitized() } else { PLAIN };
            let setting = Setting {
                seed,
                ..Setting::default()
            };
            run(variant, &setting, &format!("cases::{case}")).passed();
        }
    }
}

#[test]
fn bugs_in_weights_and_pool_are_caught() {
    static BUGS: [Bug; 8] = [
        Bug {
            name: "an item one row too long",
            patch: Patch {
                file: POOL,
                find: "if (from + p + u < rows) {",
                put: "if (from + p + u <= rows) {",
            },
            case: "case_pool",
            seed: 0,
            sanitized: false,
            report: DIFFERS,
        },
        Bug {
            name: "rows loaded beyond the last",
            patch: Patch {
                file: POOL,
                find: "const u32 q = min(from + p + u, rows - 1) - from;",
                put: "const u32 q = p + u;",
            },
            case: "case_pool",
            seed: 0,
            sanitized: true,
            report: "heap-buffer-overflow",
        },
        Bug {
            name: "the list of members off by one",
            patch: Patch {
                file: BAGS,
                find: "return list ? list[place] : place;",
                put: "return list ? list[place + 1] : place;",
            },
            case: "case_pool",
            seed: 0,
            sanitized: true,
            report: "heap-buffer-overflow",
        },
        Bug {
            name: "fused where the contract says mul, then add",
            patch: Patch {
                file: POOL,
                find: "acc[j] = __fadd_rn(acc[j], __fmul_rn(x, h[j]));\n                }\n            }\n        }\n        // The next",
                put: "acc[j] = __fmaf_rn(x, h[j], acc[j]);\n                }\n            }\n        }\n        // The next",
            },
            case: "case_pool",
            seed: 0,
            sanitized: false,
            report: DIFFERS,
        },
        Bug {
            name: "items merged from the last to the first",
            patch: Patch {
                file: POOL,
                find: "min(k + m, items - 1) * apart",
                put: "(items - 1 - min(k + m, items - 1)) * apart",
            },
            case: "case_pool",
            seed: 0,
            sanitized: false,
            report: DIFFERS,
        },
        Bug {
            name: "the first to come merges, not the last",
            patch: Patch {
                file: BAGS,
                find: "__shfl_sync(FULL_WARP, before, 0) == warps - 1",
                put: "__shfl_sync(FULL_WARP, before, 0) == 0",
            },
            case: "case_pool",
            seed: 1,
            sanitized: false,
            report: DIFFERS,
        },
        Bug {
            name: "a weight where there is no row",
            patch: Patch {
                file: WEIGHTS,
                find: "square[k] = part[k] = 0.0f;\n        if (p >= it.rows) continue;",
                put: "square[k] = part[k] = 0.0f;\n        if (p > it.rows) continue;",
            },
            case: "case_pool",
            seed: 0,
            sanitized: false,
            report: "MEMORY OVERRUN: byte 0 behind the end",
        },
        Bug {
            name: "a shuffle that one lane leaves out",
            patch: Patch {
                file: BAGS,
                find: "return __shfl_sync(FULL_WARP, before, 0)",
                put: "return lane_id() < 31 && __shfl_sync(FULL_WARP, before, 0)",
            },
            case: "case_pool",
            seed: 1,
            sanitized: false,
            // That lane takes itself for an early one and ends, and those that have ended are waited for by nobody.
            report: DIFFERS,
        },
    ];
    caught(&BUGS);
}

#[test]
fn bugs_in_the_selection_are_caught() {
    static BUGS: [Bug; 7] = [
        Bug {
            name: "missing __syncthreads",
            patch: Patch {
                file: TOP_K,
                find: "row[threadIdx.x / 32] = mine;\n    __syncthreads();",
                put: "row[threadIdx.x / 32] = mine;",
            },
            case: "case_top_k",
            seed: 3,
            sanitized: false,
            // Threads that count differently part.
            report: "DEADLOCK in kernel weir_top_k_slices",
        },
        Bug {
            name: "__syncthreads in a divergent branch",
            patch: Patch {
                file: TOP_K,
                find: "if (threadIdx.x == 0) *gathered = 0;\n    __syncthreads();",
                put: "if (threadIdx.x == 0) {\n        *gathered = 0;\n        __syncthreads();\n    } else\n        __syncthreads();",
            },
            case: "case_top_k",
            seed: 1,
            sanitized: false,
            report: "DIVERGENT __syncthreads: this thread is here, others wait at line",
        },
        Bug {
            name: "a lane that stays away from a shuffle",
            patch: Patch {
                file: TOP_K,
                find: "for (int d = 16; d > 0; d /= 2) mine += __shfl",
                put: "for (int d = 16; d > 0; d /= 2) if (lane_id() != 7 || d != 4) mine += __shfl",
            },
            case: "case_top_k",
            seed: 1,
            sanitized: false,
            report: "DEADLOCK in kernel weir_top_k_slices",
        },
        Bug {
            name: "overrun of shared memory",
            patch: Patch {
                file: TOP_K,
                find: "sums + (turn++ & 1) * WARPS",
                put: "sums + (turn++ & 3) * WARPS",
            },
            case: "case_top_k",
            seed: 0,
            sanitized: false,
            report: "SHARED MEMORY OVERRUN: kernel weir_top_k_slices",
        },
        Bug {
            name: "overrun of shared memory, by the sanitizer",
            patch: Patch {
                file: TOP_K,
                find: "sums + (turn++ & 1) * WARPS",
                put: "sums + (turn++ & 3) * WARPS",
            },
            case: "case_top_k",
            seed: 0,
            sanitized: true,
            report: "heap-buffer-overflow",
        },
        Bug {
            name: "the row list read one too far",
            patch: Patch {
                file: TOP_K,
                find: "place < slice.members ? list[slice.first + place] : 0;",
                put: "place < slice.members ? list[slice.first + place + 1] : 0;",
            },
            case: "case_top_k",
            seed: 0,
            sanitized: true,
            report: "heap-buffer-overflow",
        },
        Bug {
            name: "one member too many of a slice",
            patch: Patch {
                file: TOP_K,
                find: "ranks[i] = threadIdx.x + i * THREADS < slice.members ?",
                put: "ranks[i] = threadIdx.x + i * THREADS <= slice.members ?",
            },
            case: "case_top_k",
            seed: 0,
            sanitized: false,
            report: DIFFERS,
        },
    ];
    caught(&BUGS);
}

#[test]
fn bugs_in_the_normalisation_of_tiles_are_caught() {
    static BUGS: [Bug; 3] = [
        Bug {
            name: "a store that is not aligned",
            patch: Patch {
                file: TILES,
                find: "target_at = to + at + place * PIXELS;",
                put: "target_at = to + at + place * (PIXELS - 1);",
            },
            case: "case_tiles",
            seed: 0,
            sanitized: false,
            report: "MISALIGNED store of 16 bytes",
        },
        Bug {
            name: "a shift that is too wide",
            patch: Patch {
                file: TILES,
                find: "out[p / A_WORD] |= bits << (p % A_WORD * 16);",
                put: "out[p / A_WORD] |= bits << (p % A_WORD * 16 + (p > 7 ? 0 : 16 * (int)T::BYTES));",
            },
            case: "case_tiles",
            seed: 0,
            sanitized: true,
            report: "is too large for 32-bit type",
        },
        Bug {
            name: "fused where the contract says mul, then add",
            patch: Patch {
                file: TILES,
                find: "__fadd_rn(__fmul_rn((float)byte, scale), shift)",
                put: "__fmaf_rn((float)byte, scale, shift)",
            },
            case: "case_tiles",
            seed: 0,
            sanitized: false,
            report: DIFFERS,
        },
    ];
    caught(&BUGS);
}
