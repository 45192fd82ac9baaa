//! Whether a stage writes all of what it hands on.

use super::rows::{answers, made_up};
use super::{No, Said};
use crate::check::stand::Stand;
use crate::check::watch::{self, Left};

/// What fresh batches hold, in one run each. No two have a byte in common: what the stage writes is another value in each of them at
/// most once, and what it makes up anew each time is hardly ever all of them.
const PATTERNS: [u8; 4] = [0xa5, 0x5a, 0x3c, 0xc3];

pub(super) fn output_written(stand: &Stand) -> Said {
    if stand.about.outs.is_empty() {
        return Err(No::Skipped("it has no output".into()));
    }
    match unwritten(stand)? {
        0 => Err(No::Skipped("it handed on no batch of its own".into())),
        n => Ok(format!("{n} rows")),
    }
}

/// Fails where the stage leaves numbers as it was given them; else how many rows it wrote.
pub(super) fn unwritten(stand: &Stand) -> Result<usize, No> {
    let rows = made_up(stand, 9);
    let mut left = None;
    let mut said = Ok(());
    for pattern in PATTERNS {
        let made = stand.ready()?;
        watch::fill_with(pattern);
        said = said.and(answers(stand, &made, &rows).map(drop));
        let mut now = watch::left_unwritten();
        if let Some(before) = left {
            now.retain(
                |place, left| match std::collections::BTreeMap::get(&before, place) {
                    Some(Left { unwritten, .. }) => {
                        left.unwritten.retain(|number| unwritten.contains(number));
                        true
                    }
                    None => false,
                },
            );
        }
        left = Some(now);
    }
    let left = left.unwrap_or_default();
    let mut found = left.iter().filter(|(_, left)| !left.unwritten.is_empty());
    if let Some(((port, ..), left)) = found.next() {
        let output = stand.about.outs.get(*port as usize);
        let output = output.map_or("", |output| output.name.as_str());
        // A row that fails by what it was left with is one that was not written all the same.
        return Err(No::Failed(format!(
            "it left numbers of row {} of output `{output}` unwritten: {} of the {} of its column `{}`; a fresh batch holds anything, \
so write all of it",
            left.row,
            left.unwritten.len(),
            left.numbers,
            left.column,
        )));
    }
    said?;
    Ok(left.len())
}
