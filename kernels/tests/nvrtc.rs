//! The CUDA sources through NVIDIA's compilers, without a device.
//!
//! Every source is compiled for each architecture that it is made for and that this page names. Refused are: a message of the
//! C75xx family (ptxas gave up a fast form), a spill, a load or store of local memory in the machine code, more registers
//! or shared memory than `ptx/resources.toml` allows, and PTX in the program that is not what the sources give now.
//! `make kernels` (WEIR_WRITE_PTX=1) writes the PTX and the table instead of holding them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use weir_kernels::cuda::nvrtc::Nvrtc;
use weir_kernels::cuda::sources::{Architecture, PTX_MARK, PTX_VERSION, SOURCES, Source};

/// What the machine code is looked at for.
const ARCHITECTURES: [&str; 3] = ["sm_75", "sm_80", "sm_90a"];

/// What PTX is made for, where the source is made for it: code of a later device is made from the latest that it takes.
const TARGETS: [&str; 3] = ["sm_75", "sm_80", "sm_90a"];

/// The tools that `make setup` installs; `None` where the user said to go without.
fn tools() -> Option<PathBuf> {
    if std::env::var_os("WEIR_WITHOUT_CUDA_TOOLS").is_some() {
        eprintln!("skipped: WEIR_WITHOUT_CUDA_TOOLS is set");
        return None;
    }
    let folder = std::env::var_os("WEIR_CUDA_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cuda"),
        PathBuf::from,
    );
    assert!(
        folder.join("bin/nvdisasm").is_file(),
        "{} is not there; `make test` installs it, WEIR_WITHOUT_CUDA_TOOLS=1 skips these tests",
        folder.display()
    );
    Some(folder)
}

fn ptx_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ptx")
}

fn writing() -> bool {
    std::env::var_os("WEIR_WRITE_PTX").is_some()
}

fn architectures(source: &Source, of: &[&str]) -> Vec<Architecture> {
    of.iter()
        .map(|name| Architecture::parse(name).unwrap())
        .filter(|architecture| source.needs().runs_on(*architecture))
        .collect()
}

/// Those for which PTX is made: a source that is made for one architecture alone has that one's, others have the first that
/// they run on and sm_80's, whose copies and matrix products are others.
fn targets(source: &Source) -> Vec<Architecture> {
    architectures(source, &TARGETS)
        .into_iter()
        .filter(|target| target.specific == source.needs().specific)
        .collect()
}

/// PTX that names the version of the language that the oldest driver takes. NVRTC names its own, whatever the code needs; ptxas,
/// which the text is given to below, refuses what the named version has not.
fn for_the_oldest_driver(ptx: &str) -> String {
    let (before, rest) = ptx.split_once("\n.version ").unwrap();
    let (_, after) = rest.split_once('\n').unwrap();
    format!("{before}\n.version {PTX_VERSION}\n{after}")
}

fn run(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success(),
        "{} {arguments:?}: {text}",
        program.display()
    );
    text
}

/// Messages such as "C7515: Potential Performance Loss: wgmma.mma_async instructions are serialized".
fn performance_message(text: &str) -> Option<&str> {
    text.lines().find(|line| {
        line.match_indices("C75").any(|(at, _)| {
            let number = &line[at + 1..];
            number.len() >= 4 && number.as_bytes()[..4].iter().all(u8::is_ascii_digit)
        })
    })
}

/// Of one kernel on one architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    registers: u64,
    /// Static shared memory, bytes.
    shared: u64,
    /// Stack, bytes: call frames and arrays that are indexed by a variable.
    stack: u64,
    /// Spilled bytes, stored and loaded.
    spilled: u64,
}

/// What `ptxas -v` says, by kernel.
fn resources(said: &str) -> BTreeMap<String, Use> {
    let mut found: BTreeMap<String, Use> = BTreeMap::new();
    let mut kernel = String::new();
    let before = |line: &str, what: &str| -> u64 {
        line.split(what)
            .next()
            .filter(|_| line.contains(what))
            .and_then(|text| text.split([' ', ',']).rfind(|word| !word.is_empty()))
            .map_or(0, |number| number.parse().unwrap())
    };
    for line in said.lines() {
        if let Some(rest) = line.split("Function properties for ").nth(1) {
            kernel = rest.trim().to_string();
        } else if line.contains("bytes stack frame") {
            let one = found.entry(kernel.clone()).or_default();
            one.stack = before(line, " bytes stack frame");
            one.spilled = before(line, " bytes spill stores") + before(line, " bytes spill loads");
        } else if line.contains("Used ") && line.contains(" registers") {
            let one = found.entry(kernel.clone()).or_default();
            one.registers = before(line, " registers");
            one.shared = before(line, " bytes smem");
        }
    }
    found
}

/// Loads and stores of local memory in machine code.
fn local_memory(assembly: &str) -> Option<&str> {
    assembly.lines().find(|line| {
        line.split([' ', '\t']).any(|word| {
            ["LDL", "STL"]
                .iter()
                .any(|op| word == *op || word.starts_with(&format!("{op}.")))
        })
    })
}

/// What machine code is refused for: local memory.
fn of_machine_code(tools: &Path, cubin: &Path) -> Option<String> {
    let assembly = run(
        &tools.join("bin/nvdisasm"),
        &["-c", cubin.to_str().unwrap()],
    );
    local_memory(&assembly).map(|line| format!("uses local memory: {}", line.trim()))
}

/// What of a kernel's resources is more than the table allows, or is not in it.
fn beyond(table: &toml::Table, kernel: &str, architecture: Architecture, used: Use) -> Vec<String> {
    let allowed = |what: &str| -> Option<u64> {
        let row = table.get(kernel)?.get(architecture.to_string())?;
        row.get(what)?.as_integer()?.try_into().ok()
    };
    let mut wrong = Vec::new();
    if used.spilled > 0 {
        wrong.push(format!("{kernel} spills {} bytes", used.spilled));
    }
    for (what, used) in [
        ("registers", used.registers),
        ("shared", used.shared),
        ("stack", used.stack),
    ] {
        match allowed(what) {
            _ if writing() => {}
            Some(allowed) if used <= allowed => {}
            Some(allowed) => wrong.push(format!(
                "{kernel} uses {used} {what}, and ptx/resources.toml allows {allowed}"
            )),
            None => wrong.push(format!(
                "{kernel} is not in ptx/resources.toml; `make kernels` writes it"
            )),
        }
    }
    wrong
}

/// Multiplications and additions that a compiler may still fuse: those that do not name their rounding.
fn may_be_fused(ptx: &str) -> Option<&str> {
    ptx.lines().find(|line| {
        let op = line.split_whitespace().find(|word| !word.starts_with('@'));
        op.is_some_and(|op| {
            [
                "mul.f32",
                "add.f32",
                "sub.f32",
                "mul.ftz.f32",
                "add.ftz.f32",
                "sub.ftz.f32",
            ]
            .contains(&op)
        })
    })
}

/// The lines of PTX without their order and their registers' numbers.
fn instructions(ptx: &str) -> Vec<String> {
    let plain = without_numbers(ptx);
    let mut lines: Vec<String> = plain.lines().map(str::to_string).collect();
    lines.sort_unstable();
    lines
}

/// PTX without the numbers of its registers, which differ between targets where nothing else does.
fn without_numbers(ptx: &str) -> String {
    let mut text = String::with_capacity(ptx.len());
    // 0: elsewhere, 1: in a register's name, 2: in its number.
    let mut state = 0;
    for letter in ptx.chars() {
        state = match letter {
            '%' => 1,
            'a'..='z' if state == 1 => 1,
            '0'..='9' if state > 0 => 2,
            _ => 0,
        };
        if state < 2 {
            text.push(letter);
        }
    }
    text
}

fn table() -> toml::Table {
    let path = ptx_folder().join("resources.toml");
    std::fs::read_to_string(&path)
        .unwrap_or_default()
        .parse()
        .unwrap()
}

#[test]
fn every_source_compiles_without_spills_or_lost_speed_and_within_its_resources() {
    let Some(tools) = tools() else { return };
    let nvrtc = Nvrtc::load(&tools.join("13/libnvrtc.so.13")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let table = table();
    let mut written: BTreeMap<(String, String), Use> = BTreeMap::new();
    let mut wrong = Vec::new();
    for source in SOURCES {
        let on = architectures(source, &ARCHITECTURES);
        assert!(
            !on.is_empty(),
            "{} needs {}, which is none of {ARCHITECTURES:?}",
            source.name,
            source.needs()
        );
        for architecture in on {
            let code = match nvrtc.compile(source, architecture) {
                Ok(code) => code,
                Err(error) => {
                    wrong.push(error.to_string());
                    continue;
                }
            };
            let name = format!("{}.cu for {architecture}", source.name);
            if !code.log.trim().is_empty() {
                wrong.push(format!("{name}: {}", code.log.trim()));
            }
            let file = |ending: &str| {
                scratch
                    .path()
                    .join(format!("{}.{architecture}.{ending}", source.name))
            };
            std::fs::write(file("cubin"), &code.cubin).unwrap();
            std::fs::write(file("ptx"), &code.ptx).unwrap();
            let said = run(
                &tools.join("bin/ptxas"),
                &[
                    "-v",
                    &format!("-arch={architecture}"),
                    "-o",
                    "/dev/null",
                    file("ptx").to_str().unwrap(),
                ],
            );
            if let Some(message) = performance_message(&said) {
                wrong.push(format!("{name}: {message}"));
            }
            if let Some(found) = of_machine_code(&tools, &file("cubin")) {
                wrong.push(format!("{name} {found}"));
            }
            if let Some(line) = may_be_fused(&code.ptx) {
                wrong.push(format!(
                    "{name} may be fused by the driver: {}",
                    line.trim()
                ));
            }
            for (kernel, used) in resources(&said) {
                let found = beyond(&table, &kernel, architecture, used);
                wrong.extend(found.iter().map(|found| format!("{name}: {found}")));
                written.insert((kernel, architecture.to_string()), used);
            }
        }
    }
    if writing() {
        write_table(&written);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn write_table(rows: &BTreeMap<(String, String), Use>) {
    let mut text = String::from(
        "# What each kernel may use of a multiprocessor, by NVRTC and ptxas 13.0: registers a thread, static shared memory a\n# block and stack a thread in bytes. `make kernels` writes this page; `make test` refuses more than it says.\n",
    );
    let mut last = "";
    for ((kernel, architecture), used) in rows {
        if kernel != last {
            text += &format!("\n[{kernel}]\n");
            last = kernel;
        }
        text += &format!(
            "{architecture} = {{ registers = {}, shared = {}, stack = {} }}\n",
            used.registers, used.shared, used.stack
        );
    }
    std::fs::create_dir_all(ptx_folder()).unwrap();
    std::fs::write(ptx_folder().join("resources.toml"), text).unwrap();
}

#[test]
fn the_ptx_in_the_program_is_what_the_sources_give_and_the_newest_ptxas_takes_it_without_loss() {
    let Some(tools) = tools() else { return };
    let nvrtc = Nvrtc::load(&tools.join("12/libnvrtc.so.12")).unwrap();
    let version = nvrtc.version();
    let scratch = tempfile::tempdir().unwrap();
    let table = table();
    let mut wrong = Vec::new();
    let mut files = vec!["resources.toml".to_string(), "launches.toml".into()];
    for source in SOURCES {
        let mut earlier = Vec::new();
        for target in targets(source) {
            let code = match nvrtc.compile(source, target) {
                Ok(code) => code,
                Err(error) => {
                    wrong.push(error.to_string());
                    continue;
                }
            };
            // Who has this NVRTC runs its own code, not what the newest ptxas makes.
            let cubin = scratch.path().join("code.cubin");
            let by = format!("{}.cu for {target} by NVRTC {version}", source.name);
            if let Some(message) = performance_message(&code.log) {
                wrong.push(format!("{by}: {message}"));
            }
            std::fs::write(&cubin, &code.cubin).unwrap();
            if let Some(found) = of_machine_code(&tools, &cubin) {
                wrong.push(format!("{by} {found}"));
            }
            // A later target whose code is the same as the earlier one's adds nothing.
            let plain = instructions(&code.ptx.replace(&format!(".target {target}"), ".target"));
            if plain == earlier {
                continue;
            }
            earlier = plain;
            let name = format!("{}.{}.ptx", source.name, target.target());
            let path = ptx_folder().join(&name);
            let text = format!(
                "{PTX_MARK}{} by NVRTC {version}; `make kernels`\n{}",
                source.hash(),
                for_the_oldest_driver(&code.ptx)
            );
            if writing() {
                std::fs::create_dir_all(ptx_folder()).unwrap();
                std::fs::write(&path, &text).unwrap();
            }
            match std::fs::read_to_string(&path) {
                Ok(there) if there == text => {}
                Ok(_) => wrong.push(format!("ptx/{name} is stale; `make kernels` makes it anew")),
                Err(error) => wrong.push(format!("ptx/{name}: {error}; `make kernels` makes it")),
            }
            files.push(name.clone());
            // The driver compiles it on the user's machine, with a ptxas of its own version: the newest at hand stands for it.
            if path.is_file() {
                let said = run(
                    &tools.join("bin/ptxas"),
                    &[
                        "-v",
                        &format!("-arch={target}"),
                        "-o",
                        cubin.to_str().unwrap(),
                        path.to_str().unwrap(),
                    ],
                );
                if let Some(message) = performance_message(&said) {
                    wrong.push(format!("ptx/{name}: {message}"));
                }
                if let Some(found) = of_machine_code(&tools, &cubin) {
                    wrong.push(format!("ptx/{name} {found}"));
                }
                for (kernel, used) in resources(&said) {
                    let found = beyond(&table, &kernel, target, used);
                    wrong.extend(found.iter().map(|found| format!("ptx/{name}: {found}")));
                }
            }
        }
    }
    for entry in std::fs::read_dir(ptx_folder()).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if !files.contains(&name) {
            if writing() {
                std::fs::remove_file(&path).unwrap();
            } else {
                wrong.push(format!(
                    "ptx/{name} is of no source; `make kernels` removes it"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_the_tools_say_is_read_as_it_is_meant() {
    let said = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'weir_pool' for 'sm_80'
ptxas info    : Function properties for weir_pool
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size, 1024 bytes smem, 424 bytes cmem[0]
ptxas info    : Function properties for weir_other
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 16 registers, used 0 barriers
";
    let found = resources(said);
    let pool = Use {
        registers: 40,
        shared: 1024,
        stack: 8,
        spilled: 16,
    };
    assert_eq!(found["weir_pool"], pool);
    assert_eq!(found["weir_other"].registers, 16);
    assert_eq!(found["weir_other"].shared, 0);
    let lost = "ptxas info    : (C7515) Potential Performance Loss: wgmma.mma_async instructions are serialized";
    assert_eq!(performance_message(lost), Some(lost));
    assert_eq!(performance_message("C75 is no number, nor C751"), None);
    assert!(local_memory("        /*0010*/                   LDL.64 R2, [R1] ;").is_some());
    assert!(local_memory("        /*0010*/                   LDG.E R2, [R1] ;").is_none());
    assert!(may_be_fused("\tmul.f32 \t%f3, %f1, %f2;").is_some());
    assert!(may_be_fused("@%p1\tadd.f32 \t%f3, %f1, %f2;").is_some());
    assert_eq!(
        without_numbers("add.s32 %r12, %rd3, 40; // param_7"),
        "add.s32 %r, %rd, 40; // param_7"
    );
    assert!(may_be_fused("\tmul.rn.f32 \t%f3, %f1, %f2;").is_none());
}

#[test]
fn a_source_that_does_not_compile_is_an_error_with_the_compilers_words() {
    let Some(tools) = tools() else { return };
    let nvrtc = Nvrtc::load(&tools.join("12/libnvrtc.so.12")).unwrap();
    assert_eq!(nvrtc.version().to_string(), "12.4");
    assert!(nvrtc.builtins().is_some());
    let source = Source {
        name: "broken",
        text: "extern \"C\" __global__ void weir_broken(float* out) { out[0] = nothing; }",
        ptx: &[],
    };
    let sm_80 = Architecture::parse("sm_80").unwrap();
    let error = nvrtc.compile(&source, sm_80).err().unwrap();
    assert!(error.error.contains("COMPILATION"), "{error}");
    assert!(error.log.contains("broken.cu(1)"), "{error}");
    assert!(error.log.contains("\"nothing\" is undefined"), "{error}");
    // An architecture that this NVRTC does not know.
    let later = Architecture {
        major: 99,
        minor: 0,
        specific: false,
    };
    assert!(nvrtc.compile(&source, later).is_err());
}

#[test]
fn products_and_sums_are_never_fused_and_divisions_are_exact() {
    let Some(tools) = tools() else { return };
    let source = Source {
        name: "sums",
        text: "extern \"C\" __global__ void weir_sums(float* a, const float* b) {
            int i = blockIdx.x * blockDim.x + threadIdx.x; a[i] = a[i] * b[i] + a[i] / b[0]; }",
        ptx: &[],
    };
    for library in ["12/libnvrtc.so.12", "13/libnvrtc.so.13"] {
        let nvrtc = Nvrtc::load(&tools.join(library)).unwrap();
        for architecture in ARCHITECTURES {
            let architecture = Architecture::parse(architecture).unwrap();
            let code = nvrtc.compile(&source, architecture).unwrap();
            assert_eq!(may_be_fused(&code.ptx), None, "{}", code.ptx);
            assert!(code.ptx.contains("mul.rn.f32") && code.ptx.contains("add.rn.f32"));
            assert!(code.ptx.contains("div.rn.f32"), "{}", code.ptx);
            assert!(!code.ptx.contains("fma.rn.f32"), "{}", code.ptx);
        }
    }
}
