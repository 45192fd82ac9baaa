//! A slide's folder below `OUT`.

use std::path::{Path, PathBuf};
use weir_runtime::stage::StageError;

/// Longest name of a file, bytes, on every file system in use.
const LONGEST: usize = 255;

/// Beginnings and ends of names in `OUT` that are not slides', shards' among them.
const TAKEN: &[(&str, &str)] = &[
    ("run", ".json"),
    ("predictions", ".csv"),
    ("predictions", ".jsonl"),
    ("worklist", ".csv"),
    ("patients", ".csv"),
];

/// The folder of the slide `id` below `out`.
///
/// The id itself where it can be a file's name; characters that cannot are written as `%` and two hexadecimal digits for each of
/// their bytes, as in an address of the web, and so is `%` itself, so that no two ids share a folder and none leaves `out`.
pub fn of(out: &Path, id: &str) -> Result<PathBuf, StageError> {
    if id.is_empty() {
        return Err(StageError::new(
            "a slide without an id has no folder for its outputs",
            "name it in the column `slide` of the manifest",
        ));
    }
    let lower = id.to_ascii_lowercase();
    let taken = TAKEN
        .iter()
        .any(|(begin, end)| lower.starts_with(begin) && lower.ends_with(end));
    let last = id.chars().count() - 1;
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
    if name.len() > LONGEST {
        return Err(StageError::new(
            format!(
                "the id of slide `{}...` makes a folder name of {} bytes; file systems take {LONGEST}",
                id.chars().take(40).collect::<String>(),
                name.len()
            ),
            "give the slide a shorter id in the column `slide` of a manifest",
        ));
    }
    Ok(out.join(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::path::Component;

    #[test]
    fn usual_ids_are_their_own_folders() {
        for id in [
            "slide-14082",
            "TCGA-A1-A0SB-01Z-00-DX1.b34",
            "Fall 7, Schnitt ä",
            "a..b",
        ] {
            assert_eq!(of(Path::new("out"), id).unwrap(), Path::new("out").join(id));
        }
    }

    #[test]
    fn ids_that_are_no_file_names_are_written_out_or_refused() {
        let name = |id: &str| of(Path::new(""), id).map(|path| path.to_str().unwrap().to_owned());
        assert_eq!(name("..").unwrap(), "%2E%2E");
        assert_eq!(
            name("../../etc/passwd").unwrap(),
            "%2E.%2F..%2Fetc%2Fpasswd"
        );
        assert_eq!(name("run.json").unwrap(), "run%2Ejson");
        assert_eq!(
            name("Predictions-1-of-2.csv").unwrap(),
            "Predictions-1-of-2%2Ecsv"
        );
        assert_eq!(name(".weir-lock").unwrap(), "%2Eweir-lock");
        assert_eq!(name("100%").unwrap(), "100%25");
        assert!(name("").unwrap_err().to_string().contains("manifest"));
        assert!(
            name(&"x".repeat(300))
                .unwrap_err()
                .what
                .contains("300 bytes")
        );
    }

    proptest! {
        #[test]
        fn a_folder_lies_right_below_out_and_is_no_other_slides(a in "\\PC{1,20}|[./%]{1,4}", b in "\\PC{1,20}|[./%]{1,4}") {
            let out = Path::new("out");
            let (to_a, to_b) = (of(out, &a).unwrap(), of(out, &b).unwrap());
            let parts: Vec<Component> = to_a.components().collect();
            prop_assert_eq!(parts.len(), 2);
            prop_assert!(matches!(parts[1], Component::Normal(_)));
            prop_assert_eq!(a == b, to_a == to_b);
        }
    }
}
