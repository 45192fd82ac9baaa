//! How many tiles a second one thread encodes: `cargo run --release -p weir-model --example tiles_per_second -- small 50`.

use std::time::Instant;
use weir_model::network::Network;
use weir_model::{Choice, Chosen, Input, Weights, Which};
use weir_pipeline::model::ModelInput;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let arch = arguments.next().unwrap_or_else(|| "small".to_string());
    let size: u32 = arguments.next().map_or(Ok(50), |text| text.parse())?;
    let network = Network::new(&arch, 128)?;
    let weights = Weights::start(&network.parameters(), 1);
    let input = Input::new(&ModelInput {
        size,
        mpp: 2.0,
        mean: [0.5; 3],
        std: [0.25; 3],
    })?;
    let tile: Vec<u8> = (0..input.len()).map(|k| (k * 7919 % 251) as u8).collect();
    println!("{arch}, {size} px, {} weights", weights.count());
    for executor in [Which::Burn, Which::OnnxRuntime] {
        let choice = Choice {
            executor,
            ..Choice::default()
        };
        let chosen = match Chosen::load(&network, &weights, &input, &choice) {
            Ok(chosen) => chosen,
            Err(error) => {
                println!("{executor:?}: {error}");
                continue;
            }
        };
        let batch = vec![tile.as_slice(); 16];
        let mut best = f64::MAX;
        for _ in 0..12 {
            let start = Instant::now();
            chosen.executor.forward(&batch)?;
            best = best.min(start.elapsed().as_secs_f64() / batch.len() as f64);
        }
        println!(
            "{}: {:.0} tiles/s ({:.2} ms a tile), invariant {}",
            chosen.key(),
            1.0 / best,
            best * 1e3,
            chosen.invariant
        );
    }
    Ok(())
}
