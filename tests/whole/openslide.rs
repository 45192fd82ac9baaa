//! What `weir inspect` and a run say of slides that the native reader declines. The plugin's own tests hold its pixels.

use crate::program::{command, fixture, root, said, weir};

#[test]
fn inspect_says_that_the_native_reader_took_a_slide() {
    let said = weir([
        "inspect",
        fixture("CMU-1-Small-Region.svs").to_str().unwrap(),
    ])
    .exits(0);
    assert!(
        said.out
            .contains("chosen      native reader; no other was asked"),
        "{}",
        said.out
    );
}

/// Whether the tests of what OpenSlide 4 reads can run: `WEIR_WITHOUT_OPENSLIDE4=1` says that they need not.
pub(crate) fn reads_dicom() -> bool {
    if std::env::var_os("WEIR_WITHOUT_OPENSLIDE4").is_some() {
        eprintln!("skipped: WEIR_WITHOUT_OPENSLIDE4 is set");
        return false;
    }
    let slide = fixture("CMU-1-Small-Region.dcm");
    let said = weir(["inspect", slide.to_str().unwrap()]);
    assert_eq!(
        said.code,
        Some(0),
        "DICOM is not read: {}\n`make plugins` builds the plugin and gets OpenSlide 4, WEIR_OPENSLIDE names it; WEIR_WITHOUT_OPENSLIDE4=1 skips these tests",
        said.err
    );
    true
}

#[test]
fn inspect_asks_plugins_where_the_native_reader_declines() {
    if !reads_dicom() {
        return;
    }
    let slide = fixture("CMU-1-Small-Region.dcm");
    let said = weir(["inspect", slide.to_str().unwrap()]).exits(0);
    for line in [
        "reader      openslide/dicom (",
        "chosen      openslide, sure by 90 of 100; the native reader declined: is no TIFF file",
        "cache       128.0 MiB for all slides of a process; WEIR_OPENSLIDE_CACHE says another size",
        "size        2220 x 2967 px",
        "mpp         0.499 um/px, from the vendor's key",
    ] {
        assert!(said.out.contains(line), "{line}\n{}", said.out);
    }
}

#[test]
fn a_dry_run_opens_what_only_a_plugin_reads() {
    if !reads_dicom() {
        return;
    }
    let file = root().join("pipelines/openslide.weir.toml");
    let file = file.to_str().unwrap();
    let said = weir(["graph", file, "--slides"]).exits(0);
    assert!(
        said.out.contains("CMU-1-Small-Region: ") && said.out.contains("1 slide, "),
        "{}",
        said.out
    );
    assert!(
        said.out
            .contains("128.0 MiB of it for what plugin `openslide` keeps of all slides"),
        "{}",
        said.out
    );
    // What a run reads is what the dry run said.
    let out = tempfile::tempdir().unwrap();
    let json = weir(["graph", file, "--slides", "--as", "json"])
        .exits(0)
        .out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    weir(["run", file, "--out", out.path().to_str().unwrap()]).exits(0);
    let record = crate::program::record(out.path());
    assert_eq!(
        record["slides"]["CMU-1-Small-Region"]["tiles"],
        json["slides"][0]["tiles"]
    );
}

#[test]
fn the_size_of_openslides_cache_is_part_of_the_memory_of_a_run() {
    if !reads_dicom() {
        return;
    }
    let with = |cache: &str, arguments: &[&str]| {
        let mut weir = command(arguments);
        weir.env("WEIR_OPENSLIDE_CACHE", cache);
        said(weir)
    };
    let slide = fixture("CMU-1-Small-Region.dcm");
    let slide = slide.to_str().unwrap();
    let small = with("16MiB", &["inspect", slide]).exits(0);
    assert!(small.out.contains("cache       16.0 MiB"), "{}", small.out);
    let doctor = with("16MiB", &["doctor"]);
    assert!(doctor.out.contains("its cache: 16.0 MiB"), "{}", doctor.out);

    let file = root().join("pipelines/openslide.weir.toml");
    let file = file.to_str().unwrap();
    let little = "run.memory=\"100MiB\"";
    let refused = with("", &["validate", file, "--set", little]).exits(2);
    assert!(
        refused.err.contains("[E0602]")
            && refused
                .err
                .contains("128MiB of decoded tiles, kept by plugin `openslide`"),
        "{}",
        refused.err
    );
    with("16MiB", &["validate", file, "--set", little]).exits(0);
    let unread = with("much", &["validate", file]).exits(2);
    assert!(
        unread.err.contains("[E0309]") && unread.err.contains("WEIR_OPENSLIDE_CACHE is `much`"),
        "{}",
        unread.err
    );
}

/// A small training.
pub(crate) const RECIPE: &str = r#"weir-recipe = 1
[model]
arch = "small"
feature = 8
hidden = 4
classes = ["no", "yes"]
positive = "yes"
[input]
size = 16
mpp = 12.0
mean = [0.8, 0.6, 0.7]
std = [0.2, 0.2, 0.2]
[scorer]
epochs = 1
batch = 4
top = 2
steps = { rate = 1e-3 }
[bag]
epochs = 1
batch = 2
highest = 2
lowest = 1
normalise = "squared-average"
steps = { rate = 1e-3 }
[evaluate]
bootstrap = 5
"#;

/// A recipe names its plugins as a pipeline does.
#[test]
fn a_training_reads_what_only_a_plugin_reads() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let slide = fixture("CMU-1-Small-Region.dcm");
    let mut bags = String::from("bag,slide,split,label,tiles\n");
    for split in ["train", "val"] {
        std::os::unix::fs::symlink(&slide, path(&format!("{split}.dcm"))).unwrap();
        for bag in 0..4 {
            let label = ["no", "yes"][bag % 2];
            let y = 400 * bag;
            bags += &format!("{split}-{bag},{split},{split},{label},0:{y} 400:{y} 800:{y}\n");
        }
    }
    std::fs::write(path("bags.csv"), bags).unwrap();
    let manifest = "slide,path,label,split\ntrain,train.dcm,yes,train\nval,val.dcm,yes,val\n";
    std::fs::write(path("manifest.csv"), manifest).unwrap();
    let train = |more: &str, out: &str| {
        std::fs::write(path("recipe.toml"), format!("{RECIPE}{more}")).unwrap();
        let (recipe, out) = (path("recipe.toml"), path(out));
        weir([
            "train".as_ref(),
            recipe.as_os_str(),
            "--data".as_ref(),
            folder.path().as_os_str(),
            "--out".as_ref(),
            out.as_os_str(),
        ])
    };
    let without = train("", "without");
    assert_ne!(without.code, Some(0));
    assert!(
        without.err.contains("is no TIFF file") && without.err.contains("[plugin.openslide]"),
        "{}",
        without.err
    );
    let unknown = train("[plugin.nobody]\n", "unknown").exits(2);
    let line = RECIPE.lines().count() + 1;
    assert!(
        unknown.err.contains(&format!("recipe.toml:{line}:"))
            && unknown
                .err
                .contains("[E0501] plugin `nobody` cannot be used"),
        "{}",
        unknown.err
    );
    if !reads_dicom() {
        return;
    }
    train("[plugin.openslide]\n", "with").exits(0);
    assert!(path("with/a/model.toml").is_file());
    let pinned = format!("[plugin.openslide]\nsha256 = \"{}\"\n", "0".repeat(64));
    let refused = train(&pinned, "pinned").exits(2);
    assert!(refused.err.contains("[E0507]"), "{}", refused.err);
}
