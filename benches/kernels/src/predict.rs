//! What a card's limits allow, without the card.

use crate::Fault;
use crate::cards::{CARDS, CARRIED, Card, LAUNCH, REACHED};
use crate::case::{Case, Kernel};
use crate::cost::cost;
use crate::record::Measured;
use crate::table::{Table, amount, seconds};
use std::io::Write;
use weir_kernels::Dtype;

/// The cards of those names; all when there is none.
pub fn cards(names: &[String]) -> Result<Vec<&'static Card>, Fault> {
    if names.is_empty() {
        return Ok(CARDS.iter().collect());
    }
    names
        .iter()
        .map(|name| {
            Card::named(name).ok_or_else(|| {
                let known: Vec<&str> = CARDS.iter().map(|card| card.name).collect();
                Fault::usage(
                    format!("no card is called `{name}`"),
                    format!("known are {}", known.join(", ")),
                )
            })
        })
        .collect()
}

/// The shapes of the table, the design's own first.
fn shapes() -> Vec<Case> {
    let case = Case {
        kernel: Kernel::Pool,
        backward: false,
        softmax: false,
        dtype: Dtype::Bf16,
        bags: 64,
        rows: 4096,
        ragged: false,
        masked: false,
        d: 1024,
        l: 0,
        kept: false,
        step: false,
    };
    let of = |kernel, backward, bags, rows, d, l| Case {
        kernel,
        backward,
        bags,
        rows,
        d,
        l,
        ..case
    };
    let mut all = Vec::new();
    for backward in [false, true] {
        for (bags, rows) in [(64, 4096), (2000, 128), (1, 20_000)] {
            all.push(Case {
                dtype: Dtype::F32,
                ..of(Kernel::Weights, backward, bags, rows, 0, 0)
            });
        }
    }
    for backward in [false, true] {
        for (bags, rows, d) in [
            (64, 4096, 1024),
            (64, 4096, 512),
            (64, 4096, 1536),
            (2000, 128, 1024),
            (1, 20_000, 1024),
        ] {
            all.push(of(Kernel::Pool, backward, bags, rows, d, 0));
        }
    }
    for backward in [false, true] {
        for (bags, rows, d, l) in [
            (64, 4096, 1024, 256),
            (64, 4096, 1024, 512),
            (64, 4096, 1024, 128),
            (64, 4096, 512, 256),
            (64, 4096, 1536, 384),
            (2000, 128, 1024, 256),
            (1, 20_000, 1024, 256),
        ] {
            all.push(of(Kernel::Gated, backward, bags, rows, d, l));
        }
    }
    for (bags, rows) in [(64, 4096), (1, 20_000)] {
        all.push(Case {
            dtype: Dtype::F32,
            ..of(Kernel::TopK, false, bags, rows, 64, 0)
        });
    }
    for dtype in [Dtype::F16, Dtype::F32] {
        all.push(Case {
            dtype,
            ..of(Kernel::Tiles, false, 512, 256, 3, 0)
        });
    }
    all
}

/// Prints the roofline of each card.
pub fn print(names: &[String], filter: &str, out: &mut dyn Write) -> Result<(), Fault> {
    writeln!(
        out,
        "Floors: each input read once, each output written once, products at the matrix units' rate; nothing here was \
         measured. Backward of (c) too is put at that rate, though its two products for gradients run in tf32 on a device: at \
         half of bf16's rate its floor would be 1.67 times as long.\nPredicted: {} for launch and wait, and {:.0} % of the floor's rate, both assumptions.\n",
        seconds(LAUNCH),
        100.0 * REACHED
    )?;
    for card in cards(names)? {
        let ceilings = card.ceilings();
        writeln!(
            out,
            "{} ({}): copy {:.2} TB/s, bf16 {:.0} TFLOP/s, f32 {:.0} TFLOP/s. {}.\n",
            card.full,
            card.name,
            card.copy / 1e12,
            card.product_half / 1e12,
            card.product / 1e12,
            card.source
        )?;
        let mut table = Table::new(&[
            "case",
            "bytes",
            "GFLOP",
            "FLOP/B",
            "memory",
            "product",
            "floor",
            "bound by",
            "predicted",
        ]);
        for case in shapes().iter().filter(|case| case.matches(filter)) {
            let cost = cost(case);
            let floor = ceilings.floor(case, &cost);
            table.row(vec![
                format!("({}) {}", case.kernel.letter(), case.name()),
                amount(cost.bytes()),
                format!("{:.1}", cost.flops / 1e9),
                format!("{:.1}", cost.flops / cost.bytes()),
                seconds(ceilings.memory_time(&cost)),
                seconds(cost.products / ceilings.product_rate(case.dtype)),
                seconds(floor),
                ceilings.bound(case, &cost).into(),
                seconds(card.predicted(floor)),
            ]);
        }
        table.print(out)?;
        writeln!(out)?;
    }
    chain(names, filter, out)
}

/// What fusion can win in (c): the floors of the ways that do not fuse (KERNELS.md 4).
fn chain(names: &[String], filter: &str, out: &mut dyn Write) -> Result<(), Fault> {
    let mut table = Table::new(&[
        "card",
        "case",
        "floor fused",
        "one product, epilogue, pool",
        "torch.compile",
        "torch eager",
        "most that fusion wins",
        "activations not kept",
    ]);
    let fused =
        |case: &&Case| case.kernel == Kernel::Gated && !case.backward && case.matches(filter);
    for card in cards(names)? {
        for case in shapes().iter().filter(fused) {
            let (ceilings, cost) = (card.ceilings(), cost(case));
            let floor = ceilings.floor(case, &cost);
            let [chain, compiled, eager] = unfused(case, card);
            table.row(vec![
                card.name.into(),
                case.name(),
                seconds(floor),
                seconds(chain),
                seconds(compiled),
                seconds(eager),
                format!("{:.2}", chain / floor),
                amount((case.total() * 3 * case.l * case.dtype.bytes()) as f64),
            ]);
        }
    }
    if !table.is_empty() {
        writeln!(out, "(c) against the ways that do not fuse, floors:\n")?;
        table.print(out)?;
    }
    Ok(())
}

/// Floors of (c) as one product for V and U, an epilogue and a pool; as torch.compile does it; and as torch does it operation
/// by operation.
fn unfused(case: &Case, card: &Card) -> [f64; 3] {
    let (n, l, size) = (
        case.total() as f64,
        case.l as f64,
        case.dtype.bytes() as f64,
    );
    let features = n * case.d as f64 * size;
    let product = 4.0 * n * case.d as f64 * l / card.product_half;
    let hidden = n * l * size;
    let memory = |bytes: f64| bytes / card.copy;
    // Each product reads h and writes its l columns; whichever takes longer counts.
    let once = product.max(memory(features + 2.0 * hidden));
    let twice = 2.0 * (product / 2.0).max(memory(features + hidden));
    let pool = memory(features);
    [
        once + memory(2.0 * hidden) + pool,
        twice + memory(2.0 * hidden) + pool,
        // tanh in and out, sigmoid in and out, their product two in and one out, its product with w in.
        twice + memory(8.0 * hidden) + pool,
    ]
}

/// Where the processor wins: measured there, predicted for `card`, with the features on the card already and carried to it.
pub fn winners(measured: &[Measured], cases: &[Case], card: &Card) -> Table {
    let mut table = Table::new(&[
        "case",
        "processor",
        &format!("{}, features there", card.name),
        "faster",
        &format!("{}, features carried", card.name),
        "faster",
    ]);
    let who = |processor: f64, device: f64| {
        if processor <= device {
            format!("processor {:.1} x", device / processor)
        } else {
            format!("{} {:.1} x", card.name, processor / device)
        }
    };
    for found in measured.iter().filter(|found| found.median > 0.0) {
        let Some(case) = cases.iter().find(|case| case.name() == found.case) else {
            continue;
        };
        // A card keeps no hidden units: what the processor was spared it does again.
        let case = &Case {
            kept: case.kept && case.step,
            ..*case
        };
        let cost = cost(case);
        let there = card.predicted(card.ceilings().floor(case, &cost));
        let carried = there + cost.bytes() / CARRIED;
        table.row(vec![
            found.case.clone(),
            seconds(found.median),
            seconds(there),
            who(found.median, there),
            seconds(carried),
            who(found.median, carried),
        ]);
    }
    table
}
