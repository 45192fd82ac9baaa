//! Builds variants of the emulated `libcuda.so` with g++: objects and libraries are found again by the hash of all that they
//! are made of, written under another name and renamed, and locked, so that tests may build at the same time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use super::{Sources, Variant};

/// Sources by their path below `kernels/`.
type Texts = BTreeMap<String, String>;

/// The folder in which the variant's `libcuda.so` and `libcuda.so.1` lie; built if need be.
///
/// # Panics
///
/// If g++ is missing or refuses a source, with its words, or a patch does not match exactly once.
pub fn library(variant: Variant) -> PathBuf {
    let texts = patched(read_sources(), &variant);
    let kernels = match variant.sources {
        Sources::Kernels => "cuda/",
        Sources::OfTheEmulator => "emulator/tests/",
    };
    let sources: Vec<&String> = texts
        .keys()
        .filter(|path| {
            (path.starts_with(kernels) && path.ends_with(".cu"))
                || (path.starts_with("emulator/") && path.ends_with(".cpp"))
        })
        .collect();
    let hashes: Vec<u64> = sources
        .iter()
        .map(|path| {
            hash(&(
                path,
                made_of(path, &texts),
                flags(path, variant.sanitized),
                compiler(),
            ))
        })
        .collect();
    let library = root().join(format!(
        "library-{:016x}",
        hash(&(&hashes, variant.sanitized))
    ));
    let _lock = lock(&library);
    if library.exists() {
        return library;
    }
    let tree = source_tree(&texts, &variant);
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(path) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let object = root().join(format!(
                        "{:016x}.o",
                        hashes[sources.iter().position(|p| p == path).unwrap_or(0)]
                    ));
                    if let Err(error) = compile(&tree, path, variant.sanitized, &object) {
                        failed.lock().expect("no thread panics with it").push(error);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no thread panics with it");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let unfinished = unfinished(&library);
    fs::create_dir_all(&unfinished).expect("target's tmp folder is writable");
    let mut link = Command::new("g++");
    link.args([
        "-shared",
        "-pthread",
        "-Wl,-soname,libcuda.so.1",
        "-Wl,-z,defs",
    ])
    .args(variant.sanitized.then_some("-fsanitize=address,undefined"))
    .args(
        hashes
            .iter()
            .map(|hash| root().join(format!("{hash:016x}.o"))),
    )
    .arg("-o")
    .arg(unfinished.join("libcuda.so.1"));
    succeed(&mut link, "linking the emulated libcuda.so").unwrap_or_else(|error| panic!("{error}"));
    std::os::unix::fs::symlink("libcuda.so.1", unfinished.join("libcuda.so"))
        .expect("a link in a fresh folder");
    fs::rename(&unfinished, &library).expect("the lock is held, so nobody else makes this folder");
    library
}

/// The sanitizer's runtime, which a process that is not compiled with it must load first.
pub fn sanitizer_runtime() -> PathBuf {
    let said = Command::new("g++")
        .arg("-print-file-name=libasan.so")
        .output()
        .expect("g++ is installed");
    PathBuf::from(String::from_utf8_lossy(&said.stdout).trim())
}

/// The crate's folder, also where another crate's tests use this.
fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("kernels"))
        .find(|folder| folder.join("emulator").is_dir())
        .expect("the checkout has kernels/emulator")
}

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator");
    fs::create_dir_all(&root).expect("target's tmp folder is writable");
    root
}

/// Kernels get everything; the emulator's own sources need no more than to know of the address sanitizer.
fn flags(path: &str, sanitized: bool) -> Vec<&'static str> {
    let mut flags = vec![
        "-std=c++20",
        "-fPIC",
        "-ffp-contract=off",
        "-fvisibility=hidden",
        "-fno-strict-aliasing",
    ];
    flags.extend([
        "-Wall",
        "-Wextra",
        "-Wno-unknown-pragmas",
        "-Wno-unused-function",
        "-Wno-unused-parameter",
    ]);
    flags.push("-DWEIR_EMU");
    let kernel = path.ends_with(".cu");
    match (sanitized, kernel) {
        // Templates compile three times faster than with -O1, and no undefined behaviour is optimised away.
        (true, true) => flags.extend(["-O0", "-fsanitize=undefined", "-fno-sanitize-recover=all"]),
        _ => flags.push("-O1"),
    }
    if sanitized {
        flags.extend([
            "-DWEIR_EMU_ASAN=1",
            "-g1",
            "-fno-omit-frame-pointer",
            "-fsanitize=address",
        ]);
    } else {
        flags.push("-DWEIR_EMU_ASAN=0");
    }
    flags
}

fn compiler() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let said = Command::new("g++")
            .arg("--version")
            .output()
            .expect("the emulator's tests need g++: install it (Debian: apt install g++)");
        String::from_utf8_lossy(&said.stdout).into_owned()
    })
}

fn read_sources() -> Texts {
    let kernels = kernels();
    let mut texts = Texts::new();
    for folder in ["cuda", "emulator", "emulator/tests"] {
        let Ok(entries) = fs::read_dir(kernels.join(folder)) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("the checkout is readable").path();
            let kind = path.extension().and_then(|e| e.to_str()).unwrap_or("");
            if matches!(kind, "cu" | "cuh" | "h" | "cpp") {
                let name = path
                    .file_name()
                    .and_then(|n| n.to_str())
                    .expect("sources have plain names");
                texts.insert(
                    format!("{folder}/{name}"),
                    fs::read_to_string(&path).expect("the checkout is readable"),
                );
            }
        }
    }
    texts
}

/// A source's text and those of all that it includes, so that a change builds again what it touches and no more.
fn made_of<'a>(path: &str, texts: &'a Texts) -> BTreeMap<&'a str, &'a str> {
    let mut found = BTreeMap::new();
    // Every kernel is registered.
    let mut open = vec![path.to_owned(), "emulator/registry.h".to_owned()];
    while let Some(path) = open.pop() {
        let Some((path, text)) = texts.get_key_value(&path) else {
            continue;
        };
        if found.insert(path.as_str(), text.as_str()).is_none() {
            for included in text.split("#include \"").skip(1) {
                let name = included.split('"').next().unwrap_or("");
                open.extend(["cuda", "emulator"].map(|folder| format!("{folder}/{name}")));
            }
        }
    }
    found
}

fn patched(mut texts: Texts, variant: &Variant) -> Texts {
    for patch in variant.patches {
        let text = texts
            .get_mut(patch.file)
            .unwrap_or_else(|| panic!("no source {}", patch.file));
        let found = text.matches(patch.find).count();
        assert_eq!(
            found, 1,
            "{}: {:?} occurs {found} times; a planted bug needs exactly one place",
            patch.file, patch.find
        );
        *text = text.replace(patch.find, patch.put);
    }
    texts
}

/// The checkout itself, or a copy with the planted bugs.
fn source_tree(texts: &Texts, variant: &Variant) -> PathBuf {
    if variant.patches.is_empty() {
        return self::kernels();
    }
    let tree = root().join(format!("sources-{:016x}", hash(texts)));
    let _lock = lock(&tree);
    if !tree.exists() {
        let unfinished = unfinished(&tree);
        for (path, text) in texts {
            let to = unfinished.join(path);
            fs::create_dir_all(to.parent().expect("paths have folders"))
                .expect("target's tmp folder is writable");
            fs::write(to, text).expect("target's tmp folder is writable");
        }
        fs::rename(&unfinished, &tree).expect("the lock is held, so nobody else makes this folder");
    }
    tree
}

fn compile(tree: &Path, path: &str, sanitized: bool, object: &Path) -> Result<(), String> {
    let _lock = lock(object);
    if object.exists() {
        return Ok(());
    }
    let source = tree.join(path);
    let unfinished = unfinished(object);
    let gpp = || {
        let mut command = Command::new("g++");
        command
            .args(flags(path, sanitized))
            .arg(format!("-ffile-prefix-map={}/=", tree.display()))
            .arg("-I")
            .arg(tree.join("cuda"))
            .arg("-I")
            .arg(tree.join("emulator"));
        command
    };
    if path.ends_with(".cu") {
        let text = gpp()
            .args(["-E", "-P", "-DWEIR_EMU_SCAN", "-x", "c++"])
            .arg(&source)
            .output()
            .map_err(|e| format!("g++ does not start: {e}"))?;
        if !text.status.success() {
            return Err(format!("{path}: {}", String::from_utf8_lossy(&text.stderr)));
        }
        let registration = unfinished.with_extension("cpp");
        fs::write(
            &registration,
            registering(&source, &String::from_utf8_lossy(&text.stdout)),
        )
        .map_err(|e| format!("{}: {e}", registration.display()))?;
        let made = succeed(
            gpp()
                .arg("-c")
                .arg(&registration)
                .arg("-o")
                .arg(&unfinished),
            path,
        );
        fs::remove_file(&registration).map_err(|e| format!("{}: {e}", registration.display()))?;
        made?;
    } else {
        succeed(
            gpp().arg("-c").arg(&source).arg("-o").arg(&unfinished),
            path,
        )?;
    }
    fs::rename(&unfinished, object).map_err(|e| format!("{}: {e}", object.display()))
}

/// A source that includes a `.cu` and registers each `__global__` of it under its name, with its cluster and bounds.
fn registering(source: &Path, preprocessed: &str) -> String {
    let mut text = format!(
        "#include \"{}\"\n#include \"registry.h\"\n",
        source.display()
    );
    for (i, kernel) in kernels_in(preprocessed).iter().enumerate() {
        let Kernel {
            name,
            cluster,
            bounds,
        } = kernel;
        text.push_str(&format!(
            "static emu::Register<{name}> weir_emu_register_{i}(\"{name}\", dim3({cluster}), {bounds});\n"
        ));
    }
    text
}

#[derive(Debug, PartialEq)]
struct Kernel {
    name: String,
    /// Arguments of `__cluster_dims__`.
    cluster: String,
    /// First argument of `__launch_bounds__`; 0: none.
    bounds: String,
}

/// Kernels in preprocessed text: `__global__`, then attributes and `void` in any order, then the name.
fn kernels_in(text: &str) -> Vec<Kernel> {
    let mut kernels = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("__global__") {
        rest = &rest[at + "__global__".len()..];
        let mut kernel = Kernel {
            name: String::new(),
            cluster: "1, 1, 1".to_owned(),
            bounds: "0".to_owned(),
        };
        loop {
            rest = rest.trim_start();
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            match word {
                "__launch_bounds__" | "__cluster_dims__" => {
                    let (inside, after) = parenthesis(after.trim_start());
                    if word == "__cluster_dims__" {
                        kernel.cluster = inside.to_owned();
                    } else {
                        kernel.bounds = format!("({})", inside.split(',').next().unwrap_or("0"));
                    }
                    rest = after;
                }
                "void" | "static" | "__forceinline__" => rest = after,
                name => {
                    kernel.name = name.to_owned();
                    rest = after;
                    break;
                }
            }
        }
        if !kernel.name.is_empty() && !kernels.iter().any(|k: &Kernel| k.name == kernel.name) {
            kernels.push(kernel);
        }
    }
    kernels
}

/// What stands in the parenthesis with which `text` starts, and what follows it.
fn parenthesis(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (
                text.get(1..i).unwrap_or(""),
                text.get(i + 1..).unwrap_or(""),
            );
        }
    }
    ("", "")
}

fn succeed(command: &mut Command, what: &str) -> Result<(), String> {
    let said = command
        .output()
        .map_err(|e| format!("{what}: g++ does not start: {e}"))?;
    if said.status.success() {
        return Ok(());
    }
    Err(format!(
        "{what}: g++ refuses it:\n{}",
        String::from_utf8_lossy(&said.stderr)
    ))
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// Held until it is dropped, against this and all other processes.
fn lock(of: &Path) -> File {
    let file = File::create(of.with_extension("lock")).expect("target's tmp folder is writable");
    file.lock().expect("the file system knows locks");
    file
}

/// A name beside `path` that nobody else uses.
fn unfinished(path: &Path) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    path.with_extension(format!(
        "{}-{}.new",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    ))
}

#[test]
fn kernels_are_found_with_their_cluster_and_bounds() {
    let text = "struct A { int x; }; static inline void f() {}\n\
        extern \"C\" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__((8*32),1) weir_one(const float* a) { f(); }\n\
        extern \"C\" __global__ __launch_bounds__(128) void weir_two(int n);\nextern \"C\" __global__ void weir_three() {}";
    let found: Vec<(String, String, String)> = kernels_in(text)
        .into_iter()
        .map(|k| (k.name, k.cluster, k.bounds))
        .collect();
    let expected = [
        ("weir_one", "2, 1, 1", "((8*32))"),
        ("weir_two", "1, 1, 1", "(128)"),
        ("weir_three", "1, 1, 1", "0"),
    ];
    assert_eq!(
        found,
        expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()))
    );
}
