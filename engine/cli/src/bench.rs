//! `weir bench`: hands its arguments to the crate that measures.

use crate::args::{Bench, Kernels};
use crate::message::{Done, Manner, Refusal};
use std::io::{self, IsTerminal, Write};
use weir_bench_kernels::bench::{Outcome, run};
use weir_bench_kernels::{Fault, Options};
use weir_runtime::exit;

/// Measures.
pub fn bench(what: Bench, manner: &Manner, out: &mut dyn Write) -> Done {
    let Bench::Kernels(arguments) = what;
    let shown = !manner.quiet && io::stderr().is_terminal();
    let outcome = run(&options(arguments), out, &mut |what| {
        if shown {
            let _ = writeln!(io::stderr(), "{what}");
        }
    });
    match outcome {
        Ok(Outcome::Right) => Ok(exit::DONE),
        Ok(Outcome::Wrong(_)) => Ok(exit::FAILED),
        Err(Fault { what, help, usage }) => Err(Refusal::Error {
            exit: if usage { exit::USAGE } else { exit::FAILED },
            what,
            help,
        }),
    }
}

fn options(arguments: Kernels) -> Options {
    let [usual, quick] = Options::BUDGETS;
    Options {
        filter: arguments.filter,
        device: arguments.device,
        threads: arguments.threads,
        budget: arguments
            .budget
            .unwrap_or(if arguments.quick { quick } else { usual }),
        check: arguments.check,
        predict: arguments.predict,
        json: arguments.json,
        compare: arguments.compare,
        peers: arguments.peers,
        trace: arguments.trace,
        plot: arguments.plot,
        ..Options::default()
    }
}
