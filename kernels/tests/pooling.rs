//! (a) and (b) on the emulated device: the same bits as on the processor, in any order of threads and blocks, for any number
//! of multiprocessors, whichever way features are loaded; and bugs planted in the kernels are seen.
#![allow(clippy::unwrap_used)]

mod bags;
#[path = "emulated/mod.rs"]
mod emulated;

use bags::edges::{EDGES, edges, loops};
use bags::{Case, Odd, RULES, Random, Type, pooled, slopes, weights, weights_slopes};
use emulated::{PLAIN, Patch, SANITIZED, Setting, run};
use weir_kernels::kernels::Rule;
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::{Cpu, cuda::stream::Stream};

const TYPES: [Type; 3] = [Type::F32, Type::F16, Type::Bf16];

fn stream() -> Stream {
    emulated::gpu().stream().unwrap()
}

/// All kernels on a case, on both.
fn same_as_the_twin(stream: &Stream, cpu: &Cpu, case: &Case, rule: Rule) {
    let what = format!(
        "{rule:?} on {} x {} of {:?}",
        case.rows(),
        case.width,
        case.features.kind()
    );
    assert_eq!(
        weights(stream, case, rule),
        weights(cpu, case, rule),
        "{what}"
    );
    let state = pooled(cpu, case, rule);
    assert_eq!(pooled(stream, case, rule), state, "{what}");
    let (got, truth) = (
        weights_slopes(stream, case, rule),
        weights_slopes(cpu, case, rule),
    );
    assert_eq!(bits(&got), bits(&truth), "{what}");
    for direct in [false, true] {
        let (got, truth) = (
            slopes(stream, case, rule, direct),
            slopes(cpu, case, rule, direct),
        );
        assert_eq!(bits(&got.logits), bits(&truth.logits), "{what}");
        assert_eq!(bits(&got.features), bits(&truth.features), "{what}");
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn any_rule(r: &mut Random) -> Rule {
    Rule {
        normalisation: RULES[r.below(RULES.len())],
        link: [Link::None, Link::Sigmoid][r.below(2)],
    }
}

/// Cases of every type, load path and oddity; as many as the environment says.
#[test]
#[ignore = "a case, run by the tests below"]
fn case_any_bags() {
    if !emulated::inside() {
        return;
    }
    let seed: u64 = std::env::var("CASE_SEED").unwrap().parse().unwrap();
    let count: u64 = std::env::var("CASE_COUNT").unwrap().parse().unwrap();
    let (stream, cpu) = (stream(), Cpu::new(1).unwrap());
    for number in 0..count {
        let mut r = Random(seed * 1000 + number);
        let rule = any_rule(&mut r);
        let width = [1, 5, 16, 64, 136, 264, 300][r.below(7)];
        let size = |r: &mut Random| [0, 1, 3, 40, 128, 129, 300][r.below(7)];
        let mut sizes: Vec<usize> = (0..r.below(4)).map(|_| size(&mut r)).collect();
        sizes.push(2 * r.below(70) + 1);
        let masked = r.one_in(2);
        let case = Case::new(r.bits(), &sizes, width, TYPES[r.below(3)], masked);
        same_as_the_twin(&stream, &cpu, &case, rule);
    }
}

/// Bags of more items than the merge calls into L1 at once, and of one item more than it calls at all.
#[test]
#[ignore = "a case, run by the test below"]
fn case_long_bags() {
    if !emulated::inside() {
        return;
    }
    let (stream, cpu) = (stream(), Cpu::new(1).unwrap());
    for (kind, rows) in [(Type::Bf16, 2500), (Type::F32, 4300), (Type::F16, 2048)] {
        let case = Case::with(4, &[rows, 1030, 1], 12, kind, true, &[Odd::Nothing]);
        same_as_the_twin(&stream, &cpu, &case, any_rule(&mut Random(1)));
    }
}

#[test]
fn a_bag_of_many_items_has_the_processors_bits() {
    for seed in [0, 3] {
        run(PLAIN, &setting(seed, 1), "case_long_bags").passed();
    }
}

/// The loops, the processor and the device on logits at the edges of the domain.
#[test]
#[ignore = "a case, run by the tests below"]
fn case_edges() {
    if !emulated::inside() {
        return;
    }
    let (stream, cpu) = (stream(), Cpu::new(1).unwrap());
    for normalisation in [
        Normalisation::SquaredAverage,
        Normalisation::Power(1.5),
        Normalisation::Softmax,
    ] {
        for edge in EDGES {
            let rule = Rule {
                normalisation,
                link: Link::None,
            };
            let [case, _] = edges(edge);
            let truth = loops(&case, rule);
            let (twin, device) = (pooled(&cpu, &case, rule), pooled(&stream, &case, rule));
            assert_eq!(twin, truth, "the twin, {rule:?} of {edge:e}");
            assert_eq!(device, truth, "the device, {rule:?} of {edge:e}");
        }
    }
}

#[test]
fn logits_at_the_edges_of_the_domain_are_flagged_on_the_device_as_in_the_loops() {
    run(PLAIN, &Setting::default(), "case_edges").passed();
}

fn setting(seed: u64, count: u64) -> Setting {
    Setting {
        seed,
        environment: vec![
            ("CASE_SEED", seed.to_string()),
            ("CASE_COUNT", count.to_string()),
        ],
        ..Setting::default()
    }
}

#[test]
fn the_device_gives_the_processors_bits_in_any_order() {
    for seed in 0..4 {
        let setting = Setting {
            lazy: seed % 2 == 1,
            multiprocessors: [132, 1, 7, 46][seed as usize],
            workers: 1 + seed as u32 % 2,
            ..setting(seed, 12)
        };
        run(PLAIN, &setting, "case_any_bags").passed();
    }
}

#[test]
fn nothing_is_read_or_written_beside_what_is_there() {
    run(SANITIZED, &setting(9, 8), "case_any_bags").passed();
}

/// One change each to a kernel: the file, what stands there, and what then stands there.
const BUGS: [Patch; 11] = [
    Patch {
        file: "cuda/pool.cu",
        find: "if (from + p + u < rows) {",
        put: "if (true) {",
    },
    Patch {
        file: "cuda/pool.cu",
        find: "if (k + m < items) {",
        put: "if (true) {",
    },
    Patch {
        file: "cuda/pool.cu",
        find: "list[low] != row);",
        put: "list[low] == row);",
    },
    Patch {
        file: "cuda/pool.cu",
        find: "LIST ? __shfl_sync(FULL_WARP, row[0], (int)q) : first",
        put: "first",
    },
    Patch {
        file: "cuda/pool.cu",
        find: "sum = __fadd_rn(sum, x);\n                    good = good && fine(h);",
        put: "sum = __fadd_rn(sum, x);",
    },
    Patch {
        file: "cuda/pool.cu",
        find: "for (int d = WARP / 2; d > 0; d /= 2) sum",
        put: "for (int d = WARP / 4; d > 0; d /= 2) sum",
    },
    Patch {
        file: "cuda/bags.cuh",
        find: "if (before == warps - 1) *count = 0;",
        put: "",
    },
    Patch {
        file: "cuda/weights.cu",
        find: "if (rows == ROWS) {",
        put: "if (rows == ROWS + 1) {",
    },
    Patch {
        file: "cuda/weights.cu",
        find: "if (w > 0.0f) part",
        put: "if (w >= 0.0f) part",
    },
    Patch {
        file: "cuda/settle.cuh",
        find: "mine = !b.refused[row];",
        put: "mine = true;",
    },
    Patch {
        file: "cuda/settle.cuh",
        find: "if (u >= some) continue;",
        put: "",
    },
];

/// Mistakes about the domain. Random bags meet them by luck alone: tiny logits under one of two rules and without a link come
/// up in few seeds, and then a whole bag of them.
const AT_THE_EDGES: [Patch; 4] = [
    Patch {
        file: "cuda/rule.cuh",
        find: "1e-18f < size && size < 1e18f",
        put: "size < 1e18f",
    },
    Patch {
        file: "cuda/rule.cuh",
        find: "1e-18f < size && size < 1e18f",
        put: "1e-18f < size",
    },
    Patch {
        file: "cuda/rule.cuh",
        find: "1e-18f < size && size < 1e18f",
        put: "1e-18f <= size && size < 1e18f",
    },
    Patch {
        file: "cuda/rule.cuh",
        find: "rule.normalisation > POWER || g == 0.0f",
        put: "rule.normalisation > SQUARED_AVERAGE || g == 0.0f",
    },
];

#[test]
fn four_planted_bugs_about_the_domain_change_a_flag() {
    for bug in &AT_THE_EDGES {
        println!("{}: {}", bug.file, bug.put);
        let variant = PLAIN.patched(std::slice::from_ref(bug));
        run(variant, &Setting::default(), "case_edges").failed_with("the device, Rule");
    }
}

#[test]
fn each_of_eleven_planted_bugs_changes_a_bit_that_is_compared() {
    for bug in &BUGS {
        println!("{}: {}", bug.file, bug.find);
        let variant = PLAIN.patched(std::slice::from_ref(bug));
        run(variant, &setting(3, 60), "case_any_bags")
            .failed_with("assertion `left == right` failed");
    }
}
