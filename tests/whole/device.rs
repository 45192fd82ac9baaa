//! A run and a training on a device: kernels/tests/emulated builds a `libcuda.so` that runs the device's code on the processor, and
//! the program finds it as it would find a driver's.

#[path = "../../kernels/tests/emulated/mod.rs"]
mod emulated;

use crate::embeddings::{FEATURE, logits, pipeline, prediction, rows, run};
use crate::program::features::{Dtype, safetensors};
use crate::program::models::Pipeline;
use crate::program::{Said, answers, command, fixture, record, root, said};
use emulated::{PLAIN, Patch, Setting, Variant};
use serde_json::Value;
use std::path::Path;

/// `weir ARGUMENTS` on the emulated device, with its code from the program's PTX.
fn on_device(arguments: &[&str], setting: &Setting, variables: &[(&str, &str)]) -> Said {
    on(PLAIN, arguments, setting, variables)
}

fn on(device: Variant, arguments: &[&str], setting: &Setting, variables: &[(&str, &str)]) -> Said {
    let mut command = command(arguments);
    emulated::under(&mut command, device, setting);
    command
        .env("WEIR_CACHE", "")
        .env("WEIR_NVRTC", "/none/libnvrtc.so.12")
        .env_remove("WEIR_DEVICE_FROM")
        .envs(variables.iter().copied());
    said(command)
}

/// A device whose memory others have filled: not even a stream's smallest block of scratch memory is to be had.
const FULL: Variant = PLAIN.patched(&[Patch {
    file: "emulator/driver_memory.cpp",
    find: "if (bytes > (size_t)1 << 32) return OUT_OF_MEMORY;",
    put: "if (bytes > (size_t)1 << (&where == &device ? 19 : 32)) return OUT_OF_MEMORY;",
}]);

/// Slides small enough for an emulator, enough of them that some become complete while others are pooled.
const SLIDES: usize = 12;

fn write_slides(folder: &Path) {
    for slide in 0..SLIDES {
        // The last has more than an item; ragged, so that no bag ends where an item does.
        let count = if slide + 1 == SLIDES {
            150
        } else {
            3 * slide + 1
        };
        let (numbers, corners) = rows(count, slide as u64 + 1);
        let file = folder.join(format!("s{slide:02}.safetensors"));
        safetensors(&file, "features", Dtype::F32, &numbers, Some(&corners), &[]).unwrap();
    }
}

/// Names of the spans on the row `cuda:0` of a trace.
fn spans(trace: &Path) -> Vec<String> {
    let trace: Value = serde_json::from_slice(&std::fs::read(trace).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let row = events
        .iter()
        .find(|event| event["args"]["name"] == "cuda:0")
        .unwrap();
    let on = |event: &&Value| event["ph"] == "X" && event["tid"] == row["tid"];
    let names = events.iter().filter(on);
    names
        .map(|event| event["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Launches of kernels whose name begins so.
fn launches(spans: &[String], kernel: &str) -> usize {
    spans.iter().filter(|name| name.starts_with(kernel)).count()
}

#[test]
fn the_emulated_device_gives_the_same_tables_pools_several_slides_a_launch_and_stands_in_the_trace()
{
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_slides(path);
    let file = pipeline(path, &["*.safetensors"], "whole-slide-from = 1", "");
    let truth = run(&file, &path.join("cpu"), &[]);
    let (out, trace) = (path.join("cuda"), path.join("trace.json"));
    let arguments = [
        ["run", &file],
        ["--device", "cuda:0"],
        ["--out", out.to_str().unwrap()],
        ["--trace", trace.to_str().unwrap()],
    ];
    let from = [("WEIR_DEVICE_FROM", "0")];
    on_device(&arguments.concat(), &Setting::default(), &from).exits(0);
    assert_eq!(answers(&out), truth);
    let record = record(&out);
    let executor = &record["executors"]["pool"];
    assert_eq!(executor["device"], "cuda:0", "{record:#}");
    assert_eq!(
        executor["why"],
        "WEIR_DEVICE_FROM: pools of 0 B and more run on cuda:0"
    );
    let [kernel] = record["kernels"].as_array().unwrap().as_slice() else {
        panic!("{record:#}");
    };
    assert_eq!(
        (&kernel["device"], &kernel["kernel"]),
        (&"cuda:0".into(), &"pool".into())
    );
    assert_eq!(
        (&kernel["from"], &kernel["measured"]),
        (&0.into(), &false.into())
    );
    assert_eq!(
        (&kernel["refused"], &kernel["refusal"]),
        (&0.into(), &Value::Null)
    );
    assert_eq!(record["settings"]["device-from"], 0);
    let spans = spans(&trace);
    // A call is one copy of results to the host.
    let calls = launches(&spans, "to host");
    assert!((1..SLIDES).contains(&calls), "{calls}: {spans:?}");
    assert!(launches(&spans, "weir_pool_f32") >= calls, "{spans:?}");
    assert!(launches(&spans, "to device") >= calls, "{spans:?}");
}

#[test]
fn the_fused_head_on_the_emulated_device_names_its_contract_and_agrees_with_the_processor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_slides(path);
    let file = pipeline(path, &["*.safetensors"], "head = \"fused\"", "");
    run(&file, &path.join("cpu"), &[]);
    let (out, trace) = (path.join("cuda"), path.join("trace.json"));
    let arguments = [
        ["run", &file],
        ["--device", "cuda:0"],
        ["--out", out.to_str().unwrap()],
        ["--trace", trace.to_str().unwrap()],
    ];
    // No threshold moves it: it runs where the plan says.
    let from = [("WEIR_DEVICE_FROM", "1000000000")];
    on_device(&arguments.concat(), &Setting::default(), &from).exits(0);
    let record = record(&out);
    let executor = &record["executors"]["pool"];
    assert_eq!(executor["device"], "cuda:0", "{record:#}");
    assert_eq!(executor["executor"], "kernels fused/1 sm_90a mma");
    let spans = spans(&trace);
    let calls = launches(&spans, "to host");
    assert!((1..SLIDES).contains(&calls), "{calls}: {spans:?}");
    assert!(launches(&spans, "weir_gated_pool") >= calls, "{spans:?}");
    let numbers = |out: &str, slide: &str| -> Vec<f64> {
        serde_json::from_str(&logits(&path.join(out), slide)).unwrap()
    };
    for slide in 0..SLIDES {
        let slide = format!("s{slide:02}");
        assert!(prediction(&out, &slide).to_string().contains("fused/1"));
        let (got, wanted) = (numbers("cuda", &slide), numbers("cpu", &slide));
        assert_eq!((got.len(), wanted.len()), (2, 2));
        for (got, wanted) in got.iter().zip(wanted) {
            assert!((got - wanted).abs() < 1e-4, "{slide}: {got} {wanted}");
        }
    }
}

#[test]
fn a_selection_on_the_emulated_device_is_the_processors_and_stands_in_the_trace() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let slide = fixture("slide-14082.tiff");
    let pipeline = Pipeline {
        slides: &[slide.to_str().unwrap()],
        size: 64,
        mpp: 4.0,
        run: "executor = \"burn\"",
        reader: "",
    };
    let file = pipeline.write(path);
    let arguments = |out: &Path| {
        let (file, out) = (file.to_str().unwrap(), out.to_str().unwrap());
        ["run", file, "--out", out].map(str::to_owned).to_vec()
    };
    let cpu = path.join("cpu");
    let plain = arguments(&cpu);
    said(command(
        &plain.iter().map(String::as_str).collect::<Vec<&str>>()[..],
    ))
    .exits(0);
    // Networks run where they did, and the selection alone on the device.
    let text = std::fs::read_to_string(&file).unwrap();
    let top = "use = \"top-k\"\n";
    let moved = format!("{top}run = {{ device = \"cuda:0\" }}\n");
    assert_eq!(text.matches(top).count(), 1);
    std::fs::write(&file, text.replace(top, &moved)).unwrap();
    let (out, trace) = (path.join("cuda"), path.join("trace.json"));
    let mut arguments = arguments(&out);
    arguments.extend(["--trace".into(), trace.to_str().unwrap().into()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let from = [("WEIR_DEVICE_FROM", "0")];
    on_device(&arguments, &Setting::default(), &from).exits(0);
    assert_eq!(answers(&out), answers(&cpu));
    let spans = spans(&trace);
    assert!(launches(&spans, "weir_top_k_slices") > 0, "{spans:?}");
    assert_eq!(record(&out)["kernels"][0]["kernel"], "top-k");
}

#[test]
fn a_threshold_that_is_asked_for_decides_where_bags_are_pooled_and_doctor_tells_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_slides(path);
    let file = pipeline(path, &["*.safetensors"], "whole-slide-from = 1", "");
    let truth = run(&file, &path.join("cpu"), &[]);
    let setting = Setting::default();
    let out = path.join("above");
    let trace = path.join("trace.json");
    let arguments = [
        ["run", &file],
        ["--device", "cuda:0"],
        ["--out", out.to_str().unwrap()],
        ["--trace", trace.to_str().unwrap()],
    ]
    .concat();
    // More than all slides together.
    let above = (1000 * FEATURE * 4).to_string();
    on_device(&arguments, &setting, &[("WEIR_DEVICE_FROM", &above)]).exits(0);
    assert_eq!(answers(&out), truth);
    let text = std::fs::read_to_string(&trace).unwrap();
    assert!(
        !text.contains("weir_pool"),
        "nothing is measured or pooled there"
    );
    let wrong = on_device(&arguments, &setting, &[("WEIR_DEVICE_FROM", "much")]);
    assert!(wrong.code != Some(0), "{wrong:?}");
    assert!(
        wrong.err.contains("WEIR_DEVICE_FROM is \"much\""),
        "{wrong:?}"
    );
    let doctor = on_device(&["doctor"], &setting, &[("WEIR_DEVICE_FROM", &above)]);
    let line = format!("WEIR_DEVICE_FROM: calls of {above} B and more run on the device");
    assert!(doctor.out.contains(&line), "{doctor:?}");
    let doctor = on_device(&["doctor"], &setting, &[]);
    assert!(!doctor.out.contains("WEIR_DEVICE_FROM"), "{doctor:?}");
    let line = doctor
        .out
        .lines()
        .find(|line| line.contains("cuda:0: weights "));
    let line = line.unwrap_or_else(|| panic!("{doctor:?}"));
    for kernel in ["weights ", "pool ", "top-k ", "tiles "] {
        assert!(line.contains(kernel), "{line}");
    }
}

#[test]
fn a_device_whose_memory_is_full_leaves_pools_to_the_processor_and_says_so_and_fails_fused_heads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_slides(path);
    let file = pipeline(path, &["*.safetensors"], "whole-slide-from = 1", "");
    let truth = run(&file, &path.join("cpu"), &[]);
    let (setting, from) = (Setting::default(), [("WEIR_DEVICE_FROM", "0")]);
    let pool = |out: &Path, more: &[&str]| {
        let arguments = [
            ["run", &file],
            ["--device", "cuda:0"],
            ["--out", out.to_str().unwrap()],
        ];
        on(FULL, &[&arguments.concat(), more].concat(), &setting, &from)
    };
    let out = path.join("portable");
    let said = pool(&out, &[]).exits(0);
    assert_eq!(answers(&out), truth);
    let kernel = &record(&out)["kernels"][0];
    assert!(kernel["refused"].as_u64() >= Some(1), "{kernel:#}");
    let refusal = kernel["refusal"].as_str().unwrap();
    assert!(refusal.contains("CUDA_ERROR_OUT_OF_MEMORY"), "{kernel:#}");
    let told = said.err.matches("cuda:0 had no room for").count();
    assert_eq!(told, 1, "{said:?}");

    let out = path.join("fused");
    let said = pool(&out, &["--set", "stage.pool.head=\"fused\""]);
    assert!(said.code != Some(0), "{said:?}");
    let record = record(&out);
    let failed = &record["slides"]["s00"]["failed"];
    let (what, help) = (failed["what"].as_str(), failed["help"].as_str());
    assert!(what.unwrap().contains("kernel `gated pool`"), "{record:#}");
    assert!(help.unwrap().contains("head = \"portable\""), "{record:#}");
}

#[test]
fn a_training_on_a_device_that_cannot_be_used_says_why_before_it_begins() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let recipe = root().join("pipelines/models/demo/recipe.toml");
    let arguments = |device: &'static str| {
        [
            ["train", recipe.to_str().unwrap()],
            ["--data", "tests/fixtures"],
            ["--out", out.to_str().unwrap()],
            ["--device", device],
        ]
        .concat()
    };
    let old = Setting {
        driver: 11000,
        ..Setting::default()
    };
    let refused = on_device(&arguments("cuda:0"), &old, &[]).exits(1);
    assert!(
        refused.err.contains("device `cuda:0` cannot be used"),
        "{refused:?}"
    );
    assert!(refused.err.contains("11.0"), "{refused:?}");
    let none = on_device(&arguments("cuda:7"), &Setting::default(), &[]).exits(1);
    assert!(
        none.err.contains("device `cuda:7` cannot be used"),
        "{none:?}"
    );
    let unknown = on_device(&arguments("tpu"), &Setting::default(), &[]).exits(2);
    assert!(
        unknown.err.contains("there is no device `tpu`"),
        "{unknown:?}"
    );
    assert!(!out.exists());
}

#[test]
fn networks_on_a_device_without_onnxruntimes_provider_or_a_driver_say_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    let slide = fixture("slide-14082.tiff");
    let pipeline = Pipeline {
        slides: &[slide.to_str().unwrap()],
        size: 64,
        mpp: 4.0,
        run: "executor = \"onnxruntime\"\ndevices = [\"cuda:0\"]",
        reader: "",
    };
    let file = pipeline.write(folder.path());
    let arguments = ["run", file.to_str().unwrap()];
    // The library that `make setup` installs has no provider for CUDA.
    if std::env::var_os("WEIR_WITHOUT_ONNXRUNTIME").is_none() {
        let from = [("WEIR_DEVICE_FROM", "1000000000")];
        let refused = on_device(&arguments, &Setting::default(), &from).exits(1);
        for part in ["device `cuda:0` with onnxruntime", "`onnxruntime-gpu`"] {
            assert!(refused.err.contains(part), "{refused:?}");
        }
    }
    let old = Setting {
        driver: 11000,
        ..Setting::default()
    };
    let refused = on_device(&arguments, &old, &[]).exits(1);
    for part in ["device `cuda:0` cannot be used", "11.0"] {
        assert!(refused.err.contains(part), "{refused:?}");
    }
}
