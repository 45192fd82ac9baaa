//! Bugs planted in (c), each of which is caught.

use super::emulated::{PLAIN, Patch, Variant, run};
use super::machine;

#[test]
fn planted_bugs_in_the_products_are_seen() {
    const BUGS: [(Patch, (u32, u32), &str, &str); 17] = [
        // A stage read before its copies are there.
        (
            Patch {
                file: "cuda/gated_product.cuh",
                find: "cp_async_wait<STAGES - 2>();",
                put: "cp_async_wait<STAGES - 1>();",
            },
            (8, 0),
            "forward::case_small",
            "is no number",
        ),
        // A copy into a stage that is still read, of a step too far.
        (
            Patch {
                file: "cuda/gated_product.cuh",
                find: "load(i + STAGES - 1);",
                put: "load(i + STAGES);",
            },
            (8, 0),
            "forward::case_small",
            "is no number",
        ),
        // V's bias for U.
        (
            Patch {
                file: "cuda/gated_mma.cu",
                find: "u0 = bias[HALF_CHUNK + l]",
                put: "u0 = bias[l]",
            },
            (8, 0),
            "forward::case_small",
            "far from f64",
        ),
        // A stage given back while the product still reads it.
        (
            Patch {
                file: "cuda/gated_wgmma.cu",
                find: "release(i - 1);",
                put: "release(i);",
            },
            (9, 0),
            "forward::case_wide",
            "DEADLOCK",
        ),
        // The first half of the head by both blocks of the pair, so that nobody fetches the second.
        (
            Patch {
                file: "cuda/gated_wgmma.cu",
                find: "const u32 half = rank * (COLUMNS_BYTES / 2);",
                put: "const u32 half = 0;",
            },
            (9, 0),
            "forward::case_small",
            "is no number",
        ),
        // The other block's half of the matrix, into the own half of the ring.
        (
            Patch {
                file: "cuda/gated_wgmma.cu",
                find: "matrix + (u64)i * COLUMNS_BYTES + half,",
                put: "matrix + (u64)i * COLUMNS_BYTES + (1 - rank) * (COLUMNS_BYTES / 2),",
            },
            (9, 0),
            "forward::case_small",
            "far from f64",
        ),
        // The bag's items merged by a block that is not the last.
        (
            Patch {
                file: "cuda/gated.cuh",
                find: "return *word == blocks - 1;",
                put: "return *word == 0;",
            },
            (8, 0),
            "forward::case_f32",
            "far from f64",
        ),
        // Weights added up before all of them are there.
        (
            Patch {
                file: "cuda/gated.cuh",
                find: "        named_barrier_sync(barrier, threads);\n        if (t >= 2 * WARP) continue;",
                put: "        if (t >= 2 * WARP) continue;",
            },
            (8, 0),
            "forward::case_small",
            "another sum of squares",
        ),
        // A bag's last item, which is no whole one, left out.
        (
            Patch {
                file: "cuda/gated.cuh",
                find: "const u32 items = (here + ROWS - 1) / ROWS;",
                put: "const u32 items = here / ROWS;",
            },
            (9, 0),
            "forward::case_small",
            "another sum of squares",
        ),
        // A refused row weighed as any other.
        (
            Patch {
                file: "cuda/gated.cuh",
                find: "gone[k] ? 0.0f : __fdiv_rn(e, of.sum);",
                put: "__fdiv_rn(e, of.sum);",
            },
            (8, 0),
            "forward::case_refused_and_uniform",
            "a refused row has a weight",
        ),
        // Empty bags looked for in the bags of the first blocks alone.
        (
            Patch {
                file: "cuda/gated.cuh",
                find: "bag < bags.looked_through; bag += gridDim.x",
                put: "bag < gridDim.x; bag += gridDim.x",
            },
            (9, 0),
            "forward::case_nobody",
            "another sum of squares",
        ),
        // The ring's turn forgotten.
        (
            Patch {
                file: "cuda/gated_wgmma.cu",
                find: "mbarrier_wait(full + i % stages, (i / stages) & 1);",
                put: "mbarrier_wait(full + i % stages, 1);",
            },
            (9, 0),
            "forward::case_small",
            "before the copy was waited for",
        ),
        // A refused row's features in a product.
        (
            Patch {
                file: "cuda/gated_backward.cu",
                find: "const bool in = t < it.rows && !refused[row];",
                put: "const bool in = t < it.rows;",
            },
            (8, 0),
            "backward::case_backward_refused",
            "leaves a trace",
        ),
        // Steps of the gradients' products multiplied before their copies are there.
        (
            Patch {
                file: "cuda/gated_backward.cu",
                find: "cp_async_wait<LAYERS_STAGES - 2>();",
                put: "cp_async_wait<LAYERS_STAGES - 1>();",
            },
            (8, 0),
            "backward::case_backward_small",
            "is no number",
        ),
        (
            Patch {
                file: "cuda/gated_backward.cu",
                find: "cp_async_wait<ROWS_STAGES - 2>();",
                put: "cp_async_wait<ROWS_STAGES - 1>();",
            },
            (8, 0),
            "backward::case_backward_small",
            "is no number",
        ),
        // The features of an item by the places of the item before.
        (
            Patch {
                file: "cuda/gated_backward.cu",
                find: "turn ^= 1;",
                put: "",
            },
            (8, 0),
            "backward::case_backward_ranges",
            "far from f64",
        ),
        // The sums of the ranges before forgotten.
        (
            Patch {
                file: "cuda/gated_backward.cu",
                find: "if (again) {",
                put: "if (false) {",
            },
            (8, 0),
            "backward::case_backward_ranges",
            "far from f64",
        ),
    ];
    for (bug, capability, case, report) in BUGS {
        seen(bug, capability, case, report, false);
    }
}

#[test]
fn planted_bugs_beyond_a_chunk_are_seen() {
    const BUGS: [(Patch, &str); 2] = [
        // Components beyond a block's gathered by nobody.
        (
            Patch {
                file: "cuda/gated_backward.cu",
                find: "const u32 f = blockIdx.y * THREADS + t;",
                put: "const u32 f = t;",
            },
            "was not written",
        ),
        // The head's first chunk for each.
        (
            Patch {
                file: "cuda/gated_backward.cu",
                find: "matrix + (u64)first_chunk * CHUNK * steps * STEP_BYTES;",
                put: "matrix;",
            },
            "far from f64",
        ),
    ];
    for (bug, report) in BUGS {
        seen(bug, (8, 0), "backward::case_backward_chunks", report, false);
    }
}

#[test]
fn planted_bugs_at_the_ends_of_f32_are_seen() {
    const BUGS: [Patch; 2] = [
        // A logit outside the rule's domain that nobody counts.
        Patch {
            file: "cuda/gated.cuh",
            find: "? 1u : 0x10001u;",
            put: "? 1u : 1u;",
        },
        // A sum past f32 that nobody tells of.
        Patch {
            file: "cuda/gated.cuh",
            find: "(strange || (kept && !in_range) ? OUT_OF_DOMAIN : 0u)",
            put: "(strange ? OUT_OF_DOMAIN : 0u)",
        },
    ];
    for bug in BUGS {
        seen(bug, (8, 0), "forward::case_domain", "flags: Extreme", false);
    }
}

/// Its column of the head is zero, so that no result shows what was read.
#[test]
fn an_element_read_beyond_a_row_is_seen() {
    const BUG: Patch = Patch {
        file: "cuda/gated.cuh",
        find: "if (c + k >= h.width) break;",
        put: "if (c + k > h.width) break;",
    };
    let case = "forward::case_elements";
    seen(BUG, (8, 0), case, "heap-buffer-overflow", true);
}

fn seen(bug: Patch, capability: (u32, u32), case: &str, report: &str, sanitized: bool) {
    let variant = Variant {
        sanitized,
        ..PLAIN.patched(Box::leak(vec![bug].into_boxed_slice()))
    };
    run(variant, &machine(capability, 3, true), case).failed_with(report);
}
