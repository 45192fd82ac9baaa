//! What breaks the contract is told, and what panics is contained.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use weir_plugin::harness::{self, Rows};
use weir_plugin::{Batch, Call, Detached, Error, Held, Map, Result};

/// Sins by name.
#[derive(weir_plugin::Stage)]
#[stage(map, id = "sins.all")]
#[input(tiles: pixels[height, width, 3])]
#[output(features: features[2])]
struct Sins {
    /// Which.
    #[param]
    sin: String,
    held: Mutex<Vec<Held>>,
    detached: Mutex<Vec<Detached>>,
}

impl Map for Sins {
    fn start(&mut self, _: &Call) -> Result<()> {
        if self.sin == "start" {
            panic!("no start");
        }
        Ok(())
    }

    fn map(&self, tiles: &Batch, call: &Call) -> Result<()> {
        let good = |call: &Call| {
            let mut out = call.out().make_all()?;
            for i in 0..out.len() {
                out.set("features", i, &[1.0_f32, 2.0])?;
            }
            out.emit()
        };
        match self.sin.as_str() {
            "none" => good(call),
            "panic" => {
                let empty: &[u8] = &[];
                let i = tiles.len() + 7;
                Err(Error::new(format!("{}", empty[i])))
            }
            "lose" => Ok(()),
            "twice" => {
                good(call)?;
                call.fail_row(0, &Error::new("and failed"))
            }
            "skip" => call.skip(0, "for no reason"),
            "unwritten" => call.out().make_all()?.emit(),
            "infinite" => {
                let mut out = call.out().make_all()?;
                out.set("features", 0, &[f32::INFINITY, 0.0])?;
                out.emit()
            }
            "overrun" => {
                let mut out = call.out().make_all()?;
                let mut column = out.column_mut::<f32>("features")?;
                let row = column.row_mut(0);
                row.fill(0.0);
                // SAFETY: none: this is what is to be found.
                unsafe { row.as_mut_ptr().add(2).write(1.0) };
                out.emit()
            }
            "input" => {
                good(call)?;
                let pixels = tiles.column::<u8>("pixels")?.row(0);
                // SAFETY: none: this is what is to be found.
                unsafe { pixels.as_ptr().cast_mut().write_volatile(99) };
                Ok(())
            }
            "keep" => {
                self.held.lock().unwrap().push(tiles.hold());
                good(call)
            }
            "leak" => {
                std::mem::forget(tiles.hold());
                good(call)
            }
            "wrong row" => call.out().make(&[5]).map(drop),
            "pass" => call.out().pass_all(),
            "later" => {
                let kept = call.detach()?;
                std::thread::spawn(move || {
                    let result = good(kept.call());
                    kept.complete(result);
                });
                Ok(())
            }
            "later panic" => {
                let kept = call.detach()?;
                std::thread::spawn(move || {
                    // Dropped without a result.
                    drop(kept);
                });
                Ok(())
            }
            "never" => {
                let kept = call.detach()?;
                self.detached.lock().unwrap().push(kept);
                Ok(())
            }
            other => Err(Error::retry(format!("no sin {other}")).help("think of one")),
        }
    }

    fn cancel(&self) {
        for kept in self.detached.lock().unwrap().drain(..) {
            kept.complete(Err(Error::cancelled()));
        }
    }
}

fn stage(sin: &str) -> harness::Stage {
    harness::stage::<Sins>().set("sin", sin).start().unwrap()
}

fn tiles() -> Rows {
    Rows::pixels(1, 1).push("a", 0, 0, &[1_u8; 3])
}

#[test]
fn each_breach_is_told_as_what_it_is() {
    for (sin, told) in [
        (
            "lose",
            "row 0 was lost: it neither came out on `features` nor failed",
        ),
        (
            "twice",
            "row 0 has several outcomes on `features`: 1 came out, 0 skipped, 1 failed",
        ),
        ("skip", "row 0 was skipped by a map"),
        (
            "unwritten",
            "column `features` of row 0 has a number that is not finite, or was not written",
        ),
        (
            "infinite",
            "column `features` of row 0 has a number that is not finite",
        ),
        ("overrun", "it wrote outside of a row on output 0"),
        ("input", "it wrote to its input"),
        ("wrong row", "it made a batch of row 5, of 1 rows"),
        (
            "pass",
            "it passed rows on output 0, which is of another type than the input",
        ),
    ] {
        let error = stage(sin).process(tiles()).unwrap_err();
        assert!(error.message().contains(told), "{sin}: {error}");
    }
}

#[test]
fn batches_that_are_kept_must_be_given_back() {
    let keeps = stage("keep");
    keeps.process(tiles()).unwrap();
    keeps.end().unwrap();
    let leaks = stage("leak");
    leaks.process(tiles()).unwrap();
    let error = leaks.end().unwrap_err();
    assert!(
        error.message().contains("1 batches were retained"),
        "{error}"
    );
}

#[test]
fn a_panic_is_an_error_with_its_file_and_line_and_the_instance_is_used_no_more() {
    let stage = stage("panic");
    let error = stage.process(tiles()).unwrap_err();
    assert_eq!(error.status(), weir_plugin::abi::status::PANIC);
    let message = error.message();
    assert!(
        message.contains("tests/contract.rs:") && message.contains("index out of bounds"),
        "{message}"
    );
    let again = stage.process(tiles()).unwrap_err();
    assert_eq!(again.message(), "it panicked before and is used no more");
    let error = harness::stage::<Sins>()
        .set("sin", "start")
        .start()
        .err()
        .unwrap();
    assert!(error.message().ends_with("no start"), "{error}");
}

#[test]
fn a_call_that_is_kept_is_completed_from_another_thread_once() {
    let done = stage("later").process(tiles()).unwrap();
    assert_eq!(
        done.row::<f32>("features", 0, "features").unwrap(),
        [1.0, 2.0]
    );
    let error = stage("later panic").process(tiles()).unwrap_err();
    assert!(error.message().contains("gave the call up"), "{error}");
}

#[test]
fn a_call_that_is_kept_ends_when_the_run_is_stopped() {
    let stage = stage("never");
    std::thread::scope(|scope| {
        let call = scope.spawn(|| stage.process(tiles()).unwrap_err());
        while !call.is_finished() {
            stage.stop();
            std::thread::yield_now();
        }
        assert_eq!(call.join().unwrap(), Error::cancelled());
    });
    stage.end().unwrap();
}

#[test]
fn errors_arrive_whole() {
    let error = stage("nonsense").process(tiles()).unwrap_err();
    assert_eq!(error, Error::retry("no sin nonsense").help("think of one"));
}

#[test]
fn calls_run_at_once_on_many_threads() {
    let stage = stage("none");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..200 {
                    assert_eq!(stage.process(tiles()).unwrap().count("features"), 1);
                }
            });
        }
    });
    stage.end().unwrap();
}
