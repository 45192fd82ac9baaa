//! The plugins that were built against released headers, stage by stage: what they use of the ABI still is what it was.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use weir_plugin::End;
use weir_plugin::harness::{Library, Rows, Sent};

/// tests/abi/v1.0/more.c, built with the header beside it; the folder stays as long as the library.
static MORE: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let released = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/abi/v1.0");
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libmore.so");
    let built = Command::new("gcc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1"])
        .args(["-shared", "-fPIC", "-pthread", "-I"])
        .arg(&released)
        .arg("-o")
        .arg(&library)
        .arg(released.join("more.c"))
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    (folder, library)
});

fn more() -> Library {
    Library::open(&MORE.1).unwrap()
}

fn tiles(values: &[u8]) -> Rows {
    let rows = values.iter().zip(0..);
    rows.fold(Rows::pixels(1, 1), |rows, (value, x)| {
        rows.push("a", x, 0, &[*value; 3])
    })
}

#[test]
fn a_call_that_is_kept_scores_fails_rows_logs_and_counts_from_its_thread() {
    let stage = more().stage("more.later").unwrap().start().unwrap();
    let done = stage.process(tiles(&[7, 0, 9])).unwrap();
    assert_eq!(done.row::<f32>("scores", 2, "score").unwrap(), [9.0]);
    assert_eq!(
        done.row::<f32>("scores", 0, "probabilities").unwrap(),
        [0.25, 0.75]
    );
    let [(1, error)] = done.failed() else {
        panic!("{:?}", done.failed());
    };
    assert_eq!(error.to_string(), "it is dark; light it");
    assert_eq!(stage.counter("scored"), 2);
    assert_eq!(stage.log()[0].to_string(), "debug: from a thread");
    stage.stop();
    let stopped = stage.process(tiles(&[7])).unwrap_err();
    assert_eq!(stopped.status(), weir_plugin::abi::status::CANCELLED);
    stage.end().unwrap();
}

#[test]
fn parameters_of_every_type_arrive_and_a_map_makes_picks_and_a_table() {
    let stage = |room: &str| {
        let setup = more().stage("more.notes").unwrap();
        let setup = setup
            .set("text", "ab")
            .set("list", vec!["x", "y"])
            .set("way", "down");
        setup.set("room", room).set("wait", "3ms").set("on", true)
    };
    let refused = stage("2MiB").start().err().unwrap();
    assert_eq!(
        refused.to_string(),
        "parameter `room`: that is too much; take less"
    );
    let stage = stage("4KiB").set("file", "/f").start().unwrap();
    let done = stage.process(tiles(&[1, 2])).unwrap();
    assert_eq!(done.row::<f32>("picks", 1, "score").unwrap(), [1.0]);
    assert_eq!(
        done.table("notes", Some(1)).unwrap(),
        b"ab|/f|2:x|1:down|4096|3000000|1"
    );
    stage.end().unwrap();
}

#[test]
fn a_reduce_takes_removals_and_makes_shares_a_prediction_and_a_table() {
    let stage = more().stage("more.weigh").unwrap().start().unwrap();
    let row = |x, score| Rows::scores(2).push_scores("a", x, 0, score, &[0.5, 0.5]);
    for (x, score) in [(0, 1.0), (1, 3.0), (2, 4.0)] {
        stage.take("scores", row(x, score)).unwrap();
    }
    stage.remove("scores", &row(2, 4.0)).unwrap();
    let done = stage.complete("a", 5, End::Complete).unwrap();
    let weights: Vec<f32> = done
        .rows::<f32>("shares", "weight")
        .iter()
        .map(|(_, values)| values[0])
        .collect();
    assert_eq!(weights, [0.25, 0.75]);
    assert_eq!(done.rows::<f32>("says", "logits")[0].1, [4.0, -4.0]);
    assert_eq!(done.rows::<i32>("says", "class")[0].1, [0]);
    assert_eq!(done.table("notes", None).unwrap(), b"2 of generation 5, 0");
    stage.close("a");
    let empty = stage.complete("a", 6, End::Aborted).unwrap();
    assert_eq!(empty.count("shares"), 0);
    assert_eq!(empty.rows::<i32>("says", "class")[0].1, [-1]);
    stage.end().unwrap();
}

#[test]
fn a_source_sends_steps_of_every_kind() {
    let stage = more().stage("more.live").unwrap().start().unwrap();
    let slide = stage.open(0).unwrap();
    let sent = slide.run(|tile| tile.width as usize * 4).unwrap();
    assert_eq!(sent[0].features().unwrap(), [0.0, 0.5]);
    assert_eq!(sent[1].features().unwrap(), [256.0, 0.5]);
    assert_eq!(sent[2], Sent::Close);
    assert!(matches!(&sent[3], Sent::Gone(tile) if tile.x == 0));
    assert!(
        matches!(&sent[4], Sent::Fail(tile, error) if tile.x == 512 && error.message() == "torn")
    );
    assert_eq!(sent.len(), 5);
    drop(slide);
    stage.end().unwrap();
}

#[test]
fn a_reader_gives_its_picture_and_the_plugin_describes_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.more");
    std::fs::write(&file, "MORE").unwrap();
    let reader = more().reader("more").unwrap();
    assert_eq!(reader.sniff(&file).unwrap(), 100);
    let slide = reader.open(&file).unwrap();
    assert_eq!(slide.facts().unwrap().pictures[0].name, "label");
    assert_eq!(slide.picture(0).unwrap(), b"abcdef");
    assert_eq!(slide.region(0, 0, 0, 2, 2).unwrap(), [255; 12]);
    let said = more().describe(&file).unwrap();
    assert_eq!(said[0].to_string(), "info: it is a file");
}

#[test]
fn its_manifest_is_one_that_this_host_takes() {
    let described = weir_plugin_host::Described::read(&MORE.1).unwrap();
    assert_eq!(described.manifest().stages.len(), 4);
}
