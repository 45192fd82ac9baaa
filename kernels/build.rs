//! Lists the CUDA sources of `cuda/` and the PTX that was made of them in `ptx/`, so that a new kernel is a new file and
//! nothing else. No compiler of NVIDIA's is run here.

use std::fmt::Write;
use std::path::{Path, PathBuf};

fn main() -> std::io::Result<()> {
    let Some(root) = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from) else {
        return Err(std::io::Error::other("cargo sets CARGO_MANIFEST_DIR"));
    };
    let Some(out) = std::env::var_os("OUT_DIR").map(PathBuf::from) else {
        return Err(std::io::Error::other("cargo sets OUT_DIR"));
    };
    let (cuda, ptx) = (root.join("cuda"), root.join("ptx"));
    for folder in [&cuda, &ptx] {
        println!("cargo:rerun-if-changed={}", folder.display());
    }
    let images = files(&ptx, "ptx")?;
    let mut text = String::from("const HEADERS: &[Header] = &[\n");
    for path in files(&cuda, "cuh")? {
        writeln!(
            text,
            "    Header {{ name: {:?}, text: include_str!({path:?}) }},",
            name(&path)
        )
        .map_err(std::io::Error::other)?;
    }
    text.push_str("];\n/// Every CUDA source, by name.\npub const SOURCES: &[Source] = &[\n");
    for path in files(&cuda, "cu")? {
        let stem = stem(&path);
        let mut list = String::new();
        for image in &images {
            // pool.compute_80.ptx is made of pool.cu.
            if let Some((of, target)) = self::stem(image).split_once('.')
                && of == stem
            {
                write!(
                    list,
                    "Ptx {{ target: {target:?}, text: include_str!({image:?}) }}, "
                )
                .map_err(std::io::Error::other)?;
            }
        }
        writeln!(
            text,
            "    Source {{ name: {stem:?}, text: include_str!({path:?}), ptx: &[{list}] }},"
        )
        .map_err(std::io::Error::other)?;
    }
    text.push_str("];\n");
    std::fs::write(out.join("sources.rs"), text)
}

/// The files of a folder with that ending, sorted; none where there is no folder.
fn files(folder: &Path, ending: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == ending) {
                println!("cargo:rerun-if-changed={}", path.display());
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
