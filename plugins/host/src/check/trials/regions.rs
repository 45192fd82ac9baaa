//! Tests of a slide reader's pixels: whether its regions are exactly those of the slide.

use super::reader::{failed, rectangles, said_why};
use super::{No, Said, at_once};
use crate::check::fence::Fence;
use crate::check::glass::{Glass, Rectangle, read};
use crate::reader::PluginHandle;
use weir_slide::Limits;
use weir_slide::leveled::Handle;

/// Those of the slide's rectangles that can be read, with their pixels.
fn readable(glass: &Glass, handle: &PluginHandle) -> Result<Vec<(Rectangle, Vec<u8>)>, No> {
    let found = handle.found().map_err(failed)?;
    let (mut all, mut why) = (Vec::new(), None);
    for at in rectangles(&found) {
        match read(handle, at, 0, 0x00) {
            Ok(region) => all.push((at, region.pixels)),
            Err(error) => {
                said_why(&format!("{at}"), &error)?;
                why = Some(error.what);
            }
        }
    }
    match (all.is_empty(), why) {
        (true, Some(what)) => Err(No::Failed(format!(
            "no region of {} can be read: {what}",
            glass.slide()?.display()
        ))),
        _ => Ok(all),
    }
}

/// A part of a region's pixels.
fn part(pixels: &[u8], of: Rectangle, at: Rectangle) -> Vec<u8> {
    let (left, top) = (
        (at.corner.0 - of.corner.0) as usize,
        (at.corner.1 - of.corner.1) as usize,
    );
    let rows = pixels.chunks(of.size.0 as usize * 3).skip(top);
    rows.take(at.size.1 as usize)
        .flat_map(|row| &row[left * 3..(left + at.size.0 as usize) * 3])
        .copied()
        .collect()
}

pub(super) fn regions_agree(glass: &Glass) -> Said {
    let handle = glass.opened()?;
    let mut n = 0;
    for (at, pixels) in readable(glass, &handle)? {
        let (width, height) = at.size;
        // Four parts that overlap, and one of a single pixel.
        let (w, h) = ((width / 2 + 5).min(width), (height / 2 + 3).min(height));
        let corners = [
            (0, 0),
            (width - w, 0),
            (0, height - h),
            (width - w, height - h),
        ];
        let mut parts: Vec<_> = corners.into_iter().map(|corner| (corner, (w, h))).collect();
        parts.push(((width / 3, height / 3), (1, 1)));
        for ((x, y), size) in parts {
            let one = Rectangle {
                corner: (at.corner.0 + i64::from(x), at.corner.1 + i64::from(y)),
                size,
                ..at
            };
            let read = read(&handle, one, 0, 0xff).map_err(failed)?;
            if read.pixels != part(&pixels, at, one) {
                return Err(No::Failed(format!(
                    "{one} are others than in {at}: a region is exactly its pixels, all of them"
                )));
            }
            n += 1;
        }
    }
    Ok(format!("{n} regions"))
}

pub(super) fn no_overrun(glass: &Glass) -> Said {
    let handle = glass.opened()?;
    let mut n = 0;
    for (at, pixels) in readable(glass, &handle)? {
        for gap in [0, 1, 29] {
            let region = read(&handle, at, gap, 0x5a).map_err(failed)?;
            if let Some(what) = region.beside {
                return Err(No::Failed(format!("{at}: {what}")));
            }
            if region.pixels != pixels {
                return Err(No::Failed(format!(
                    "{at} have other pixels in rows that are {} bytes apart",
                    at.size.0 as usize * 3 + gap
                )));
            }
            n += 1;
        }
    }
    Ok(format!("{n} regions"))
}

pub(super) fn outside_white(glass: &Glass) -> Said {
    const OVER: i64 = 40;
    let handle = glass.opened()?;
    let found = handle.found().map_err(failed)?;
    let mut n = 0;
    for (number, level) in found.levels.iter().enumerate() {
        let (width, height) = (i64::from(level.width), i64::from(level.height));
        let places = [
            (-OVER, -OVER),
            (width - OVER, height - OVER),
            (-OVER, height - OVER),
            (width - OVER, -OVER),
            (-1000, -1000),
            (width + 10, height + 10),
        ];
        for corner in places {
            let at = Rectangle {
                level: number as u32,
                corner,
                size: (2 * OVER as u32, 2 * OVER as u32),
            };
            let region = read(&handle, at, 0, 0x5a).map_err(|error| {
                No::Failed(format!(
                    "{at}: {}: what lies outside of the slide is white",
                    error.what
                ))
            })?;
            let outside = |index: usize| {
                let (x, y) = (index as i64 % (2 * OVER), index as i64 / (2 * OVER));
                let (x, y) = (x + corner.0, y + corner.1);
                x < 0 || y < 0 || x >= width || y >= height
            };
            let mut pixels = region.pixels.chunks_exact(3).enumerate();
            if let Some((index, pixel)) =
                pixels.find(|(index, pixel)| outside(*index) && **pixel != [255; 3])
            {
                return Err(No::Failed(format!(
                    "{at}: its pixel number {index} lies outside of the slide and is {pixel:?}, not white"
                )));
            }
            n += 1;
        }
    }
    Ok(format!("{n} regions"))
}

pub(super) fn pictures(glass: &Glass) -> Said {
    let handle = glass.opened()?;
    let found = handle.found().map_err(failed)?;
    for (number, picture) in found.pictures.iter().enumerate() {
        let size = (picture.width, picture.height);
        let bytes = (u64::from(size.0) * u64::from(size.1)).saturating_mul(3);
        let most = Limits::default().max_picture_bytes;
        let bytes = usize::try_from(bytes).ok().filter(|_| bytes <= most);
        let Some(bytes) = bytes else {
            return Err(No::Failed(format!(
                "picture `{}` has {} x {} px: no picture takes more than {most} bytes",
                picture.name, size.0, size.1
            )));
        };
        let mut both = Vec::new();
        for before in [0x00, 0xff] {
            let mut fence = Fence::new(bytes, 1).map_err(No::Failed)?;
            fence.bytes_mut().fill(before);
            let said = handle.picture(number, size, fence.bytes_mut());
            said.map_err(|error| {
                No::Failed(format!("picture `{}`: {}", picture.name, error.what))
            })?;
            if !fence.is_whole() {
                return Err(No::Failed(format!(
                    "picture `{}`: it wrote beside its memory",
                    picture.name
                )));
            }
            both.push(fence.bytes_mut().to_vec());
        }
        if both[0] != both[1] {
            return Err(No::Failed(format!(
                "picture `{}` was not filled whole",
                picture.name
            )));
        }
    }
    match found.pictures.len() {
        0 => Err(No::Skipped("the slide has no pictures".into())),
        n => Ok(format!("{n} pictures")),
    }
}

pub(super) fn at_once_reads(glass: &Glass) -> Said {
    const THREADS: usize = 4;
    let common = glass.opened()?;
    let wanted = readable(glass, &common)?;
    at_once(THREADS, |thread| {
        let own = match glass.is_parallel() {
            true => None,
            false => Some(glass.opened()?),
        };
        let handle = own.as_ref().unwrap_or(&common);
        for round in 0..4 {
            for at in 0..wanted.len() {
                let (at, pixels) = &wanted[(at + thread + round) % wanted.len()];
                let region = read(handle, *at, 0, 0x5a).map_err(failed)?;
                if region.pixels != *pixels {
                    return Err(No::Failed(format!(
                        "{at} were others when several threads read at once"
                    )));
                }
            }
        }
        Ok(())
    })?;
    Ok(match glass.is_parallel() {
        true => format!("{THREADS} threads, one handle"),
        false => format!("{THREADS} threads, each with its handle"),
    })
}
