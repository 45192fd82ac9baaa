//! Every layout that the reader takes, from files that are written here, and those that it refuses.
#![allow(clippy::unwrap_used)]

mod tiff_writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tiff_writer::{Order, TiffWriter, Tiles, Value, cut, differences, part_jpeg, resolution};
use turbojpeg::{Compressor, Image, PixelFormat, Subsamp};
use weir_record::MppOrigin;
use weir_slide::{Fault, OpenOptions, Region, SlideReader, open};

const WIDTH: u32 = 150;
const HEIGHT: u32 = 100;
const TILE: u32 = 64;

/// A picture without two equal neighbours, so that a shift by one shows.
fn picture(width: u32, height: u32, samples: u32) -> Vec<u8> {
    let value = |x: u32, y: u32, c: u32| ((x * 3 + y * 7 + c * 85 + (x * y) / 16) % 256) as u8;
    (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| (0..samples).map(move |c| value(x, y, c))))
        .collect()
}

/// A smooth one, that JPEG keeps.
fn smooth(width: u32, height: u32) -> Vec<u8> {
    let wave = |x: u32, y: u32, c: u32| {
        let (x, y) = (f64::from(x) / 23.0, f64::from(y) / 17.0);
        (128.0 + 90.0 * (x + f64::from(c)).sin() * (y - f64::from(c)).cos()) as u8
    };
    (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| wave(x, y, c))))
        .collect()
}

fn pack(compression: u16, tile: &[u8]) -> Vec<u8> {
    match compression {
        1 => tile.to_vec(),
        5 => {
            let mut encoder =
                weezl::encode::Encoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8);
            encoder.encode(tile).unwrap()
        }
        8 => {
            use std::io::Write;
            let mut encoder =
                flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(tile).unwrap();
            encoder.finish().unwrap()
        }
        50000 => zstd::bulk::compress(tile, 3).unwrap(),
        other => panic!("compression {other}"),
    }
}

fn jpeg(tile: &[u8], side: u32, format: PixelFormat, subsampling: Subsamp) -> Vec<u8> {
    let mut compressor = Compressor::new().unwrap();
    compressor.set_quality(95).unwrap();
    compressor.set_subsamp(subsampling).unwrap();
    let image = Image {
        pixels: tile,
        width: side as usize,
        pitch: side as usize * format.size(),
        height: side as usize,
        format,
    };
    compressor.compress_to_vec(image).unwrap()
}

fn tiles(compression: u16, samples: u16, predictor: bool) -> Tiles {
    Tiles {
        width: WIDTH,
        height: HEIGHT,
        tile: TILE,
        samples,
        compression,
        photometric: if samples == 1 { 1 } else { 2 },
        predictor,
    }
}

/// Writes the tiles that `encode` makes, last first, so that their order in the file is not theirs in the picture.
fn spans<W: std::io::Write + std::io::Seek>(
    file: &mut TiffWriter<W>,
    of: &Tiles,
    mut encode: impl FnMut(u32, u32) -> Vec<u8>,
) -> Vec<(u64, u64)> {
    let mut spans = vec![(0, 0); (of.columns() * of.rows()) as usize];
    for (index, span) in spans.iter_mut().enumerate().rev() {
        let bytes = encode(index as u32 % of.columns(), index as u32 / of.columns());
        *span = (file.data(&bytes).unwrap(), bytes.len() as u64);
    }
    spans
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn file(path: &Path, order: Order, big: bool) -> TiffWriter<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path);
    TiffWriter::new(file.unwrap(), order, big).unwrap()
}

fn slide(path: &Path) -> Arc<dyn SlideReader> {
    open(path, &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// All of level 0.
fn whole(slide: &dyn SlideReader) -> Vec<u8> {
    let (width, height) = (slide.facts().width() as u32, slide.facts().height() as u32);
    let mut pixels = vec![0; (width * height * 3) as usize];
    let region = Region {
        x: 0.0,
        y: 0.0,
        w: f64::from(width),
        h: f64::from(height),
    };
    slide.read(region, 0, width, height, &mut pixels).unwrap();
    pixels
}

fn rgb(picture: &[u8], samples: usize) -> Vec<u8> {
    picture
        .chunks_exact(samples)
        .flat_map(|px| {
            if samples == 1 {
                [px[0]; 3]
            } else {
                [px[0], px[1], px[2]]
            }
        })
        .collect()
}

/// The tags of a directory.
type Tags = Vec<(u16, Value)>;

fn refused(path: &Path, words: &[&str]) {
    let error = match open(path, &OpenOptions::default()) {
        Err(error) => error,
        Ok(_) => panic!("{} opened", path.display()),
    };
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "`{text}` lacks `{word}`");
    }
}

#[test]
fn lossless_tiles_come_back_to_the_byte_in_both_byte_orders_classic_and_big() {
    let folder = Folder::new();
    let mut count = 0;
    for order in [Order::Little, Order::Big] {
        for big in [false, true] {
            for (compression, predictor) in [
                (1, false),
                (5, false),
                (5, true),
                (8, false),
                (8, true),
                (50000, false),
                (50000, true),
            ] {
                for samples in [1u16, 3, 4] {
                    let of = tiles(compression, samples, predictor);
                    let picture = picture(WIDTH, HEIGHT, samples.into());
                    let path = folder.path("lossless.tiff");
                    let mut file = file(&path, order, big);
                    let spans = spans(&mut file, &of, |column, row| {
                        let tile = cut(&picture, &of, column, row);
                        let tile = if predictor {
                            differences(&tile, TILE as usize, samples.into())
                        } else {
                            tile
                        };
                        pack(compression, &tile)
                    });
                    let mut tags = of.tags(&spans);
                    tags.extend(resolution(0.5));
                    if samples == 4 {
                        tags.push((338, Value::Short(vec![2])));
                    }
                    file.directory(tags, true).unwrap();
                    file.finish().unwrap();
                    let slide = slide(&path);
                    assert!(
                        whole(slide.as_ref()) == rgb(&picture, samples.into()),
                        "{order:?}, big {big}, compression {compression}, predictor {predictor}, {samples} samples"
                    );
                    let (mpp, origin) = slide.facts().require_mpp().unwrap();
                    assert!((mpp.0 - 0.5).abs() < 1e-4);
                    assert_eq!(origin, MppOrigin::Resolution);
                    count += 1;
                }
            }
        }
    }
    assert_eq!(count, 84);
}

#[test]
fn jpeg_tiles_are_read_by_what_the_tiff_says_of_their_colours_with_shared_tables_and_without() {
    let folder = Folder::new();
    let picture = smooth(WIDTH, HEIGHT);
    for subsampling in [Subsamp::None, Subsamp::Sub2x1, Subsamp::Sub2x2] {
        for shared in [false, true] {
            let of = Tiles {
                photometric: 6,
                ..tiles(7, 3, false)
            };
            let path = folder.path("jpeg.tiff");
            let mut file = file(&path, Order::Little, false);
            let mut tables = Vec::new();
            let spans = spans(&mut file, &of, |column, row| {
                let tile = jpeg(
                    &cut(&picture, &of, column, row),
                    TILE,
                    PixelFormat::RGB,
                    subsampling,
                );
                if shared {
                    let (common, rest) = part_jpeg(&tile);
                    tables = common;
                    rest
                } else {
                    tile
                }
            });
            let mut tags = of.tags(&spans);
            if shared {
                tags.push((347, Value::Undefined(tables)));
            }
            file.directory(tags, true).unwrap();
            file.finish().unwrap();
            let read = whole(slide(&path).as_ref());
            let worst = read
                .iter()
                .zip(&picture)
                .map(|(a, b)| a.abs_diff(*b))
                .max()
                .unwrap();
            assert!(
                worst <= 24,
                "{subsampling:?}, shared {shared}: off by {worst}"
            );
        }
    }
}

#[test]
fn jpeg_tiles_whose_components_are_rgb_are_not_taken_for_ycbcr() {
    let folder = Folder::new();
    let picture = smooth(WIDTH, HEIGHT);
    let of = tiles(7, 3, false);
    let path = folder.path("rgb.tiff");
    let mut file = file(&path, Order::Big, true);
    let spans = spans(&mut file, &of, |column, row| {
        let mut compressor = Compressor::new().unwrap();
        compressor.set_quality(95).unwrap();
        compressor.set_subsamp(Subsamp::None).unwrap();
        compressor
            .set_colorspace(turbojpeg::Colorspace::RGB)
            .unwrap();
        let tile = cut(&picture, &of, column, row);
        let side = TILE as usize;
        let image = Image {
            pixels: tile.as_slice(),
            width: side,
            pitch: side * 3,
            height: side,
            format: PixelFormat::RGB,
        };
        // Without its markers nothing in the stream says that it is RGB; the TIFF does.
        without_markers(&compressor.compress_to_vec(image).unwrap())
    });
    file.directory(of.tags(&spans), true).unwrap();
    file.finish().unwrap();
    let read = whole(slide(&path).as_ref());
    let worst = read
        .iter()
        .zip(&picture)
        .map(|(a, b)| a.abs_diff(*b))
        .max()
        .unwrap();
    assert!(worst <= 12, "off by {worst}");
}

/// The stream without its application segments, which may say what its colours are.
fn without_markers(stream: &[u8]) -> Vec<u8> {
    let (tables, rest) = part_jpeg(stream);
    [&tables[..tables.len() - 2], &rest[2..]].concat()
}

#[test]
fn strips_are_read_as_rows_of_tiles() {
    let folder = Folder::new();
    let picture = picture(WIDTH, HEIGHT, 3);
    for compression in [1u16, 5, 8] {
        let path = folder.path("strips.tiff");
        let mut file = file(&path, Order::Big, false);
        let rows = 24u32;
        let spans: Vec<(u64, u64)> = picture
            .chunks((WIDTH * 3 * rows) as usize)
            .map(|strip| {
                let bytes = pack(compression, strip);
                (file.data(&bytes).unwrap(), bytes.len() as u64)
            })
            .collect();
        let tags = vec![
            (256, Value::Long(vec![WIDTH])),
            (257, Value::Long(vec![HEIGHT])),
            (258, Value::Short(vec![8; 3])),
            (259, Value::Short(vec![compression])),
            (262, Value::Short(vec![2])),
            (
                273,
                Value::Offsets(spans.iter().map(|span| span.0).collect()),
            ),
            (277, Value::Short(vec![3])),
            (278, Value::Long(vec![rows])),
            (
                279,
                Value::Offsets(spans.iter().map(|span| span.1).collect()),
            ),
        ];
        file.directory(tags, true).unwrap();
        file.finish().unwrap();
        assert!(
            whole(slide(&path).as_ref()) == picture,
            "compression {compression}"
        );
    }
}

#[test]
fn an_ome_tiff_has_its_levels_in_subifds_and_its_mpp_in_its_xml() {
    let folder = Folder::new();
    let path = folder.path("ome.tiff");
    let mut file = file(&path, Order::Little, true);
    let level = |file: &mut TiffWriter<File>, width: u32, height: u32| {
        let of = Tiles {
            width,
            height,
            ..tiles(8, 3, false)
        };
        let picture = picture(width, height, 3);
        let spans = spans(file, &of, |column, row| {
            pack(8, &cut(&picture, &of, column, row))
        });
        (of.tags(&spans), picture)
    };
    let (small, _) = level(&mut file, WIDTH / 2, HEIGHT / 2);
    let small = file.directory(small, false).unwrap();
    let (mut tags, picture) = level(&mut file, WIDTH, HEIGHT);
    tags.push((330, Value::Offsets(vec![small])));
    tags.push((
        270,
        Value::Ascii(
            r#"<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels SizeX="150" SizeY="100" SizeC="3" SizeZ="1" SizeT="1" Type="uint8" PhysicalSizeX="0.25" PhysicalSizeY="0.25"><Channel ID="Channel:0" SamplesPerPixel="3"/></Pixels></Image></OME>"#.into(),
        ),
    ));
    file.directory(tags, true).unwrap();
    file.finish().unwrap();
    let slide = slide(&path);
    let facts = slide.facts();
    assert_eq!(facts.reader, "native/ome-tiff");
    let downsamples: Vec<f64> = facts.levels.iter().map(|level| level.downsample).collect();
    assert_eq!(downsamples, [1.0, 2.0]);
    let (mpp, origin) = facts.require_mpp().unwrap();
    assert_eq!((mpp.0, origin), (0.25, MppOrigin::Vendor));
    assert!(whole(slide.as_ref()) == picture);
}

#[test]
fn planar_files_unknown_compressions_and_deep_samples_are_refused_with_a_reason() {
    let folder = Folder::new();
    let write = |name: &str, change: &dyn Fn(&mut Tags)| {
        let of = tiles(1, 3, false);
        let path = folder.path(name);
        let mut file = file(&path, Order::Little, false);
        let picture = picture(WIDTH, HEIGHT, 3);
        let spans = spans(&mut file, &of, |column, row| {
            cut(&picture, &of, column, row)
        });
        let mut tags = of.tags(&spans);
        change(&mut tags);
        file.directory(tags, true).unwrap();
        file.finish().unwrap();
        path
    };
    let set = |tag: u16, value: Value| {
        move |tags: &mut Tags| {
            tags.retain(|entry| entry.0 != tag);
            tags.push((tag, value.clone()));
        }
    };
    let planar = write("planar.tiff", &set(284, Value::Short(vec![2])));
    refused(&planar, &["separate planes", "planar.tiff"]);
    let unknown = write("unknown.tiff", &set(259, Value::Short(vec![34712])));
    refused(&unknown, &["34712"]);
    let deep = write("deep.tiff", &set(258, Value::Short(vec![16; 3])));
    refused(&deep, &["16"]);
    // A tile of 100,000 x 100,000 px is refused before memory is asked for.
    let vast = write("vast.tiff", &|tags| {
        for tag in [322, 323] {
            set(tag, Value::Long(vec![100_000]))(tags);
        }
    });
    refused(&vast, &["vast.tiff"]);
}

#[test]
fn a_tile_whose_header_lies_about_its_size_is_damaged_and_its_neighbours_are_read() {
    let folder = Folder::new();
    let picture = smooth(WIDTH, HEIGHT);
    let of = Tiles {
        photometric: 6,
        ..tiles(7, 3, false)
    };
    let path = folder.path("lies.tiff");
    let mut file = file(&path, Order::Little, false);
    let spans = spans(&mut file, &of, |column, row| {
        let mut tile = jpeg(
            &cut(&picture, &of, column, row),
            TILE,
            PixelFormat::RGB,
            Subsamp::Sub2x2,
        );
        if (column, row) == (1, 0) {
            let frame = tile.windows(2).position(|two| two == [0xff, 0xc0]).unwrap();
            // 65,500 x 65,500 px.
            tile[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
        }
        tile
    });
    file.directory(of.tags(&spans), true).unwrap();
    file.finish().unwrap();
    let slide = slide(&path);
    let mut pixels = vec![0; (TILE * TILE * 3) as usize];
    let mut read = |column: u32, row: u32| {
        let side = f64::from(TILE);
        let region = Region {
            x: f64::from(column) * side,
            y: f64::from(row) * side,
            w: side,
            h: side,
        };
        slide.read(region, 0, TILE, TILE, &mut pixels)
    };
    let error = read(1, 0).unwrap_err();
    assert_eq!((error.fault, error.place.tile), (Fault::Damaged, Some(1)));
    assert!(error.to_string().contains("65500 x 65500"), "{error}");
    for (column, row) in [(0, 0), (2, 0), (0, 1), (1, 1), (2, 1)] {
        read(column, row).unwrap();
    }
}

/// The damaged files that may not lie in the repository; `WEIR_DATA` names the folder that has them.
#[test]
fn every_damaged_file_of_the_data_folder_is_refused_or_has_its_tiles_refused() {
    let Some(data) = std::env::var_os("WEIR_DATA") else {
        eprintln!("skipped: WEIR_DATA names no folder with corrupt/");
        return;
    };
    let folder = PathBuf::from(data).join("corrupt");
    for name in [
        "broken.svs",
        "empty.svs",
        "text.svs",
        "truncated-60pct.svs",
        "truncated.ome.tiff",
        "unopenable.tiff",
    ] {
        refused(&folder.join(name), &[name]);
    }
    let path = folder.join("unreadable.svs");
    let slide = slide(&path);
    let (width, height) = (slide.facts().width() as u32, slide.facts().height() as u32);
    let mut pixels = vec![0; (width * height * 3) as usize];
    let region = Region {
        x: 0.0,
        y: 0.0,
        w: f64::from(width),
        h: f64::from(height),
    };
    let error = slide
        .read(region, 0, width, height, &mut pixels)
        .unwrap_err();
    assert!(error.to_string().contains("unreadable.svs"), "{error}");
}
