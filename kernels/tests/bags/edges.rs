//! What the loops of `pool::pool` make of a case; and logits at the edges of the domain in which squares keep f32's
//! precision, which random ones hardly meet.

use super::{Case, Odd, Results, Type};
use weir_kernels::kernels::{Rule, flags};
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::pool::{pool, spread};

/// On both sides of both limits, beside them, subnormal, and the zeros, which are in.
pub const EDGES: [f32; 16] = [
    0.0,
    -0.0,
    1e-45,
    -1e-40,
    1.175_494_4e-38,
    1e-19,
    -1e-19,
    9.999_999e-19,
    1e-18,
    -1.000_000_1e-18,
    1e-17,
    1e17,
    9.999_999e17,
    1e18,
    -1e18,
    1e19,
];

/// Whether the rule's numerators lose precision at that logit.
pub fn beyond(rule: Rule, logit: f32) -> bool {
    let squares = matches!(
        rule.normalisation,
        Normalisation::SquaredAverage | Normalisation::Power(_)
    );
    // Written for the limits' numbers, not for the code's expression; a sigmoid of these logits is 0, 1 or about a half.
    let size = logit.abs();
    squares && rule.link == Link::None && size != 0.0 && (size <= 1e-18 || size >= 1e18)
}

/// Bags in which one member, the first, one of the second item, or every one has that logit.
pub fn edges(logit: f32) -> [Case; 2] {
    [Type::F32, Type::Bf16].map(|kind| {
        let mut case = Case::with(7, &[1, 3, 200, 5], 12, kind, false, &[Odd::Nothing]);
        let from = case.offsets.clone();
        case.logits[from[0]] = logit;
        case.logits[from[1]] = logit;
        case.logits[from[2] + 150] = logit;
        case.logits[from[3]..].fill(logit);
        case
    })
}

/// What the loops make of each bag of a case, in the form of the kernels' results.
pub fn loops(case: &Case, rule: Rule) -> Results {
    let mut results = Results::new(case);
    let wide = case.wide();
    for bag in 0..case.offsets.len() - 1 {
        let rows: Vec<usize> = (case.offsets[bag]..case.offsets[bag + 1])
            .filter(|&row| case.mask[row])
            .collect();
        let logits: Vec<f32> = rows.iter().map(|&row| case.logits[row]).collect();
        let members: Vec<&[f32]> = rows.iter().map(|&row| &wide[row][..]).collect();
        let truth = pool(
            rule.normalisation.rule().as_ref(),
            rule.link,
            &logits,
            &members,
        );
        for (&row, &w) in rows.iter().zip(&truth.weights) {
            results.weights[row] = w;
        }
        let put = |bit: u32, set: bool| if set { bit } else { 0 };
        results.flags[bag] = put(flags::EMPTY, truth.flags.empty)
            | put(flags::UNIFORM, truth.flags.uniform)
            | put(flags::OUT_OF_DOMAIN, truth.flags.out_of_domain)
            | put(flags::REFUSED, !truth.refused.is_empty());
        if truth.flags.empty {
            continue;
        }
        results.pooled[bag * case.width..(bag + 1) * case.width].copy_from_slice(&truth.pooled);
        let kept: Vec<usize> = (0..rows.len())
            .filter(|k| !truth.refused.contains(k))
            .collect();
        let of = |values: &[f32]| kept.iter().map(|&k| values[k]).collect::<Vec<f32>>();
        let w = of(&truth.weights);
        results.sums[bag] = weir_kernels::ordered_sum(of(&truth.numerators).iter().copied());
        results.squares[bag] = weir_kernels::ordered_sum(w.iter().map(|w| w * w));
        results.entropy[bag] = spread(&w).1;
    }
    results
}
