//! The elementary functions against f64, over all of f32 with a stride.

use weir_kernels::math;

/// Prime, so that every pattern of low bits comes up.
const STRIDE: usize = 1021;

fn every(mut what: impl FnMut(f32)) {
    for bits in (0..=u32::MAX).step_by(STRIDE) {
        let x = f32::from_bits(bits);
        if x.is_finite() {
            what(x);
        }
    }
}

/// Distance of `got` from `truth` in units of the last place of the f32 nearest to `truth`.
fn ulps(got: f32, truth: f64) -> f64 {
    let nearest = truth as f32;
    if nearest.is_infinite() || got.is_infinite() {
        return if nearest == got { 0.0 } else { f64::INFINITY };
    }
    let size = nearest.abs().max(f32::MIN_POSITIVE);
    let ulp = f64::from(f32::from_bits(size.to_bits() + 1)) - f64::from(size);
    (f64::from(got) - truth).abs() / ulp
}

fn worst(name: &str, got: fn(f32) -> f32, truth: fn(f64) -> f64, domain: fn(f32) -> bool) -> f64 {
    let (mut worst, mut at) = (0.0, 0.0);
    every(|x| {
        if domain(x) {
            let apart = ulps(got(x), truth(f64::from(x)));
            if apart > worst {
                (worst, at) = (apart, x);
            }
        }
    });
    println!("{name}: {worst:.3} ulp at {at:e}");
    worst
}

#[test]
fn exp_is_within_1_ulp_everywhere() {
    // Beside the two edges, where one f32 rounds to infinity or zero and its neighbour does not.
    let inside = |x: f32| !(88.722..88.723).contains(&x) && !(-103.98..-103.97).contains(&x);
    assert!(worst("exp", math::exp, f64::exp, inside) <= 1.0);
    assert_eq!(math::exp(0.0), 1.0);
    assert_eq!(math::exp(f32::INFINITY), f32::INFINITY);
    assert_eq!(math::exp(f32::NEG_INFINITY), 0.0);
    assert!(math::exp(f32::NAN).is_nan());
}

#[test]
fn ln_is_within_1_ulp_everywhere() {
    assert!(worst("ln", math::ln, f64::ln, |x| x > 0.0) <= 1.0);
    assert_eq!(math::ln(1.0), 0.0);
    assert_eq!(math::ln(0.0), f32::NEG_INFINITY);
    assert!(math::ln(-1.0).is_nan() && math::ln(f32::NAN).is_nan());
}

#[test]
fn sigmoid_is_within_2_5_ulp_everywhere() {
    let truth = |x: f64| {
        if x < 0.0 {
            x.exp() / (1.0 + x.exp())
        } else {
            1.0 / (1.0 + (-x).exp())
        }
    };
    assert!(
        worst("sigmoid", math::sigmoid, truth, |x| !(-103.98..-103.97)
            .contains(&x))
            <= 2.5
    );
    assert_eq!(math::sigmoid(0.0), 0.5);
    assert_eq!(math::sigmoid(f32::INFINITY), 1.0);
    assert!(math::sigmoid(f32::NAN).is_nan());
}

#[test]
fn tanh_is_within_1_5_ulp_everywhere_and_odd() {
    assert!(worst("tanh", math::tanh, f64::tanh, |_| true) <= 1.5);
    every(|x| assert_eq!(math::tanh(-x).to_bits(), (-math::tanh(x)).to_bits()));
    assert!(math::tanh(f32::NAN).is_nan());
}

#[test]
fn power_two_is_the_product_and_other_powers_are_close() {
    every(|x| assert_eq!(math::power(x, 2.0).to_bits(), (x * x).to_bits()));
    for p in [0.5f32, 1.5, 2.5, 3.0, 4.0] {
        every(|x| {
            let exponent = f64::from(p) * f64::from(x.abs()).ln();
            let truth = exponent.exp();
            if (1e-37..1e38).contains(&truth) {
                let bound = 2f64.powi(-23) * (exponent.abs() + 4.0);
                let apart = (f64::from(math::power(x, p)) / truth - 1.0).abs();
                assert!(apart <= bound, "|{x:e}|^{p}: {apart:e} > {bound:e}");
            }
        });
    }
    assert_eq!(math::power(0.0, 1.5), 0.0);
}
