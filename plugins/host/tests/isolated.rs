//! A map or filter in a process of its own answers as it does in this one, and whatever it does there only its own rows fail.
#![allow(clippy::unwrap_used)]

mod programs;
mod sins;

use sins::{Way, batch, built, made, outcomes, print, printed, tile, tiles, tiles_in, way};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_plugin_host::{Isolated, Program};
use weir_record::Slab;

#[test]
fn a_row_that_ends_the_process_fails_alone_and_is_named() {
    for (id, how, said) in [
        ("sins.pass", "abort", "was killed by signal 6 (Aborted)"),
        (
            "sins.pass",
            "segv",
            "was killed by signal 11 (Segmentation fault)",
        ),
        ("sins.pass", "exit", "ended with exit status 7"),
        ("sins.pass", "term", "was killed by signal 15 (Terminated)"),
        ("sins.pass", "fork", "ended with exit status 9"),
        (
            "sins.pass",
            "input",
            "was killed by signal 11 (Segmentation fault)",
        ),
        ("sins.mean", "abort", "was killed by signal 6 (Aborted)"),
        (
            "sins.mean",
            "overrun",
            "was killed by signal 11 (Segmentation fault)",
        ),
        (
            "sins.mean",
            "underrun",
            "was killed by signal 11 (Segmentation fault)",
        ),
        (
            "sins.invert",
            "overrun",
            "was killed by signal 11 (Segmentation fault)",
        ),
        (
            "sins.invert",
            "segv",
            "was killed by signal 11 (Segmentation fault)",
        ),
    ] {
        let well = printed(id, "", &way(false));
        let made = made(id, how, &way(true)).unwrap();
        let outcomes = outcomes(made.work(), &tiles());
        for (row, outcome) in outcomes.iter().enumerate() {
            match row {
                5 => {
                    let what = outcome.as_ref().unwrap_err();
                    let place = "at slide `a`, tile (40, 0)";
                    assert_eq!(
                        *what,
                        format!("plugin `sins` 0.1.0's process {said} [E0521] {place}"),
                        "{id} {how}"
                    );
                }
                _ => assert_eq!(print(outcome), well[row], "{id} {how}"),
            }
        }
        let log = made.said();
        assert!(
            log.contains("at 16 tiles, (0, 0) of slide `a` to (120, 0) of slide `b`"),
            "{log}"
        );
        assert_eq!(log.matches("; it is started again").count(), 2, "{log}");
    }
}

#[test]
fn a_loop_without_end_is_ended_when_its_time_is_over() {
    let way = Way {
        timeout: Duration::from_secs(2),
        ..way(true)
    };
    let made = made("sins.pass", "loop", &way).unwrap();
    let since = Instant::now();
    let outcomes = outcomes(made.work(), &tiles());
    assert!(since.elapsed() < Duration::from_secs(60));
    let failed: Vec<_> = outcomes.iter().filter_map(|it| it.as_ref().err()).collect();
    assert_eq!(
        failed,
        ["plugin `sins` 0.1.0 did not answer within 2s [E0523] at slide `a`, tile (40, 0)"]
    );
}

#[test]
fn a_process_that_sends_junk_or_hangs_up_fails_its_row_and_nothing_else() {
    for (how, said) in [
        ("junk", "broke the contract [E0520]: its process sent"),
        ("close", "'s process "),
    ] {
        let made = made("sins.pass", how, &way(true)).unwrap();
        let outcomes = outcomes(made.work(), &tiles());
        for (row, outcome) in outcomes.iter().enumerate() {
            match (row, outcome) {
                (5, Err(what)) => assert!(what.contains(said), "{what}"),
                (5, Ok(_)) | (_, Err(_)) => panic!("{how} {row}: {outcome:?}"),
                _ => {}
            }
        }
    }
}

/// The sin writes an answer to an earlier call, which says that all is well, before the call is answered.
#[test]
fn an_answer_to_an_earlier_call_is_never_taken_for_a_later_one() {
    let well = printed("sins.pass", "", &way(false));
    let made = made("sins.pass", "late", &way(true)).unwrap();
    let outcomes = outcomes(made.work(), &tiles());
    for (row, outcome) in outcomes.iter().enumerate() {
        match row {
            5 => assert_eq!(
                outcome.as_ref().unwrap_err(),
                "plugin `sins` 0.1.0 broke the contract [E0520]: its process sent an answer to another call at slide `a`, tile (40, 0)"
            ),
            _ => assert_eq!(print(outcome), well[row], "{row}"),
        }
    }
}

/// Tiles that are so large that they lie in the arena of the run.
fn large() -> Way {
    Way {
        side: 64,
        ..way(true)
    }
}

#[test]
fn tiles_that_lie_in_shared_memory_are_read_where_they_lie_and_can_only_be_read() {
    let held = |made: &sins::Made| made.budget.leased();
    let here = Way {
        isolated: false,
        ..large()
    };
    let here = made("sins.mean", "", &here).unwrap();
    let wanted: Vec<_> = outcomes(here.work(), &tiles_in(&here.slab, 64))
        .iter()
        .map(print)
        .collect();
    let there = made("sins.mean", "", &large()).unwrap();
    let got: Vec<_> = outcomes(there.work(), &tiles_in(&there.slab, 64))
        .iter()
        .map(print)
        .collect();
    assert_eq!(got, wanted);
    let shared = held(&there);
    // What is copied is leased as well.
    outcomes(there.work(), &tiles_in(&Slab::new(1 << 20), 64));
    assert_eq!(held(&there), shared + (1 << 20));
    drop(there.prepared);
    assert_eq!(there.budget.leased(), 0, "all of it ends with the stage");

    let writes = made("sins.pass", "input", &large()).unwrap();
    let rows = tiles_in(&writes.slab, 64);
    let outcomes = outcomes(writes.work(), &rows);
    for (row, outcome) in outcomes.iter().enumerate() {
        match row {
            5 => assert!(
                outcome
                    .as_ref()
                    .unwrap_err()
                    .contains("signal 11 (Segmentation fault)")
            ),
            _ => assert!(outcome.is_ok(), "{row}"),
        }
    }
}

/// The sin ends its process when a batch that it kept is no more what it was.
#[test]
fn a_batch_that_a_plugin_keeps_stays_as_it_is_until_it_lets_go() {
    let made = made("sins.invert", "retain", &large()).unwrap();
    for round in 0..20u8 {
        // Dropped after the call, so that its buffers would be used for the next one.
        let mut rows = tiles_in(&made.slab, 64);
        rows.rotate_left(usize::from(round) % 16);
        made.work().run(&mut batch(&rows)).unwrap();
    }
    // Two are held: what it keeps, and what it let go of in the last call or is still to say so.
    let bytes = 64 * 64 * 3;
    assert!(made.slab.free_bytes() >= 16 * bytes);
}

#[test]
fn what_a_plugin_allocates_itself_has_an_end() {
    let made = made("sins.pass", "heap", &way(true)).unwrap();
    let outcomes = outcomes(made.work(), &tiles());
    let failed: Vec<_> = outcomes.iter().filter_map(|it| it.as_ref().err()).collect();
    assert_eq!(failed, ["plugin `sins` 0.1.0 ran out of memory"]);
}

#[test]
fn a_call_that_is_ended_against_the_rules_fails_and_the_process_goes_on() {
    for how in ["gone", "pending"] {
        let way = Way {
            timeout: Duration::from_secs(2),
            ..way(true)
        };
        let made = made("sins.pass", how, &way).unwrap();
        let outcomes = outcomes(made.work(), &tiles());
        assert!(outcomes[5].is_err());
        assert_eq!(outcomes.iter().filter(|it| it.is_err()).count(), 1, "{how}");
    }
}

#[test]
fn a_run_that_is_being_stopped_reaches_the_process() {
    let made = made("sins.pass", "until-stopped", &way(true)).unwrap();
    let stop = made.stop.clone();
    let asked = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        stop.request();
    });
    let since = Instant::now();
    let error = made.work().run(&mut batch(&tiles())).unwrap_err();
    // Far less than its time.
    assert!(since.elapsed() < Duration::from_secs(15));
    assert!(
        error.what.contains("stopped, as it was asked to"),
        "{error}"
    );
    asked.join().unwrap();
}

#[test]
fn memory_without_end_is_refused_by_words() {
    // What is made is kept, call after call.
    let made = made("sins.invert", "much", &large()).unwrap();
    let rows = tiles_in(&made.slab, 64);
    let error = (0..10_000).find_map(|_| made.work().run(&mut batch(&rows)).err());
    let error = error.unwrap();
    let told = [
        "the host gives a plugin no more",
        "too many batches at once",
    ];
    assert!(told.iter().any(|told| error.what.contains(told)), "{error}");
}

#[test]
fn what_create_says_is_heard_and_a_process_that_dies_in_it_is_told() {
    let error = |how| made("sins.pass", how, &way(true)).err().unwrap();
    let refused = error("refuse");
    assert_eq!(
        (
            refused.what.as_str(),
            refused.param.as_deref(),
            refused.help.as_str()
        ),
        ("no", Some("how"), "say something else")
    );
    assert_eq!(
        error("die-in-create").what,
        "plugin `sins` 0.1.0's process was killed by signal 6 (Aborted) [E0521] while it was made"
    );
    let none = Way {
        program: Program::new("/nonexistent/weir", []),
        ..way(true)
    };
    let unstarted = made("sins.pass", "", &none).err().unwrap();
    assert!(unstarted.what.contains("cannot be started"), "{unstarted}");
    let program = Program::new("/bin/false", []);
    let early = Isolated::new(Arc::new(sins::admitted()), program).unwrap();
    let refused = early.loaded().unwrap_err();
    assert_eq!(
        (refused.code, refused.what.as_str()),
        (
            "E0521",
            "its process ended with exit status 1 while it was loaded"
        )
    );
    let deaf = Way {
        program: Program::new("/bin/false", []),
        ..way(true)
    };
    let unstarted = made("sins.pass", "", &deaf).err().unwrap();
    assert!(
        unstarted.what.contains("ended with exit status 1"),
        "{unstarted}"
    );
}

#[test]
fn slides_at_which_the_process_dies_a_hundred_times_in_a_row_are_asked_about_no_more_and_others_go_on()
 {
    let made = made("sins.pass", "exit", &way(true)).unwrap();
    // Slides `b` and `c` in turn, each of 120 tiles that kill, in batches of 30.
    for first in [0, 30, 60, 90] {
        for slide in [1, 2] {
            let rows: Vec<_> = (first..first + 30).map(|i| tile(slide, i, 13)).collect();
            for (i, outcome) in (first..).zip(outcomes(made.work(), &rows)) {
                let name = ["b", "c"][slide as usize - 1];
                let of_plugin = "plugin `sins` 0.1.0's process";
                let what = match i < 100 {
                    true => format!(
                        "{of_plugin} ended with exit status 7 [E0521] at slide `{name}`, tile ({}, 0)",
                        i * 8
                    ),
                    false => format!(
                        "{of_plugin} was lost 100 times in a row at slide `{name}` [E0521], and is asked for no more of it"
                    ),
                };
                assert_eq!(outcome.unwrap_err(), what);
            }
        }
        made.work().run(&mut batch(&[tile(0, first, 1)])).unwrap();
    }
    // Of each a hundred tiles, and four batches before they were tried alone.
    let log = made.said();
    assert_eq!(log.matches("; it is started again").count(), 208, "{log}");
    let given_up = ", and is asked for no more of it";
    assert_eq!(log.matches(given_up).count(), 2, "{log}");
}

#[test]
fn a_slide_at_which_processes_die_now_and_then_goes_on_however_often_they_do() {
    let made = made("sins.pass", "exit", &way(true)).unwrap();
    for i in 0..130 {
        let error = made.work().run(&mut batch(&[tile(0, i, 13)])).unwrap_err();
        assert!(error.what.contains("exit status 7"), "{error}");
        if i % 90 == 89 {
            made.work().run(&mut batch(&[tile(0, 1000, 1)])).unwrap();
        }
    }
}

fn children(of: u32) -> Vec<String> {
    let mut all = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{of}/task")).unwrap() {
        let path = task.unwrap().path().join("children");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        all.extend(text.split_whitespace().map(str::to_owned));
    }
    all
}

/// Bytes of a process that are in memory.
fn resident(pid: &str) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Other tests have processes and files of their own: these run in a process of their own too.
#[test]
#[ignore = "run by a_thousand_calls_leave_nothing_behind"]
fn alone_a_thousand_calls() {
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let _ = built();
    {
        let _ = made("sins.invert", "retain", &way(true)).unwrap();
    }
    let before = files();
    let made_ = made("sins.invert", "retain", &way(true)).unwrap();
    let rows = tiles();
    let call = || made_.work().run(&mut batch(&rows)).unwrap();
    (0..100).for_each(|_| call());
    let child = children(std::process::id()).pop().unwrap();
    let (own, its, open) = (resident("self"), resident(&child), files());
    let open_there = || {
        std::fs::read_dir(format!("/proc/{child}/fd"))
            .unwrap()
            .count()
    };
    let there = open_there();
    (0..1000).for_each(|_| call());
    assert_eq!((files(), open_there()), (open, there));
    let grown = |now: usize, before: usize| now.saturating_sub(before);
    assert!(grown(resident("self"), own) < 4 << 20);
    assert!(grown(resident(&child), its) < 4 << 20);
    drop(made_);
    assert_eq!(
        (files(), children(std::process::id())),
        (before, Vec::<String>::new())
    );

    // Deaths leave nothing either: no zombie, no file, none of what the plugin forked.
    let made_ = made("sins.pass", "fork", &way(true)).unwrap();
    let open = files();
    for _ in 0..5 {
        made_.work().run(&mut batch(&[tile(0, 0, 13)])).unwrap_err();
    }
    assert_eq!((files(), children(std::process::id()).len()), (open, 1));
    drop(made_);
    let forked = || {
        let of = program_name();
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter(|entry| {
            let comm = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            comm.contains(of)
                && std::fs::read_to_string(entry.path().join("environ"))
                    .unwrap_or_default()
                    .contains("WEIR_TEST_ALONE=1")
        })
        .count()
    };
    let until = Instant::now() + Duration::from_secs(20);
    while forked() > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((files(), forked()), (before, 0));

    // A plugin's thread that goes on after the end ends with its process.
    let made_ = made("sins.pass", "thread", &way(true)).unwrap();
    made_.work().run(&mut batch(&rows)).unwrap();
    drop(made_);
    assert_eq!((files(), children(std::process::id()).len()), (before, 0));
}

fn program_name() -> &'static str {
    "plugin-host-child"
}

#[test]
fn a_thousand_calls_leave_nothing_behind() {
    let run = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "alone_a_thousand_calls",
            "--ignored",
            "--nocapture",
        ])
        .env("WEIR_TEST_ALONE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(
        run.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&run.stdout)
    );
}

/// What a plugin prints is no output of the host's.
#[test]
#[ignore = "run by what_a_plugin_prints_goes_to_standard_error"]
fn alone_printing() {
    let made = made("sins.pass", "print", &way(true)).unwrap();
    made.work().run(&mut batch(&tiles())).unwrap();
}

#[test]
fn what_a_plugin_prints_goes_to_standard_error() {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "alone_printing", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    assert!(run.status.success());
    assert!(!String::from_utf8_lossy(&run.stdout).contains("printed"));
    assert!(String::from_utf8_lossy(&run.stderr).contains("printed"));
}

/// A process whose host is gone ends, also in the midst of a loop without end.
#[test]
#[ignore = "run by a_process_ends_with_its_host"]
fn alone_looping() {
    let made = made("sins.pass", "loop", &way(true)).unwrap();
    let _ = made.work().run(&mut batch(&tiles()));
}

#[test]
fn a_process_ends_with_its_host() {
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "alone_looping", "--ignored"])
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let child = loop {
        let busy = |pid: &String| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let name = stat.contains("(plugin-host-chi");
            // The loop has taken time of the processor.
            name && stat
                .rsplit(") ")
                .next()
                .is_some_and(|rest| rest.split(' ').nth(11).is_some_and(|ticks| ticks != "0"))
        };
        if let Some(child) = children(host.id()).into_iter().find(busy) {
            break child;
        }
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(10));
    };
    host.kill().unwrap();
    host.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while Path::new(&format!("/proc/{child}/exe")).read_link().is_ok() {
        assert!(Instant::now() < until, "{child} goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
}
