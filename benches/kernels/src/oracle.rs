//! The same in f64, by the textbook: what a case's results are held against, component by component.
//!
//! An error is a difference over the sum of the absolute values of what was added up to the component: sum w|h| for a pooled
//! one, (|e'| / S) sum |u|(|h| + |z|) for the gradient by a logit, and so on. Of large cases some bags are checked, and of
//! (c) some rows and, of its gradients, some hidden units ([`crate::oracle_head::backward`]).

use crate::Fault;
use crate::case::{Case, Kernel};
use crate::data::Array;
use crate::shapes::Outputs;
use crate::work::{Head, Work, tile_form};
use weir_kernels::Dtype;

/// Greatest error that is let through: of f32 inputs, and of f16 and bf16 ones.
pub const BOUNDS: [f64; 2] = [1e-5, 1e-2];

/// Multiplications that a check may take.
const WORK: f64 = 6e8;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checked {
    /// Greatest error; `None`: nothing was checked.
    pub error: Option<f64>,
    /// In which output.
    pub worst: &'static str,
    /// An element that nobody wrote, a NaN, a masked row with a weight, a wrong choice: what and where.
    pub wrong: Option<String>,
}

impl Checked {
    pub(crate) fn see(&mut self, what: &'static str, got: f64, wanted: f64, scale: f64) {
        let apart = (got - wanted).abs();
        let error = if apart == 0.0 {
            0.0
        } else {
            apart / scale.max(1e-30)
        };
        if error.is_nan() {
            self.wrong
                .get_or_insert_with(|| format!("`{what}` is {got}, but should be {wanted:e}"));
        } else if self.error.is_none_or(|worst| error > worst) {
            self.error = Some(error);
            self.worst = what;
        }
    }
}

/// The bound for a case.
pub fn bound(case: &Case) -> f64 {
    BOUNDS[usize::from(case.dtype != Dtype::F32)]
}

/// The least number that a type holds with all its digits: an error is never over less.
pub(crate) fn least(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F16 => half::f16::MIN_POSITIVE.to_f64(),
        _ => f64::from(f32::MIN_POSITIVE),
    }
}

/// Holds the results of `work`'s first set of inputs against f64.
pub fn check(work: &Work, out: &Outputs) -> Result<Checked, Fault> {
    let mut checked = Checked {
        wrong: unwritten(out),
        ..Checked::default()
    };
    if checked.wrong.is_some() {
        return Ok(checked);
    }
    match work.case.kernel {
        Kernel::Tiles => tiles(work, out, &mut checked),
        Kernel::TopK => top_k(work, out, &mut checked)?,
        Kernel::Gated if work.case.backward => {
            crate::oracle_head::backward(work, out, &mut checked, WORK);
        }
        _ => bags(work, out, &mut checked)?,
    }
    Ok(checked)
}

/// The first element that still is what it was poisoned with.
fn unwritten(out: &Outputs) -> Option<String> {
    out.iter().find_map(|(name, array, _)| {
        let mut poison = Array::poisoned(array.dtype(), 1);
        let fresh = match &mut poison {
            Array::F32(p) => match array {
                Array::F32(data) => data.iter().position(|x| x.to_bits() == p[0].to_bits()),
                _ => None,
            },
            Array::U32(p) => match array {
                Array::U32(data) => data.iter().position(|x| *x == p[0]),
                _ => None,
            },
            Array::I32(p) => match array {
                Array::I32(data) => data.iter().position(|x| *x == p[0]),
                _ => None,
            },
            Array::F16(p) => match array {
                Array::F16(data) => data.iter().position(|x| x.to_bits() == p[0].to_bits()),
                _ => None,
            },
            Array::Bf16(p) => match array {
                Array::Bf16(data) => data.iter().position(|x| x.to_bits() == p[0].to_bits()),
                _ => None,
            },
            Array::U8(_) => None,
        };
        fresh.map(|at| format!("nobody wrote element {at} of `{name}`"))
    })
}

pub(crate) fn named<'a>(out: &'a Outputs, name: &str) -> Result<&'a Array, Fault> {
    out.iter()
        .find(|(n, ..)| *n == name)
        .map(|(_, array, _)| array)
        .ok_or_else(|| Fault::internal(format!("no output is called {name}")))
}

/// Numerators, by the textbook, and their slope by the logit.
pub(crate) fn numerators(case: &Case, a: &[f64]) -> (Vec<f64>, Vec<f64>) {
    if case.softmax {
        let greatest = a.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let e: Vec<f64> = a.iter().map(|a| (a - greatest).exp()).collect();
        (e.clone(), e)
    } else {
        (
            a.iter().map(|a| a * a).collect(),
            a.iter().map(|a| 2.0 * a).collect(),
        )
    }
}

fn bags(work: &Work, out: &Outputs, checked: &mut Checked) -> Result<(), Fault> {
    let case = &work.case;
    let mut left = WORK / 10.0;
    // Every seventh bag first, so that a large batch is not judged by its head alone.
    let order = (0..7).flat_map(|first| (first..case.bags).step_by(7));
    for bag in order {
        let rows = work.rows_of(bag);
        let members: Vec<usize> = rows.clone().filter(|&row| work.member(row)).collect();
        left -= (members.len() * case.d.max(8)) as f64;
        if left < 0.0 && checked.error.is_some() {
            break;
        }
        if let Some(row) = rows.clone().find(|&row| !work.member(row)) {
            let name = if case.backward { "logits" } else { "weights" };
            let got = named(out, name)?.at(row);
            if got != 0.0 {
                checked.wrong = Some(format!("`{name}` of the masked row {row} is {got}, not 0"));
                return Ok(());
            }
        }
        of_bag(work, out, bag, &members, checked)?;
    }
    Ok(())
}

fn of_bag(
    work: &Work,
    out: &Outputs,
    bag: usize,
    members: &[usize],
    checked: &mut Checked,
) -> Result<(), Fault> {
    let (case, set) = (&work.case, &work.sets[0]);
    let mut a: Vec<f64> = members.iter().map(|&row| set["logits"].at(row)).collect();
    if let Some(head) = &work.head {
        a = head_logits(work, out, head, members, checked)?;
    }
    let (e, slope) = numerators(case, &a);
    let sum: f64 = e.iter().sum();
    let w: Vec<f64> = e.iter().map(|e| e / sum).collect();
    let (d, features) = (case.d, set.get("features"));
    if case.backward {
        let gradient = &set["gradient"];
        // What the loss falls by with each weight: g itself, or u . h.
        let along: Vec<(f64, f64)> = members
            .iter()
            .map(|&row| match features {
                None => (gradient.at(row), gradient.at(row).abs()),
                Some(h) => (0..d).fold((0.0, 0.0), |(sum, size), c| {
                    let term = gradient.at(bag * d + c) * h.at(row * d + c);
                    (sum + term, size + term.abs())
                }),
            })
            .collect();
        let mean: f64 = w.iter().zip(&along).map(|(w, (g, _))| w * g).sum();
        let size: f64 = w.iter().zip(&along).map(|(w, (_, g))| w * g).sum();
        let logits = named(out, "logits")?;
        for (k, &row) in members.iter().enumerate() {
            let scale = slope[k].abs() / sum * (along[k].1 + size);
            let wanted = slope[k] / sum * (along[k].0 - mean);
            checked.see("logits", logits.at(row), wanted, scale);
        }
        if features.is_some() {
            let by_features = named(out, "features")?;
            for (k, &row) in members.iter().enumerate() {
                for c in 0..d {
                    let wanted = w[k] * gradient.at(bag * d + c);
                    let scale = wanted.abs().max(least(case.dtype));
                    checked.see("features", by_features.at(row * d + c), wanted, scale);
                }
            }
        }
        return Ok(());
    }
    // A logit of (c) has an error of its own, which is judged above: from the kernel's own logits on it is f32 alone.
    let own: Option<Vec<f64>> = match &work.head {
        None => None,
        Some(_) => {
            let got = named(out, "logits")?;
            Some(members.iter().map(|&row| got.at(row)).collect())
        }
    };
    let e = own.map_or(e, |own| numerators(case, &own).0);
    let sum: f64 = e.iter().sum();
    let of_weights: Vec<f64> = e.iter().map(|e| e / sum).collect();
    let mut follows = |what: &'static str, at: usize, wanted: f64, scale: f64| {
        let got = named(out, what)?.at(at);
        checked.see(what, got, wanted, scale);
        if (got - wanted).abs() > BOUNDS[0] * scale {
            checked.wrong.get_or_insert_with(|| {
                format!("`{what}` {at} is {got:e}, but the logits give {wanted:e}")
            });
        }
        Ok::<(), Fault>(())
    };
    for (k, &row) in members.iter().enumerate() {
        follows("weights", row, of_weights[k], of_weights[k])?;
    }
    follows("sums", bag, sum, sum)?;
    let squares: f64 = of_weights.iter().map(|w| w * w).sum();
    follows("squares", bag, squares, squares)?;
    let entropy = |w: &f64| if *w > 0.0 { -w * w.ln() } else { 0.0 };
    let entropy: f64 = of_weights.iter().map(entropy).sum();
    follows("entropy", bag, entropy, entropy.max(1.0))?;
    if let Some(h) = features {
        let pooled = named(out, "pooled")?;
        let (mut sums, mut sizes) = (vec![0.0; d], vec![0.0; d]);
        for (k, &row) in members.iter().enumerate() {
            for c in 0..d {
                let term = w[k] * h.at(row * d + c);
                sums[c] += term;
                sizes[c] += term.abs();
            }
        }
        for c in 0..d {
            checked.see("pooled", pooled.at(bag * d + c), sums[c], sizes[c]);
        }
    }
    Ok(())
}

/// The logits of the members: all of them in f64, or where that is too much a few, and the kernel's own for the rest.
fn head_logits(
    work: &Work,
    out: &Outputs,
    head: &Head,
    members: &[usize],
    checked: &mut Checked,
) -> Result<Vec<f64>, Fault> {
    let case = &work.case;
    let got = named(out, "logits")?;
    let each = (2 * case.d * case.l) as f64;
    let whole = each * members.len() as f64 <= WORK;
    let step = if whole { 1 } else { members.len() / 64 + 1 };
    let scale: f64 =
        head.last.0.iter().map(|w| f64::from(w.abs())).sum::<f64>() + f64::from(head.last.1.abs());
    let mut logits: Vec<f64> = members.iter().map(|&row| got.at(row)).collect();
    for (k, &row) in members.iter().enumerate().step_by(step) {
        let wanted = crate::oracle_head::logit(head, &row_of(work, row));
        checked.see("logits", got.at(row), wanted, scale);
        if whole {
            logits[k] = wanted;
        }
    }
    Ok(logits)
}

pub(crate) fn row_of(work: &Work, row: usize) -> Vec<f64> {
    let (d, h) = (work.case.d, &work.sets[0]["features"]);
    (0..d).map(|c| h.at(row * d + c)).collect()
}

fn tiles(work: &Work, out: &Outputs, checked: &mut Checked) {
    let (side, form) = (work.case.rows, tile_form());
    let (bytes, numbers) = (&work.sets[0]["tiles"], &out[0].1);
    let plane = side * side;
    for tile in (0..work.case.bags).step_by(work.case.bags / 8 + 1) {
        for c in 0..3 {
            for y in 0..side {
                for x in 0..side {
                    let from = if form.flip { side - 1 - x } else { x };
                    let at = ((tile * side + y) * side + from) * 3 + usize::from(form.channels[c]);
                    let scaled = bytes.at(at) * f64::from(form.scale[c]);
                    let shift = f64::from(form.shift[c]);
                    let got = numbers.at((tile * 3 + c) * plane + y * side + x);
                    let scale = scaled.abs() + shift.abs();
                    checked.see("numbers", got, scaled + shift, scale);
                }
            }
        }
    }
}

fn top_k(work: &Work, out: &Outputs, checked: &mut Checked) -> Result<(), Fault> {
    let k = work.case.d;
    let scores = &work.sets[0]["logits"];
    checked.error = Some(0.0);
    checked.worst = "order";
    for bag in 0..work.case.bags {
        let rows = work.rows_of(bag);
        let mut order: Vec<usize> = rows.clone().filter(|&row| work.member(row)).collect();
        // Stable, so that the smaller row stands first among equals.
        order.sort_by(|a, b| scores.at(*b).total_cmp(&scores.at(*a)));
        let high = order.len().min(k);
        let low = (order.len() - high).min(k);
        let ends = [
            ("highest", &order[..high]),
            ("lowest", &order[order.len() - low..]),
        ];
        for (name, wanted) in ends {
            let got = named(out, name)?;
            for place in 0..k {
                let wanted = wanted
                    .get(place)
                    .map_or(-1.0, |row| (row - rows.start) as f64);
                if got.at(bag * k + place) != wanted {
                    checked.wrong = Some(format!(
                        "`{name}` of bag {bag} has {} at place {place}, but should have {wanted}",
                        got.at(bag * k + place)
                    ));
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}
