//! What a shared library must be before a loader may touch it.
//!
//! A loader maps what the program headers say. Where the file is shorter than that, the process dies on the first touch, and no
//! error can be caught; so every header is held against the file first.

use crate::refusal::Refusal;
use object::elf::{EM_AARCH64, EM_X86_64, ET_DYN, FileHeader64, Machine, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSection, ObjectSymbol};
use std::ops::Range;
use weir_abi::plugin::{ENTRY, SECTION};

/// What was found in a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Where in the file the manifest stands; `None`: it has no section for it.
    pub manifest: Option<Range<usize>>,
}

const MACHINE: (Machine, &str) = if cfg!(target_arch = "aarch64") {
    (EM_AARCH64, "AArch64")
} else {
    (EM_X86_64, "x86-64")
};

fn name(machine: Machine) -> String {
    match machine {
        EM_X86_64 => "x86-64".into(),
        EM_AARCH64 => "AArch64".into(),
        Machine(other) => format!("machine {other}"),
    }
}

/// Checks the whole file. Nothing of it runs.
pub fn check(bytes: &[u8]) -> Result<Library, Refusal> {
    let broken = |what: String| {
        Refusal::new(
            "E0506",
            what,
            "the file was cut off or damaged: build or copy it again",
        )
    };
    if !bytes.starts_with(b"\x7fELF") {
        return Err(Refusal::new(
            "E0506",
            "it is no shared library: it does not begin as an ELF file",
            "name the .so that the build made",
        ));
    }
    if bytes.get(4) != Some(&2) || bytes.get(5) != Some(&1) {
        return Err(Refusal::new(
            "E0506",
            "it is an ELF file, but not of 64 bits and little endian",
            format!("build it for {}", MACHINE.1),
        ));
    }
    let header = FileHeader64::<Endianness>::parse(bytes)
        .map_err(|error| broken(format!("its ELF header is unsound: {error}")))?;
    let endian = Endianness::Little;
    let of = header.e_machine(endian);
    if of != MACHINE.0 {
        return Err(Refusal::new(
            "E0506",
            format!("it was built for {}, and this is {}", name(of), MACHINE.1),
            format!("build it for {}", MACHINE.1),
        ));
    }
    if header.e_type(endian) != ET_DYN {
        return Err(Refusal::new(
            "E0506",
            "it is an ELF file, but no shared library",
            "link it with -shared (C) or as a cdylib (Rust)",
        ));
    }
    let segments = header
        .program_headers(endian, bytes)
        .map_err(|error| broken(format!("its program headers lie outside the file: {error}")))?;
    let mut loads = 0;
    for segment in segments {
        let (from, len) = segment.file_range(endian);
        let end = from.checked_add(len);
        if end.is_none_or(|end| end > bytes.len() as u64) {
            return Err(broken(format!(
                "it has {} bytes, but a segment ends at byte {}",
                bytes.len(),
                end.map_or_else(|| "2^64 and beyond".into(), |end| end.to_string()),
            )));
        }
        if segment.p_type(endian) == PT_LOAD {
            loads += 1;
            if segment.p_memsz(endian) < len {
                return Err(broken(
                    "a segment has more bytes in the file than in memory".into(),
                ));
            }
        }
    }
    if loads == 0 {
        return Err(broken("it has nothing to load".into()));
    }
    let file = object::File::parse(bytes)
        .map_err(|error| broken(format!("its ELF tables are unsound: {error}")))?;
    let exported: Vec<&str> = file
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition() && symbol.is_global())
        .filter_map(|symbol| symbol.name().ok())
        .collect();
    if !exported.contains(&ENTRY) {
        return Err(Refusal::new(
            "E0503",
            format!(
                "it is no weir plugin: it does not export `{ENTRY}`{}",
                instead(&exported)
            ),
            "see plugins/README.md: a plugin exports that one function",
        ));
    }
    let Some(section) = file.section_by_name(SECTION) else {
        return Ok(Library { manifest: None });
    };
    let (from, len) = section.file_range().unwrap_or((0, 0));
    let end = from
        .checked_add(len)
        .filter(|end| *end <= bytes.len() as u64);
    let Some(end) = end else {
        return Err(broken(format!(
            "its section `{SECTION}` lies outside the file"
        )));
    };
    Ok(Library {
        manifest: Some(from as usize..end as usize),
    })
}

/// Some of what a library exports instead, for whoever named the wrong one.
fn instead(exported: &[&str]) -> String {
    match exported {
        [] => "; it exports nothing".into(),
        [first, second, third, more @ ..] if !more.is_empty() => {
            format!(
                "; it exports {first}, {second}, {third} and {} more",
                more.len()
            )
        }
        few => format!("; it exports {}", few.join(", ")),
    }
}
