//! Normalises tiles from a file of raw pixels on one thread and says how many seconds it took of a processor: what peers/compare.py measures.
//!
//!     tiles macenko|reinhard|ruifrok RAW SIDE OUT KEEP_GLASS
#![allow(clippy::unwrap_used)]

use weir_stain::density::Light;
use weir_stain::lab::Lab;
use weir_stain::macenko::{self, Estimate, Scratch};
use weir_stain::recolour::Recolour;
use weir_stain::reinhard::{self, Transfer};
use weir_stain::separate::{self, Show};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [method, raw, side, out, keep_glass] = arguments.as_slice() else {
        eprintln!("tiles macenko|reinhard|ruifrok RAW SIDE OUT KEEP_GLASS");
        std::process::exit(2);
    };
    let tiles = std::fs::read(raw).unwrap();
    let side: usize = side.parse().unwrap();
    let keep_glass = keep_glass == "true";
    let light = Light::new(240.0, 0.15);
    let estimate = Estimate {
        light: light.clone(),
        alpha: 1.0,
        least: 0.0,
    };
    let (lab, mut scratch) = (Lab::default(), Scratch::default());
    let [haematoxylin, eosin] = separate::RUIFROK;
    let split = separate::matrices(haematoxylin, eosin, Show::Density).unwrap();
    let split = Recolour::new(&light, &split[0], false);
    let mut normalise = |tile: &mut [u8]| match method.as_str() {
        "macenko" => {
            let stains = estimate.stains(tile, &mut scratch).unwrap();
            let change = macenko::normalisation(&stains, &macenko::REFERENCE).unwrap();
            Recolour::new(&light, &change, keep_glass).apply(tile);
        }
        "reinhard" => {
            let colours = reinhard::colours(&lab, &light, keep_glass, 0.0, tile).unwrap();
            Transfer::new(&colours, &reinhard::REFERENCE, &light, keep_glass).apply(&lab, tile);
        }
        _ => split.apply(tile),
    };
    let mut best = f64::INFINITY;
    let mut made = Vec::new();
    for _ in 0..7 {
        made.clone_from(&tiles);
        let start = busy();
        made.chunks_exact_mut(3 * side * side)
            .for_each(&mut normalise);
        best = best.min(busy() - start);
    }
    std::fs::write(out, made).unwrap();
    println!("{best}");
}

/// Seconds that this thread has run, so that what else the machine does counts less.
fn busy() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
    nanoseconds * 1e-9
}
