//! Logits and features at the ends of f32: from a kernel's own logits on, (c) gives what the law's own loop gives, flag by flag.

use crate::case::{Case, Results, Shape};
use weir_kernels::kernels::flags;
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::pool::{Pooled, pool};
use weir_kernels::{Dtype, Kernels, Rule, reference};

/// What the head's last layer and the features are multiplied by, and what is to be said of the longest bag.
#[derive(Clone, Copy, Debug)]
struct Extreme {
    rule: Rule,
    head: f32,
    features: f32,
    noticed: u32,
}

const fn of(normalisation: Normalisation, link: Link, head: f32, noticed: u32) -> Extreme {
    Extreme {
        rule: Rule {
            normalisation,
            link,
        },
        head,
        features: 1.0,
        noticed,
    }
}

/// No sum is left, because of where the logits lie.
const LOST: u32 = flags::UNIFORM | flags::OUT_OF_DOMAIN;

const EXTREMES: [Extreme; 11] = [
    // Squares of 1e38, whose sum is past f32.
    of(Normalisation::SquaredAverage, Link::None, 1e19, LOST),
    // Some logits past 1e18, and yet a sum.
    of(
        Normalisation::SquaredAverage,
        Link::None,
        1.2e18,
        flags::OUT_OF_DOMAIN,
    ),
    // Squares below the normal numbers, and such as are 0.
    of(
        Normalisation::SquaredAverage,
        Link::None,
        1e-20,
        flags::OUT_OF_DOMAIN,
    ),
    of(Normalisation::SquaredAverage, Link::None, 1e-26, LOST),
    // Every logit in its place, and the sum over the features past f32.
    Extreme {
        features: 1e17,
        ..of(Normalisation::SquaredAverage, Link::None, 1e13, LOST)
    },
    // Sigmoids of 0 and of 1; and such as are below 1e-18 but not 0.
    of(Normalisation::SquaredAverage, Link::Sigmoid, 1e19, 0),
    of(
        Normalisation::SquaredAverage,
        Link::Sigmoid,
        300.0,
        flags::OUT_OF_DOMAIN,
    ),
    of(
        Normalisation::Power(1.5),
        Link::None,
        1e19,
        flags::OUT_OF_DOMAIN,
    ),
    // Of these no logit is too great.
    of(Normalisation::Sigmoid, Link::None, 1e19, 0),
    of(Normalisation::Softmax, Link::None, 1e19, 0),
    of(Normalisation::Mean, Link::None, 1e-20, 0),
];

/// The last is of two items.
const LENGTHS: [usize; 4] = [5, 0, 1, 160];

/// Holds `device` to the law's loop over every extreme, and gives the flags that it gave, bag by bag.
pub fn held(device: &dyn Kernels, dtype: Dtype) -> Vec<u32> {
    let shape = Shape {
        d: 8,
        hidden: 4,
        gated: true,
    };
    let mut all = Vec::new();
    for extreme in EXTREMES {
        if extreme.features > 1.0 && dtype == Dtype::F16 {
            // Past f16: such a row is refused.
            continue;
        }
        let case = Case::random(4, shape, &LENGTHS, dtype).scaled(extreme.head, extreme.features);
        let got = case.forward(device, extreme.rule, None);
        for bag in 0..LENGTHS.len() {
            bag_is_the_laws(&case, extreme, &got, bag, dtype);
        }
        let longest = got.flags[LENGTHS.len() - 1];
        assert_eq!(longest, extreme.noticed, "flags: {extreme:?} {dtype}");
        all.extend(got.flags);
    }
    all
}

fn bag_is_the_laws(case: &Case, extreme: Extreme, got: &Results, bag: usize, dtype: Dtype) {
    let d = case.shape.d;
    let members: Vec<usize> = case.bags.rows(bag).filter(|&row| case.mask[row]).collect();
    let rows: Vec<&[f32]> = members
        .iter()
        .map(|&row| &case.features[row * d..(row + 1) * d])
        .collect();
    let a: Vec<f32> = members.iter().map(|&row| got.logits[row]).collect();
    let size = case.weight.iter().map(|w| w.abs()).sum::<f32>() + case.bias.abs();
    for (&a, row) in a.iter().zip(&rows) {
        let far = (f64::from(a) - logit(case, row)).abs();
        let part = far / f64::from(size);
        let allowed = if dtype == Dtype::F32 { 1e-5 } else { 1e-2 };
        assert!(part <= allowed, "a logit: {extreme:?} {dtype}: {part:e}");
    }
    let rule = extreme.rule.normalisation.rule();
    let law = pool(&*rule, extreme.rule.link, &a, &rows);
    let noticed = noticed(&law);
    assert_eq!(got.flags[bag], noticed, "flags: {extreme:?} {dtype}");
    // Sums in another order; below the normal numbers some digits are all that there is.
    for (&row, &wanted) in members.iter().zip(&law.weights) {
        let w = got.weights[row];
        let close = (w - wanted).abs() <= 1e-4 * wanted + 1e-6;
        assert!(
            close,
            "a weight: {extreme:?} {dtype}: {w:e}, not {wanted:e}"
        );
    }
    for (c, &wanted) in law.pooled.iter().enumerate() {
        let size: f32 = rows
            .iter()
            .zip(&law.weights)
            .map(|(row, w)| w * row[c].abs())
            .sum();
        let z = got.pooled[bag * d + c];
        let close = (z - wanted).abs() <= 1e-4 * size;
        assert!(close, "pooled: {extreme:?} {dtype}: {z:e}, not {wanted:e}");
    }
}

/// The logit in f64.
fn logit(case: &Case, row: &[f32]) -> f64 {
    let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|&x| f64::from(x)).collect() };
    let layer = |(weight, bias): &(Vec<f32>, Vec<f32>)| (wide(weight), wide(bias));
    let (value, gate) = (layer(&case.value), layer(&case.gate));
    reference::attention(
        (&value.0, &value.1),
        Some((&gate.0, &gate.1)),
        &wide(&case.weight),
        f64::from(case.bias),
        &wide(row),
    )
}

fn noticed(law: &Pooled) -> u32 {
    let of = |is: bool, flag: u32| if is { flag } else { 0 };
    of(law.flags.empty, flags::EMPTY)
        | of(law.flags.uniform, flags::UNIFORM)
        | of(law.flags.out_of_domain, flags::OUT_OF_DOMAIN)
        | of(!law.refused.is_empty(), flags::REFUSED)
}
