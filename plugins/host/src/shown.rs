//! Bodies as columns: what a plugin is shown of an input, without a copy.

use crate::columns::Part;
use std::ffi::c_void;
use weir_abi::column::Dtype;
use weir_record::Body;

/// Numbers that bodies do not hold as a plugin is shown them.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    classes: Vec<i32>,
    flags: Vec<u32>,
    zeros: Vec<f32>,
}

fn to<T>(of: &T) -> *mut c_void {
    std::ptr::from_ref(of).cast_mut().cast()
}

/// The columns of an input: the bodies' own memory. `bodies` and what comes back must stay where they are while anybody reads.
pub(crate) fn of_bodies(bodies: &[Body]) -> Result<(Vec<Part>, Beside), String> {
    let mut beside = Beside::default();
    let mixed = || "rows of different kinds came together".to_owned();
    macro_rules! each {
        ($variant:pat => $out:expr) => {
            bodies
                .iter()
                .map(|body| match body {
                    $variant => Ok($out),
                    _ => Err(mixed()),
                })
                .collect::<Result<Vec<_>, String>>()?
        };
    }
    let scalar = |name, rows| Part::new(name, Dtype::F32, Vec::new(), rows);
    let parts = match bodies.first() {
        None => Vec::new(),
        Some(Body::Pixels(first)) => {
            let shape = [first.height(), first.width()];
            let rows = each!(Body::Pixels(tile) => {
                if [tile.height(), tile.width()] != shape {
                    return Err(format!(
                        "a tile of {} x {} px came together with one of {} x {}",
                        tile.width(), tile.height(), shape[1], shape[0]
                    ));
                }
                to(&tile.pixels()[0])
            });
            let shape = vec![shape[0].into(), shape[1].into(), 3];
            vec![Part::new("pixels", Dtype::U8, shape, rows)]
        }
        Some(Body::Score(first)) => {
            let classes = first.probabilities.len();
            let probabilities = each!(Body::Score(scores) => {
                if scores.probabilities.len() != classes {
                    return Err(mixed());
                }
                scores.probabilities.as_ptr().cast_mut().cast()
            });
            let shape = vec![classes as i64];
            vec![
                scalar("score", each!(Body::Score(scores) => to(&scores.score))),
                Part::new("probabilities", Dtype::F32, shape, probabilities),
            ]
        }
        Some(Body::Picked { .. }) => {
            vec![scalar(
                "score",
                each!(Body::Picked { score, .. } => to(score)),
            )]
        }
        Some(Body::Feature(first)) => {
            let d = first.len();
            let rows = each!(Body::Feature(feature) => {
                if feature.len() != d {
                    return Err(mixed());
                }
                feature.as_ptr().cast_mut().cast()
            });
            vec![Part::new("features", Dtype::F32, vec![d as i64], rows)]
        }
        Some(Body::Attention(_)) => vec![
            scalar("logit", each!(Body::Attention(a) => to(&a.logit))),
            scalar("weight", each!(Body::Attention(a) => to(&a.weight))),
            scalar(
                "contribution",
                each!(Body::Attention(a) => to(&a.contribution)),
            ),
            scalar("without", each!(Body::Attention(a) => to(&a.leave_one_out))),
        ],
        Some(Body::Bag(_)) => {
            beside.flags = each!(Body::Bag(bag) => u32::from(bag.flags.0));
            let widths = each!(Body::Bag(bag) => bag.pooled.len());
            let d = widths.into_iter().max().unwrap_or(0);
            // An empty bag has no vector; a plugin is shown zeros, and the flag.
            beside.zeros = vec![0.0; d];
            let pooled = each!(Body::Bag(bag) => match bag.pooled.len() {
                n if n == d => bag.pooled.as_ptr().cast_mut().cast(),
                0 => beside.zeros.as_ptr().cast_mut().cast(),
                _ => return Err(mixed()),
            });
            vec![
                Part::new("pooled", Dtype::F32, vec![d as i64], pooled),
                scalar("effective", each!(Body::Bag(bag) => to(&bag.effective))),
                scalar("entropy", each!(Body::Bag(bag) => to(&bag.entropy))),
                Part::new(
                    "members",
                    Dtype::U64,
                    Vec::new(),
                    each!(Body::Bag(bag) => to(&bag.n)),
                ),
                Part::new(
                    "flags",
                    Dtype::U32,
                    Vec::new(),
                    beside.flags.iter().map(to).collect(),
                ),
            ]
        }
        Some(Body::Prediction(_)) => {
            beside.classes =
                each!(Body::Prediction(it) => it.class.map_or(-1, |class| class as i32));
            let widths = each!(Body::Prediction(it) => it.classes.len());
            let classes = widths.into_iter().max().unwrap_or(0);
            beside.zeros = vec![0.0; classes];
            let row = |numbers: &Vec<f32>, zeros: &Vec<f32>| match numbers.len() {
                n if n == classes => Ok(numbers.as_ptr().cast_mut().cast()),
                0 => Ok(zeros.as_ptr().cast_mut().cast()),
                _ => Err(mixed()),
            };
            let logits = each!(Body::Prediction(it) => row(&it.logits, &beside.zeros)?);
            let probabilities =
                each!(Body::Prediction(it) => row(&it.probabilities, &beside.zeros)?);
            let shape = vec![classes as i64];
            vec![
                Part::new("logits", Dtype::F32, shape.clone(), logits),
                Part::new("probabilities", Dtype::F32, shape, probabilities),
                Part::new(
                    "class",
                    Dtype::I32,
                    Vec::new(),
                    beside.classes.iter().map(to).collect(),
                ),
            ]
        }
        Some(Body::Ext(_)) => {
            let rows = each!(Body::Ext(table) => table.bytes.as_ptr().cast_mut().cast());
            let lengths = each!(Body::Ext(table) => table.bytes.len() as u64);
            vec![Part::new("bytes", Dtype::U8, vec![-1], rows).of_lengths(lengths)]
        }
        Some(_) => return Err("what came is no value".into()),
    };
    Ok((parts, beside))
}
