//! The program on a device, which kernels/tests/emulated stands in for: the device's half of the bench, its arrays, its checks and its
//! tables. Times of an emulator say nothing.
#![allow(clippy::unwrap_used)]

#[path = "../../../kernels/tests/emulated/mod.rs"]
mod emulated;

use emulated::{PLAIN, Patch, Setting, Variant, under};
use std::path::Path;
use std::process::{Command, Output};
use weir_bench_kernels::record;

/// A lane's sum is its last number.
const WRONG: Variant = PLAIN.patched(&[Patch {
    file: "cuda/pool.cu",
    find: "sum = __fadd_rn(sum, acc[r][j]);",
    put: "sum = acc[r][j];",
}]);

fn bench(device: Variant, folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-bench-kernels"));
    under(&mut command, device, &Setting::default());
    command
        .args(["--device", "cuda:0"])
        .args(arguments)
        .current_dir(folder)
        .env("WEIR_CACHE", "")
        .env("WEIR_NVRTC", "/none/libnvrtc.so.12")
        .output()
        .unwrap()
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn a_card_is_checked_against_f64_and_a_fault_of_its_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let check = |device, filter: &str, status| {
        let output = bench(device, folder.path(), &["--check", "--filter", filter]);
        let said = told(&output);
        assert_eq!(output.status.code(), Some(status), "{filter}: {said}");
        assert!(said.contains("Kernels: cuda:0"), "{said}");
        said
    };
    for filter in [
        "weights squared-average 8x40 -ragged -masked",
        "pool squared-average bf16 8x40 d96 -ragged -masked",
        "top-k 8x40 k5 -ragged -masked",
        "tiles bf16 3x37",
    ] {
        let said = check(PLAIN, filter, 0);
        assert!(said.contains(" 0 wrong or slower, 0 refused"), "{said}");
    }
    let filter = "pool.backward squared-average bf16 8x40 d96 -gated -ragged -masked";
    let said = check(WRONG, filter, 1);
    assert!(said.contains("WRONG: "), "{said}");
}

#[test]
fn a_card_is_measured_with_its_launches_its_memory_and_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let filter = "pool.forward squared-average bf16 1x32 d128 -masked -ragged";
    let arguments = ["--budget", "1", "--filter", filter, "--json", "found.jsonl"];
    let output = bench(PLAIN, folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let said = told(&output);
    for words in ["code: ", "Ceilings measured: copy", "no library for NVTX"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let found = record::read(&folder.path().join("found.jsonl")).unwrap();
    let cases = record::cases(found);
    assert!(!cases.is_empty());
    for case in cases {
        assert_eq!(case.device, "cuda:0");
        assert_eq!(case.stable, Some(true), "{case:?}");
        assert!(case.launches.is_some_and(|n| n >= 2), "{case:?}");
        assert!(case.memory.is_some_and(|bytes| bytes > 0.0), "{case:?}");
        assert!(
            case.resources
                .as_ref()
                .is_some_and(|text| text.contains("weir_pool_bf16")),
            "{case:?}"
        );
    }
}
