//! Where code comes from, and a driver that is too old.

use super::BASICS;
use super::emulated::{self, OF_THE_EMULATOR, Setting, run, say};
use std::path::{Path, PathBuf};
use weir_kernels::cuda::cache::Cache;
use weir_kernels::cuda::module::Images;
use weir_kernels::cuda::report::Report;
use weir_kernels::cuda::{CudaError, Gpu, Options, Reason};

#[test]
#[ignore = "a case, run by the tests below"]
fn case_old_driver() {
    if !emulated::inside() {
        return;
    }
    let error = Gpu::open(0).err().unwrap();
    assert!(matches!(error.reason, Reason::TooOld { .. }), "{error}");
    say("error", error);
}

#[test]
fn an_old_driver_is_refused_before_cudarc_is_called() {
    let old = Setting {
        driver: 11080,
        ..Setting::default()
    };
    let said = run(OF_THE_EMULATOR, &old, "images::case_old_driver")
        .passed()
        .said("error");
    assert!(
        said.contains("CUDA 11.8") && said.contains("update"),
        "{said}"
    );
}

/// The NVRTC that `make setup` installs.
fn nvrtc() -> Option<PathBuf> {
    let tools = std::env::var_os("WEIR_CUDA_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cuda"),
        PathBuf::from,
    );
    let path = tools.join("12/libnvrtc.so.12");
    path.is_file().then_some(path)
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_images() {
    if !emulated::inside() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let image = |cache: &Cache| {
        let options = Options {
            images: Images::Found,
            cache: Some(cache.clone()),
            separate_scratch: false,
        };
        let gpu = Gpu::open_with(0, options).unwrap();
        gpu.function_of(&BASICS, "emu_reverse")
            .map(|function| function.image().to_string())
    };
    if std::env::var_os("WEIR_NVRTC").is_some_and(|path| Path::new(&path).is_file()) {
        assert_eq!(image(&cache).unwrap(), "CUBIN for sm_90a by NVRTC 12.4");
        let again = image(&cache).unwrap();
        assert!(
            again.ends_with(&format!("from {}", folder.path().display())),
            "{again}"
        );
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap();
        let file = file.unwrap().path();
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(image(&cache).unwrap(), "CUBIN for sm_90a by NVRTC 12.4");
        assert!(image(&cache).unwrap().contains("from "));
        // Where nothing can be written.
        let wall = folder.path().join("wall");
        std::fs::write(&wall, "").unwrap();
        let none = Cache::at(wall.join("kernels"));
        assert_eq!(image(&none).unwrap(), "CUBIN for sm_90a by NVRTC 12.4");
    } else {
        // The PTX at the top of this page was not made of the source.
        let error = image(&cache).err().unwrap();
        let CudaError::NoImage { tried, .. } = &error else {
            panic!("{error}");
        };
        assert!(
            tried.iter().any(|why| why.contains("NVRTC did not load")),
            "{error}"
        );
        assert!(
            tried
                .last()
                .unwrap()
                .contains("another version of the source"),
            "{error}"
        );
    }
    let report = Report::new();
    assert_eq!(report.driver.as_ref().unwrap().devices.len(), 1);
    say("report", report.to_string().lines().next().unwrap());
}

#[test]
fn code_comes_from_the_folder_else_from_nvrtc_else_from_fresh_ptx_alone() {
    let absent = Setting {
        environment: vec![("WEIR_NVRTC", "/nowhere/libnvrtc.so.12".to_string())],
        ..Setting::default()
    };
    let said = run(OF_THE_EMULATOR, &absent, "images::case_images")
        .passed()
        .said("report");
    assert!(said.starts_with("CUDA driver: "), "{said}");
    let Some(nvrtc) = nvrtc() else {
        assert!(
            std::env::var_os("WEIR_WITHOUT_CUDA_TOOLS").is_some(),
            "NVRTC is not there; `make test` installs it, WEIR_WITHOUT_CUDA_TOOLS=1 goes without"
        );
        return;
    };
    let there = Setting {
        environment: vec![("WEIR_NVRTC", nvrtc.display().to_string())],
        ..Setting::default()
    };
    run(OF_THE_EMULATOR, &there, "images::case_images").passed();
}
