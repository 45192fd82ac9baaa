//! The grid of cases: every kernel over every shape, those nearest the middle first, so that a time budget cuts its rim.

use crate::case::{Case, Kernel};
use weir_kernels::Dtype;

/// The values of each axis, the middle first, then outward.
#[derive(Clone, Debug)]
pub struct Axes {
    bags: Vec<usize>,
    rows: Vec<usize>,
    d: Vec<usize>,
    l: Vec<usize>,
    dtypes: Vec<Dtype>,
    ends: Vec<usize>,
    tiles: Vec<usize>,
    sides: Vec<usize>,
}

impl Axes {
    /// What a processor pools: a handful of bags, f32.
    pub fn processor() -> Axes {
        Axes {
            bags: vec![8, 1, 64, 2000],
            rows: vec![1024, 20_000, 128, 32, 4096],
            d: vec![1024, 512, 1536, 128],
            l: vec![256, 128, 512],
            dtypes: vec![Dtype::F32, Dtype::Bf16, Dtype::F16],
            ends: vec![64, 8, 512],
            tiles: vec![64, 1, 512],
            sides: vec![256, 224],
        }
    }

    /// What fills a device: many bags, bf16.
    pub fn device() -> Axes {
        Axes {
            bags: vec![64, 2000, 1, 8],
            rows: vec![4096, 128, 20_000, 1024, 32],
            dtypes: vec![Dtype::Bf16, Dtype::F32, Dtype::F16],
            tiles: vec![512, 64, 1],
            ..Axes::processor()
        }
    }

    /// Shapes of every kind, few and small: what `--check` proves.
    pub fn small() -> Axes {
        Axes {
            bags: vec![8, 1],
            rows: vec![129, 1, 40],
            d: vec![96, 131],
            l: vec![24],
            dtypes: vec![Dtype::F32, Dtype::Bf16, Dtype::F16],
            ends: vec![5, 64],
            tiles: vec![3],
            sides: vec![37, 64],
        }
    }
}

/// (c) beyond what a block takes at once: more hidden units than a chunk of the head has, more components than rows that
/// stay in shared memory have, and than a block gathers of a gradient. What `--check` proves beside the small shapes.
pub fn beyond_a_chunk() -> Vec<Case> {
    let [_, gated, ..] = whole_slide();
    let mut all = Vec::new();
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
        for (d, l) in [(520, 150), (520, 24), (96, 150)] {
            for (backward, kept) in [(false, false), (true, false), (true, true)] {
                all.push(Case {
                    dtype,
                    bags: 3,
                    rows: 129,
                    ragged: true,
                    masked: true,
                    d,
                    l,
                    backward,
                    kept,
                    ..gated
                });
            }
        }
    }
    all
}

/// The whole-slide bag on which the project's figures of the processor are stated: pool, head, its backward pass and
/// a training step of it.
pub fn whole_slide() -> [Case; 5] {
    let pool = Case {
        kernel: Kernel::Pool,
        backward: false,
        softmax: false,
        dtype: Dtype::F32,
        bags: 1,
        rows: 20_000,
        ragged: false,
        masked: false,
        d: 1024,
        l: 0,
        kept: false,
        step: false,
    };
    let gated = Case {
        kernel: Kernel::Gated,
        l: 256,
        ..pool
    };
    let backward = Case {
        backward: true,
        ..gated
    };
    let kept = Case {
        kept: true,
        ..backward
    };
    let step = Case { step: true, ..kept };
    [pool, gated, backward, kept, step]
}

/// One case at each end of each axis, so that a budget that does not last for the grid still shows how far every kernel reaches:
/// many bags and few, the shortest and the longest, the narrowest and the widest. Forward, and backward where bags are many.
pub fn ends_of_axes() -> Vec<Case> {
    let [pool, ..] = whole_slide();
    let mut all = Vec::new();
    for (kernel, l) in [(Kernel::Pool, 0), (Kernel::Gated, 256)] {
        let mut of = |backward, bags, rows, ragged, d, l| {
            all.push(Case {
                kernel,
                backward,
                bags,
                rows,
                ragged,
                d,
                l,
                ..pool
            });
        };
        for backward in [false, true] {
            of(backward, 64, 128, false, 1024, l);
            of(backward, 2000, 32, true, 1024, l);
        }
        of(false, 1, 32, false, 128, l);
        of(false, 8, 32, false, 1024, l);
        of(false, 8, 128, false, 1024, l);
        of(false, 8, 1024, false, 128, l);
        of(false, 8, 1024, false, 1536, l);
        if kernel == Kernel::Gated {
            of(false, 8, 1024, false, 1024, 128);
            of(false, 8, 1024, false, 1024, 512);
        }
    }
    for (kernel, d) in [(Kernel::Weights, 0), (Kernel::TopK, 64)] {
        let few = [
            (1, 32, false),
            (64, 1024, false),
            (2000, 32, true),
            (2000, 1024, false),
        ];
        all.extend(few.map(|(bags, rows, ragged)| Case {
            kernel,
            bags,
            rows,
            ragged,
            d,
            ..pool
        }));
    }
    all
}

/// The shapes on which the project's figures of a card are stated: large equal bags, and 2,000 small ragged ones.
pub fn full_card() -> Vec<Case> {
    let [pool, ..] = whole_slide();
    let of = |kernel, backward, bags, rows, ragged, d, l| Case {
        kernel,
        backward,
        dtype: Dtype::Bf16,
        bags,
        rows,
        ragged,
        d,
        l,
        ..pool
    };
    let mut all = Vec::new();
    for backward in [false, true] {
        for ragged in [false, true] {
            all.push(of(Kernel::Pool, backward, 64, 4096, ragged, 1024, 0));
        }
        all.push(of(Kernel::Gated, backward, 64, 4096, false, 1024, 256));
        all.push(of(Kernel::Gated, backward, 64, 4096, false, 512, 256));
        all.push(of(Kernel::Gated, backward, 2000, 128, true, 1024, 256));
        all.push(Case {
            dtype: Dtype::F32,
            ..of(Kernel::Weights, backward, 2000, 4096, false, 0, 0)
        });
    }
    all.push(of(Kernel::Pool, false, 2000, 128, true, 1024, 0));
    all.push(of(Kernel::Tiles, false, 512, 256, false, 3, 0));
    all.push(Case {
        dtype: Dtype::F32,
        ..of(Kernel::TopK, false, 2000, 4096, false, 64, 0)
    });
    all
}

/// All cases, nearest the middle first; kernels take turns.
pub fn cases(axes: &Axes) -> Vec<Case> {
    let mut near: Vec<(usize, usize, usize, Case)> = Vec::new();
    for (place, kernel) in Kernel::ALL.into_iter().enumerate() {
        let mut all = of_kernel(kernel, axes);
        all.sort_by_key(|(off, steps, _)| (*off, *steps));
        // What a kernel's own grid has more of does not push the others out of the budget.
        for (count, (off, _, case)) in all.into_iter().enumerate() {
            near.push((off, count, place, case));
        }
    }
    near.sort_by_key(|(off, count, place, _)| (*off, *count, *place));
    near.into_iter().map(|(.., case)| case).collect()
}

/// Axes off the middle, steps off it, case.
fn of_kernel(kernel: Kernel, axes: &Axes) -> Vec<(usize, usize, Case)> {
    let one = vec![0];
    let (bags, rows, d, l, dtypes) = match kernel {
        Kernel::Weights => (&axes.bags, &axes.rows, &one, &one, &vec![Dtype::F32]),
        Kernel::Pool => (&axes.bags, &axes.rows, &axes.d, &one, &axes.dtypes),
        Kernel::Gated => (&axes.bags, &axes.rows, &axes.d, &axes.l, &axes.dtypes),
        Kernel::TopK => (&axes.bags, &axes.rows, &axes.ends, &one, &vec![Dtype::F32]),
        Kernel::Tiles => (&axes.tiles, &axes.sides, &vec![3], &one, &axes.dtypes),
    };
    // Each axis: which of its values, counted from the middle.
    let flag = |on: bool| if on { 2 } else { 1 };
    let bagged = kernel != Kernel::Tiles;
    let axes = [
        flag(kernel.has_backward()),
        flag(kernel.has_rule()),
        dtypes.len(),
        bags.len(),
        rows.len(),
        flag(bagged),
        flag(bagged),
        d.len(),
        l.len(),
        flag(kernel == Kernel::Gated),
    ];
    let count: usize = axes.iter().product();
    (0..count)
        .filter_map(|number| {
            let mut rest = number;
            let at: [usize; 10] = std::array::from_fn(|axis| {
                let place = rest % axes[axis];
                rest /= axes[axis];
                place
            });
            let case = Case {
                kernel,
                backward: at[0] == 1,
                softmax: at[1] == 1,
                dtype: dtypes[at[2]],
                bags: bags[at[3]],
                rows: rows[at[4]],
                ragged: at[5] == 1,
                masked: at[6] == 1,
                d: d[at[7]],
                l: l[at[8]],
                kept: at[9] == 1,
                step: false,
            };
            // One bag is not ragged, and only a backward pass uses what was kept. A backward pass is as near the middle.
            let sense = !(case.ragged && case.bags == 1) && (case.backward || !case.kept);
            let off = at[1..].iter().filter(|step| **step > 0).count();
            sense.then(|| (off, at.iter().sum(), case))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_case_has_its_own_name() {
        for axes in [Axes::processor(), Axes::device(), Axes::small()] {
            let names: Vec<String> = cases(&axes).iter().map(Case::name).collect();
            let unique: HashSet<&String> = names.iter().collect();
            assert_eq!(unique.len(), names.len());
        }
    }

    #[test]
    fn the_ends_of_the_axes_are_cases_of_the_grid_and_reach_every_value() {
        let grid: HashSet<String> = cases(&Axes::processor()).iter().map(Case::name).collect();
        let ends = ends_of_axes();
        for case in &ends {
            assert!(grid.contains(&case.name()), "{}", case.name());
        }
        let shown = |value: fn(&Case) -> usize, kernel| -> HashSet<usize> {
            let of_kernel = ends.iter().filter(|case| case.kernel == kernel);
            of_kernel.map(value).collect()
        };
        for kernel in [Kernel::Pool, Kernel::Gated] {
            assert!(shown(|case| case.bags, kernel).is_superset(&[1, 8, 64, 2000].into()));
            assert!(shown(|case| case.rows, kernel).is_superset(&[32, 128, 1024].into()));
            assert!(shown(|case| case.d, kernel).is_superset(&[128, 1024, 1536].into()));
        }
        assert!(shown(|case| case.l, Kernel::Gated).is_superset(&[128, 256, 512].into()));
    }

    #[test]
    fn what_is_checked_reaches_a_second_chunk_of_the_head_and_rows_that_come_again() {
        let checked = beyond_a_chunk();
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            for backward in [false, true] {
                let of = |case: &&Case| case.dtype == dtype && case.backward == backward;
                let reached = checked.iter().filter(of);
                assert!(reached.clone().any(|case| case.l > 128 && case.d > 512));
            }
        }
        let small = cases(&Axes::small());
        let names: HashSet<String> = small.iter().chain(&checked).map(Case::name).collect();
        assert_eq!(names.len(), small.len() + checked.len());
    }

    #[test]
    fn the_first_cases_are_the_middle_of_every_kernel() {
        let first: HashSet<&str> = cases(&Axes::processor())
            .iter()
            .take(8)
            .map(|case| case.kernel.name())
            .collect();
        assert_eq!(first.len(), 5);
    }
}
