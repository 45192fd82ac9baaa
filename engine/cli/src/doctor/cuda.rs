//! What of CUDA is there: driver, devices, compiler, compiled kernels, and burn's own back end.
//!
//! The driver is opened behind weir-kernels' probe, which cannot panic. A device that can be used is opened, to time the kernels whose
//! place is free: what it says of them a run measures again for itself.

use super::{Finding, Judgement, finding, good};
use crate::shown;
use weir_kernels::cuda::Unavailable;
use weir_kernels::cuda::report::{Image, Report};
use weir_kernels::{KernelError, auto};
use weir_model::{Device, kernels as placed};

/// All findings; on a machine without a device, why.
pub(super) fn findings() -> Vec<Finding> {
    of(&Report::new())
}

fn of(report: &Report) -> Vec<Finding> {
    let mut found = vec![driver(report)];
    found.extend(devices(report));
    found.push(compiler(report));
    found.push(compiled(report));
    found.extend(kernels(report));
    found.extend(thresholds(report, auto::asked()));
    found.push(burn(report));
    found
}

/// From how many bytes on each device runs each kernel: what is asked for, or what is measured now.
fn thresholds(report: &Report, asked: Result<Option<usize>, KernelError>) -> Vec<Finding> {
    const NAME: &str = "threshold";
    match asked {
        Ok(None) => {}
        Ok(Some(from)) => {
            let what = format!(
                "{}: calls of {from} B and more run on the device that a run names",
                auto::FROM
            );
            let remedy = "unset it to have the thresholds measured: a run may be slower with it, its answers are the same";
            return vec![finding(NAME, Judgement::Note, what, remedy)];
        }
        Err(wrong) => return vec![finding(NAME, Judgement::Bad, wrong.cause.to_string(), "")],
    }
    let devices = report.driver.as_ref();
    let devices = devices.map_or(&[][..], |driver| &driver.devices);
    let usable = devices.iter().flatten();
    let told = usable.map(|device| {
        let name = format!("cuda:{}", device.ordinal);
        match measured(device.ordinal) {
            Ok(from) => good(NAME, format!("{name}: {from}")),
            Err(why) => finding(
                NAME,
                Judgement::Note,
                format!("{name}: not measured: {why}"),
                "a run that names the device says the same; one on the processor needs none of it",
            ),
        }
    });
    told.collect()
}

/// The kernels of a device by the bytes from which it runs them, as `weights from 90000 B, pool never`.
fn measured(ordinal: usize) -> Result<String, String> {
    let device = u32::try_from(ordinal).map_err(|error| error.to_string())?;
    let opened = placed::open(Device::Cuda(device), 0, false).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    for kernel in auto::Kernel::ALL {
        let from = opened.kernels.threshold(kernel);
        all.push(match from.map_err(|error| error.to_string())? {
            Some(from) => format!("{kernel} from {from} B"),
            None => format!("{kernel} never"),
        });
    }
    Ok(format!(
        "{}; the processor has the rest, as a measurement now says",
        all.join(", ")
    ))
}

fn driver(report: &Report) -> Finding {
    const NAME: &str = "cuda";
    match &report.driver {
        Ok(driver) => good(
            NAME,
            format!(
                "driver {}, for CUDA {}, {}",
                driver.library.display(),
                driver.version,
                shown::counted(driver.devices.len() as u64, "device")
            ),
        ),
        Err(why) => Finding {
            name: NAME,
            judgement: Judgement::Note,
            what: format!("not used: {}", plain(why)),
            remedy: format!(
                "none is needed: the processor is used. With an NVIDIA GPU: {}",
                why.remedy()
            ),
        },
    }
}

/// The reason without its remedy, which stands in a line of its own.
fn plain(why: &Unavailable) -> String {
    let text = why.to_string();
    match text.strip_suffix(&format!("; {}", why.remedy())) {
        Some(plain) => plain.to_owned(),
        None => text,
    }
}

fn devices(report: &Report) -> Vec<Finding> {
    const NAME: &str = "device";
    let devices = report
        .driver
        .as_ref()
        .map_or(&[][..], |driver| &driver.devices);
    let told = devices
        .iter()
        .enumerate()
        .map(|(number, device)| match device {
            Ok(device) => good(
                NAME,
                format!(
                    "cuda:{number}: {}, compute capability {}.{}, {} multiprocessors, {} of memory",
                    device.name,
                    device.capability.0,
                    device.capability.1,
                    device.multiprocessors,
                    shown::bytes(device.memory)
                ),
            ),
            Err(why) => Finding {
                name: NAME,
                judgement: Judgement::Note,
                what: format!("cuda:{number}: {}", plain(why)),
                remedy: why.remedy(),
            },
        });
    told.collect()
}

fn compiler(report: &Report) -> Finding {
    const NAME: &str = "nvrtc";
    match &report.nvrtc {
        Ok(nvrtc) => {
            let what = format!("{}, {}", nvrtc.version, nvrtc.library.display());
            match &nvrtc.builtins {
                Some(builtins) => good(NAME, format!("{what}, with {}", builtins.display())),
                None => finding(
                    NAME,
                    Judgement::Note,
                    format!("{what}, without libnvrtc-builtins beside it"),
                    "install the whole wheel nvidia-cuda-nvrtc-cu12, or put the builtins where the loader looks",
                ),
            }
        }
        Err(missing) => finding(
            NAME,
            Judgement::Note,
            missing.to_string(),
            "a device works without it, by the PTX that is in the program; with it kernels are compiled for the very device",
        ),
    }
}

fn compiled(report: &Report) -> Finding {
    const NAME: &str = "kernel cache";
    match &report.cache {
        Some(cache) => good(
            NAME,
            format!(
                "{}: {}, {}",
                cache.folder.display(),
                shown::counted(cache.images as u64, "compiled kernel"),
                shown::bytes(cache.bytes)
            ),
        ),
        None => finding(
            NAME,
            Judgement::Note,
            "none: compiled kernels are not kept".into(),
            "set WEIR_CACHE to a folder, or HOME, so that each is compiled once",
        ),
    }
}

/// Where each device's kernels come from: a line a device, and one for each kernel that has no code.
fn kernels(report: &Report) -> Vec<Finding> {
    const NAME: &str = "kernels";
    let mut found = Vec::new();
    let devices = report
        .driver
        .as_ref()
        .map_or(0, |driver| driver.devices.len());
    for device in 0..devices {
        let of_device = || report.code.iter().filter(|origin| origin.device == device);
        let count = |is: fn(&Image) -> bool| of_device().filter(|o| is(&o.image)).count();
        let cached = count(|image| matches!(image, Image::Cached));
        let compiled = count(|image| matches!(image, Image::Compiled(_)));
        let ptx = count(|image| matches!(image, Image::Ptx(_)));
        if cached + compiled + ptx > 0 {
            found.push(good(
                NAME,
                format!(
                    "cuda:{device}: {cached} compiled already, {compiled} by NVRTC at the first launch, {ptx} from the program's PTX"
                ),
            ));
        }
        for origin in of_device() {
            if let Image::None(why) = &origin.image {
                found.push(finding(
                    NAME,
                    Judgement::Note,
                    format!(
                        "cuda:{device}: `{}` has no code: {}",
                        origin.source,
                        why.join("; ")
                    ),
                    "stages that need it say so; the processor's kernels are there",
                ));
            }
        }
    }
    found
}

fn burn(report: &Report) -> Finding {
    const NAME: &str = "burn cuda";
    if cfg!(feature = "cuda") {
        return good(NAME, "this build has burn's CUDA back end".into());
    }
    let what = "this build is without burn's CUDA back end".to_owned();
    match report.driver {
        // Not even a device: nothing is missing.
        Err(_) => good(NAME, what),
        Ok(_) => finding(
            NAME,
            Judgement::Note,
            what,
            "networks run on the device by ONNX Runtime's CUDA provider, or build with CUDARC_CUDA_VERSION=13000 cargo build --release -p weir --features cuda",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_cuda_has_a_line_and_what_is_missing_has_a_remedy() {
        let found = findings();
        for name in ["cuda", "nvrtc", "kernel cache", "burn cuda"] {
            assert!(found.iter().any(|finding| finding.name == name), "{name}");
        }
        for finding in &found {
            assert!(!finding.what.is_empty());
            assert!(finding.judgement != Judgement::Bad, "{finding:?}");
            assert!(
                finding.judgement == Judgement::Good || !finding.remedy.is_empty(),
                "{finding:?}"
            );
        }
    }
}
