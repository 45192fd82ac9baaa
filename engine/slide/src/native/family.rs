//! Which directories of a file are levels, which are label, macro and thumbnail, and what its maker says of it.

use super::makers;
use super::ome::Ome;
use super::page::Page;
use crate::tiff::{Directory, Tiff, tags};
use crate::{Fault, Limits, Place, SlideError};
use std::collections::BTreeMap;

/// What a maker says about a pixel's size, um; not judged yet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sizes {
    pub(crate) vendor: Option<(f64, f64)>,
    pub(crate) resolution: Option<(f64, f64)>,
    pub(crate) objective: Option<f64>,
}

/// A file taken apart.
pub(crate) struct Family {
    pub(crate) format: &'static str,
    pub(crate) vendor: &'static str,
    pub(crate) levels: Vec<Page>,
    pub(crate) associated: Vec<(String, Page)>,
    pub(crate) sizes: Sizes,
    pub(crate) properties: BTreeMap<String, String>,
}

/// Takes `tiff` apart.
pub(crate) fn take_apart(tiff: &Tiff, limits: &Limits) -> Result<Family, SlideError> {
    let Some(first) = tiff.directories.first() else {
        return Err(tiff.source.error(
            Fault::Damaged,
            "has no image file directory",
            "export the slide again",
        ));
    };
    makers::decline(tiff, first)?;
    let description = tiff
        .text(first, tags::IMAGE_DESCRIPTION)?
        .unwrap_or_default();
    let mut family = if description.starts_with("Aperio") {
        aperio(tiff, limits, &description)?
    } else if let Some(ome) = Ome::parse(&description) {
        ome_tiff(tiff, limits, &ome)?
    } else {
        generic(tiff, limits)?
    };
    family.sizes.resolution = resolution(tiff, first)?;
    for (tag, name) in [
        (tags::MAKE, "tiff.Make"),
        (tags::SOFTWARE, "tiff.Software"),
        (tags::DATE_TIME, "tiff.DateTime"),
    ] {
        if let Some(text) = tiff.text(first, tag)? {
            family.properties.insert(name.into(), text.trim().into());
        }
    }
    if let Some(turn) = tiff.int(first, tags::ORIENTATION)?
        && turn != 1
    {
        return Err(tiff
            .source
            .error(
                Fault::Unfit,
                format!("is stored turned or mirrored (orientation {turn}), which this version does not read"),
                "export it upright",
            )
            .at(first.place()));
    }
    if let Some(bytes) = tiff.value_bytes(first, tags::ICC_PROFILE) {
        family.properties.insert(
            "icc".into(),
            format!("a profile of {bytes} bytes, not applied"),
        );
    }
    check_pyramid(tiff, &mut family)?;
    Ok(family)
}

/// Aperio SVS: tiled directories are levels; of the others the second directory is the thumbnail, and the second line of a
/// description begins with `label` or `macro`.
fn aperio(tiff: &Tiff, limits: &Limits, description: &str) -> Result<Family, SlideError> {
    let mut properties = BTreeMap::new();
    for part in description.split('|').skip(1) {
        if let Some((key, value)) = part.split_once('=') {
            properties.insert(format!("aperio.{}", key.trim()), value.trim().to_string());
        }
    }
    let number = |key: &str| {
        properties
            .get(&format!("aperio.{key}"))
            .and_then(|text| text.parse::<f64>().ok())
            .filter(|number| number.is_finite())
    };
    let sizes = Sizes {
        vendor: number("MPP").map(|mpp| (mpp, mpp)),
        objective: number("AppMag"),
        resolution: None,
    };
    let (mut levels, mut associated) = (Vec::new(), Vec::new());
    for directory in top(tiff) {
        if directory.has(tags::TILE_WIDTH) {
            levels.push(Page::parse(tiff, directory, limits)?);
            continue;
        }
        let text = tiff
            .text(directory, tags::IMAGE_DESCRIPTION)?
            .unwrap_or_default();
        let word = text
            .lines()
            .nth(1)
            .and_then(|line| line.split_whitespace().next())
            .unwrap_or_default();
        let name = match (word, tiff.int(directory, tags::NEW_SUBFILE_TYPE)?) {
            ("label", _) => "label".to_string(),
            ("macro", _) => "macro".to_string(),
            _ if directory.number == 1 => "thumbnail".to_string(),
            (_, Some(1)) => "label".to_string(),
            (_, Some(9)) => "macro".to_string(),
            _ => format!("image-{}", directory.number),
        };
        add_associated(
            tiff,
            directory,
            limits,
            name,
            &mut associated,
            &mut properties,
        );
    }
    Ok(Family {
        format: "aperio-svs",
        vendor: "aperio",
        levels,
        associated,
        sizes,
        properties,
    })
}

/// OME-TIFF: the first directory is level 0, its SubIFDs are the smaller levels (OME-TIFF specification, "Sub-resolutions").
fn ome_tiff(tiff: &Tiff, limits: &Limits, ome: &Ome) -> Result<Family, SlideError> {
    let refuse = |what: String| {
        Err(tiff.source.error(
            Fault::Unfit,
            what,
            "export one RGB image, for example with bfconvert -series 0",
        ))
    };
    let (mut levels, mut associated) = (Vec::new(), Vec::new());
    let mut properties = ome.properties.clone();
    for directory in top(tiff) {
        if directory.number == 0 {
            levels.push(Page::parse(tiff, directory, limits)?);
            continue;
        }
        let name = ome
            .names
            .get(&directory.number)
            .map(|name| name.to_lowercase());
        let name = match name.as_deref() {
            Some(name) if name.contains("label") => "label".into(),
            Some(name) if name.contains("macro") || name.contains("overview") => "macro".into(),
            Some(name) if name.contains("thumb") => "thumbnail".into(),
            _ => format!("image-{}", directory.number),
        };
        add_associated(
            tiff,
            directory,
            limits,
            name,
            &mut associated,
            &mut properties,
        );
    }
    if let Some(level) = levels.first()
        && level.samples == 1
        && ome.channels > 1
    {
        return refuse(format!(
            "has {} channels in separate directories; this version reads RGB and gray",
            ome.channels
        ));
    }
    for directory in tiff
        .directories
        .iter()
        .filter(|directory| directory.parent == Some(0))
    {
        levels.push(Page::parse(tiff, directory, limits)?);
    }
    Ok(Family {
        format: "ome-tiff",
        vendor: "ome",
        levels,
        associated,
        sizes: Sizes {
            vendor: ome.pixel_size,
            objective: ome.magnification,
            resolution: None,
        },
        properties,
    })
}

/// Any other TIFF: the first directory is level 0; a smaller one of the same shape is a level, anything else a picture beside.
fn generic(tiff: &Tiff, limits: &Limits) -> Result<Family, SlideError> {
    let (mut levels, mut associated) = (Vec::<Page>::new(), Vec::new());
    let mut properties = BTreeMap::new();
    for directory in &tiff.directories {
        if let Some(first) = levels.first() {
            let is_level = match (
                tiff.int(directory, tags::IMAGE_WIDTH)?,
                tiff.int(directory, tags::IMAGE_LENGTH)?,
            ) {
                (Some(width), Some(height)) => same_shape(
                    (first.width as f64, first.height as f64),
                    (width as f64, height as f64),
                ),
                _ => false,
            };
            let text = tiff
                .text(directory, tags::IMAGE_DESCRIPTION)?
                .unwrap_or_default()
                .to_lowercase();
            let named = ["label", "macro", "thumbnail"]
                .into_iter()
                .find(|name| text.lines().any(|line| line.starts_with(name)));
            if !is_level || named.is_some() {
                let name = named.map_or_else(|| format!("image-{}", directory.number), Into::into);
                add_associated(
                    tiff,
                    directory,
                    limits,
                    name,
                    &mut associated,
                    &mut properties,
                );
                continue;
            }
        }
        levels.push(Page::parse(tiff, directory, limits)?);
    }
    Ok(Family {
        format: if tiff.big { "bigtiff" } else { "tiff" },
        vendor: "generic",
        levels,
        associated,
        sizes: Sizes::default(),
        properties,
    })
}

/// Directories of the chain, without SubIFDs.
fn top(tiff: &Tiff) -> impl Iterator<Item = &Directory> {
    tiff.directories
        .iter()
        .filter(|directory| directory.parent.is_none())
}

/// Adds a picture beside the pyramid. One that cannot be read does not keep the slide from being read.
fn add_associated(
    tiff: &Tiff,
    directory: &Directory,
    limits: &Limits,
    mut name: String,
    to: &mut Vec<(String, Page)>,
    properties: &mut BTreeMap<String, String>,
) {
    if to.iter().any(|(known, _)| *known == name) {
        name = format!("image-{}", directory.number);
    }
    match Page::parse(tiff, directory, limits) {
        Ok(page) => to.push((name, page)),
        Err(error) => {
            properties.insert(format!("unread.{name}"), error.what_and_where());
        }
    }
}

/// Whether `b` is `a` scaled down, give or take the rounding of both sides.
fn same_shape(a: (f64, f64), b: (f64, f64)) -> bool {
    if b.0 > a.0 || b.1 > a.1 || b.0 < 1.0 || b.1 < 1.0 {
        return false;
    }
    let (x, y) = (a.0 / b.0, a.1 / b.1);
    // A side of n px is known to a pixel, so the ratio to x / n.
    (x - y).abs() <= (x / b.0 + y / b.1).max(0.005 * x)
}

/// Sorts the levels and refuses a pyramid that is none.
fn check_pyramid(tiff: &Tiff, family: &mut Family) -> Result<(), SlideError> {
    family
        .levels
        .sort_by_key(|page| std::cmp::Reverse((page.width, page.height)));
    let Some(first) = family.levels.first() else {
        return Err(tiff.source.error(
            Fault::Unsupported,
            "has no tiled image",
            "export it with tiles",
        ));
    };
    let size = (first.width as f64, first.height as f64);
    for page in &family.levels {
        if !same_shape(size, (page.width as f64, page.height as f64)) {
            return Err(tiff
                .source
                .error(
                    Fault::Damaged,
                    format!(
                        "one of its levels has {} x {} px, which is not the shape of level 0 ({} x {})",
                        page.width, page.height, size.0, size.1
                    ),
                    "export the slide again",
                )
                .at(Place {
                    ifd: Some(page.ifd),
                    ..Place::default()
                }));
        }
    }
    family.levels.dedup_by_key(|page| (page.width, page.height));
    Ok(())
}

/// um per px from TIFF's resolution tags (TIFF 6.0 section 8): unit 2 is the inch, 3 the centimetre; 1 says nothing.
fn resolution(tiff: &Tiff, of: &Directory) -> Result<Option<(f64, f64)>, SlideError> {
    let unit = match tiff.int(of, tags::RESOLUTION_UNIT)?.unwrap_or(2) {
        2 => 25_400.0,
        3 => 10_000.0,
        _ => return Ok(None),
    };
    let x = tiff.rational(of, tags::X_RESOLUTION)?;
    let y = tiff.rational(of, tags::Y_RESOLUTION)?;
    Ok(match (x, y) {
        (Some(x), Some(y)) if x > 0.0 && y > 0.0 => Some((unit / x, unit / y)),
        (Some(x), None) if x > 0.0 => Some((unit / x, unit / x)),
        _ => None,
    })
}
