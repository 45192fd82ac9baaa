//! The plan's hash.

use crate::model_file::{hex, said};
use crate::plan::{Node, Plan};
use crate::schema::ParamKind;
use crate::values::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file or folder whose bytes belong to the plan, and which cannot be read.
#[derive(Debug)]
pub(crate) struct Unread {
    /// Whose parameter names it.
    pub(crate) stage: String,
    /// The parameter.
    pub(crate) param: String,
    /// The file.
    pub(crate) path: PathBuf,
    /// Why not.
    pub(crate) what: String,
}

/// SHA-256 over everything that can change an answer. What only changes how fast it comes, where it is written, or which
/// slides it is about, is not in it.
pub(crate) fn of(plan: &Plan) -> Result<String, Unread> {
    let mut text = String::from("weir-plan/1\n");
    for (name, model) in &plan.models {
        let mut model = model.clone();
        // How it was trained changes no answer.
        model.training = None;
        line(
            &mut text,
            "model",
            &format!(
                "{name:?} {}",
                serde_json::to_string(&model).unwrap_or_default()
            ),
        );
    }
    for plugin in &plan.plugins {
        let value = format!("{:?} {}", plugin.name, plugin.sha256);
        line(&mut text, "plugin", &value);
    }
    let run = &plan.run;
    line(
        &mut text,
        "run",
        &format!(
            "executor={:?} devices={:?} seed={} max-failed={:?} max-failed-picked={:?} retries={} default-mpp={:?} live={}",
            run.executor,
            run.devices,
            run.seed,
            run.max_failed,
            run.max_failed_picked,
            run.retries,
            run.default_mpp,
            run.live
        ),
    );
    // By name: in which order a file lists its stages means nothing.
    let stages = plan.nodes.iter().map(|node| stage(plan, node));
    let mut stages: Vec<String> = stages.collect::<Result<_, _>>()?;
    stages.sort_unstable();
    text.extend(stages);
    Ok(hex(&Sha256::digest(text.as_bytes())))
}

fn line(text: &mut String, what: &str, value: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{what} {value}");
}

fn stage(plan: &Plan, node: &Node) -> Result<String, Unread> {
    let mut lines = String::new();
    let text = &mut lines;
    line(
        text,
        "stage",
        &format!(
            "{:?} {:?} retries={:?} device={:?}",
            node.name, node.schema.name, node.run.retries, node.run.device
        ),
    );
    for (name, value) in &node.values.0 {
        let kind = node
            .schema
            .params
            .iter()
            .find(|param| param.name == name)
            .map(|param| param.kind);
        match (kind, value) {
            (Some(ParamKind::Slides), _) | (Some(ParamKind::Path { exists: false }), _) => {}
            (_, Value::Path(path)) => {
                let contents = contents(path).map_err(|(path, error)| Unread {
                    stage: node.name.clone(),
                    param: name.clone(),
                    path,
                    what: said(&error),
                })?;
                line(text, "file", &format!("{name:?} {contents}"));
            }
            // The same number is the same, however it was written.
            (Some(ParamKind::Float { .. }), Value::Integer(number)) => {
                line(
                    text,
                    "param",
                    &format!("{name:?} {:?}", Value::Float(*number as f64)),
                );
            }
            (_, value) => line(text, "param", &format!("{name:?} {value:?}")),
        }
    }
    for edge in &node.inputs {
        let from = &plan.nodes[edge.node];
        line(
            text,
            "edge",
            &format!(
                "{:?} {:?}.{:?}",
                node.schema.ins[edge.port].name, from.name, from.schema.outs[edge.output].name
            ),
        );
    }
    Ok(lines)
}

/// What stands in a file, or in all files below a folder with their places in it; of what is not there, as a default path may be
/// before anybody has made it, the name. The bytes go through memory by pieces, so that a file may be of any size.
fn contents(path: &Path) -> Result<String, (PathBuf, io::Error)> {
    let at = |error| (path.to_owned(), error);
    match std::fs::metadata(path) {
        Ok(about) if about.is_dir() => {
            let mut hash = Sha256::new();
            folder(path, "", &mut hash, &mut Vec::new())?;
            Ok(format!("folder {}", hex(&hash.finalize())))
        }
        Ok(_) => file(path).map_err(at),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(format!("{path:?}")),
        Err(error) => Err(at(error)),
    }
}

/// Names and contents of everything below a folder, in the order of the names; `above` are the folders that it lies in.
fn folder(
    path: &Path,
    place: &str,
    hash: &mut Sha256,
    above: &mut Vec<(u64, u64)>,
) -> Result<(), (PathBuf, io::Error)> {
    let at = |error| (path.to_owned(), error);
    let about = std::fs::metadata(path).map_err(at)?;
    let own = (about.dev(), about.ino());
    if above.contains(&own) {
        return Err(at(io::Error::other(
            "it is a link back to a folder that it lies in",
        )));
    }
    above.push(own);
    let entries = std::fs::read_dir(path).map_err(at)?;
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(at)?;
    names.sort_unstable();
    for name in names {
        let own = path.join(&name);
        let place = format!("{place}/{name:?}");
        let about = std::fs::metadata(&own).map_err(|error| (own.clone(), error))?;
        if about.is_dir() {
            folder(&own, &place, hash, above)?;
        } else {
            let contents = file(&own).map_err(|error| (own.clone(), error))?;
            hash.update(format!("{place} {contents}\n"));
        }
    }
    above.pop();
    Ok(())
}

/// SHA-256 of a plain file.
fn file(path: &Path) -> io::Result<String> {
    // Opening a pipe would wait for somebody who writes into it.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is neither a plain file nor a folder"));
    }
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(n) => hash.update(&piece[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folders_hash_is_that_of_its_names_and_bytes() {
        let [one, two] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        for folder in [&one, &two] {
            std::fs::create_dir(folder.path().join("sub")).unwrap();
            std::fs::write(folder.path().join("sub/a"), "1").unwrap();
            std::fs::write(folder.path().join("b"), "2").unwrap();
        }
        let of = |folder: &tempfile::TempDir| contents(folder.path()).unwrap();
        assert_eq!(of(&one), of(&two));
        std::fs::write(two.path().join("sub/a"), "3").unwrap();
        assert_ne!(of(&one), of(&two));
        std::fs::write(two.path().join("sub/a"), "1").unwrap();
        assert_eq!(of(&one), of(&two));
        std::fs::rename(two.path().join("b"), two.path().join("sub/b")).unwrap();
        assert_ne!(of(&one), of(&two));
    }

    #[test]
    fn what_cannot_be_read_is_an_error_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("later");
        assert_eq!(contents(&missing).unwrap(), format!("{missing:?}"));
        std::os::unix::fs::symlink(folder.path(), folder.path().join("back")).unwrap();
        let (path, error) = contents(folder.path()).unwrap_err();
        assert_eq!(path, folder.path().join("back"));
        assert!(error.to_string().contains("link back"), "{error}");
        let (path, error) = contents(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(path, Path::new("/dev/zero"));
        assert!(error.to_string().contains("plain file"), "{error}");
        // Its first page is nobody's memory.
        contents(Path::new("/proc/self/mem")).unwrap_err();
    }
}
