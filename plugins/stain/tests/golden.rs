//! Real tiles against an independent float64 reference in numpy (tests/golden/reference.py; make.py wrote the files).
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use weir_stain::density::Light;
use weir_stain::lab::Lab;
use weir_stain::macenko::{self, Estimate, Scratch, Stains};
use weir_stain::recolour::Recolour;
use weir_stain::reinhard::{self, Colours, Transfer};
use weir_stain::separate::{self, Show};

const TILES: [&str; 5] = ["connective", "edge", "epidermis", "stroma", "tumour"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn picture(name: &str) -> Vec<u8> {
    weir_stain::picture::read(&folder().join(format!("{name}.png"))).unwrap()
}

fn reference(name: &str) -> (Stains, Colours) {
    let text = std::fs::read_to_string(folder().join("statistics.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let numbers = |key: &str| -> Vec<f64> {
        all[name][key]
            .as_array()
            .unwrap()
            .iter()
            .map(|number| number.as_f64().unwrap())
            .collect()
    };
    let three = |key: &str| -> [f64; 3] { numbers(key).try_into().unwrap() };
    let stains = Stains {
        haematoxylin: three("haematoxylin"),
        eosin: three("eosin"),
        concentrations: numbers("concentrations").try_into().unwrap(),
    };
    let colours = Colours {
        mean: three("mean"),
        deviation: three("deviation"),
    };
    (stains, colours)
}

fn estimate() -> Estimate {
    Estimate {
        light: Light::new(240.0, 0.15),
        alpha: 1.0,
        least: 0.0,
    }
}

fn most_apart(a: &[f64], b: &[f64]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max)
}

#[test]
fn stains_are_the_references_to_a_millionth() {
    for name in TILES {
        let ours = estimate()
            .stains(&picture(name), &mut Scratch::default())
            .unwrap();
        let (theirs, _) = reference(name);
        assert!(
            most_apart(&ours.haematoxylin, &theirs.haematoxylin) < 1e-6,
            "{name}: {ours:?} {theirs:?}"
        );
        assert!(
            most_apart(&ours.eosin, &theirs.eosin) < 1e-6,
            "{name}: {ours:?} {theirs:?}"
        );
        assert!(
            most_apart(&ours.concentrations, &theirs.concentrations) < 1e-5,
            "{name}: {ours:?} {theirs:?}"
        );
    }
}

#[test]
fn colours_are_the_references_to_a_ten_thousandth() {
    for name in TILES {
        let light = Light::new(240.0, 0.15);
        let ours = reinhard::colours(&Lab::default(), &light, true, 0.0, &picture(name)).unwrap();
        let (_, theirs) = reference(name);
        assert!(
            most_apart(&ours.mean, &theirs.mean) < 1e-4,
            "{name}: {ours:?} {theirs:?}"
        );
        assert!(
            most_apart(&ours.deviation, &theirs.deviation) < 1e-4,
            "{name}: {ours:?} {theirs:?}"
        );
    }
}

/// A grey level may be another one only where the reference lies on the edge between two: at most by 1, at most one in 5,000.
#[test]
fn every_picture_is_the_references_but_for_edges_of_rounding() {
    let light = Light::new(240.0, 0.15);
    let lab = Lab::default();
    let (mut values, mut other) = (0, 0);
    for name in TILES {
        let pixels = picture(name);
        let stains = estimate().stains(&pixels, &mut Scratch::default()).unwrap();
        let colours = reinhard::colours(&lab, &light, true, 0.0, &pixels).unwrap();
        let change = macenko::normalisation(&stains, &macenko::REFERENCE).unwrap();
        let [haematoxylin, eosin] = separate::RUIFROK;
        let split = separate::matrices(haematoxylin, eosin, Show::Density).unwrap();
        let coloured = separate::matrices(haematoxylin, eosin, Show::Colour).unwrap();
        let linear = [
            (change, true),
            (change, false),
            (split[0], false),
            (split[1], false),
            (split[2], false),
            (coloured[0], false),
        ];
        let mut pictures: Vec<Vec<u8>> = linear
            .iter()
            .map(|(matrix, keep_glass)| {
                let mut made = pixels.clone();
                Recolour::new(&light, matrix, *keep_glass).apply(&mut made);
                made
            })
            .collect();
        let mut transferred = pixels.clone();
        Transfer::new(&colours, &reinhard::REFERENCE, &light, true).apply(&lab, &mut transferred);
        pictures.insert(2, transferred);
        let theirs = picture(&format!("{name}.made"));
        let ours = pictures.concat();
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert!(ours.abs_diff(*theirs) <= 1, "{name}: {ours} {theirs}");
            other += usize::from(ours != theirs);
        }
        values += ours.len();
    }
    println!("{other} of {values} grey levels are the neighbour of the reference's");
    assert!(other * 5000 <= values, "{other} of {values}");
}
