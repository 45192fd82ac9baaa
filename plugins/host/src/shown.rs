//! Bodies as columns: what a plugin is shown of an input, without a copy.

use crate::columns::{Part, Parts};
use std::ffi::c_void;
use weir_abi::column::Dtype;
use weir_record::Body;
use weir_runtime::stage::Form;

/// Numbers that bodies do not hold as a plugin is shown them.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    classes: Vec<i32>,
    flags: Vec<u32>,
    scores: Vec<f32>,
    zeros: Vec<f32>,
}

fn to<T>(of: &T) -> *mut c_void {
    std::ptr::from_ref(of).cast_mut().cast()
}

fn list<T>(of: &[T]) -> *mut c_void {
    of.as_ptr().cast_mut().cast()
}

fn mixed() -> String {
    "rows of different kinds came together".to_owned()
}

/// A column whose rows lie where `of` says; an error where a body is of another kind.
fn each<'a>(
    part: &mut Part,
    bodies: impl Iterator<Item = &'a Body>,
    of: impl Fn(&Body) -> Option<*mut c_void>,
) -> Result<(), String> {
    for body in bodies {
        part.rows.push(of(body).ok_or_else(mixed)?);
    }
    Ok(())
}

/// A vector of each body, or zeros where it has none.
fn or_zeros(of: &[f32], zeros: &[f32]) -> Option<*mut c_void> {
    match of.len() {
        n if n == zeros.len() => Some(list(of)),
        0 => Some(list(zeros)),
        _ => None,
    }
}

/// The column of tiles or vectors, without its rows.
pub(crate) fn of_form(form: Form, parts: &mut Parts) -> &mut Part {
    match form {
        Form::Pixels { width, height } => {
            parts.next("pixels", Dtype::U8, &[height.into(), width.into(), 3])
        }
        Form::Feature(n) => parts.next("features", Dtype::F32, &[n as i64]),
    }
}

/// The columns of an input: memory that the bodies share, and `beside` for numbers that they have to themselves. All of it must stay
/// while anybody reads. `width`: how many numbers a row of the port has, for bodies that have none.
pub(crate) fn of_bodies<'a>(
    bodies: impl Iterator<Item = &'a Body> + Clone,
    width: usize,
    parts: &mut Parts,
    beside: &mut Beside,
) -> Result<(), String> {
    macro_rules! column {
        ($name:literal, $dtype:expr, $shape:expr, $variant:pat => $pointer:expr) => {
            each(
                parts.next($name, $dtype, $shape),
                bodies.clone(),
                |body| match body {
                    $variant => $pointer,
                    _ => None,
                },
            )?
        };
    }
    const F32: Dtype = Dtype::F32;
    parts.clear();
    match bodies.clone().next() {
        None => {}
        Some(Body::Pixels(first)) => {
            let (height, width) = (first.height(), first.width());
            let part = of_form(Form::Pixels { width, height }, parts);
            for body in bodies {
                let Body::Pixels(tile) = body else {
                    return Err(mixed());
                };
                if (tile.height(), tile.width()) != (height, width) {
                    return Err(format!(
                        "a tile of {} x {} px came together with one of {width} x {height}",
                        tile.width(),
                        tile.height()
                    ));
                }
                part.rows.push(list(tile.pixels()));
            }
        }
        Some(Body::Score(first)) => {
            let classes = first.probabilities.len();
            column!("score", F32, &[], Body::Score(it) => Some(to(&it.score)));
            column!("probabilities", F32, &[classes as i64], Body::Score(it) => {
                (it.probabilities.len() == classes).then(|| list(&it.probabilities))
            });
        }
        Some(Body::Picked { .. }) => {
            beside.scores.clear();
            for body in bodies {
                let Body::Picked { score, .. } = body else {
                    return Err(mixed());
                };
                beside.scores.push(*score);
            }
            let part = parts.next("score", F32, &[]);
            part.rows.extend(beside.scores.iter().map(to));
        }
        Some(Body::Feature(first)) => {
            let d = first.len();
            let part = of_form(Form::Feature(d), parts);
            each(part, bodies, |body| match body {
                Body::Feature(it) => (it.len() == d).then(|| list(it)),
                _ => None,
            })?;
        }
        Some(Body::Attention(_)) => {
            column!("logit", F32, &[], Body::Attention(it) => Some(to(&it.logit)));
            column!("weight", F32, &[], Body::Attention(it) => Some(to(&it.weight)));
            column!("contribution", F32, &[], Body::Attention(it) => Some(to(&it.contribution)));
            column!("without", F32, &[], Body::Attention(it) => Some(to(&it.leave_one_out)));
        }
        Some(Body::Bag(_)) => {
            beside.flags.clear();
            let mut d = width;
            for body in bodies.clone() {
                let Body::Bag(bag) = body else {
                    return Err(mixed());
                };
                beside.flags.push(u32::from(bag.flags.0));
                d = d.max(bag.pooled.len());
            }
            // An empty bag has no vector; a plugin is shown zeros, and the flag.
            beside.zeros.clear();
            beside.zeros.resize(d, 0.0);
            let zeros = &beside.zeros;
            column!("pooled", F32, &[d as i64], Body::Bag(it) => or_zeros(&it.pooled, zeros));
            column!("effective", F32, &[], Body::Bag(it) => Some(to(&it.effective)));
            column!("entropy", F32, &[], Body::Bag(it) => Some(to(&it.entropy)));
            column!("members", Dtype::U64, &[], Body::Bag(it) => Some(to(&it.n)));
            let flags = parts.next("flags", Dtype::U32, &[]);
            flags.rows.extend(beside.flags.iter().map(to));
        }
        Some(Body::Prediction(_)) => {
            beside.classes.clear();
            let mut classes = width;
            for body in bodies.clone() {
                let Body::Prediction(it) = body else {
                    return Err(mixed());
                };
                let class = it.class.map_or(-1, |class| class as i32);
                beside.classes.push(class);
                classes = classes.max(it.classes.len());
            }
            beside.zeros.clear();
            beside.zeros.resize(classes, 0.0);
            let (zeros, shape) = (&beside.zeros, [classes as i64]);
            column!("logits", F32, &shape, Body::Prediction(it) => or_zeros(&it.logits, zeros));
            column!("probabilities", F32, &shape, Body::Prediction(it) => {
                or_zeros(&it.probabilities, zeros)
            });
            let class = parts.next("class", Dtype::I32, &[]);
            class.rows.extend(beside.classes.iter().map(to));
        }
        Some(Body::Ext(_)) => {
            let part = parts.next("bytes", Dtype::U8, &[-1]);
            for body in bodies {
                let Body::Ext(table) = body else {
                    return Err(mixed());
                };
                part.rows.push(list(&table.bytes));
                part.lengths.push(table.bytes.len() as u64);
            }
        }
        Some(_) => return Err("what came is no value".into()),
    }
    Ok(())
}
