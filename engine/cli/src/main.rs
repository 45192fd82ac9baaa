//! # weir: the command line
//!
//! Thin: it parses the arguments ([`args`]), calls the crates below it, and turns what they say into text and an exit code.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | all done |
//! | 1 | failed, or stopped at the first failed slide |
//! | 2 | usage or file mistakes |
//! | 3 | finished, with failed tiles or slides |
//! | 70 | a fault of weir itself |
//! | 130 | interrupted |

mod args;
mod bench;
mod cases;
mod doctor;
mod graph;
mod inspect;
mod message;
mod new;
mod pipeline;
mod plugin;
mod reference;
mod run;
mod shown;
mod train;
mod validate;

use args::{Arguments, Command, New};
use clap::{CommandFactory, Parser};
use message::{Done, Manner, Refusal};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use weir_runtime::exit;
use weir_slide::OpenOptions;

fn main() -> ExitCode {
    #[cfg(feature = "cuda")]
    if let Some(failed) = with_burn_on_the_processor() {
        return failed;
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help goes to standard output, mistakes to standard error; nobody is left to be told when that is closed.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE));
        }
    };
    let manner = Manner::of(&arguments);
    exit::begins();
    // The message of a panic stands on standard error by now: the panic hook wrote it.
    let done = catch_unwind(AssertUnwindSafe(|| run(arguments.command, &manner)))
        .unwrap_or(Ok(exit::INTERNAL));
    exit::leaves();
    match done {
        Ok(code) => ExitCode::from(code),
        Err(Refusal::Pipe) => ExitCode::from(exit::DONE),
        Err(Refusal::Told(code)) => ExitCode::from(code),
        Err(Refusal::Error { exit, what, help }) => {
            manner.error(&what, &help);
            ExitCode::from(exit)
        }
    }
}

fn run(command: Command, manner: &Manner) -> Done {
    let out = &mut io::stdout().lock();
    match command {
        Command::Run(arguments) => run::run(&arguments, manner, out),
        Command::Validate(arguments) => validate::validate(&arguments, manner),
        Command::Graph(arguments) => graph::graph(&arguments, manner, out),
        Command::Stages(arguments) => reference::stages(&arguments, out),
        Command::Explain { code } => reference::explain(&code, out),
        Command::Schema { plugins } => reference::schema(&plugins, out),
        Command::Show(file) => reference::show(&file, manner, out),
        Command::Test { file, only } => cases::test(&file, only.as_deref(), manner, out),
        Command::New {
            what: New::Pipeline { file, models },
        } => new::pipeline(&file, &models, out),
        Command::Inspect {
            slide,
            mpp,
            timeout,
        } => {
            let options = OpenOptions {
                mpp,
                timeout,
                ..OpenOptions::default()
            };
            inspect::inspect(&slide, options, manner, out)
        }
        Command::Doctor { out: folder } => doctor::doctor(&folder, manner, out),
        Command::Plugin { what } => plugin::plugin(&what, manner, out),
        Command::PluginHost => Err(message::Refusal::internal(weir_plugin_host::child::main())),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "weir", &mut text);
            out.write_all(&text)?;
            Ok(exit::DONE)
        }
        Command::Man { command } => man(command.as_deref(), out),
        Command::Bench { what } => bench::bench(what, manner, out),
        Command::Train(arguments) => train::train(&arguments, manner, out),
    }
}

fn man(command: Option<&str>, out: &mut dyn Write) -> Done {
    let mut program = Arguments::command();
    program.build();
    let page = match command {
        None => program,
        Some(name) => {
            let known: Vec<String> = program
                .get_subcommands()
                .map(|command| command.get_name().to_owned())
                .collect();
            let found = program.find_subcommand(name).cloned();
            found.ok_or_else(|| {
                Refusal::usage(
                    format!("there is no command `{name}`"),
                    format!("the commands are {}", known.join(", ")),
                )
            })?
        }
    };
    clap_mangen::Man::new(page).render(out)?;
    Ok(exit::DONE)
}

/// In a build with burn's CUDA back end, burn loads every checkpoint on a device of its own choice, which is a GPU even where
/// there is none, unless BURN_DEVICE says otherwise. The environment of a running process cannot be changed safely, so the
/// program starts itself once more with it. weir's own `--device` is not touched by this.
#[cfg(feature = "cuda")]
fn with_burn_on_the_processor() -> Option<ExitCode> {
    use std::os::unix::process::CommandExt;
    const NAME: &str = "BURN_DEVICE";
    if std::env::var_os(NAME).is_some() {
        return None;
    }
    let error = match std::env::current_exe() {
        Ok(program) => std::process::Command::new(program)
            .args(std::env::args_os().skip(1))
            .env(NAME, "flex")
            .exec(),
        Err(error) => error,
    };
    let _ = writeln!(
        io::stderr(),
        "error: weir cannot start itself again with {NAME}=flex: {error}\n  help: set {NAME}=flex yourself"
    );
    Some(ExitCode::from(exit::FAILED))
}
