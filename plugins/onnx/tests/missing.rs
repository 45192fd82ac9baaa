//! Without ONNX Runtime there is one message, and it says how to get it. The library stays for a process, so each case is a process
//! of its own: this test again, with what the other one asks for.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use weir_onnx::encoder::Encoder;
use weir_plugin::harness;

#[test]
#[ignore = "run by the other test"]
fn starts_a_stage() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/open.onnx");
    let started = harness::stage::<Encoder>()
        .set("model", model)
        .set("features", 6)
        .set("size", 24)
        .set("mpp", 0.5)
        .start();
    match started {
        Ok(_) => println!("<started>"),
        Err(error) => println!("<{error}>"),
    }
}

fn said(variable: &str, value: &str) -> String {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "starts_a_stage", "--nocapture"])
        .env_remove("WEIR_ONNXRUNTIME")
        .env_remove("ORT_DYLIB_PATH")
        .env(variable, value)
        .output()
        .unwrap();
    let text = String::from_utf8(run.stdout).unwrap();
    let (_, rest) = text.split_once('<').unwrap();
    rest.rsplit_once('>').unwrap().0.to_owned()
}

const HOW: &str = "; `make setup` takes it out of the PyPI wheel `onnxruntime`, or set WEIR_ONNXRUNTIME to the file";

#[test]
fn a_missing_runtime_is_one_message_that_says_how_to_get_it() {
    for variable in ["WEIR_ONNXRUNTIME", "ORT_DYLIB_PATH"] {
        assert_eq!(
            said(variable, "/nowhere/libonnxruntime.so"),
            format!(
                "ONNX Runtime's library did not load: there is no such file; looked for /nowhere/libonnxruntime.so{HOW}"
            )
        );
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "no library").unwrap();
    let said = said("WEIR_ONNXRUNTIME", file.path().to_str().unwrap());
    assert!(
        said.starts_with("ONNX Runtime's library did not load: ") && said.ends_with(HOW),
        "{said}"
    );
}
