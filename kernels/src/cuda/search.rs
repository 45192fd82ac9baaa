//! Where NVRTC may lie.

use std::path::{Path, PathBuf};

/// The library's names, by CUDA version, the newest first.
pub(super) const NAMES: [&str; 5] = [
    "libnvrtc.so.13",
    "libnvrtc.so.12",
    "libnvrtc.so.11.2",
    "libnvrtc.so.11.1",
    "libnvrtc.so",
];

/// The folders of a Python environment's packages that hold it.
const WHEELS: [&str; 2] = ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"];

/// The folder in a checkout into which `make` unpacks it.
const UNPACKED: &str = ".cuda";

/// What was looked for.
pub(super) struct Found {
    /// The files that are there, the best first.
    pub(super) files: Vec<PathBuf>,
    /// All that were looked for.
    pub(super) tried: Vec<PathBuf>,
}

/// Looks beside the program and in its checkout, where the environment says, and in the toolkit's usual folders.
pub(super) fn look(program: Option<&Path>, variable: impl Fn(&str) -> Option<PathBuf>) -> Found {
    let mut folders = Vec::new();
    if let Some(program) = program {
        // Beside the program, and in the checkout that it was built in (target/release/weir, target/release/deps/test):
        // never in a folder that is only above it or worked in, where anybody may have put a library.
        let built_in = |folder: &&Path| folder.join("Cargo.lock").is_file();
        let above = || program.ancestors().skip(1);
        folders.extend(above().next().map(Path::to_path_buf));
        let of_program = above()
            .next()
            .into_iter()
            .chain(above().take(4).find(built_in));
        for folder in of_program {
            folders.extend(["13", "12"].map(|version| folder.join(UNPACKED).join(version)));
        }
    }
    for name in ["CUDA_PATH", "CUDA_HOME"] {
        if let Some(folder) = variable(name) {
            folders
                .extend(["lib64", "lib", "targets/x86_64-linux/lib"].map(|lib| folder.join(lib)));
        }
    }
    if let Some(environment) = variable("VIRTUAL_ENV") {
        // lib/python3.11/site-packages
        let mut pythons: Vec<PathBuf> = std::fs::read_dir(environment.join("lib"))
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path().join("site-packages")))
            .filter(|path| path.is_dir())
            .collect();
        pythons.sort();
        for packages in pythons {
            folders.extend(WHEELS.map(|wheel| packages.join(wheel)));
        }
    }
    folders.extend(["/usr/local/cuda/lib64", "/opt/cuda/lib64"].map(PathBuf::from));
    let tried: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| NAMES.map(|name| folder.join(name)))
        .collect();
    let there = tried.iter().filter(|path| path.is_file());
    Found {
        files: there.cloned().collect(),
        tried,
    }
}

/// The builtins beside a library: `libnvrtc-builtins.so.12.4` of `libnvrtc.so.12`. The library's own folder is looked at
/// first, then that of what a link leads to.
pub(super) fn builtins(library: &Path) -> Option<PathBuf> {
    let target = library.canonicalize().ok();
    // The major version, also where only the link's target says it.
    let major = [Some(library), target.as_deref()]
        .into_iter()
        .flatten()
        .find_map(|path| {
            let name = path.file_name()?.to_str()?;
            let version = name.strip_prefix("libnvrtc.so.")?;
            version.split('.').next().map(str::to_string)
        });
    let prefix = match major {
        Some(major) => format!("libnvrtc-builtins.so.{major}."),
        None => "libnvrtc-builtins.so.".to_string(),
    };
    let folders = [library.parent(), target.as_deref().and_then(Path::parent)];
    folders.into_iter().flatten().find_map(|folder| {
        let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| name.starts_with(&prefix))
            })
            .collect();
        // A toolkit has `so.12.4` and `so.12.4.127`, a link and its target.
        found.sort();
        found.into_iter().next()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn put(folder: &Path, file: &str) -> PathBuf {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        path
    }

    #[test]
    fn the_checkouts_own_comes_first_then_what_the_environment_names() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        put(root, "checkout/Cargo.lock");
        let program = put(root, "checkout/target/release/weir");
        let here = put(root, "checkout/.cuda/12/libnvrtc.so.12");
        let newer = put(root, "checkout/.cuda/13/libnvrtc.so.13");
        let toolkit = put(root, "cuda/lib64/libnvrtc.so");
        let wheel = "venv/lib/python3.11/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12";
        let wheel = put(root, wheel);
        let variable = |name: &str| match name {
            "CUDA_HOME" => Some(root.join("cuda")),
            "VIRTUAL_ENV" => Some(root.join("venv")),
            _ => None,
        };
        let found = look(Some(&program), variable);
        assert_eq!(found.files[..4], [newer, here, toolkit, wheel]);
        assert!(found.tried.len() > 20);
    }

    #[test]
    fn a_folder_that_is_only_above_the_program_is_not_looked_in() {
        let folder = tempfile::tempdir().unwrap();
        let program = put(folder.path(), "somewhere/bin/weir");
        let planted = put(folder.path(), "somewhere/.cuda/12/libnvrtc.so.12");
        let beside = put(folder.path(), "somewhere/bin/libnvrtc.so.12");
        let found = look(Some(&program), |_| None);
        assert!(found.files.contains(&beside));
        assert!(!found.tried.contains(&planted));
    }

    #[test]
    fn the_builtins_are_those_of_the_librarys_version_also_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let library = put(root, "lib/libnvrtc.so.12");
        put(root, "lib/libnvrtc-builtins.so.13.0");
        assert_eq!(builtins(&library), None);
        let twelve = put(root, "lib/libnvrtc-builtins.so.12.4");
        assert_eq!(builtins(&library), Some(twelve.clone()));
        let link = root.join("libnvrtc.so");
        std::os::unix::fs::symlink(&library, &link).unwrap();
        assert_eq!(builtins(&link), Some(twelve.canonicalize().unwrap()));
    }
}
