//! Tests of a slide reader: what it knows, refuses and says.

use super::memory::Memory;
use super::{No, Said, descriptors, wordless};
use crate::check::glass::{Glass, Rectangle, read};
use crate::check::values;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use weir_slide::SlideError;
use weir_slide::leveled::{Found, Handle};

/// First bytes of a file that a reader is shown.
const HEAD: usize = 4096;

/// A slide that is copied in part is no larger.
const COPIED: u64 = 256 << 20;

/// Side of a region that is read, px.
const SIDE: u32 = 192;

pub(super) fn failed(error: SlideError) -> No {
    No::Failed(error.what)
}

fn head(path: &Path) -> Result<Vec<u8>, No> {
    let mut head = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(HEAD as u64).read_to_end(&mut head))
        .map_err(|error| No::Failed(format!("{}: {error}", path.display())))?;
    Ok(head)
}

pub(super) fn sniff_noise(glass: &Glass) -> Said {
    let mut random = values::by_seed(glass.seed);
    let name = Path::new("/nonexistent/noise.bin");
    let mut heads = vec![
        Vec::new(),
        vec![0; HEAD],
        vec![0xff; HEAD],
        b"slide,path\na,b\n".repeat(64),
    ];
    for len in [1, 2, 3, 4, 8, 131, 132, HEAD] {
        heads.push(values::noise(&mut random, len));
    }
    for head in &heads {
        let said = glass.sniff(name, head)?;
        if said != 0 {
            return Err(No::Failed(format!(
                "sniff() says {said} of {} bytes of noise named `noise.bin`: 0 is not mine",
                head.len()
            )));
        }
        // By its own endings it may guess, but within bounds.
        for ending in &glass.about.extensions {
            glass.sniff(
                &Path::new("/nonexistent/noise").with_extension(ending),
                head,
            )?;
        }
    }
    let Ok(slide) = glass.slide() else {
        return Ok(format!("{} heads; no slide was given", heads.len()));
    };
    let head = head(slide)?;
    let said = glass.sniff(slide, &head)?;
    if said == 0 {
        return Err(No::Failed(format!(
            "sniff() says 0 of {}, which is no slide of this reader then",
            slide.display()
        )));
    }
    // A file of that name that is not there: the answer comes from the name and the bytes.
    let absent = Path::new("/nonexistent").join(slide.file_name().unwrap_or_default());
    let other = glass.sniff(&absent, &head)?;
    if other != said {
        return Err(No::Failed(format!(
            "sniff() says {said} of the slide, and {other} of the same bytes and name where there is no file: it reads nothing else"
        )));
    }
    for len in (0..head.len().min(256)).step_by(7) {
        glass.sniff(slide, &head[..len])?;
    }
    Ok(format!(
        "{} heads; the slide's is {said} of 100",
        heads.len()
    ))
}

/// Files that are no slide.
fn broken(glass: &Glass) -> Result<Vec<(&'static str, PathBuf)>, No> {
    let written = |name: String, bytes: &[u8]| -> Result<PathBuf, No> {
        let path = glass.folder.join(name);
        std::fs::write(&path, bytes)
            .map_err(|error| No::Failed(format!("{}: {error}", path.display())))?;
        Ok(path)
    };
    let slide = glass.slide().ok();
    let own = slide.and_then(Path::extension).and_then(|it| it.to_str());
    let ending = own.or(glass.about.extensions.first().map(String::as_str));
    let ending = ending.unwrap_or("bin");
    let mut random = values::by_seed(glass.seed);
    Ok(vec![
        (
            "a file that is not there",
            glass.folder.join(format!("absent.{ending}")),
        ),
        ("a folder", glass.folder.clone()),
        ("an empty file", written(format!("empty.{ending}"), &[])?),
        (
            "a file of noise",
            written(
                format!("noise.{ending}"),
                &values::noise(&mut random, 1 << 16),
            )?,
        ),
    ])
}

/// Files that begin as the slide does, of which nobody knows what a reader makes: an error, or something that can be read.
fn begun(glass: &Glass) -> Result<Vec<PathBuf>, No> {
    let slide = glass.slide()?;
    let mut random = values::by_seed(glass.seed);
    let mut all = Vec::new();
    for (name, kept, noise) in [
        ("sign", 64, 1 << 16),
        ("start", 64, 0),
        ("head", HEAD, 1 << 16),
    ] {
        let mut bytes = head(slide)?;
        bytes.truncate(kept);
        bytes.extend(values::noise(&mut random, noise));
        let path = glass.folder.join(name);
        let path = path.with_extension(slide.extension().unwrap_or_default());
        std::fs::write(&path, bytes)
            .map_err(|error| No::Failed(format!("{}: {error}", path.display())))?;
        all.push(path);
    }
    Ok(all)
}

/// The first half of the slide, where it is not too large to be copied.
fn half(glass: &Glass) -> Result<Option<PathBuf>, No> {
    let slide = glass.slide()?;
    let unread = |error: std::io::Error| No::Failed(format!("{}: {error}", slide.display()));
    let about = std::fs::metadata(slide).map_err(unread)?;
    if !about.is_file() || about.len() > COPIED {
        return Ok(None);
    }
    let mut bytes = std::fs::read(slide).map_err(unread)?;
    bytes.truncate(bytes.len() / 2);
    let name = slide.file_name().unwrap_or_default();
    let path = glass.folder.join("half");
    std::fs::create_dir_all(&path).map_err(unread)?;
    let path = path.join(name);
    std::fs::write(&path, bytes).map_err(unread)?;
    Ok(Some(path))
}

pub(super) fn said_why(what: &str, error: &SlideError) -> Result<(), No> {
    match wordless(&error.what) {
        true => Err(No::Failed(format!(
            "it refuses {what} and does not say why"
        ))),
        false => Ok(()),
    }
}

pub(super) fn open_refuses(glass: &Glass) -> Said {
    let broken = broken(glass)?;
    let mut before = 0;
    for round in 0..12 {
        for (what, path) in &broken {
            match glass.open(path) {
                Ok(handle) if handle.found().is_err() => {}
                Ok(_) => {
                    return Err(No::Failed(format!("it opened {what} as a slide")));
                }
                Err(error) => said_why(what, &error)?,
            }
        }
        if round == 1 {
            before = descriptors();
        }
    }
    let left = descriptors().saturating_sub(before);
    if left > 0 {
        return Err(No::Failed(format!(
            "{} files that it refused left {left} open",
            broken.len() * 10
        )));
    }
    let half = match half(glass) {
        Ok(Some(half)) => half,
        Ok(None) => {
            return Ok(format!(
                "{} files; the slide is too large to be cut",
                broken.len()
            ));
        }
        Err(_) => return Ok(format!("{} files; no slide was given", broken.len())),
    };
    for path in begun(glass)? {
        let read = glass.open(&path).and_then(|handle| {
            let all = rectangles(&handle.found()?);
            all.into_iter()
                .try_for_each(|at| read(&handle, at, 0, 0).map(drop))
        });
        if let Err(error) = read {
            said_why("what begins as the slide does", &error)?;
        }
    }
    let cut = match glass.open(&half) {
        Ok(cut) => cut,
        Err(error) => {
            said_why("half of the slide", &error)?;
            return Ok(format!("{} files, and half of the slide", broken.len()));
        }
    };
    // Its index may be whole. Then what it reads of the half is what the slide has there, or an error.
    let whole = glass.opened()?;
    let (mut same, mut refused) = (0, 0);
    for at in rectangles(&whole.found().map_err(failed)?) {
        match read(&cut, at, 0, 0) {
            Ok(region) => {
                if region.pixels != read(&whole, at, 0, 0).map_err(failed)?.pixels {
                    return Err(No::Failed(format!(
                        "of half of the slide it gives pixels in {at} that the slide does not have: damage is an error"
                    )));
                }
                same += 1;
            }
            Err(error) => {
                said_why("a region of half of the slide", &error)?;
                refused += 1;
            }
        }
    }
    Ok(format!(
        "{} files; of half of the slide {same} regions are whole and {refused} refused",
        broken.len()
    ))
}

/// Places that are read: the corners and the middle of the first, a middle and the last level.
pub(super) fn rectangles(found: &Found) -> Vec<Rectangle> {
    let last = found.levels.len().saturating_sub(1);
    let levels: BTreeSet<usize> = [0, last / 2, last].into();
    let mut all = Vec::new();
    for number in levels {
        let Some(level) = found.levels.get(number) else {
            continue;
        };
        let size = (level.width.min(SIDE), level.height.min(SIDE));
        let far = (level.width - size.0, level.height - size.1);
        let corners = [(0, 0), (far.0 / 2, far.1 / 2), far];
        let corners: BTreeSet<(u32, u32)> = corners.into();
        all.extend(corners.into_iter().map(|(x, y)| Rectangle {
            level: number as u32,
            corner: (x.into(), y.into()),
            size,
        }));
    }
    all
}

pub(super) fn facts_coherent(glass: &Glass) -> Said {
    let handle = glass.opened()?;
    let found = handle.found().map_err(failed)?;
    let wrong = |what: String| Err(No::Failed(what));
    if handle.found().map_err(failed)? != found {
        return wrong("info() said something else when it was asked again".into());
    }
    if found.format.is_empty() {
        return wrong("it does not say which format the slide has".into());
    }
    let Some(first) = found.levels.first().copied() else {
        return wrong("the slide has no level".into());
    };
    for (number, level) in found.levels.iter().enumerate() {
        if level.width == 0 || level.height == 0 {
            return wrong(format!("level {number} has no pixels"));
        }
        if !(level.downsample.is_finite() && level.downsample > 0.999) {
            return wrong(format!(
                "level {number} is downsampled by {}",
                level.downsample
            ));
        }
        // Formats that pad a level to whole tiles are allowed a tile.
        let padded = |side: u32| f64::from(side.max(64));
        let far = |of: u32, whole: u32, tile: u32| {
            let (of, whole) = (f64::from(of) * level.downsample, f64::from(whole));
            (of - whole).abs() > whole * 0.02 + padded(tile) * level.downsample
        };
        let tile = level.tile.unwrap_or((0, 0));
        if far(level.width, first.width, tile.0) || far(level.height, first.height, tile.1) {
            return wrong(format!(
                "level {number} has {} x {} px, downsampled by {}, of {} x {} px",
                level.width, level.height, level.downsample, first.width, first.height
            ));
        }
    }
    for (number, pair) in found.levels.windows(2).enumerate() {
        if pair[1].width > pair[0].width || pair[1].downsample <= pair[0].downsample {
            return wrong(format!(
                "level {} is no smaller than level {number}: they go from the greatest to the smallest",
                number + 1
            ));
        }
    }
    if (first.downsample - 1.0).abs() > 1e-9 {
        return wrong(format!("level 0 is downsampled by {}", first.downsample));
    }
    if let Some(((x, y), _)) = found.pixel
        && !(x.is_finite() && y.is_finite() && x > 0.0 && y > 0.0)
    {
        return wrong(format!("a pixel is {x} x {y} um"));
    }
    let keys = handle.keys().map_err(failed)?;
    if let Some(pair) = keys.windows(2).find(|pair| pair[0] >= pair[1]) {
        return wrong(format!(
            "its property `{}` comes before `{}`: they are sorted by key, each once",
            pair[0], pair[1]
        ));
    }
    let names: BTreeSet<&str> = found.pictures.iter().map(|it| it.name.as_str()).collect();
    if names.len() < found.pictures.len() || names.contains("") {
        return wrong("two pictures have one name, or one has none".into());
    }
    if let Some(none) = found
        .pictures
        .iter()
        .find(|picture| picture.width == 0 || picture.height == 0)
    {
        return wrong(format!("picture `{}` has no pixels", none.name));
    }
    Ok(format!(
        "{}, {} levels, {} x {} px, {} properties",
        found.format,
        found.levels.len(),
        first.width,
        first.height,
        keys.len()
    ))
}

pub(super) fn open_close(glass: &Glass) -> Said {
    let (mut warm, mut before) = (Memory::default(), 0);
    for i in 0..50 {
        let handle = glass.opened()?;
        handle.found().map_err(failed)?;
        drop(handle);
        if i == 10 {
            (warm, before) = (Memory::now(), descriptors());
        }
    }
    let left = descriptors().saturating_sub(before);
    match left {
        0 => warm.steady(39),
        n => Err(No::Failed(format!(
            "40 handles that were closed left {n} files open"
        ))),
    }
}
