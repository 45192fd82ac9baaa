//! The same as `weir bench kernels`, without the engine: small enough to be carried to a machine that has nothing but a GPU.
//!
//! Arguments are those of `weir bench kernels`; this program knows no other way of writing them than `--name value`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use weir_bench_kernels::bench::{Outcome, run};
use weir_bench_kernels::{Fault, Options};

fn main() -> ExitCode {
    let outcome = options().and_then(|options| {
        run(&options, &mut std::io::stdout().lock(), &mut |what| {
            let _ = writeln!(std::io::stderr(), "{what}");
        })
    });
    match outcome {
        Ok(Outcome::Right) => ExitCode::SUCCESS,
        Ok(Outcome::Wrong(_)) => ExitCode::FAILURE,
        Err(fault) => {
            let _ = writeln!(
                std::io::stderr(),
                "error: {}\n  help: {}",
                fault.what,
                fault.help
            );
            ExitCode::from(if fault.usage { 2 } else { 1 })
        }
    }
}

fn options() -> Result<Options, Fault> {
    let mut options = Options::default();
    options.command = format!("bench kernels {}", options.command);
    let mut words = std::env::args().skip(1).peekable();
    while let Some(name) = words.next() {
        let mut value = || {
            words.next().ok_or_else(|| {
                Fault::usage(format!("{name} has no value"), "write it behind the name")
            })
        };
        let path = |value: Result<String, Fault>| value.map(|value| Some(PathBuf::from(value)));
        match name.as_str() {
            "--check" => options.check = true,
            "--quick" => options.budget = Options::BUDGETS[1],
            "--filter" => options.filter = value()?,
            "--device" => options.device = value()?,
            "--threads" => options.threads = number(&name, &value()?)? as usize,
            "--budget" => options.budget = number(&name, &value()?)?,
            "--json" => options.json = path(value())?,
            "--compare" => options.compare = path(value())?,
            "--peers" => options.peers = path(value())?,
            "--trace" => options.trace = path(value())?,
            "--plot" => options.plot = path(value())?,
            "--predict" => {
                let card = words.next_if(|word| !word.starts_with("--"));
                let names = card.map(|names| names.split(',').map(str::to_owned).collect());
                options.predict = Some(names.unwrap_or_default());
            }
            _ => {
                return Err(Fault::usage(
                    format!("`{name}` is no argument of this program"),
                    "`weir help bench kernels` lists them",
                ));
            }
        }
    }
    Ok(options)
}

fn number(name: &str, text: &str) -> Result<f64, Fault> {
    text.parse()
        .ok()
        .filter(|n: &f64| *n >= 0.0)
        .ok_or_else(|| {
            Fault::usage(
                format!("{name} is `{text}`, which is no number"),
                "give a number of seconds or of threads",
            )
        })
}
