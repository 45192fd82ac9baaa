//! Which JPEG decoder: the three that are kept well, on the tiles of a scanner and on generated ones.

use std::path::Path;
use weir_benches::clock::{machine, time};
use weir_benches::{Result, generated};
use weir_slide::{OpenOptions, open};
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Tiles a file, spread over level 0.
const TILES: usize = 400;
/// Passes over them; the least counts.
const PASSES: usize = 5;

type Decode = fn(&[u8]) -> Result<Vec<u8>>;

fn turbo(jpeg: &[u8]) -> Result<Vec<u8>> {
    thread_local! {
        static DECODER: std::cell::RefCell<turbojpeg::Decompressor> =
            std::cell::RefCell::new(match turbojpeg::Decompressor::new() {
                Ok(decoder) => decoder,
                Err(error) => panic!("{error}"),
            });
    }
    DECODER.with_borrow_mut(|decoder| {
        let header = decoder.read_header(jpeg)?;
        let mut image = turbojpeg::Image {
            pixels: vec![0; header.width * header.height * 3],
            width: header.width,
            pitch: header.width * 3,
            height: header.height,
            format: turbojpeg::PixelFormat::RGB,
        };
        decoder.decompress(jpeg, image.as_deref_mut())?;
        Ok(image.pixels)
    })
}

fn zune(jpeg: &[u8]) -> Result<Vec<u8>> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
    Ok(decoder.decode()?)
}

fn plain(jpeg: &[u8]) -> Result<Vec<u8>> {
    Ok(jpeg_decoder::Decoder::new(jpeg).decode()?)
}

const DECODERS: [(&str, Decode); 3] = [
    ("turbojpeg (libjpeg-turbo)", turbo),
    ("zune-jpeg", zune),
    ("jpeg-decoder", plain),
];

fn tiles(path: &Path) -> Result<Vec<Vec<u8>>> {
    let slide = open(path, &OpenOptions::default())?;
    let level = &slide.facts().levels[0];
    let all = level.columns * level.rows;
    let step = (all as usize / TILES).max(1);
    (0..all)
        .step_by(step)
        .map(|place| {
            Ok(slide
                .tile_raw(0, place % level.columns, place / level.columns)?
                .bytes)
        })
        .collect()
}

fn main() -> Result<()> {
    println!("JPEG decoders: {}", machine());
    let aperio =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/CMU-1-Small-Region.svs");
    let files = [
        (
            "CMU-1-Small-Region.svs: 240 px, RGB components, 4:4:4 (a scanner by Aperio)",
            aperio,
        ),
        (
            "generated pyramid: 256 px, quality 80, YCbCr 4:2:0",
            generated::slide(&generated::PYRAMID)?,
        ),
        (
            "generated Aperio pyramid: 240 px, quality 80, YCbCr 4:2:2",
            generated::slide(&generated::APERIO)?,
        ),
    ];
    for (name, path) in files {
        let tiles = tiles(&path)?;
        println!("\n{name}; {} tiles", tiles.len());
        println!(
            "| decoder | us a tile, CPU | of libjpeg-turbo's speed | greatest difference | a tile cut in half |"
        );
        println!("|---|---|---|---|---|");
        let truth: Vec<Vec<u8>> = tiles
            .iter()
            .map(|tile| turbo(tile))
            .collect::<Result<_>>()?;
        let mut base = 0.0;
        for (decoder, decode) in DECODERS {
            let mut least = f64::MAX;
            for _ in 0..PASSES {
                let ((), took) = time(|| {
                    for tile in &tiles {
                        std::hint::black_box(decode(tile)?);
                    }
                    Ok(())
                })?;
                least = least.min(took.cpu.as_secs_f64() / tiles.len() as f64 * 1e6);
            }
            if base == 0.0 {
                base = least;
            }
            let mut apart = 0;
            for (tile, truth) in tiles.iter().zip(&truth) {
                let pixels = decode(tile)?;
                let worst = pixels.iter().zip(truth).map(|(a, b)| a.abs_diff(*b)).max();
                apart = apart.max(worst.unwrap_or(255));
            }
            let cut = match decode(&tiles[0][..tiles[0].len() / 2]) {
                Ok(_) => "decoded, the rest made up",
                Err(_) => "refused",
            };
            println!(
                "| {decoder} | {least:.0} | {:.2} | {apart} | {cut} |",
                base / least
            );
        }
    }
    Ok(())
}
