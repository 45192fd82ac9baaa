//! (d): what is selected is what a plain sort of the whole bag would put first and last.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use weir_kernels::kernels::{Ends, TopKOut};
use weir_kernels::{Bags, Cause, Cpu, KernelError, Kernels, View, ViewMut};

/// Results: highest, lowest, NaNs.
type Selected = (Vec<i32>, Vec<i32>, Vec<u32>);

fn select(
    kernels: &dyn Kernels,
    bags: &Bags,
    ends: Ends,
    scores: &[f32],
) -> Result<Selected, KernelError> {
    let mut highest = vec![-7; bags.len() * ends.highest];
    let mut lowest = vec![-7; bags.len() * ends.lowest];
    let mut nans = vec![7; bags.len()];
    let out = TopKOut {
        highest: ViewMut::new(&mut highest, [bags.len(), ends.highest])?,
        lowest: ViewMut::new(&mut lowest, [bags.len(), ends.lowest])?,
        nans: ViewMut::new(&mut nans, [bags.len()])?,
    };
    kernels.top_k(bags, ends, View::new(scores, [scores.len()])?, out)?;
    Ok((highest, lowest, nans))
}

/// The same by sorting each bag whole.
fn sorted(offsets: &[usize], mask: &[bool], ends: Ends, scores: &[f32]) -> Selected {
    let mut selected = Selected::default();
    for bag in offsets.windows(2) {
        let members: Vec<usize> = (bag[0]..bag[1]).filter(|&row| mask[row]).collect();
        let mut ranking: Vec<usize> = members
            .iter()
            .copied()
            .filter(|&row| !scores[row].is_nan())
            .collect();
        ranking.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        selected.2.push((members.len() - ranking.len()) as u32);
        let top = ranking.len().min(ends.highest);
        let bottom = (ranking.len() - top).min(ends.lowest);
        let fill = |list: &mut Vec<i32>, rows: &[usize], width: usize| {
            list.extend(rows.iter().map(|&row| (row - bag[0]) as i32));
            list.extend((rows.len()..width).map(|_| -1));
        };
        fill(&mut selected.0, &ranking[..top], ends.highest);
        fill(
            &mut selected.1,
            &ranking[ranking.len() - bottom..],
            ends.lowest,
        );
    }
    selected
}

/// Few different values, so that ties are common; both zeros, infinities and NaNs of both signs.
fn score() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -1.0f32..1.0,
        4 => (-3i32..4).prop_map(|n| n as f32),
        1 => prop::sample::select(vec![
            0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, f32::MAX, f32::MIN,
            f32::from_bits(1), f32::from_bits(0x8000_0001), f32::from_bits(0x7F80_0001), f32::from_bits(u32::MAX),
        ]),
    ]
}

fn width() -> impl Strategy<Value = usize> {
    prop_oneof![0usize..5, 0usize..70, Just(1024)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ends_are_those_of_a_plain_sort_for_any_threads_mask_and_batch(
        sizes in prop::collection::vec(prop_oneof![Just(0usize), 1usize..4, 0usize..400], 0..6),
        highest in width(),
        lowest in width(),
        pool in prop::collection::vec((score(), prop::bool::weighted(0.8)), 1..2000),
        masked in any::<bool>(),
    ) {
        let mut offsets = vec![0];
        for size in &sizes {
            offsets.push(offsets.last().unwrap() + size);
        }
        let rows = *offsets.last().unwrap();
        let scores: Vec<f32> = (0..rows).map(|row| pool[row * 7 % pool.len()].0).collect();
        let mask: Vec<bool> = (0..rows).map(|row| !masked || pool[row * 7 % pool.len()].1).collect();
        let ends = Ends { highest, lowest };
        let expected = sorted(&offsets, &mask, ends, &scores);
        let bags = Bags::new(&offsets, Some(&mask)).unwrap();
        for threads in [1, 2] {
            let cpu = Cpu::new(threads).unwrap();
            prop_assert_eq!(&select(&cpu, &bags, ends, &scores).unwrap(), &expected);
        }
        let cpu = Cpu::new(1).unwrap();
        for (b, bag) in offsets.windows(2).enumerate() {
            let alone = Bags::new(&[0, bag[1] - bag[0]], Some(&mask[bag[0]..bag[1]])).unwrap();
            let (high, low, nans) = select(&cpu, &alone, ends, &scores[bag[0]..bag[1]]).unwrap();
            prop_assert_eq!(&high, &expected.0[b * highest..(b + 1) * highest]);
            prop_assert_eq!(&low, &expected.1[b * lowest..(b + 1) * lowest]);
            prop_assert_eq!(nans[0], expected.2[b]);
        }
    }
}

fn scattered(rows: usize, distinct: u32) -> Vec<f32> {
    let mut state = 1u32;
    (0..rows)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) % distinct) as f32 - distinct as f32 / 3.0
        })
        .collect()
}

#[test]
fn a_bag_that_several_threads_share_is_selected_as_if_one_had_it() {
    let rows = 3 * (1 << 16) + 17;
    let ascending: Vec<f32> = (0..rows).map(|row| row as f32).collect();
    let descending: Vec<f32> = ascending.iter().rev().copied().collect();
    let mask: Vec<bool> = (0..rows).map(|row| row % 5 != 3).collect();
    for scores in [
        scattered(rows, 1 << 24),
        scattered(rows, 3),
        ascending,
        descending,
        vec![0.5; rows],
        vec![f32::NAN; rows],
    ] {
        for mask in [vec![true; rows], mask.clone()] {
            for (highest, lowest) in [(32, 32), (1024, 1024), (0, 5), (1, 0)] {
                let ends = Ends { highest, lowest };
                let bags = Bags::new(&[0, 1, rows], Some(&mask)).unwrap();
                let expected = sorted(&[0, 1, rows], &mask, ends, &scores);
                for threads in [1, 2, 5] {
                    let cpu = Cpu::new(threads).unwrap();
                    assert!(select(&cpu, &bags, ends, &scores).unwrap() == expected);
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_selected_is_refused_by_name_and_shape() {
    let cpu = Cpu::new(1).unwrap();
    let bags = Bags::new(&[0, 2, 4], None).unwrap();
    let ends = Ends {
        highest: 1,
        lowest: 1,
    };
    let error = select(&cpu, &bags, ends, &[0.0; 3]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "kernel `top-k` (2 bags, 4 rows, 1 highest, 1 lowest): `scores` has [3], but [4] are needed"
    );
    let many = Ends {
        highest: 1,
        lowest: 1025,
    };
    let error = select(&cpu, &bags, many, &[0.0; 4]).unwrap_err();
    let what = "lowest members";
    assert_eq!(
        error.cause,
        Cause::Limit {
            what,
            limit: 1024,
            got: 1025
        }
    );

    // A type, a width and a stride that cannot be.
    let scores = [0.0f32; 8];
    let attempt = |scores: View<'_, 1>, width: usize| {
        let (mut highest, mut lowest, mut nans) = ([0i32; 4], [0i32; 2], [0u32; 2]);
        let out = TopKOut {
            highest: ViewMut::new(&mut highest, [2, width]).unwrap(),
            lowest: ViewMut::new(&mut lowest, [2, 1]).unwrap(),
            nans: ViewMut::new(&mut nans, [2]).unwrap(),
        };
        cpu.top_k(&bags, ends, scores, out).unwrap_err().cause
    };
    assert!(matches!(
        attempt(View::new(&[0u32; 4], [4]).unwrap(), 1),
        Cause::Dtype {
            argument: "scores",
            ..
        }
    ));
    assert!(matches!(
        attempt(View::new(&scores, [4]).unwrap(), 2),
        Cause::Shape {
            argument: "highest",
            ..
        }
    ));
    assert!(matches!(
        attempt(View::strided(&scores, [4], [2]).unwrap(), 1),
        Cause::Strides {
            argument: "scores",
            ..
        }
    ));
}

#[path = "emulated/mod.rs"]
mod emulated;

use emulated::{PLAIN, Patch, SANITIZED, Setting, run};

/// Ragged bags: empty, of one member, of a slice and one more, of several slices; an odd one last.
const OFFSETS: [usize; 9] = [0, 0, 1, 41, 341, 4437, 8534, 8534, 17_431];

fn same_as_the_twin(offsets: &[usize], scores: &[f32], mask: Option<&[bool]>, ends: Ends) {
    let bags = Bags::new(offsets, mask).unwrap();
    let stream = emulated::gpu().stream().unwrap();
    let expected = select(&Cpu::new(1).unwrap(), &bags, ends, scores).unwrap();
    let got = select(&stream, &bags, ends, scores).unwrap();
    assert!(got == expected, "{ends:?} of {offsets:?}");
}

/// Masked rows hold what would win if it were read.
fn masked(scores: &[f32]) -> (Vec<f32>, Vec<bool>) {
    let mask: Vec<bool> = (0..scores.len()).map(|row| row % 11 != 5).collect();
    let tempting = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let scores = scores.iter().zip(&mask).enumerate();
    let scores =
        scores.map(|(row, (&score, &in_bag))| if in_bag { score } else { tempting[row % 3] });
    (scores.collect(), mask)
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_ragged() {
    if !emulated::inside() {
        return;
    }
    let rows = OFFSETS[8];
    let mut special = scattered(rows, 50);
    let values = [
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        -f32::NAN,
        f32::from_bits(u32::MAX),
        f32::from_bits(1),
    ];
    for (row, score) in special
        .iter_mut()
        .enumerate()
        .filter(|(row, _)| row % 7 == 0)
    {
        *score = values[row / 7 % values.len()];
    }
    for scores in [scattered(rows, 1 << 24), special] {
        for (highest, lowest) in [(32, 32), (1, 0), (0, 7), (300, 1024)] {
            let ends = Ends { highest, lowest };
            same_as_the_twin(&OFFSETS, &scores, None, ends);
            let (scores, mask) = masked(&scores);
            same_as_the_twin(&OFFSETS, &scores, Some(&mask), ends);
        }
    }
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_one_order() {
    if !emulated::inside() {
        return;
    }
    // Two slices and a little: all equal, ascending, descending, all NaN, and equal but for one member.
    let rows = 8199;
    let ascending: Vec<f32> = (0..rows).map(|row| row as f32).collect();
    let descending: Vec<f32> = ascending.iter().rev().copied().collect();
    let mut one = vec![0.25; rows];
    one[5000] = 0.5;
    let equal = vec![-0.0; rows];
    for scores in [ascending, descending, one, equal, vec![f32::NAN; rows]] {
        for (highest, lowest) in [(5, 3), (1024, 1023)] {
            let ends = Ends { highest, lowest };
            same_as_the_twin(&[0, 4096, rows], &scores, None, ends);
        }
    }
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_small() {
    if !emulated::inside() {
        return;
    }
    let scores = scattered(OFFSETS[8], 40);
    let ends = Ends {
        highest: 9,
        lowest: 5,
    };
    same_as_the_twin(&OFFSETS, &scores, None, ends);
    let (scores, mask) = masked(&scores);
    same_as_the_twin(&OFFSETS, &scores, Some(&mask), ends);
}

#[test]
fn a_device_selects_what_the_twin_selects_in_any_order_of_threads() {
    for (seed, multiprocessors, lazy) in [(0, 132, false), (1, 1, true), (2, 16, false)] {
        let setting = Setting {
            seed,
            multiprocessors,
            lazy,
            workers: 2,
            ..Setting::default()
        };
        run(PLAIN, &setting, "case_ragged").passed();
        run(PLAIN, &setting, "case_one_order").passed();
    }
}

#[test]
fn selection_touches_only_its_own_memory() {
    run(SANITIZED, &Setting::default(), "case_small").passed();
}

#[test]
fn planted_bugs_in_the_selection_are_seen() {
    const BUGS: [Patch; 5] = [
        // The last of the ties at the bound left out.
        Patch {
            file: "cuda/top_k.cu",
            find: "(ranks[i] == bound && within(i, last, flip))",
            put: "(ranks[i] == bound && within(i, last - 1, flip))",
        },
        // The bar of the merge off by one.
        Patch {
            file: "cuda/top_k.cu",
            find: "if (next[0] >= keys[wanted - 1]) continue;",
            put: "if (next[0] >= keys[wanted / 2]) continue;",
        },
        // A step of the network that does not wait for the one before.
        Patch {
            file: "cuda/top_k.cu",
            find: "if (apart > 32 || next_apart > 32)",
            put: "if (apart > 64 || next_apart > 64)",
        },
        // A NaN of one sign taken for a number.
        Patch {
            file: "cuda/top_k.cu",
            find: "if (ranks[i] >= FIRST_RANK && ranks[i] <= LAST_RANK) {",
            put: "if (ranks[i] <= LAST_RANK) {",
        },
        // The row counted from the launch's first.
        Patch {
            file: "cuda/top_k.cu",
            find: "((list ? list[place] : place) - base)",
            put: "((list ? list[place] : place) - slice.first)",
        },
    ];
    let setting = Setting {
        seed: 3,
        ..Setting::default()
    };
    for bug in &BUGS {
        let patches = std::slice::from_ref(bug);
        // The library of a variant lives as long as the program.
        let variant = PLAIN.patched(Box::leak(patches.to_vec().into_boxed_slice()));
        run(variant, &setting, "case_ragged").failed_with("of [0, 0, 1, 41");
    }
}
