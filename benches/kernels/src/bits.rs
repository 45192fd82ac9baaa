//! Whether a case's bits stay the same: twice, with another number of threads, and a bag alone as in its batch.

use crate::Fault;
use crate::shapes::{Extent, Outputs};
use crate::work::Work;
use weir_kernels::Kernels;

/// What differed, in words; `None`: nothing.
pub type Differs = Option<String>;

/// Holds `first`, the outputs of `work` by `kernels`, against further runs. `other` is the same device with another number
/// of threads. At most `alone` bags are run alone.
pub fn stable(
    work: &Work,
    kernels: &dyn Kernels,
    other: Option<&dyn Kernels>,
    first: &Outputs,
    alone: usize,
) -> Result<Differs, Fault> {
    let mut again = work.outputs();
    work.run(kernels, 0, &mut again)?;
    if let Some(where_) = differ(first, &again) {
        return Ok(Some(format!("a second run differs: {where_}")));
    }
    if let Some(other) = other {
        let mut again = work.outputs();
        work.run(other, 0, &mut again)?;
        if let Some(where_) = differ(first, &again) {
            return Ok(Some(format!("another number of threads differs: {where_}")));
        }
    }
    let bags = work.case.bags;
    if bags < 2 {
        return Ok(None);
    }
    // The last bag is the one whose end an off-by-one runs over.
    let mut chosen = vec![bags - 1, bags / 2, 0];
    chosen.dedup();
    for bag in chosen.into_iter().take(alone) {
        let mut single = work.alone(bag)?;
        if work.case.kept {
            single.prepare(kernels)?;
        }
        let mut out = single.own_outputs();
        single.run(kernels, 0, &mut out)?;
        for ((name, whole, extent), (_, alone, _)) in first.iter().zip(&out) {
            let rows = work.rows_of(bag);
            let part = match *extent {
                Extent::Row(width) => whole.part(rows.start * width, rows.end * width),
                Extent::Bag(width) => whole.part(bag * width, (bag + 1) * width),
                Extent::All => continue,
            };
            if let Some(at) = part.differs(alone) {
                return Ok(Some(format!(
                    "bag {bag} alone differs from itself in the batch: element {at} of `{name}`"
                )));
            }
        }
    }
    Ok(None)
}

/// The first element in which they differ.
pub fn differ(a: &Outputs, b: &Outputs) -> Differs {
    a.iter().zip(b).find_map(|((name, a, _), (_, b, _))| {
        a.differs(b).map(|at| {
            format!(
                "element {at} of `{name}` is {:e}, then {:e}",
                a.at(at),
                b.at(at)
            )
        })
    })
}
