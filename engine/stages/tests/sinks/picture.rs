//! heatmap.png, and pictures of tiles.

use crate::stand::*;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use weir_pipeline::Value;
use weir_record::*;
use weir_runtime::stage::{
    OpenSlides, Overview, ReadError, Shared, StageError, StageType, TileReader,
};
use weir_slide::{OpenOptions, SlideReader};
use weir_stages::{heatmap_sink, image_sink};

const TYPES: &[StageType] = &[heatmap_sink::TYPE];

struct Real(Arc<dyn SlideReader>);

impl TileReader for Real {
    fn read(&self, _: TileId, _: u32, _: &mut [u8]) -> Result<(), ReadError> {
        Err(ReadError::Superseded)
    }

    fn overview(&self, max_side: u32) -> Result<Overview, ReadError> {
        let damaged = |error: weir_slide::SlideError| ReadError::Damaged(error.to_string());
        let picture = self.0.thumbnail(max_side).map_err(damaged)?;
        Ok(Overview {
            width: picture.width,
            height: picture.height,
            pixels: picture.pixels,
        })
    }
}

fn write(
    out: &Path,
    story: &Story,
    values: &[(&str, Value)],
    reader: Option<Arc<dyn TileReader>>,
) -> Vec<StageError> {
    let plan = plan(out, &[("heatmap", heatmap_sink::TYPE, values)]);
    let shared = Shared::default();
    if let Some(reader) = reader {
        shared.get::<OpenSlides>().enter(story.id(), reader);
    }
    let mut parts = prepare(&plan, &shared, TYPES).unwrap();
    let mut errors = story.tell(&mut parts, &plan);
    errors.extend(parts[0].finish().err());
    errors
}

fn size(path: &Path) -> (u32, u32) {
    let png = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap()));
    let reader = png.read_info().unwrap();
    (reader.info().width, reader.info().height)
}

/// The fixture with its true tumour table as scores, so that the picture shows what a good scorer would.
fn fixture() -> (Story, Arc<dyn TileReader>) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let slide =
        weir_slide::open(&fixtures.join("slide-14082.tiff"), &OpenOptions::default()).unwrap();
    let table = fs::read_to_string(fixtures.join("slide-14082.tumour.csv")).unwrap();
    let mut story = five_tiles("slide-14082");
    story.rows.retain(|(port, ..)| *port == "predictions");
    let mut scores = Vec::new();
    for line in table.lines().skip(1) {
        let row: Vec<i64> = line
            .split(',')
            .map(|cell| cell.trim().parse().unwrap())
            .collect();
        let noise =
            (weir_record::id::mix(row[0] as u64 * 7919 + row[1] as u64) % 1000) as f32 / 1000.0;
        let s = if row[2] == 1 {
            0.55 + 0.44 * noise
        } else {
            0.02 + 0.5 * noise * noise
        };
        scores.push((s, tile(row[0], row[1])));
    }
    for (at, (s, tile)) in scores.iter().enumerate() {
        let body = if at % 160 == 80 { fail() } else { score(*s) };
        story.rows.push(("scores", *tile, body));
    }
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    let chosen: Vec<_> = scores
        .iter()
        .take(32)
        .chain(scores.iter().rev().take(32))
        .collect();
    let sum: f32 = chosen.iter().map(|(s, _)| s * s).sum();
    for (s, tile) in chosen {
        story
            .rows
            .push(("attention", *tile, attention(s * s / sum)));
    }
    let facts = slide.facts();
    story.info = Arc::new(SlideInfo {
        width: facts.width(),
        height: facts.height(),
        mpp: facts.mpp,
        grids: vec![Grid {
            footprint: 50.0,
            mpp: 4.0,
            px: 50,
        }],
        tiles: scores.len() as u64,
        ..(*story.info).clone()
    });
    story.news = vec![Event::Selection {
        highest: 32,
        lowest: 32,
    }];
    (story, Arc::new(Real(slide)))
}

#[test]
fn a_real_slide_has_a_picture_of_three_panels_and_the_same_bytes_each_time() {
    let (story, reader) = fixture();
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("slide-14082/heatmap.png");
    assert_eq!(write(out.path(), &story, &[], Some(reader.clone())), []);
    let first = fs::read(&path).unwrap();
    let (width, height) = size(&path);
    assert!(
        width > 2000 && (700..1100).contains(&height),
        "{width} x {height}"
    );
    // To look at it: WEIR_PICTURES=folder.
    if let Some(folder) = std::env::var_os("WEIR_PICTURES") {
        fs::copy(&path, Path::new(&folder).join("heatmap.png")).unwrap();
    }
    assert_eq!(write(out.path(), &story, &[], Some(reader)), []);
    assert_eq!(first, fs::read(&path).unwrap());
}

#[test]
fn slides_of_any_shape_have_a_picture() {
    for (width, height) in [
        (20_000, 900),
        (900, 20_000),
        (16, 16),
        (1, 1),
        (15_000_000, 15_000_000),
    ] {
        for palette in ["viridis", "cividis"] {
            let mut story = five_tiles("shape");
            story.info = Arc::new(SlideInfo {
                width,
                height,
                ..(*story.info).clone()
            });
            let out = tempfile::tempdir().unwrap();
            let values = [
                ("max-side", Value::Integer(200)),
                ("palette", Value::Text(palette.into())),
            ];
            // Nobody opened the slide, so there is no tissue in the picture, which says so.
            assert_eq!(write(out.path(), &story, &values, None), []);
            let path = out.path().join("shape/heatmap.png");
            assert!(size(&path).0 >= 300);
            if let Some(folder) = std::env::var_os("WEIR_PICTURES") {
                fs::copy(
                    &path,
                    Path::new(&folder).join(format!("{width}x{height}.png")),
                )
                .unwrap();
            }
        }
    }
}

#[test]
fn a_slide_without_tissue_or_that_failed_has_no_picture() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("s/heatmap.png");
    assert_eq!(write(out.path(), &five_tiles("s"), &[], None), []);
    assert!(path.exists());
    let mut empty = five_tiles("s");
    empty.rows.clear();
    assert_eq!(write(out.path(), &empty, &[], None), []);
    assert!(!path.exists());

    assert_eq!(write(out.path(), &five_tiles("s"), &[], None), []);
    let mut failed = five_tiles("s");
    failed
        .news
        .push(Event::SlideFailed(failure("too many", None)));
    failed.end = End::Aborted;
    assert_eq!(write(out.path(), &failed, &[], None), []);
    assert!(!path.exists());
}

#[test]
fn a_picture_that_cannot_be_written_is_told_at_the_end() {
    let out = tempfile::tempdir().unwrap();
    fs::create_dir_all(out.path().join("s/heatmap.png/in the way")).unwrap();
    let errors = write(out.path(), &five_tiles("s"), &[], None);
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].what.contains("heatmap.png cannot be written"),
        "{}",
        errors[0]
    );
}

#[test]
fn pictures_of_tiles_are_the_pixels_and_no_others_stay() {
    let out = tempfile::tempdir().unwrap();
    let slab = Slab::new(1 << 20);
    let pixels = |seed: u8| {
        let mut buf = slab.take(50 * 50 * 3);
        let bytes: &mut [u8] = &mut buf;
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = (at as u8).wrapping_mul(seed);
        }
        Body::Pixels(Arc::new(TileBuf::new(50, 50, buf, None).unwrap()))
    };
    let plan = plan(out.path(), &[("images", image_sink::TYPE, &[])]);
    let tell = |rows| {
        let mut parts = prepare(&plan, &Shared::default(), &[image_sink::TYPE]).unwrap();
        let story = Story {
            rows,
            ..five_tiles("s")
        };
        assert_eq!(story.tell(&mut parts, &plan), []);
        let mut names: Vec<_> = fs::read_dir(out.path().join("s/tiles"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let first = tell(vec![
        ("tiles", tile(0, 0), pixels(3)),
        ("tiles", tile(-10, 50), pixels(5)),
        ("tiles", tile(50, 0), pixels(7)),
        ("tiles", tile(50, 0), Body::Gone),
        ("tiles", tile(0, 0), pixels(11)),
    ]);
    assert_eq!(first, ["-10_50.png", "0_0.png"]);
    let file = fs::File::open(out.path().join("s/tiles/0_0.png")).unwrap();
    let mut reader = png::Decoder::new(std::io::BufReader::new(file))
        .read_info()
        .unwrap();
    let mut back = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut back).unwrap();
    let Body::Pixels(sent) = pixels(11) else {
        panic!()
    };
    assert_eq!(back, sent.pixels());
    assert_eq!(
        tell(vec![("tiles", tile(90, 90), pixels(1))]),
        ["90_90.png"]
    );
}
