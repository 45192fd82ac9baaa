//! What must hold of any pixels.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use weir_stain::degenerate::Degenerate;
use weir_stain::density::Light;
use weir_stain::lab::Lab;
use weir_stain::macenko::{self, Estimate, Scratch, Stains};
use weir_stain::recolour::Recolour;
use weir_stain::reinhard::{self, Colours, Transfer};
use weir_stain::separate::{self, Show};

fn light() -> Light {
    Light::new(240.0, 0.15)
}

fn estimate() -> Estimate {
    Estimate {
        light: light(),
        alpha: 1.0,
        least: 0.01,
    }
}

/// Pixels of two dyes on glass, as a slide's would be: a direction of each, and how much of both.
fn stained(haematoxylin: [f64; 3], eosin: [f64; 3], amounts: &[(f64, f64)]) -> Vec<u8> {
    let level = |h: f64, e: f64, c: usize| {
        (240.0 * (-h * haematoxylin[c] - e * eosin[c]).exp() - 1.0)
            .round()
            .clamp(0.0, 255.0) as u8
    };
    amounts
        .iter()
        .flat_map(|(h, e)| [level(*h, *e, 0), level(*h, *e, 1), level(*h, *e, 2)])
        .collect()
}

fn amounts() -> impl Strategy<Value = Vec<(f64, f64)>> {
    proptest::collection::vec((0.0f64..2.0, 0.0f64..1.5), 200..600)
}

fn tile() -> impl Strategy<Value = Vec<u8>> {
    let h = macenko::REFERENCE.haematoxylin;
    let e = macenko::REFERENCE.eosin;
    let real = amounts().prop_map(move |amounts| stained(h, e, &amounts));
    let any =
        proptest::collection::vec(any::<[u8; 3]>(), 100..600).prop_map(|pixels| pixels.concat());
    prop_oneof![real, any]
}

fn shuffled(pixels: &[u8], by: usize) -> Vec<u8> {
    let mut pixels: Vec<[u8; 3]> = pixels.as_chunks::<3>().0.to_vec();
    let n = pixels.len();
    pixels.rotate_left(by % n);
    pixels.reverse();
    pixels.concat()
}

fn bits(stains: &Stains) -> Vec<u64> {
    [
        stains.haematoxylin.as_slice(),
        &stains.eosin,
        &stains.concentrations,
    ]
    .concat()
    .iter()
    .map(|number| number.to_bits())
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn statistics_do_not_depend_on_the_order_of_pixels_by_a_single_bit(pixels in tile(), by in 0usize..600) {
        let other = shuffled(&pixels, by);
        let a = estimate().stains(&pixels, &mut Scratch::default());
        let b = estimate().stains(&other, &mut Scratch::default());
        prop_assert_eq!(a.as_ref().map(bits), b.as_ref().map(bits));
        let lab = Lab::default();
        let a = reinhard::colours(&lab, &light(), true, 0.01, &pixels);
        let b = reinhard::colours(&lab, &light(), true, 0.01, &other);
        prop_assert_eq!(a, b);
    }

    #[test]
    fn memory_of_an_earlier_estimate_changes_nothing(first in tile(), second in tile()) {
        let mut scratch = Scratch::default();
        let _ = estimate().stains(&first, &mut scratch);
        let kept = estimate().stains(&second, &mut scratch);
        prop_assert_eq!(kept, estimate().stains(&second, &mut Scratch::default()));
    }

    #[test]
    fn a_tile_normalised_to_its_own_stains_stays_what_two_stains_explain(amounts in amounts()) {
        let pixels = stained(macenko::REFERENCE.haematoxylin, macenko::REFERENCE.eosin, &amounts);
        let own = macenko::REFERENCE;
        let same = macenko::normalisation(&own, &own).unwrap();
        let mut made = pixels.clone();
        Recolour::new(&light(), &same, true).apply(&mut made);
        // Rounding to grey levels is itself no mixture of two stains; it is worth up to 1.
        for (old, new) in pixels.iter().zip(&made) {
            prop_assert!(old.abs_diff(*new) <= 1);
        }
    }

    #[test]
    fn colours_transferred_to_themselves_stay(pixels in tile(), keep_glass in any::<bool>()) {
        let lab = Lab::default();
        let Ok(own) = reinhard::colours(&lab, &light(), keep_glass, 0.01, &pixels) else { return Ok(()) };
        let mut made = pixels.clone();
        Transfer::new(&own, &own, &light(), keep_glass).apply(&lab, &mut made);
        prop_assert_eq!(made, pixels);
    }

    #[test]
    fn known_stains_are_found_again(amounts in proptest::collection::vec((0.0f64..1.2, 0.0f64..1.2), 400..401)) {
        let h = [0.65, 0.70, 0.29];
        let length = |v: [f64; 3]| (v.iter().map(|x| x * x).sum::<f64>()).sqrt();
        let e = [0.22, 0.80, 0.56];
        let mut amounts = amounts;
        // Some pixels of each stain alone, as the method presumes.
        amounts.extend((0..60).map(|i| (0.6 + f64::from(i) / 100.0, 0.0)));
        amounts.extend((0..60).map(|i| (0.0, 0.8 + f64::from(i) / 100.0)));
        let found = estimate().stains(&stained(h, e, &amounts), &mut Scratch::default()).unwrap();
        for c in 0..3 {
            prop_assert!((found.haematoxylin[c] - h[c] / length(h)).abs() < 0.03, "{found:?}");
            prop_assert!((found.eosin[c] - e[c] / length(e)).abs() < 0.03, "{found:?}");
        }
    }

    #[test]
    fn more_of_a_stain_is_never_brighter(h in 0.0f64..3.0, e in 0.0f64..3.0, step in 0.02f64..1.0) {
        let source = Stains { haematoxylin: [0.65, 0.70, 0.29], eosin: [0.07, 0.99, 0.11], concentrations: [2.0, 1.0] };
        let change = macenko::normalisation(&source, &macenko::REFERENCE).unwrap();
        let tables = Recolour::new(&light(), &change, true);
        // By densities and not by pixels: a grey level of the input is no single amount.
        let out = |h: f64, e: f64| -> [f64; 3] {
            std::array::from_fn(|c| {
                let od = |c: usize| h * source.haematoxylin[c] + e * source.eosin[c];
                (0..3).map(|j| change[c][j] * od(j)).sum::<f64>()
            })
        };
        let (less, more) = (out(h, e), out(h + step, e));
        prop_assert!((0..3).all(|c| more[c] > less[c]));
        // And of equal grey levels: darker grey is darker.
        let mut pair = [40, 40, 40, 60, 60, 60];
        tables.apply(&mut pair);
        prop_assert!(pair[0] <= pair[3] && pair[1] <= pair[4] && pair[2] <= pair[5]);
    }

    #[test]
    fn lighter_stays_lighter_by_reinhard(pixels in tile(), target in 1usize..4) {
        let lab = Lab::default();
        let Ok(own) = reinhard::colours(&lab, &light(), false, 0.01, &pixels) else { return Ok(()) };
        let goal = Colours { mean: [60.0, 0.0, 0.0], deviation: [5.0 * target as f64, 1.0, 1.0] };
        let grey: Vec<u8> = (0..=255u8).flat_map(|v| [v; 3]).collect();
        let mut made = grey;
        Transfer::new(&own, &goal, &light(), false).apply(&lab, &mut made);
        // Luminance of the result, held where a screen ends, falls nowhere by more than its rounding.
        let luminance: Vec<f64> = made.as_chunks::<3>().0.iter()
            .map(|[r, g, b]| 0.2126 * f64::from(*r) + 0.7152 * f64::from(*g) + 0.0722 * f64::from(*b)).collect();
        prop_assert!(luminance.windows(2).all(|pair| pair[1] >= pair[0] - 1.0));
    }

    #[test]
    fn white_stays_white_whatever_the_source_and_target(
        pixels in tile(),
        goal in (0.1f64..3.0, 0.1f64..3.0),
        white in 239u8..=255,
    ) {
        let lab = Lab::default();
        let glass = [white; 3];
        if let Ok(stains) = estimate().stains(&pixels, &mut Scratch::default()) {
            let target = Stains { concentrations: [goal.0, goal.1], ..macenko::REFERENCE };
            let change = macenko::normalisation(&stains, &target).unwrap();
            let mut made = glass;
            Recolour::new(&light(), &change, true).apply(&mut made);
            prop_assert_eq!(made, glass);
        }
        if let Ok(colours) = reinhard::colours(&lab, &light(), true, 0.01, &pixels) {
            let mut made = glass;
            Transfer::new(&colours, &reinhard::REFERENCE, &light(), true).apply(&lab, &mut made);
            prop_assert_eq!(made, glass);
        }
    }

    #[test]
    fn separated_densities_make_the_pixel_again(pixel in any::<[u8; 3]>()) {
        let [h, e] = separate::RUIFROK;
        let matrices = separate::matrices(h, e, Show::Colour).unwrap();
        // The three coloured pictures' matrices add up to the identity: nothing is lost and nothing counted twice.
        for i in 0..3 {
            for j in 0..3 {
                let sum: f64 = matrices.iter().map(|matrix| matrix[i][j]).sum();
                prop_assert!((sum - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
        }
        // And so do the pictures, where none of them had to be held at black or white.
        let parts = matrices.map(|matrix| {
            let mut made = pixel;
            Recolour::new(&light(), &matrix, false).apply(&mut made);
            made
        });
        for c in 0..3 {
            if parts.iter().all(|part| (60..255).contains(&part[c])) {
                let density: f64 = parts.iter().map(|part| (240.0 / (f64::from(part[c]) + 1.0)).ln()).sum();
                let again = 240.0 * (-density).exp() - 1.0;
                prop_assert!((again - f64::from(pixel[c])).abs() < 6.0, "{again} {}", pixel[c]);
            }
        }
    }
}

#[test]
fn blank_tiles_and_single_colours_are_degenerate_and_say_why() {
    let blank = vec![243u8; 3 * 4096];
    let mut scratch = Scratch::default();
    let lab = Lab::default();
    let why = estimate().stains(&blank, &mut scratch).unwrap_err();
    assert_eq!(
        why,
        Degenerate::TooLittle {
            stained: 0,
            of: 4096,
            least: 41
        }
    );
    assert_eq!(
        why.to_string(),
        "0 of 4096 pixels are stained, and 41 must be"
    );
    assert_eq!(
        reinhard::colours(&lab, &light(), true, 0.01, &blank),
        Err(why)
    );
    let pink = [200u8, 100, 160].repeat(4096);
    assert_eq!(
        estimate().stains(&pink, &mut scratch),
        Err(Degenerate::OneDye)
    );
    assert_eq!(
        reinhard::colours(&lab, &light(), true, 0.01, &pink),
        Err(Degenerate::OneColour('L'))
    );
    // Without pixels nothing is stained either.
    assert!(estimate().stains(&[], &mut scratch).is_err());
    // One dye of several strengths lies on a line, but for rounding.
    let line: Vec<(f64, f64)> = (0..2000)
        .map(|i| (0.3 + f64::from(i) / 1500.0, 0.0))
        .collect();
    let found = estimate().stains(&stained([0.65, 0.70, 0.29], [0.0; 3], &line), &mut scratch);
    if let Ok(found) = found {
        // Rounding's noise is taken for a second dye, as by the published code: what matters is that it is finite.
        assert!(found.check().is_ok());
    }
}

#[test]
fn tables_are_the_formula_to_a_ten_thousandth_of_a_grey_level() {
    let light = light();
    let source = Stains {
        haematoxylin: [0.65, 0.70, 0.29],
        eosin: [0.2, 0.9, 0.3],
        concentrations: [1.5, 0.9],
    };
    let change = macenko::normalisation(&source, &macenko::REFERENCE).unwrap();
    let tables = Recolour::new(&light, &change, false);
    for r in (0..256usize).step_by(5) {
        for g in (0..256usize).step_by(5) {
            for b in (0..256usize).step_by(5) {
                let od = [r, g, b].map(|v| light.densities()[v]);
                let mut made = [r as u8, g as u8, b as u8];
                tables.apply(&mut made);
                for c in 0..3 {
                    let density: f64 = (0..3).map(|j| change[c][j] * od[j]).sum();
                    let exact = (240.0 * (-density).exp() - 1.0).clamp(0.0, 255.0);
                    assert!(
                        (f64::from(made[c]) - exact).abs() <= 0.5 + 1e-4,
                        "{r} {g} {b}: {} {exact}",
                        made[c]
                    );
                }
            }
        }
    }
}
