//! Copies behind the threads' backs, each with the bug that only a late copy shows.

use super::machine::{Machine, Value::Address, Value::Number};
use crate::emulated::{OF_THE_EMULATOR, Patch, Setting, Variant, inside, run};

const FILE: &str = "emulator/tests/copies.cu";
const ROWS: usize = 7;

fn at(seed: u64, late: bool) -> Setting {
    Setting {
        seed,
        late,
        ..Setting::default()
    }
}

/// Right with late and early copies, in several orders and under the sanitizers.
fn holds(case: &str) {
    for (seed, late) in [(0, true), (1, true), (2, true), (0, false), (3, false)] {
        run(OF_THE_EMULATOR, &at(seed, late), case).passed();
    }
    run(OF_THE_EMULATOR.sanitized(), &at(1, true), case).passed();
}

fn bug(patches: &'static [Patch]) -> Variant {
    OF_THE_EMULATOR.patched(patches)
}

/// Copies rows by a kernel that writes `copies` times what it gets.
fn copies(kernel: &str, blocks: u32, threads: u32, shared: u32, times: usize) {
    if !inside() {
        return;
    }
    let machine = Machine::new();
    let values: Vec<u32> = (0..ROWS as u32 * 128)
        .map(|i| i.wrapping_mul(2_654_435_761))
        .collect();
    let (input, output) = (
        machine.input(&values),
        machine.memory(4 * values.len() * times),
    );
    let arguments = [
        Address(input.address),
        Address(output.address),
        Number(ROWS as i32),
    ];
    machine
        .launch(kernel, blocks, threads, shared, &arguments)
        .expect("a launch");
    assert_eq!(machine.output::<u32>(&output), values.repeat(times));
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_pipeline() {
    copies("emu_pipeline", 1, 32, 3 * 512, 1);
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_bulk() {
    copies("emu_bulk", 1, 64, 2 * 512 + 32, 1);
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_cluster() {
    copies("emu_cluster", 2, 32, 512 + 16, 2);
}

#[test]
fn a_ring_of_asynchronous_copies_holds_late_and_early() {
    holds("own::copies::case_pipeline");
}

#[test]
fn a_wait_for_too_few_groups_shows_when_copies_are_late_and_only_then() {
    let bug = bug(&[Patch {
        file: FILE,
        find: "cp_async_wait<STAGES - 2>();",
        put: "cp_async_wait<STAGES - 1>();",
    }]);
    run(bug, &at(0, false), "own::copies::case_pipeline").passed();
    run(bug, &at(0, true), "own::copies::case_pipeline")
        .failed_with("assertion `left == right` failed");
}

#[test]
fn copies_that_no_group_closes_are_reported() {
    let bug = bug(&[Patch {
        file: FILE,
        find: "in + 128 * ahead + 4 * lane);\n        cp_async_commit();",
        put: "in + 128 * ahead + 4 * lane);",
    }]);
    run(bug, &at(0, true), "own::copies::case_pipeline")
        .failed_with("copies that no commit_group closed");
}

#[test]
fn a_ring_of_bulk_copies_holds_late_and_early() {
    holds("own::copies::case_bulk");
}

#[test]
fn a_wrong_phase_is_a_deadlock_or_wrong_rows() {
    let deadlock = bug(&[Patch {
        file: FILE,
        find: "mbarrier_wait(empty + s, (r / 2 + 1) & 1);",
        put: "mbarrier_wait(empty + s, (r / 2) & 1);",
    }]);
    let outcome = run(deadlock, &at(0, true), "own::copies::case_bulk")
        .failed_with("DEADLOCK in kernel emu_bulk");
    assert!(
        outcome
            .output
            .contains("wait at an mbarrier at emulator/tests/copies.cu:"),
        "{}",
        outcome.output
    );
    let early = bug(&[Patch {
        file: FILE,
        find: "mbarrier_wait(full + s, (r / 2) & 1);",
        put: "mbarrier_wait(full + s, (r / 2 + 1) & 1);",
    }]);
    run(early, &at(0, true), "own::copies::case_bulk")
        .failed_with("mbarrier.arrive: more than 1 arrivals in phase 0");
}

#[test]
fn a_wrong_number_of_bytes_is_a_deadlock() {
    let bug = bug(&[Patch {
        file: FILE,
        find: "mbarrier_arrive_expect(full + s, ROW);",
        put: "mbarrier_arrive_expect(full + s, ROW + 16);",
    }]);
    run(bug, &at(1, true), "own::copies::case_bulk").failed_with("DEADLOCK in kernel emu_bulk");
}

#[test]
fn an_mbarrier_that_nobody_initialised_or_that_expects_too_few_arrivals_is_seen() {
    let absent = bug(&[Patch {
        file: FILE,
        find: "mbarrier_init(empty + s, 32);",
        put: "",
    }]);
    run(absent, &at(0, true), "own::copies::case_bulk")
        .failed_with("no mbarrier was initialised here");
    let many = bug(&[Patch {
        file: FILE,
        find: "mbarrier_init(empty + s, 32);",
        put: "mbarrier_init(empty + s, 31);",
    }]);
    let seen = (1..9).filter(|&seed| {
        run(many, &at(seed, false), "own::copies::case_bulk")
            .status
            .code()
            != Some(0)
    });
    assert!(seen.count() > 0, "eight orders, and none shows it");
}

#[test]
fn a_cluster_of_two_holds_late_and_early() {
    holds("own::copies::case_cluster");
}

#[test]
fn a_multicast_to_one_block_alone_is_a_deadlock() {
    let bug = bug(&[Patch {
        file: FILE,
        find: "ROW / 2, full, 3);",
        put: "ROW / 2, full, 1);",
    }]);
    run(bug, &at(1, true), "own::copies::case_cluster")
        .failed_with("DEADLOCK in kernel emu_cluster");
}

#[test]
fn an_arrival_at_a_block_that_has_exited_is_reported() {
    let bug = bug(&[Patch {
        file: FILE,
        find: "mbarrier_arrive_remote(empty, lane);\n    }\n    cluster_sync();",
        put: "mbarrier_arrive_remote(empty, lane);\n    }",
    }]);
    let mut reported = 0;
    for seed in 1..9 {
        reported += usize::from(
            run(bug, &at(seed, true), "own::copies::case_cluster")
                .output
                .contains("of the cluster has exited"),
        );
    }
    assert!(reported > 0, "eight orders, and none shows it");
}
