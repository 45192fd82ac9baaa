//! What the attributes of a file say: whose layout it is, how large a tile is, in which unit its places are.

use std::collections::HashMap;
use std::fmt;

use hdf5_pure::AttrValue;
use weir_plugin::Choice;

/// Whose files they are.
#[derive(Choice, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `features` f32 or f16, `coords` i64 in level-0 px with the patch's size at level 0.
    #[default]
    Trident,
    /// `features` f32, `coords` i32 in level-0 px with the patch's size at its level.
    Clam,
    /// `feats` f16, `coords` f32 in um, the tile's size in um among the file's attributes.
    Stamp,
}

impl Layout {
    /// All of them.
    pub const ALL: [Layout; 3] = [Layout::Trident, Layout::Clam, Layout::Stamp];

    /// As parameters and messages say it.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Trident => "trident",
            Layout::Clam => "clam",
            Layout::Stamp => "stamp",
        }
    }

    /// Name of the array of features.
    pub fn array(self) -> &'static str {
        match self {
            Layout::Trident | Layout::Clam => "features",
            Layout::Stamp => "feats",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Attributes of an object.
#[derive(Clone, Debug, Default)]
pub struct Attributes(pub HashMap<String, AttrValue>);

impl Attributes {
    /// Whether there is one of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The numbers of an attribute: whole ones, broken ones, or texts of one (h5py writes what Python had).
    pub fn numbers(&self, name: &str) -> Option<Vec<f64>> {
        let value = self.0.get(name)?;
        if let Some(numbers) = value.to_f64s() {
            return Some(numbers);
        }
        if let Some(numbers) = value.to_i64s() {
            return Some(numbers.into_iter().map(|number| number as f64).collect());
        }
        value
            .as_str()?
            .trim()
            .parse()
            .ok()
            .map(|number| vec![number])
    }

    /// The first number of an attribute, where it is finite and greater than 0.
    pub fn positive(&self, name: &str) -> Option<f64> {
        let number = *self.numbers(name)?.first()?;
        (number.is_finite() && number > 0.0).then_some(number)
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }
}

/// What a file says of its places.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// Side of a tile.
    pub side: Option<Length>,
    /// Side of a tile's pixels, px.
    pub tile_px: Option<f64>,
    /// Size of the slide, level-0 px.
    pub size: Option<(u64, u64)>,
    /// Size of a level-0 px, um: of TRIDENT's files by the objective's power, 10 um divided by it.
    pub mpp: Option<f64>,
    /// In what the places are.
    pub unit: Unit,
}

/// A length, in one of two units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// Level-0 px.
    Px(f64),
    /// um.
    Um(f64),
}

/// In what the places of a file are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Unit {
    /// Level-0 px.
    #[default]
    Px,
    /// Multiples of so many um.
    Um(f64),
}

/// The side of a tile, level-0 px, as only TRIDENT says it.
pub const SIDE: &str = "patch_size_level0";

/// Whose file it is, by what only theirs have: STAMP calls the array `feats`, CLAM says the level of its patches. What says nothing
/// of itself is read as TRIDENT's.
pub fn detect(array: &str, coords: &Attributes) -> Layout {
    if array == Layout::Stamp.array() {
        return Layout::Stamp;
    }
    let clam = ["patch_level", "downsample", "downsampled_level_dim"];
    match clam.iter().any(|name| coords.has(name)) && !coords.has(SIDE) {
        true => Layout::Clam,
        false => Layout::Trident,
    }
}

/// Side of STAMP's first tiles: 256 um, whose places were counted in 224ths of it.
const FIRST_STAMP: (f64, f64) = (256.0, 224.0);

/// What a file of this layout says; `stride` is the smallest distance of its places, in its own unit.
///
/// # Errors
/// When the unit of the places is not to be known.
pub fn said(
    layout: Layout,
    root: &Attributes,
    coords: &Attributes,
    stride: Option<f64>,
) -> Result<Said, String> {
    match layout {
        Layout::Trident => Ok(trident(coords)),
        Layout::Clam => Ok(clam(coords)),
        Layout::Stamp => stamp(root, stride),
    }
}

fn trident(coords: &Attributes) -> Said {
    let size = (
        coords.positive("level0_width"),
        coords.positive("level0_height"),
    );
    Said {
        side: coords.positive(SIDE).map(Length::Px),
        tile_px: coords.positive("patch_size"),
        size: match size {
            (Some(width), Some(height)) => Some((width as u64, height as u64)),
            _ => None,
        },
        mpp: coords
            .positive("level0_magnification")
            .map(|power| 10.0 / power),
        unit: Unit::Px,
    }
}

fn clam(coords: &Attributes) -> Said {
    let px = coords.positive("patch_size");
    let custom = coords.positive("custom_downsample").unwrap_or(1.0);
    // Files of level 0 may leave it out; of another level nobody knows it then.
    let downsample = coords.positive("downsample").or_else(|| {
        let level = coords.numbers("patch_level")?;
        (level.first() == Some(&0.0)).then_some(1.0)
    });
    let size = coords.numbers("level_dim").and_then(|dim| match dim[..] {
        [width, height] if width > 0.0 && height > 0.0 => {
            let scale = downsample?;
            Some(((width * scale) as u64, (height * scale) as u64))
        }
        _ => None,
    });
    Said {
        side: match (px, downsample) {
            (Some(px), Some(downsample)) => Some(Length::Px(px * downsample * custom)),
            _ => None,
        },
        tile_px: px,
        size,
        mpp: None,
        unit: Unit::Px,
    }
}

fn stamp(root: &Attributes, stride: Option<f64>) -> Result<Said, String> {
    let of = |side: f64, tile_px: Option<f64>, unit: f64| Said {
        side: Some(Length::Um(side)),
        tile_px,
        unit: Unit::Um(unit),
        ..Said::default()
    };
    let px = root.positive("tile_size_px");
    let old = root.positive("tile_size");
    if let (Some(side), Some("um")) = (old, root.text("unit")) {
        return Ok(of(side, px, 1.0));
    }
    if let Some(side) = root.positive("tile_size_um") {
        return Ok(of(side, px, 1.0));
    }
    let (um, parts) = FIRST_STAMP;
    if old.or(stride).is_some_and(|stride| stride.round() == parts) {
        return Ok(of(um, Some(parts), um / parts));
    }
    Err(
        "it does not say the unit of its places: neither tile_size_um nor tile_size with unit \"um\" is among its attributes, and \
         its places are not 224 apart as in STAMP's first files"
            .into(),
    )
}
