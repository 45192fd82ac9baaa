//! Where a library says that those lie which it needs.

use object::Endianness;
use object::elf::{DT_RPATH, DT_RUNPATH};
use object::read::elf::ElfFile64;

/// The library's rpath (`DT_RUNPATH`, or `DT_RPATH`, which older linkers write) where it speaks of the folder that the library lies in:
/// the system's loader takes `$ORIGIN` and `${ORIGIN}` for that.
pub(crate) fn of_origin(bytes: &[u8]) -> Option<String> {
    let file = ElfFile64::<Endianness>::parse(bytes).ok()?;
    let table = file.elf_dynamic_table().ok()?;
    let paths = table
        .iter()
        .filter(|entry| [DT_RUNPATH, DT_RPATH].contains(&entry.tag))
        .filter_map(|entry| table.string(entry).ok())
        .map(|path| String::from_utf8_lossy(path).into_owned());
    let mut origins = paths.filter(|path| path.contains("$ORIGIN") || path.contains("${ORIGIN}"));
    origins.next()
}
