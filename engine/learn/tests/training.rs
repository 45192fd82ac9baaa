//! A whole training on a real slide, small: what it writes, and that going on after a stop is the same as never stopping.
#![allow(clippy::unwrap_used)]

#[path = "../../../kernels/tests/emulated/mod.rs"]
mod emulated;

use emulated::{PLAIN, Setting, say};
use std::fs;
use std::path::{Path, PathBuf};
use weir_learn::{At, Ended, Options, Progress, TrainError, train};
use weir_model::{BagModel, Choice, Network, Pooling, Scorer, Weights, Which};
use weir_pipeline::model::ModelHeader;
use weir_slide::Openers;

const RECIPE: &str = r#"
weir-recipe = 1
seed = 3
[model]
arch = "small"
feature = 16
hidden = 8
classes = ["no", "yes"]
positive = "yes"
[input]
size = 16
mpp = 12.0
mean = [0.8, 0.6, 0.7]
std = [0.2, 0.2, 0.2]
[scorer]
epochs = 3
batch = 4
top = 2
all-epochs = 1
steps = { rate = 1e-3, average = 0.9 }
[bag]
epochs = 2
batch = 2
highest = 2
lowest = 1
chunk = 2
normalise = "squared-average"
bias-start = -3.0
compare = ["mean"]
steps = { rate = 1e-3, average = 0.9 }
[evaluate]
bootstrap = 20
"#;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .join("tests/fixtures")
        .join(name)
}

/// Two slides, the same pixels, one to train on and one to validate on; four bags each, labelled at will.
fn data(folder: &Path) {
    fs::create_dir_all(folder.join("truth")).unwrap();
    let mut bags = String::from("bag,slide,split,label,tiles\n");
    for (slide, split) in [("one", "train"), ("two", "val")] {
        fs::copy(
            fixture("slide-14082.tiff"),
            folder.join(format!("{slide}.tiff")),
        )
        .unwrap();
        let mut truth = String::from("x,y,class\n");
        for bag in 0..4 {
            let tiles: Vec<String> = (0..5)
                .map(|k| format!("{}:{}", 300 + 50 * k, 1000 + 50 * bag))
                .collect();
            let label = ["no", "yes"][bag % 2];
            bags += &format!(
                "{slide}-{bag},{slide},{split},{label},{}\n",
                tiles.join(" ")
            );
            for (k, tile) in tiles.iter().enumerate() {
                let class = u8::from(bag % 2 == 1 && k < 3);
                truth += &format!("{},{class}\n", tile.replace(':', ","));
            }
        }
        fs::write(folder.join(format!("truth/{slide}.csv")), truth).unwrap();
    }
    fs::write(folder.join("bags.csv"), bags).unwrap();
    let manifest = "slide,label,split,patient,mpp\none,yes,train,1,4.0\ntwo,yes,val,2,4.0\n";
    fs::write(folder.join("manifest.csv"), manifest).unwrap();
    fs::write(folder.join("recipe.toml"), RECIPE).unwrap();
}

/// Stops after every epoch, or never.
struct Watch {
    stop: bool,
    steps: u64,
}

impl Progress for Watch {
    fn at(&mut self, at: &At) {
        assert!(at.part > 0.0 && at.part <= 1.0 && at.epoch <= at.epochs);
        self.steps += 1;
    }
    fn note(&mut self, _: &str) {}
    fn go_on(&mut self) -> bool {
        !self.stop
    }
}

fn options(data: &Path, out: &Path, resume: bool) -> Options {
    Options {
        recipe: data.join("recipe.toml"),
        data: data.to_path_buf(),
        out: out.to_path_buf(),
        resume,
        choice: Choice {
            executor: Which::Burn,
            ..Choice::default()
        },
        device: weir_model::Device::Cpu,
        openers: Openers::default(),
        plugins: Vec::new(),
    }
}

#[test]
fn a_training_that_is_stopped_after_every_epoch_ends_in_the_same_weights_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("data");
    data(&input);
    let straight = folder.path().join("straight");
    let mut watch = Watch {
        stop: false,
        steps: 0,
    };
    let ended = train(&options(&input, &straight, false), &mut watch).unwrap();
    assert!(matches!(ended, Ended::Whole(_)));
    assert!(watch.steps > 10);

    let broken = folder.path().join("broken");
    let mut runs = 0;
    loop {
        let mut watch = Watch {
            stop: true,
            steps: 0,
        };
        runs += 1;
        if let Ended::Whole(_) = train(&options(&input, &broken, runs > 1), &mut watch).unwrap() {
            break;
        }
    }
    // 3 epochs of A, 2 and 2 of B's poolings; a phase's last epoch does not stop the run.
    assert_eq!(runs, 1 + 2 + 1 + 1);
    for model in ["a", "b"] {
        let weights = |run: &Path| fs::read(run.join(model).join("weights.safetensors")).unwrap();
        assert_eq!(weights(&straight), weights(&broken), "{model}");
    }

    // What was written is what a pipeline loads.
    let choice = options(&input, &straight, false).choice;
    let a = ModelHeader::load(&straight.join("a")).unwrap();
    let tile = vec![200u8; 16 * 16 * 3];
    let scores = Scorer::load(&a, &choice).unwrap().score(&[&tile]).unwrap();
    assert!(scores[0].score > 0.0 && scores[0].score < 1.0);
    let b = ModelHeader::load(&straight.join("b")).unwrap();
    assert_eq!(
        (b.normalise.as_str(), b.link.as_str(), b.hidden),
        ("squared-average", "sigmoid", 8)
    );
    BagModel::load(&b, &Pooling::default()).unwrap();
    let record = fs::read_to_string(straight.join("training.md")).unwrap();
    for told in ["| val | 1 | 20 | 6 |", "| squared-average |", "| mean |"] {
        assert!(record.contains(told), "{told} is not in\n{record}");
    }
    let metrics = fs::read_to_string(straight.join("metrics.csv")).unwrap();
    assert_eq!(metrics.lines().count(), 1 + 3 + 2 + 2);

    // Going on under another recipe would be another training.
    let text = RECIPE.replace("seed = 3", "seed = 4");
    fs::write(input.join("recipe.toml"), text).unwrap();
    let mut watch = Watch {
        stop: false,
        steps: 0,
    };
    let refused = train(&options(&input, &broken, true), &mut watch).unwrap_err();
    assert!(
        matches!(&refused, TrainError::Run { what, .. } if what.contains("the recipe differs")),
        "{refused}"
    );
    let again = train(&options(&input, &broken, false), &mut watch).unwrap_err();
    assert!(again.to_string().contains("earlier run"), "{again}");
}

/// Both models' weights, as one hash each.
fn weights(run: &Path) -> String {
    ["a", "b"]
        .map(|model| {
            let bytes = fs::read(run.join(model).join("weights.safetensors")).unwrap();
            weir_model::sha256(&bytes)
        })
        .join(" ")
}

#[test]
#[ignore = "a case, run by the test below"]
fn case_training_on_the_device() {
    if !emulated::inside() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("data"), folder.path().join("out"));
    data(&input);
    let options = Options {
        device: weir_model::Device::Cuda(0),
        ..options(&input, &out, false)
    };
    let mut watch = Watch {
        stop: false,
        steps: 0,
    };
    assert!(matches!(
        train(&options, &mut watch).unwrap(),
        Ended::Whole(_)
    ));
    say("weights", weights(&out));
}

#[test]
fn a_training_whose_bags_are_pooled_on_the_emulated_device_ends_in_the_same_weights_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("data"), folder.path().join("out"));
    data(&input);
    let mut watch = Watch {
        stop: false,
        steps: 0,
    };
    train(&options(&input, &out, false), &mut watch).unwrap();
    let variables = [
        ("WEIR_DEVICE_FROM", "0"),
        ("WEIR_NVRTC", "/none/libnvrtc.so.12"),
        ("WEIR_CACHE", ""),
        ("WEIR_EMU_TRACE", "1"),
    ];
    let setting = Setting {
        environment: variables
            .map(|(name, value)| (name, value.to_owned()))
            .to_vec(),
        patience: 300,
        ..Setting::default()
    };
    let device = emulated::run(PLAIN, &setting, "case_training_on_the_device").passed();
    assert_eq!(device.said("weights"), weights(&out));
    // Nothing of it was pooled on the processor instead.
    for kernel in ["weir_pool_f32", "weir_pool_backward"] {
        assert!(device.output.contains(kernel), "{kernel} was not launched");
    }
}

#[test]
fn a_resnet_starts_from_torchvisions_file_trains_its_statistics_in_a_and_freezes_them_in_b() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("data");
    data(&input);
    // As torchvision writes it: its own classifier, a counter, and no `feature`.
    let network = Network::new("resnet18", 8).unwrap();
    let parameters: Vec<_> = network
        .parameters()
        .into_iter()
        .filter(|parameter| !parameter.name.starts_with("feature."))
        .collect();
    let mut torchvision = Weights::start(&parameters, 9);
    torchvision.insert("fc.weight", vec![2, 512], vec![0.0; 1024]);
    torchvision.insert("bn1.num_batches_tracked", vec![1], vec![3.0]);
    torchvision
        .save(&input.join("resnet18.safetensors"))
        .unwrap();
    let recipe = RECIPE
        .replace("arch = \"small\"", "arch = \"resnet18\"")
        .replace("feature = 16", "feature = 8")
        .replace("size = 16", "size = 32")
        .replace("mpp = 12.0", "mpp = 6.0")
        .replace("epochs = 3", "init = \"resnet18.safetensors\"\nepochs = 1")
        .replace("epochs = 2", "epochs = 1")
        .replace("compare = [\"mean\"]", "")
        // So small a step that weights stay where the file put them, to four digits.
        .replace("rate = 1e-3", "rate = 1e-7");
    fs::write(input.join("recipe.toml"), recipe).unwrap();
    let out = folder.path().join("run");
    let mut watch = Watch {
        stop: false,
        steps: 0,
    };
    train(&options(&input, &out, false), &mut watch).unwrap();

    let of = |model: &str| Weights::load(&out.join(model).join("weights.safetensors")).unwrap();
    let (a, b) = (of("a"), of("b"));
    let array = |weights: &Weights, name: &str| weights.get(name).unwrap().values.clone();
    let near = |x: &[f32], y: &[f32]| x.iter().zip(y).all(|(x, y)| (x - y).abs() < 1e-4);
    for name in [
        "conv1.weight",
        "layer3.0.downsample.0.weight",
        "layer4.1.conv2.weight",
    ] {
        assert!(near(&array(&a, name), &array(&torchvision, name)), "{name}");
    }
    assert!(a.get("fc.weight").is_none());
    let statistics: Vec<&str> = network
        .parameters()
        .iter()
        .filter(|parameter| !parameter.trained)
        .map(|parameter| {
            a.iter()
                .find(|(name, _)| *name == parameter.name)
                .unwrap()
                .0
        })
        .collect();
    assert_eq!(statistics.len(), 40);
    for name in statistics {
        assert_ne!(
            array(&a, name),
            array(&torchvision, name),
            "{name} was trained in A"
        );
        assert_eq!(array(&a, name), array(&b, name), "{name} is frozen in B");
    }
}
