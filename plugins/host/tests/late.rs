//! A call into a plugin of this process that does not come back fails its tile by the plugin's name, and the run ends.
#![allow(clippy::unwrap_used)]

mod programs;
mod sins;

use sins::{Way, ran, way};
use std::time::Duration;

/// The filter never ends the call of tile (8, 0) of slide `s1`.
#[test]
fn a_call_that_does_not_come_back_is_named_by_its_plugin_and_code() {
    for how in ["pending", "loop"] {
        let folder = tempfile::tempdir().unwrap();
        let way = Way {
            timeout: Duration::from_secs(2),
            out: folder.path().to_owned(),
            ..way(false)
        };
        let chain = [("source", ""), ("pass", how), ("mean", ""), ("write", "")];
        let outcome = ran(&chain, &way);
        let failures: Vec<_> = outcome
            .slides
            .values()
            .flat_map(|slide| &slide.failures)
            .collect();
        let [failure] = &failures[..] else {
            panic!("{how}: {failures:?}");
        };
        assert_eq!(
            (failure.stage.as_str(), failure.slide.as_str(), failure.tile),
            ("pass", "s1", Some((8, 0)))
        );
        assert_eq!(
            failure.what,
            "plugin `sins` 0.1.0 did not answer within 2s [E0523]"
        );
        assert!(failure.help.contains("isolate = true"), "{failure:?}");
    }
}
