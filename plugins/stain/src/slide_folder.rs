//! A slide's folder among a run's outputs, named as weir names it.

use std::path::{Path, PathBuf};

/// Names among the outputs that are not slides': what begins and ends so is written out.
const TAKEN: &[(&str, &str)] = &[
    ("run", ".json"),
    ("predictions", ".csv"),
    ("predictions", ".jsonl"),
    ("worklist", ".csv"),
    ("patients", ".csv"),
];

/// The folder of the slide `id` below `out`: the id, with what cannot stand in a file's name as `%` and two hexadecimal digits a
/// byte, so that it lies beside what weir's own sinks write of this slide and never outside `out`.
pub fn of(out: &Path, id: &str) -> PathBuf {
    let lower = id.to_ascii_lowercase();
    let taken = TAKEN
        .iter()
        .any(|(begin, end)| lower.starts_with(begin) && lower.ends_with(end));
    let last = id.chars().count().saturating_sub(1);
    let mut name = String::with_capacity(id.len());
    for (at, c) in id.chars().enumerate() {
        let plain = match c {
            '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' | '%' => false,
            '.' => !taken && at != 0 && at != last,
            ' ' => at != 0 && at != last,
            c => !c.is_control(),
        };
        if plain {
            name.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                name.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    out.join(name)
}

#[cfg(test)]
mod tests {
    use super::of;
    use std::path::Path;

    #[test]
    fn folders_are_the_engines() {
        let name = |id: &str| of(Path::new("out"), id).display().to_string();
        assert_eq!(name("slide-14082"), "out/slide-14082");
        assert_eq!(name("../../etc/passwd"), "out/%2E.%2F..%2Fetc%2Fpasswd");
        assert_eq!(name("run.json"), "out/run%2Ejson");
        assert_eq!(name("100%"), "out/100%25");
    }
}
