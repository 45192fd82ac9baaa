//! What cannot work is refused before anything runs, by a typed error that names kernel, argument and shape; the processor
//! and the device refuse the same.
#![allow(clippy::unwrap_used)]

mod call;
#[path = "../emulated/mod.rs"]
mod emulated;

use call::*;
use emulated::{PLAIN, Setting, run};
use weir_kernels::kernels::{Ends, Kernels, Rule, TileForm};
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::view::{Dtype, Place};
use weir_kernels::{Cause, Cpu, KernelError};

/// Each kernel: its name in errors, its shape in them, how it is asked, and its arguments.
const KERNELS: [(&str, &str, Ask, &[&str]); 8] = [
    (
        "weights",
        "2 bags, 5 rows",
        |call| call.weights(SQUARED),
        &["logits", "weights", "sums", "squares", "entropy", "flags"],
    ),
    (
        "weights backward",
        "2 bags, 5 rows",
        |call| call.weights_backward(SQUARED),
        &[
            "logits",
            "weights",
            "sums",
            "flags",
            "gradient",
            "logits' gradient",
        ],
    ),
    (
        "pool",
        "2 bags, 5 rows, 8 bf16",
        |call| call.pool(SQUARED, WIDTH),
        &[
            "features", "logits", "pooled", "weights", "sums", "squares", "entropy", "flags",
        ],
    ),
    (
        "pool backward",
        "2 bags, 5 rows, 8 f16",
        |call| call.pool_backward(SQUARED),
        &[
            "features",
            "logits",
            "pooled",
            "weights",
            "sums",
            "flags",
            "pooled vectors' gradient",
            "weights' gradient",
            "logits' gradient",
            "features' gradient",
        ],
    ),
    (
        "gated pool",
        "2 bags, 5 rows, 8 f32",
        |call| call.gated_pool(SQUARED),
        &[
            "features", "logits", "pooled", "weights", "sums", "squares", "entropy", "flags",
        ],
    ),
    (
        "gated pool backward",
        "2 bags, 5 rows, 8 f32",
        |call| call.gated_pool_backward(SQUARED, true),
        &[
            "features",
            "logits",
            "pooled",
            "weights",
            "sums",
            "flags",
            "pooled vectors' gradient",
            "weights' gradient",
            "value",
            "value bias",
            "gate",
            "gate bias",
            "weight",
            "bias",
            "features' gradient",
        ],
    ),
    (
        "top-k",
        "2 bags, 5 rows, 3 highest, 2 lowest",
        |call| call.top_k(3),
        &["scores", "highest", "lowest", "nans"],
    ),
    ("tiles", "", |call| call.tiles(form()), &["tiles", "out"]),
];

fn ask(
    kernels: &dyn Kernels,
    wrong: Option<(&str, Wrong)>,
    what: impl Fn(&mut Call<'_>) -> Result<(), KernelError>,
) -> KernelError {
    let mut call = Call {
        kernels,
        wrong,
        memory: vec![0; 4096],
    };
    match what(&mut call) {
        Ok(()) => panic!("{wrong:?} was not refused"),
        Err(error) => error,
    }
}

/// Every kernel with every argument wrong in every way, each refused by kernel, shape, argument and cause.
fn wrong_arguments(kernels: &dyn Kernels) -> Vec<KernelError> {
    let mut errors = Vec::new();
    for (kernel, shape, what, arguments) in KERNELS {
        for &name in arguments {
            for how in [
                Wrong::Shape,
                Wrong::Dtype,
                Wrong::Strides,
                Wrong::Overlap,
                Wrong::Place,
                Wrong::Address,
            ] {
                let tiles = kernel == "tiles";
                let matrix = name == "features' gradient" || name == "out";
                // Pixels may lie in any way.
                let any =
                    tiles && (how == Wrong::Strides || name == "tiles" && how == Wrong::Address);
                if any || how == Wrong::Overlap && !matrix {
                    continue;
                }
                let error = ask(kernels, Some((name, how)), what);
                let text = error.to_string();
                let case = format!("{kernel}, {name}, {how:?}: {text}");
                assert_eq!(error.kernel, kernel, "{case}");
                let typed = how == Wrong::Dtype && name == "features";
                let shape = if typed { "2 bags, 5 rows" } else { shape };
                assert!(error.shape.starts_with(shape), "{case}");
                assert!(
                    text.contains(&error.shape) && text.contains(kernel),
                    "{case}"
                );
                let (argument, right) = match &error.cause {
                    Cause::Shape { argument, .. } => (*argument, how == Wrong::Shape),
                    Cause::Dtype { argument, got, .. } => {
                        assert!(matches!(got, Dtype::U8 | Dtype::I32), "{case}");
                        // A gradient is of the features' type, so those come first.
                        (*argument, how == Wrong::Dtype)
                    }
                    Cause::Strides { argument, .. } => (
                        *argument,
                        matches!(how, Wrong::Strides | Wrong::Overlap | Wrong::Address),
                    ),
                    Cause::Place { argument, got, .. } => {
                        assert_eq!(*got, Place::Cuda(7), "{case}");
                        (*argument, how == Wrong::Place)
                    }
                    _ => ("", false),
                };
                assert!(right, "{case}");
                // With one tile fewer it is the other array that does not fit.
                assert!(argument == name || tiles && how == Wrong::Shape, "{case}");
                errors.push(error);
            }
        }
    }
    errors
}

/// What no kernel does, and what is more than one can.
fn wrong_wishes(kernels: &dyn Kernels) -> Vec<KernelError> {
    let mut errors = Vec::new();
    for normalisation in [
        Normalisation::Max,
        Normalisation::Sparsemax,
        Normalisation::Power(-1.0),
        Normalisation::Power(f32::NAN),
        Normalisation::Power(f32::INFINITY),
    ] {
        let rule = Rule {
            normalisation,
            link: Link::Sigmoid,
        };
        for error in [
            ask(kernels, None, |call| call.weights(rule)),
            ask(kernels, None, |call| call.weights_backward(rule)),
            ask(kernels, None, |call| call.pool(rule, WIDTH)),
            ask(kernels, None, |call| call.pool_backward(rule)),
            ask(kernels, None, |call| call.gated_pool(rule)),
            ask(kernels, None, |call| call.gated_pool_backward(rule, true)),
        ] {
            let Cause::Unsupported { what, help } = &error.cause else {
                panic!("{error}");
            };
            let named = match normalisation {
                Normalisation::Power(exponent) => format!("exponent {exponent}"),
                other => other.rule().name().to_owned(),
            };
            assert!(
                what.contains(&named) && help.contains("pool::pool"),
                "{error}"
            );
            assert!(error.shape.starts_with("2 bags, 5 rows"), "{error}");
            errors.push(error);
        }
    }
    for (error, limit) in [
        (
            ask(kernels, None, |call| call.pool(SQUARED, 65_537)),
            65_536,
        ),
        (
            ask(kernels, None, |call| call.top_k(Ends::LIMIT + 1)),
            Ends::LIMIT,
        ),
    ] {
        let Cause::Limit {
            limit: said, got, ..
        } = error.cause
        else {
            panic!("{error}");
        };
        assert_eq!((said, got), (limit, limit + 1), "{error}");
        errors.push(error);
    }
    let error = ask(kernels, None, |call| {
        call.gated_pool_backward(SQUARED, false)
    });
    assert!(
        matches!(
            error.cause,
            Cause::Shape {
                argument: "gate",
                ..
            }
        ),
        "{error}"
    );
    errors.push(error);
    for wish in [
        TileForm {
            corner: [1, 0],
            ..form()
        },
        TileForm {
            channels: [0, 3, 1],
            ..form()
        },
        TileForm {
            corner: [0, usize::MAX],
            ..form()
        },
        TileForm::new([0.5; 3], [0.0; 3]),
    ] {
        let error = ask(kernels, None, |call| call.tiles(wish));
        assert_eq!(error.kernel, "tiles");
        errors.push(error);
    }
    errors
}

/// As told of a device, the place where an argument should lie is another.
fn wherever(mut errors: Vec<KernelError>) -> Vec<KernelError> {
    for error in &mut errors {
        if let Cause::Place { expected, .. } = &mut error.cause {
            *expected = Place::Host;
        }
    }
    errors
}

fn refusals(kernels: &dyn Kernels) -> Vec<KernelError> {
    let mut errors = wrong_arguments(kernels);
    errors.extend(wrong_wishes(kernels));
    errors
}

#[test]
fn every_refusal_on_the_processor_names_kernel_argument_and_shape() {
    let errors = refusals(&Cpu::new(1).unwrap());
    println!("{} refusals", errors.len());
    assert!(errors.len() > 250, "{}", errors.len());
}

#[test]
#[ignore = "a case, run by the test below"]
fn case_refusals() {
    if !emulated::inside() {
        return;
    }
    let stream = emulated::gpu().stream().unwrap();
    let device = wherever(refusals(&stream));
    let processor = refusals(&Cpu::new(1).unwrap());
    assert_eq!(device.len(), processor.len());
    for (device, processor) in device.iter().zip(&processor) {
        // NaN is not equal to itself.
        assert_eq!(device.to_string(), processor.to_string());
    }
}

#[test]
fn the_device_refuses_what_the_processor_refuses_in_the_same_words() {
    run(PLAIN, &Setting::default(), "case_refusals").passed();
}
