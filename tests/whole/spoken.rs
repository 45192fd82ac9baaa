//! What a plugin says reaches the user: at the line of the file that it speaks of, in run.json, and as the end of the run where the
//! user wants a failure to be one.

use crate::program::models::Pipeline;
use crate::program::{Said, record, root, slide, weir};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder with the plugin, the slides `a` to `d` and a pipeline that runs them one after the other, `stage` in the plugin's table
/// and `run` in the run's.
struct Stand(tempfile::TempDir);

impl Stand {
    fn new(plugin: &str, stage: &str, run: &str) -> Stand {
        let stand = Stand(tempfile::tempdir().unwrap());
        let library = stand.at("libspeaks.so");
        let built = Command::new("gcc")
            .args([
                "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
            ])
            .arg("-I")
            .arg(root().join("plugins/abi"))
            .arg("-o")
            .arg(&library)
            .arg(root().join("tests/plugins/speaks.c"))
            .status();
        assert!(built.unwrap().success());
        for (seed, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            slide(&stand.at(&format!("{name}.tiff")), 6, 5, seed as u64 + 1);
        }
        let run = format!("open-slides = 1\nretries = 0\n{run}");
        let file = Pipeline {
            slides: &["a.tiff", "b.tiff", "c.tiff", "d.tiff"],
            size: 64,
            mpp: 1.0,
            run: &run,
            reader: "tissue = \"none\"",
        }
        .write(stand.0.path());
        let own = format!(
            "[plugin.speaks]\npath = {library:?}\n{plugin}\n\n[stage.own]\nuse = \"speaks.map\"\nin = \"tiles\"\n{stage}\n\n[stage.score]\nuse = \"scorer\"\nin = \"own\"\n"
        );
        let score = "[stage.score]\nuse = \"scorer\"\nin = \"tiles\"\n";
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(score), "{text}");
        std::fs::write(stand.file(), text.replace(score, &own)).unwrap();
        stand
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.at("it.weir.toml")
    }

    fn out(&self) -> PathBuf {
        self.at("out")
    }

    fn run(&self) -> Said {
        weir([Path::new("run").as_os_str(), self.file().as_os_str()])
    }
}

#[test]
fn a_parameter_that_a_plugin_refuses_is_marked_in_the_file_in_process_and_isolated() {
    for plugin in ["", "isolate = true"] {
        let said = Stand::new(plugin, "even = 7", "").run();
        assert_eq!(said.code, Some(2), "{said:?}");
        let text = std::fs::read_to_string(Stand::new(plugin, "even = 7", "").file()).unwrap();
        let line = text.lines().position(|line| line == "even = 7").unwrap() + 1;
        for words in [
            "stage `own` refused its parameter `even`: ",
            "it is odd",
            "add one",
            &format!("it.weir.toml:{line}:"),
            "even = 7",
        ] {
            assert!(said.err.contains(words), "{words}: {}", said.err);
        }
    }
}

#[test]
fn what_a_plugin_counts_stands_in_the_record_in_process_and_isolated() {
    for plugin in ["", "isolate = true"] {
        let stand = Stand::new(plugin, "", "");
        stand.run().exits(0);
        let record = record(&stand.out());
        assert_eq!(
            record["plugin_counters"]["own"]["handed on"],
            4 * 6 * 5,
            "{record:#}"
        );
    }
}

#[test]
fn a_plugins_death_fails_its_slide_or_stops_the_run_as_the_file_says() {
    let ends = |run: &str| {
        let stand = Stand::new("isolate = true", "dies-at = \"b\"", run);
        let said = stand.run();
        (said, record(&stand.out()))
    };
    let (said, all) = ends("max-failed = 0");
    assert_eq!(all["slides"]["b"]["tiles_failed"], 6 * 5, "{all:#}");
    assert_eq!(all["slides"]["b"]["state"], "failed", "{all:#}");
    let told = all["slides"]["b"].to_string();
    for words in ["E0521", "plugin `speaks` 1.0.0", "signal 6 (Aborted)"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    for slide in ["a", "c", "d"] {
        assert_eq!(all["slides"][slide]["state"], "final", "{said:?}");
    }
    let (said, stopped) = ends("max-failed = 0\non-error = \"stop\"");
    assert_ne!(said.code, Some(0), "{said:?}");
    assert_eq!(stopped["slides"]["a"]["state"], "final", "{said:?}");
    // No slide after it was begun.
    assert_ne!(stopped["slides"]["d"]["state"], "final", "{said:?}");
}
