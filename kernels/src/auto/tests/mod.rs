//! Where calls run, with a device that counts them.
#![allow(clippy::unwrap_used)]

mod counting;

use super::*;
use crate::attention::AttentionHead;
use crate::error::OUT_OF_MEMORY;
use crate::linear::Linear;
use crate::normalise::{Link, Normalisation};
use crate::view::Place;
use counting::{counting, refusal};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn driver(code: i32) -> Cause {
    Cause::Driver {
        doing: "use the device",
        code: Some(code),
        what: "no".into(),
    }
}

fn limit() -> Cause {
    Cause::Limit {
        what: "blocks of a launch",
        limit: 1,
        got: 2,
    }
}

/// The processor and a device that counts, with these thresholds.
fn auto(from: [Option<usize>; 4], refuses: Option<Cause>) -> (Auto, Arc<AtomicUsize>) {
    let (device, calls) = counting(refuses);
    (Auto::from_bytes(Cpu::new(1).unwrap(), device, from), calls)
}

/// A method of the trait.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Method {
    Weights,
    WeightsBackward,
    Pool,
    PoolBackward,
    TopK,
    Tiles,
}

const METHODS: [(Method, Kernel); 6] = [
    (Method::Weights, Kernel::Weights),
    (Method::WeightsBackward, Kernel::Weights),
    (Method::Pool, Kernel::Pool),
    (Method::PoolBackward, Kernel::Pool),
    (Method::TopK, Kernel::TopK),
    (Method::Tiles, Kernel::Tiles),
];

const RULE: Rule = Rule {
    normalisation: Normalisation::SquaredAverage,
    link: Link::None,
};
const WIDTH: usize = 3;

/// Bytes of input of a call over `count` rows or tiles.
fn input(method: Method, count: usize) -> usize {
    match method {
        Method::Pool | Method::PoolBackward => count * WIDTH * 4,
        Method::Weights | Method::WeightsBackward | Method::TopK => count * 4,
        Method::Tiles => count * 4 * 3,
    }
}

/// Calls `method` over `count` rows or tiles of 2 by 2; all that it wrote, as bits.
fn call(on: &dyn Kernels, method: Method, count: usize) -> Result<Vec<u32>, KernelError> {
    let numbers = |n: usize, by: usize| -> Vec<f32> {
        (0..n).map(|k| (k * by % 23) as f32 / 7.0 - 1.0).collect()
    };
    let bags = Bags::one(count)?;
    let (logits, features) = (numbers(count, 5), numbers(count * WIDTH, 11));
    let logits = View::new(&logits, [count])?;
    let features = View::new(&features, [count, WIDTH])?;
    let (mut pooled, mut weights) = (vec![0.0f32; WIDTH], vec![0.0f32; count]);
    let mut by_features = vec![0.0f32; count * WIDTH];
    let (mut sums, mut squares, mut entropy, mut flags) = ([0.0f32], [0.0f32], [0.0f32], [0u32]);
    let (mut highest, mut lowest, mut nans) = ([0i32; 2], [0i32; 1], [0u32]);
    let mut pixels = vec![0.0f32; count * 12];
    match method {
        Method::Weights | Method::Pool => {
            let out = WeightsOut {
                weights: ViewMut::new(&mut weights, [count])?,
                sums: ViewMut::new(&mut sums, [1])?,
                squares: ViewMut::new(&mut squares, [1])?,
                entropy: ViewMut::new(&mut entropy, [1])?,
                flags: ViewMut::new(&mut flags, [1])?,
            };
            if method == Method::Weights {
                on.weights(&bags, RULE, logits, out)?;
            } else {
                let out = PoolOut {
                    pooled: ViewMut::new(&mut pooled, [1, WIDTH])?,
                    weights: out,
                };
                on.pool(&bags, RULE, features, logits, out)?;
            }
        }
        Method::WeightsBackward => {
            let gradient = numbers(count, 3);
            let given = View::new(&gradient, [count])?;
            let one = View::new(&[1.0f32], [1])?;
            let none = View::new(&[0u32], [1])?;
            let out = ViewMut::new(&mut weights, [count])?;
            on.weights_backward(&bags, RULE, logits, given, one, none, given, out)?;
        }
        Method::PoolBackward => {
            let (vector, some) = (numbers(WIDTH, 7), numbers(count, 3));
            let state = PoolState {
                pooled: View::new(&vector, [1, WIDTH])?,
                weights: View::new(&some, [count])?,
                sums: View::new(&[1.0f32], [1])?,
                flags: View::new(&[0u32], [1])?,
            };
            let gradient = PoolGradient {
                pooled: View::new(&vector, [1, WIDTH])?,
                weights: Some(View::new(&some, [count])?),
            };
            let out = PoolBackward {
                logits: ViewMut::new(&mut weights, [count])?,
                features: Some(ViewMut::new(&mut by_features, [count, WIDTH])?),
            };
            on.pool_backward(&bags, RULE, features, logits, state, gradient, out)?;
        }
        Method::TopK => {
            let ends = Ends {
                highest: 2,
                lowest: 1,
            };
            let out = TopKOut {
                highest: ViewMut::new(&mut highest, [1, 2])?,
                lowest: ViewMut::new(&mut lowest, [1, 1])?,
                nans: ViewMut::new(&mut nans, [1])?,
            };
            on.top_k(&bags, ends, logits, out)?;
        }
        Method::Tiles => {
            let bytes: Vec<u8> = (0..count * 12).map(|k| (k * 7) as u8).collect();
            let tiles = View::new(&bytes, [count, 2, 2, 3])?;
            let out = ViewMut::new(&mut pixels, [count, 3, 2, 2])?;
            on.normalise_tiles(tiles, TileForm::new([0.5; 3], [0.25; 3]), out)?;
        }
    }
    let floats = [pooled, weights, by_features, pixels].concat();
    let mut bits: Vec<u32> = floats.into_iter().map(f32::to_bits).collect();
    bits.extend([sums[0].to_bits(), squares[0].to_bits()]);
    bits.extend([entropy[0].to_bits(), flags[0], nans[0]]);
    bits.extend([highest[0], highest[1], lowest[0]].map(|place| place as u32));
    Ok(bits)
}

/// (c) and its backward pass over two rows.
fn call_fused(on: &dyn Kernels) -> [Result<(), KernelError>; 2] {
    let layer = Linear::new(&[0.5; WIDTH], &[0.0]);
    let head = GatedHead::new(AttentionHead::new(layer, None, vec![1.0], 0.0));
    let features = View::new(&[0.25f32; 2 * WIDTH], [2, WIDTH]).unwrap();
    let bags = Bags::one(2).unwrap();
    let (mut logits, mut weights, mut pooled) = ([0.0f32; 2], [0.0f32; 2], [0.0f32; WIDTH]);
    let (mut sums, mut squares, mut entropy, mut flags) = ([0.0f32], [0.0f32], [0.0f32], [0u32]);
    let out = GatedOut {
        logits: ViewMut::new(&mut logits, [2]).unwrap(),
        pool: PoolOut {
            pooled: ViewMut::new(&mut pooled, [1, WIDTH]).unwrap(),
            weights: WeightsOut {
                weights: ViewMut::new(&mut weights, [2]).unwrap(),
                sums: ViewMut::new(&mut sums, [1]).unwrap(),
                squares: ViewMut::new(&mut squares, [1]).unwrap(),
                entropy: ViewMut::new(&mut entropy, [1]).unwrap(),
                flags: ViewMut::new(&mut flags, [1]).unwrap(),
            },
        },
        tape: None,
    };
    let forward = on.gated_pool(&bags, RULE, &head, features, out);
    let state = GatedState {
        logits: View::new(&logits, [2]).unwrap(),
        pool: PoolState {
            pooled: View::new(&pooled, [1, WIDTH]).unwrap(),
            weights: View::new(&weights, [2]).unwrap(),
            sums: View::new(&sums, [1]).unwrap(),
            flags: View::new(&flags, [1]).unwrap(),
        },
        tape: None,
    };
    let gradient = PoolGradient {
        pooled: View::new(&[1.0f32; WIDTH], [1, WIDTH]).unwrap(),
        weights: None,
    };
    let (mut value, mut value_bias) = ([0.0f32; WIDTH], [0.0f32]);
    let (mut weight, mut bias) = ([0.0f32], [0.0f32]);
    let out = GatedBackward {
        value: ViewMut::new(&mut value, [1, WIDTH]).unwrap(),
        value_bias: ViewMut::new(&mut value_bias, [1]).unwrap(),
        gate: None,
        weight: ViewMut::new(&mut weight, [1]).unwrap(),
        bias: ViewMut::new(&mut bias, [1]).unwrap(),
        features: None,
    };
    let backward = on.gated_pool_backward(&bags, RULE, &head, features, state, gradient, out);
    [forward, backward]
}

fn truth(method: Method, count: usize) -> Vec<u32> {
    call(&Cpu::new(1).unwrap(), method, count).unwrap()
}

fn times(calls: &AtomicUsize) -> usize {
    calls.load(Ordering::Relaxed)
}

#[test]
fn a_threshold_that_is_asked_for_is_a_whole_number_of_bytes() {
    assert_eq!(bytes("0".as_ref()), Ok(0));
    assert_eq!(bytes("1048576".as_ref()), Ok(1 << 20));
    for wrong in ["", "-1", "1 MiB", "never"] {
        let refused = bytes(wrong.as_ref()).unwrap_err().to_string();
        assert!(refused.contains("WEIR_DEVICE_FROM"), "{refused}");
    }
}

#[test]
fn each_kernel_runs_on_the_device_from_its_own_number_of_bytes_on() {
    for (method, kernel) in METHODS {
        for count in [4, 9] {
            let exact = input(method, count);
            for (from, there) in [
                (Some(exact + 1), false),
                (Some(exact), true),
                (Some(0), true),
                (None, false),
            ] {
                // The others' numbers say the opposite.
                let others = if there { None } else { Some(0) };
                let thresholds = Kernel::ALL.map(|one| if one == kernel { from } else { others });
                let (auto, calls) = auto(thresholds, None);
                assert_eq!(auto.threshold(kernel), Ok(from));
                assert_eq!(call(&auto, method, count).unwrap(), truth(method, count));
                assert_eq!(times(&calls), usize::from(there), "{method:?} {from:?}");
                assert_eq!(auto.refused(kernel), None);
            }
        }
    }
}

#[test]
fn what_lies_on_a_device_is_used_there_whatever_its_size_and_whatever_it_says() {
    let elsewhere = |address: *const f32| Layout {
        address: address as u64,
        dtype: Dtype::F32,
        shape: [2, WIDTH],
        strides: [WIDTH, 1],
        place: Place::Cuda(0),
    };
    let data = [0.0f32; 2 * WIDTH];
    let pool = |auto: &Auto, features: View<'_, 2>, pooled: ViewMut<'_, 2>| {
        let (mut weights, mut sums, mut squares) = ([0.0f32; 2], [0.0f32; 2], [0.0f32; 2]);
        let (mut entropy, mut flags) = ([0.0f32; 2], [0u32; 2]);
        let out = PoolOut {
            pooled,
            weights: WeightsOut {
                weights: ViewMut::new(&mut weights, [2]).unwrap(),
                sums: ViewMut::new(&mut sums, [2]).unwrap(),
                squares: ViewMut::new(&mut squares, [2]).unwrap(),
                entropy: ViewMut::new(&mut entropy, [2]).unwrap(),
                flags: ViewMut::new(&mut flags, [2]).unwrap(),
            },
        };
        let bags = Bags::new(&[0, 1, 2], None).unwrap();
        let logits = View::new(&[1.0f32, 2.0], [2]).unwrap();
        auto.pool(&bags, RULE, features, logits, out)
    };
    for refuses in [None, Some(driver(OUT_OF_MEMORY)), Some(limit())] {
        let expected = match refuses.clone() {
            None => Ok(()),
            Some(cause) => Err(refusal(cause)),
        };
        let (auto, calls) = auto([None; 4], refuses);
        // SAFETY: the counting device reads nothing that does not lie on the host.
        let there = unsafe { View::foreign(elsewhere(data.as_ptr())) };
        let mut pooled = [0.0f32; 2 * WIDTH];
        let here = ViewMut::new(&mut pooled, [2, WIDTH]).unwrap();
        assert_eq!(pool(&auto, there, here), expected);
        // Results that lie there are enough.
        // SAFETY: as above, and it writes nothing there either.
        let there = unsafe { ViewMut::foreign(elsewhere(pooled.as_ptr())) };
        let here = View::new(&data, [2, WIDTH]).unwrap();
        assert_eq!(pool(&auto, here, there), expected);
        assert_eq!(times(&calls), 2);
        assert_eq!(auto.refused(Kernel::Pool), None);
    }
}

#[test]
fn what_a_device_has_no_room_for_the_processor_does_with_the_same_bits_and_it_is_counted() {
    for cause in [driver(OUT_OF_MEMORY), limit()] {
        for (method, kernel) in METHODS {
            let (auto, calls) = auto([Some(0); 4], Some(cause.clone()));
            for turn in 1..=3 {
                assert_eq!(call(&auto, method, 300).unwrap(), truth(method, 300));
                assert_eq!(times(&calls), turn);
                let refused = auto.refused(kernel).unwrap();
                assert_eq!(refused.calls, turn as u64);
                assert_eq!(refused.first, refusal(cause.clone()));
            }
            let others = Kernel::ALL.iter().filter(|one| **one != kernel);
            assert!(others.into_iter().all(|one| auto.refused(*one).is_none()));
        }
    }
}

#[test]
fn other_errors_of_a_device_are_the_callers() {
    let lost = driver(700);
    let compiler = Cause::Driver {
        doing: "compile",
        code: None,
        what: "no".into(),
    };
    let unsupported = Cause::Unsupported {
        what: "no".into(),
        help: "none",
    };
    for cause in [lost, compiler, unsupported] {
        for (method, kernel) in METHODS {
            let (auto, _) = auto([Some(0); 4], Some(cause.clone()));
            assert_eq!(call(&auto, method, 5), Err(refusal(cause.clone())));
            assert_eq!(auto.refused(kernel), None);
        }
    }
}

#[test]
fn what_the_processor_refuses_too_is_the_callers_and_not_counted() {
    let (auto, calls) = auto([Some(0); 4], Some(limit()));
    let count = Ends::LIMIT + 1;
    let (mut highest, mut nans) = (vec![0i32; count], [0u32]);
    let out = TopKOut {
        highest: ViewMut::new(&mut highest, [1, count]).unwrap(),
        lowest: ViewMut::new::<i32>(&mut [], [1, 0]).unwrap(),
        nans: ViewMut::new(&mut nans, [1]).unwrap(),
    };
    let ends = Ends {
        highest: count,
        lowest: 0,
    };
    let scores = View::new(&[1.0f32], [1]).unwrap();
    let refused = auto.top_k(&Bags::one(1).unwrap(), ends, scores, out);
    let cause = refused.unwrap_err().cause;
    assert!(
        matches!(
            cause,
            Cause::Limit {
                limit: Ends::LIMIT,
                ..
            }
        ),
        "{cause:?}"
    );
    assert_eq!((times(&calls), auto.refused(Kernel::TopK)), (1, None));
}

#[test]
fn the_fused_head_never_moves() {
    // No threshold keeps it from the device.
    let (there, calls) = auto([None; 4], None);
    assert_eq!(call_fused(&there), [Ok(()), Ok(())]);
    assert_eq!(times(&calls), 2);
    assert_eq!(there.kind(Dtype::F32).unwrap(), "counting f32");
    for cause in [driver(OUT_OF_MEMORY), limit(), driver(700)] {
        let (auto, calls) = auto([Some(0); 4], Some(cause.clone()));
        let error = || Err(refusal(cause.clone()));
        assert_eq!(call_fused(&auto), [error(), error()]);
        assert_eq!(times(&calls), 2);
        assert!(
            Kernel::ALL
                .iter()
                .all(|kernel| auto.refused(*kernel).is_none())
        );
    }
}

#[test]
fn a_threshold_is_measured_when_it_is_asked_for_or_needed_and_once() {
    let (device, calls) = counting(None);
    let auto = Auto::measured(Cpu::new(1).unwrap(), device);
    assert!(
        Kernel::ALL
            .iter()
            .all(|kernel| auto.known(*kernel).is_none())
    );
    assert_eq!(times(&calls), 0);
    let from = auto.threshold(Kernel::TopK).unwrap();
    let measured = times(&calls);
    assert!(measured > 2);
    assert_eq!(auto.known(Kernel::TopK), Some(from));
    assert_eq!(auto.threshold(Kernel::TopK), Ok(from));
    assert_eq!((times(&calls), auto.known(Kernel::Pool)), (measured, None));
    assert_eq!(
        call(&auto, Method::Pool, 5).unwrap(),
        truth(Method::Pool, 5)
    );
    assert!(auto.known(Kernel::Pool).is_some());
    // A device that cannot be measured is no faster one: the caller hears of it.
    let (device, _) = counting(Some(driver(700)));
    let broken = Auto::measured(Cpu::new(1).unwrap(), device);
    assert_eq!(broken.threshold(Kernel::Pool), Err(refusal(driver(700))));
    assert_eq!(call(&broken, Method::Pool, 5), Err(refusal(driver(700))));
}

#[test]
fn a_device_that_is_full_when_it_is_measured_leaves_the_calls_to_the_processor_and_that_is_counted()
{
    for full in [driver(OUT_OF_MEMORY), limit()] {
        let (device, _) = counting(Some(full.clone()));
        let auto = Auto::measured(Cpu::new(1).unwrap(), device);
        assert_eq!(auto.threshold(Kernel::Pool), Ok(None));
        assert_eq!(
            call(&auto, Method::Pool, 5).unwrap(),
            truth(Method::Pool, 5)
        );
        let refused = auto.refused(Kernel::Pool).unwrap();
        assert_eq!((refused.calls, refused.first), (1, refusal(full)));
    }
}

#[test]
fn the_processor_alone_has_no_threshold_and_a_kind() {
    let alone = Auto::cpu(Cpu::new(1).unwrap());
    assert!(!alone.has_device());
    for kernel in Kernel::ALL {
        assert_eq!(alone.threshold(kernel), Ok(None));
        assert_eq!((alone.known(kernel), alone.refused(kernel)), (None, None));
    }
    let kind = alone.kind(Dtype::F32).unwrap();
    assert!(
        ["x86-64 avx2+fma", "portable"].contains(&kind.as_str()),
        "{kind}"
    );
}
