//! What has to be found once: tests that a failure before them has the answer to.

use super::{Finding, Verdict};
use std::collections::BTreeMap;

/// Tests of the file without which there is no stage to try.
const OF_FILE: [&str; 3] = ["manifest-valid", "rtld-now", "loads"];

/// The first test of a stage or reader that does what all those after it do too: makes it, calls it with ordinary rows, opens a
/// slide.
const FIRST: [&str; 5] = [
    "params-defaults",
    "one-row",
    "slides-listed",
    "steps-in-order",
    "facts-coherent",
];

/// What was found so far and speaks for tests to come.
#[derive(Debug, Default)]
pub struct Causes {
    file: Option<String>,
    stages: BTreeMap<String, String>,
}

impl Causes {
    /// Notes what was found. Tests are to be noted in their order.
    pub fn note(&mut self, found: &Finding) {
        let test = found.test.as_str();
        if found.verdict != Verdict::Failed {
            return;
        }
        if found.stage.is_empty() && OF_FILE.contains(&test) {
            let why = format!("see {test}: without it nothing of the plugin can be tried");
            self.file.get_or_insert(why);
        }
        // Who cannot be made cannot be called; a call that fails may be the only one, and one that never ends takes as long each time.
        let why = match test {
            "params-defaults" => "see params-defaults: without that it cannot be tried".into(),
            _ if found.is_without_end() && FIRST.contains(&test) => {
                format!("see {test}: what did not end there is done here too")
            }
            _ => return,
        };
        self.stages.entry(found.stage.clone()).or_insert(why);
    }

    /// What a test comes to that need not be run.
    pub fn skipped(&self, (stage, test): &(String, &'static str)) -> Option<Finding> {
        let why = self.file.as_ref().or_else(|| self.stages.get(stage))?;
        Some(Finding {
            stage: stage.clone(),
            test: (*test).to_owned(),
            verdict: Verdict::Skipped,
            what: why.clone(),
            ms: 0,
            again: None,
        })
    }
}
