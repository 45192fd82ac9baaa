//! The files that a stage's parameters of type `slides` name: found here, as for weir's own sources, and handed over one by one.

use crate::manifest::{ParamKind, Stage};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weir_pipeline::{Value, Values};
use weir_runtime::stage::StageError;
use weir_slide::input::{self, Files};
use weir_slide::{Openers, SlideEntry};

/// Of each parameter of type `slides` that is given, what it names.
pub(crate) type Found = BTreeMap<String, Vec<SlideEntry>>;

/// What the stage's parameters of type `slides` name, sorted by id; paths stand as they were written. Folders are searched for the
/// endings that the manifest names, else for slides: weir's own and those of `openers`.
///
/// # Errors
/// Of the parameter: every input that names nothing, is no manifest, or has an id that another one has.
pub(crate) fn find(stage: &Stage, values: &Values, openers: &Openers) -> Result<Found, StageError> {
    let here = Path::new(".");
    let mut found = Found::new();
    for param in &stage.params {
        let (ParamKind::Slides, Some(Value::Texts(inputs))) =
            (param.kind, values.0.get(&param.name))
        else {
            continue;
        };
        let files = match param.extensions.is_empty() {
            true => Files::SLIDES.and(&openers.extensions()),
            false => Files::ending_in(&param.extensions),
        };
        let mut entries = input::files(inputs, here, &files).map_err(|errors| {
            let lines: Vec<String> = errors
                .iter()
                .map(|error| format!("{}: {}", error.place, error.what))
                .collect();
            let mut help: Vec<&str> = errors.iter().map(|error| error.help.as_str()).collect();
            help.dedup();
            StageError::new(lines.join("\n"), help.join("\n")).of_param(&param.name)
        })?;
        for entry in &mut entries {
            let plain: Option<PathBuf> = entry.path.strip_prefix(here).map(Into::into).ok();
            entry.path = plain.unwrap_or_else(|| std::mem::take(&mut entry.path));
        }
        found.insert(param.name.clone(), entries);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::manifest::Manifest;

    fn stage(extensions: &str) -> Stage {
        let text = format!(
            r#"{{ "weir-abi": "1.0", "name": "probe", "version": "0.3.1", "summary": "For tests", "stages": [
              {{ "id": "probe.read", "summary": "Reads", "rows": "source",
                "out": [ {{ "name": "features", "kind": "features", "shape": [3] }} ],
                "params": [ {{ "name": "slides", "type": "slides", "required": true, "doc": "Files"{extensions} }} ] }} ] }}"#
        );
        Manifest::parse(text.as_bytes()).unwrap().stages.remove(0)
    }

    fn found(stage: &Stage, inputs: &[&str]) -> Result<Vec<SlideEntry>, StageError> {
        let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
        let values = Values(BTreeMap::from([("slides".into(), Value::Texts(inputs))]));
        find(stage, &values, &Openers::default()).map(|mut found| found.remove("slides").unwrap())
    }

    #[test]
    fn folders_patterns_and_manifests_become_files_with_what_is_said_of_them() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.feat", "a.feat", "c.svs", "d.txt"] {
            std::fs::write(folder.path().join(name), "II*\0").unwrap();
        }
        let list = folder.path().join("list.csv");
        std::fs::write(
            &list,
            "slide,path,label,patient,mpp\nfirst,b.feat,tumour,p1,0.5\n",
        )
        .unwrap();
        let own = stage(", \"extensions\": [\"feat\"]");
        let ids = |inputs: &[&str]| -> Vec<String> {
            let found = found(&own, inputs).unwrap();
            found.into_iter().map(|entry| entry.id).collect()
        };
        let text = folder.path().to_str().unwrap();
        assert_eq!(ids(&[text]), ["a", "b"]);
        assert_eq!(ids(&[&format!("{text}/*.t?t")]), ["d"]);
        let listed = found(&own, &[list.to_str().unwrap()]).unwrap();
        let [first] = &listed[..] else {
            panic!("{listed:?}");
        };
        assert_eq!(
            (
                first.id.as_str(),
                first.label.as_deref(),
                first.patient.as_deref(),
                first.mpp
            ),
            ("first", Some("tumour"), Some("p1"), Some(0.5))
        );
        // Without endings of its own it takes slides.
        let slides = found(&stage(""), &[text]).unwrap();
        assert_eq!(slides.len(), 1);
        assert_eq!(slides[0].id, "c");
        let error = found(&own, &["nothing-there"]).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("slides"));
    }

    #[test]
    fn endings_are_for_slides() {
        let text = r#"{ "weir-abi": "1.0", "name": "probe", "version": "0.3.1", "summary": "For tests", "stages": [
          { "id": "probe.read", "summary": "Reads", "rows": "source",
            "out": [ { "name": "features", "kind": "features", "shape": [3] } ],
            "params": [ { "name": "file", "type": "path", "doc": "A file", "extensions": ["h5"] } ] } ] }"#;
        let refused = Manifest::parse(text.as_bytes()).unwrap_err();
        assert!(
            refused.what.contains("`extensions` are for slides"),
            "{refused}"
        );
    }
}
