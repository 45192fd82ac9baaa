//! The arrays of a case by name: which there are, how long each is, and what its elements belong to.

use crate::case::{Case, Kernel};
use crate::data::{Array, Random};
use std::collections::BTreeMap;
use weir_kernels::Dtype;

/// What one element of an output belongs to, so that a bag alone can be held against the bag in its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// So many elements a row.
    Row(usize),
    /// So many elements a bag.
    Bag(usize),
    /// Sums over all bags.
    All,
}

/// Named arrays: the inputs or the outputs of a call.
pub type Arrays = BTreeMap<&'static str, Array>;

/// Named arrays in the order in which a call takes them, with what their elements belong to.
pub type Outputs = Vec<(&'static str, Array, Extent)>;

/// The name that an output of the forward pass has as an input of the backward pass.
pub(crate) fn state_name(name: &str) -> &'static str {
    match name {
        "pooled" => "state.pooled",
        "weights" => "state.weights",
        "sums" => "state.sums",
        "logits" => "state.logits",
        "squares" => "state.squares",
        "entropy" => "state.entropy",
        _ => "state.flags",
    }
}

/// What the elements of an input belong to.
pub(crate) fn extent(case: &Case, name: &str) -> Extent {
    match name {
        "features" => Extent::Row(case.d),
        "tiles" => Extent::Row(case.rows * case.rows * 3),
        "gradient" if case.kernel == Kernel::Weights => Extent::Row(1),
        "gradient" | "state.pooled" => Extent::Bag(case.d),
        "logits" | "state.logits" | "state.weights" => Extent::Row(1),
        _ => Extent::Bag(1),
    }
}

/// One set of random inputs; masked rows hold NaN.
pub(crate) fn inputs(
    case: &Case,
    random: &mut Random,
    offsets: &[usize],
    mask: Option<&[bool]>,
) -> Arrays {
    let n = offsets.last().copied().unwrap_or(0);
    let mut set = Arrays::new();
    match case.kernel {
        Kernel::Tiles => {
            set.insert("tiles", random.array(Dtype::U8, case.total() * 3, 1.0));
            return set;
        }
        Kernel::Pool | Kernel::Gated => {
            set.insert("features", random.array(case.dtype, n * case.d, 1.0));
        }
        Kernel::Weights | Kernel::TopK => {}
    }
    set.insert("logits", random.array(Dtype::F32, n, 3.0));
    if case.backward {
        let len = match case.kernel {
            Kernel::Weights => n,
            _ => case.bags * case.d,
        };
        set.insert("gradient", random.array(Dtype::F32, len, 1.0));
    }
    let masked = (0..n).filter(|&row| mask.is_some_and(|mask| !mask[row]));
    for row in masked {
        for (name, array) in &mut set {
            if let Extent::Row(width) = extent(case, name) {
                let places = row * width..(row + 1) * width;
                match array {
                    Array::F32(data) => data[places].fill(f32::NAN),
                    Array::F16(data) => data[places].fill(half::f16::NAN),
                    Array::Bf16(data) => data[places].fill(half::bf16::NAN),
                    _ => {}
                }
            }
        }
    }
    set
}

/// Poisoned outputs of a case.
pub(crate) fn outputs_of(case: &Case) -> Outputs {
    let n = match case.kernel {
        Kernel::Tiles => 0,
        _ => case.total(),
    };
    shaped(case, n, case.bags)
}

/// Poisoned outputs of a case for `n` rows in `b` bags.
pub(crate) fn shaped(case: &Case, n: usize, b: usize) -> Outputs {
    let (d, l) = (case.d, case.l);
    let of = |name, dtype, extent| {
        let len = match extent {
            Extent::Row(width) => n * width,
            Extent::Bag(width) => b * width,
            Extent::All => 0,
        };
        (name, Array::poisoned(dtype, len), extent)
    };
    let all = |name, len| (name, Array::poisoned(Dtype::F32, len), Extent::All);
    let f32s = Dtype::F32;
    let weights = || {
        vec![
            of("weights", f32s, Extent::Row(1)),
            of("sums", f32s, Extent::Bag(1)),
            of("squares", f32s, Extent::Bag(1)),
            of("entropy", f32s, Extent::Bag(1)),
            of("flags", Dtype::U32, Extent::Bag(1)),
        ]
    };
    let pool = || {
        let mut out = vec![of("pooled", f32s, Extent::Bag(d))];
        out.extend(weights());
        out
    };
    match (case.kernel, case.backward) {
        (Kernel::Weights, false) => weights(),
        (Kernel::Weights, true) => vec![of("logits", f32s, Extent::Row(1))],
        (Kernel::Pool, false) => pool(),
        (Kernel::Pool, true) => vec![
            of("logits", f32s, Extent::Row(1)),
            of("features", case.dtype, Extent::Row(d)),
        ],
        (Kernel::Gated, false) => {
            let mut out = vec![of("logits", f32s, Extent::Row(1))];
            out.extend(pool());
            out
        }
        (Kernel::Gated, true) => vec![
            all("value", l * d),
            all("value bias", l),
            all("gate", l * d),
            all("gate bias", l),
            all("weight", l),
            all("bias", 1),
            of("features", case.dtype, Extent::Row(d)),
        ],
        (Kernel::TopK, _) => vec![
            of("highest", Dtype::I32, Extent::Bag(d)),
            of("lowest", Dtype::I32, Extent::Bag(d)),
            of("nans", Dtype::U32, Extent::Bag(1)),
        ],
        (Kernel::Tiles, _) => vec![of(
            "numbers",
            case.dtype,
            Extent::Bag(3 * case.rows * case.rows),
        )],
    }
}
