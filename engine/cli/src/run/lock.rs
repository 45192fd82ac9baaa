//! Keeps two runs from writing one folder of outputs.
//!
//! The lock is the operating system's on the file `OUT/.weir-lock`, so it ends with the process whatever ends it. A run holds it
//! alone; shards hold it together, each with a second lock on a file of its own, and only shards of one division may be at work
//! together: slides are divided by their place in the list, and shards of another division would overlap.

use crate::message::Refusal;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

/// One part of a batch: slides i, i + n, i + 2 n, ... of the sorted list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub i: u64,
    /// How many there are.
    pub n: u64,
}

impl std::str::FromStr for Shard {
    type Err = String;

    /// `i/n` with i from 1.
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(i, n)| {
            let (i, n) = (i.parse::<u64>().ok()?, n.parse::<u64>().ok()?);
            (1..=n).contains(&i).then_some(Shard { i: i - 1, n })
        });
        parsed.ok_or_else(|| format!("`{text}` is no shard: give I/N with I from 1 to N, as 2/4"))
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-of-{}", self.i + 1, self.n)
    }
}

/// Held while a run writes a folder.
#[derive(Debug)]
pub struct Lock {
    _files: Vec<File>,
}

impl Lock {
    /// Makes the folder `out` and locks it for a run, or for one shard of a batch.
    pub fn take(out: &Path, shard: Option<Shard>) -> Result<Self, Refusal> {
        let cannot = |error: std::io::Error| {
            Refusal::usage(
                format!(
                    "the folder of the outputs {} cannot be written: {error}",
                    out.display()
                ),
                "give another folder with --out, or change its permissions",
            )
        };
        std::fs::create_dir_all(out).map_err(cannot)?;
        let mut file = open(&out.join(".weir-lock")).map_err(cannot)?;
        let alone = match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        };
        let Some(shard) = shard else {
            if !alone {
                return Err(busy(out, &mut file));
            }
            write_down(&mut file, &format!("process {}", std::process::id())).map_err(cannot)?;
            return Ok(Lock { _files: vec![file] });
        };
        let division = format!("shards of {}", shard.n);
        if alone {
            write_down(&mut file, &division).map_err(cannot)?;
        }
        // Where this process was alone, another may come in between the two kinds of lock: it is then seen below.
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy(out, &mut file)),
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        if read(&mut file) != division {
            return Err(busy(out, &mut file));
        }
        let own = open(&out.join(format!(".weir-lock-{shard}"))).map_err(cannot)?;
        match own.try_lock() {
            Ok(()) => Ok(Lock {
                _files: vec![file, own],
            }),
            Err(TryLockError::WouldBlock) => Err(Refusal::usage(
                format!("the shard {shard} is at work in {} already", out.display()),
                "give each job its own I in --shard I/N",
            )),
            Err(TryLockError::Error(error)) => Err(cannot(error)),
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

fn write_down(file: &mut File, text: &str) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

/// What the holder wrote; for messages, and the division of a batch.
fn read(file: &mut File) -> String {
    let mut text = String::new();
    if file.rewind().is_err() || file.read_to_string(&mut text).is_err() {
        text.clear();
    }
    text
}

fn busy(out: &Path, file: &mut File) -> Refusal {
    let holder = read(file);
    let who = if holder.is_empty() {
        "another run".to_owned()
    } else {
        format!("another run ({holder})")
    };
    Refusal::usage(
        format!("{who} writes to {}", out.display()),
        "wait for it, or give this run another folder with --out",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_shard_is_counted_from_one() {
        assert_eq!("1/4".parse(), Ok(Shard { i: 0, n: 4 }));
        assert_eq!("4/4".parse::<Shard>().unwrap().to_string(), "4-of-4");
        for wrong in ["0/4", "5/4", "1", "1/0", "a/b", "-1/2", ""] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_run_writes_a_folder_and_it_is_free_again_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("a/b");
        let held = Lock::take(&out, None).unwrap();
        let refusal = Lock::take(&out, None).unwrap_err();
        let Refusal::Error { exit, what, .. } = refusal else {
            panic!("{refusal:?}")
        };
        assert_eq!(exit, 2);
        assert!(
            what.contains(&format!("process {}", std::process::id())),
            "{what}"
        );
        assert!(Lock::take(&out, "1/2".parse().ok()).is_err());
        drop(held);
        assert!(Lock::take(&out, None).is_ok());
    }

    #[test]
    fn shards_of_one_division_work_together_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let take = |shard: &str| Lock::take(folder.path(), shard.parse().ok());
        let held = (take("1/2").unwrap(), take("2/2").unwrap());
        assert!(take("1/2").is_err(), "a shard twice");
        assert!(take("1/3").is_err(), "another division");
        assert!(Lock::take(folder.path(), None).is_err(), "a whole run");
        drop(held);
        assert!(take("1/3").is_ok());
    }
}
