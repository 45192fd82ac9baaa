//! Feature files of other programs, read and written by the plugin that ships.

use crate::program::{root, weir};
use crate::shipped::{run, shipped};
use half::f16;

#[test]
fn feature_files_of_one_layout_become_those_of_another() {
    shipped("libweir_features");
    let (written, _) = run("features", &[]);
    let made: Vec<&String> = written
        .keys()
        .filter(|name| name.ends_with(".h5"))
        .collect();
    assert_eq!(made, ["features/slide-8913.h5"]);
    let rows = stamp(&written["features/slide-8913.h5"]);
    // What h5py reads in the source's file, by place; STAMP's are f16, and its places um.
    let fixture = |name: &str| {
        let file = format!("plugins/features/tests/fixtures/{name}");
        std::fs::read(root().join(file)).unwrap()
    };
    let (numbers, places) = (fixture("h5py.f32"), fixture("h5py.i64"));
    let numbers = numbers.as_chunks::<4>().0.iter();
    let numbers: Vec<f32> = numbers.map(|word| f32::from_le_bytes(*word)).collect();
    let places = places.as_chunks::<8>().0.iter();
    let places: Vec<i64> = places.map(|word| i64::from_le_bytes(*word)).collect();
    let mut truth: Vec<Row> = places
        .as_chunks::<2>()
        .0
        .iter()
        .zip(numbers.chunks(48))
        .map(|([x, y], row)| {
            let row = row.iter().map(|number| f16::from_f32(*number)).collect();
            ([*x as f32 * 4.0, *y as f32 * 4.0], row)
        })
        .collect();
    truth.sort_by(|([ax, ay], _), ([bx, by], _)| ay.total_cmp(by).then(ax.total_cmp(bx)));
    assert_eq!(truth.len(), 291);
    assert!(rows == truth, "the rows are not the source's");
}

/// Place, um, and numbers.
type Row = ([f32; 2], Vec<f16>);

/// The rows of a file that is in STAMP's layout.
fn stamp(bytes: &[u8]) -> Vec<Row> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it.h5");
    std::fs::write(&path, bytes).unwrap();
    let file = hdf5_pure::File::open(&path).unwrap();
    let mut names = file.root().datasets().unwrap();
    names.sort();
    assert_eq!(names, ["coords", "feats"]);
    let said = file.root().attrs().unwrap();
    for name in [
        "stamp_version",
        "extractor",
        "unit",
        "tile_size_um",
        "tile_size_px",
    ] {
        assert!(said.contains_key(name), "{name} of {said:?}");
    }
    let (feats, coords) = (
        file.dataset("feats").unwrap(),
        file.dataset("coords").unwrap(),
    );
    let shape = feats.shape().unwrap();
    assert_eq!(coords.shape().unwrap(), [shape[0], 2]);
    let raw = feats.read_raw().unwrap();
    assert_eq!(raw.len() as u64, shape[0] * shape[1] * 2, "f16");
    let words = raw.as_chunks::<2>().0.iter();
    let numbers: Vec<f16> = words.map(|word| f16::from_le_bytes(*word)).collect();
    let places = coords.read_f32().unwrap();
    let rows = numbers.chunks(shape[1] as usize);
    let places = places.as_chunks::<2>().0.iter().copied();
    places.zip(rows.map(<[f16]>::to_vec)).collect()
}

/// CLAM's files say no mpp, and STAMP's need it.
#[test]
fn the_runs_default_mpp_is_a_plugins_slides_too() {
    shipped("libweir_features");
    let clam = root().join("plugins/features/tests/fixtures/clam");
    let slides = format!("slides={}", clam.display());
    let folder = tempfile::tempdir().unwrap();
    let file = root().join("pipelines/features.weir.toml");
    let out = folder.path().join("out");
    // What an earlier run left of a slide that fails now goes.
    let earlier = out.join("features/slide-8913.h5");
    std::fs::create_dir_all(out.join("features")).unwrap();
    std::fs::write(&earlier, "of an earlier run").unwrap();
    let other = out.join("features/other.h5");
    std::fs::write(&other, "of another slide").unwrap();
    let arguments = [
        "run",
        file.to_str().unwrap(),
        &slides,
        "--out",
        out.to_str().unwrap(),
    ];
    let said = weir(arguments);
    assert_ne!(said.code, Some(0), "{said:?}");
    assert!(
        said.err.contains("nobody says the slide's mpp") && said.err.contains("run.default-mpp"),
        "{said:?}"
    );
    assert!(!earlier.exists());
    assert!(other.exists());
    for more in [
        "plugin.features.isolate=false",
        "plugin.features.isolate=true",
    ] {
        let more = ["--set", "run.default-mpp=4", "--set", more];
        let (written, record) = run("features", &[&[slides.as_str()], &more[..]].concat());
        let slide = &record["slides"]["slide-8913"];
        assert_eq!(slide["mpp"], 4.0, "{slide}");
        assert_eq!(stamp(&written["features/slide-8913.h5"]).len(), 291);
    }
}

/// weir finds the files for the plugin: a folder is searched for the plugin's endings, a manifest says who they are.
#[test]
fn what_a_manifest_says_of_slides_reaches_a_plugins_source() {
    shipped("libweir_features");
    let folder = tempfile::tempdir().unwrap();
    let fixtures = root().join("plugins/features/tests/fixtures");
    let list = folder.path().join("list.csv");
    let file = fixtures.join("stamp/slide-8913.h5");
    let line = format!(
        "slide,path,label,patient,mpp\nfirst,{},tumour,p1,0.5\n",
        file.display()
    );
    std::fs::write(&list, line).unwrap();
    let (written, record) = run("features", &[&format!("slides={}", list.display())]);
    assert!(
        written.contains_key("features/first.h5"),
        "{:?}",
        written.keys()
    );
    let slide = &record["slides"]["first"];
    assert_eq!(
        (&slide["label"], &slide["patient"]),
        (&"tumour".into(), &"p1".into()),
        "{slide}"
    );
    // The same in a process of its own.
    let apart = format!("slides={}", list.display());
    let (_, apart) = run(
        "features",
        &[&apart, "--set", "plugin.features.isolate=true"],
    );
    assert_eq!(apart["slides"]["first"]["label"], "tumour");

    let (written, _) = run(
        "features",
        &[&format!("slides={}", fixtures.join("trident").display())],
    );
    assert!(
        written.contains_key("features/slide-8913.h5"),
        "{:?}",
        written.keys()
    );

    let refused = |slides: &str| {
        let file = root().join("pipelines/features.weir.toml");
        let out = folder.path().join("none");
        let slides = format!("slides={slides}");
        let arguments = [
            file.to_str().unwrap(),
            &slides,
            "--out",
            out.to_str().unwrap(),
        ];
        weir([&["run"], &arguments[..]].concat()).exits(2).err
    };
    let pattern = format!("{}/trident/*.npy", fixtures.display());
    let said = refused(&pattern);
    assert!(
        said.contains("matches no file") && said.contains("`slides`"),
        "{said}"
    );
    let both = format!("[\"{0}/trident\", \"{0}/stamp\"]", fixtures.display());
    let said = refused(&both);
    assert!(
        said.contains("two slides have the id `slide-8913`"),
        "{said}"
    );
}
