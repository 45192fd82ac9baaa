//! Slide readers.

use crate::abi;
use crate::call::Call;
use crate::error::{Error, Result};
use std::path::Path;

/// An open slide of a slide reader. Dropped when it is closed.
pub trait Reader: Sized + Send + Sync + 'static {
    /// How surely a file is this reader's, from its name and first bytes: 0 not, up to 100. Reads nothing else.
    fn sniff(path: &Path, head: &[u8]) -> u8;

    /// Opens the slide at an absolute path.
    ///
    /// # Errors
    /// The slide fails; the message says what is wrong with the file.
    fn open(path: &Path, call: &Call) -> Result<Self>;

    /// What was found; asked once.
    ///
    /// # Errors
    /// The slide fails.
    fn facts(&self, call: &Call) -> Result<Facts>;

    /// Fills `into` with the pixels of `level` from `(x, y)`, in px of that level: exactly those, white outside the slide.
    /// Several calls at once where [`derive@crate::Reader`] says `parallel`.
    ///
    /// # Errors
    /// Damage: the tile fails. Never invented pixels.
    fn read_region(&self, level: u32, x: i64, y: i64, into: &mut Region, call: &Call)
    -> Result<()>;

    /// Fills `into` with picture number `i` of the facts, whole.
    ///
    /// # Errors
    /// As of [`Reader::read_region`]; [`Error::unsupported`] where there are none.
    fn picture(&self, _i: u32, _into: &mut Region, _call: &Call) -> Result<()> {
        Err(Error::unsupported("this reader has no pictures"))
    }
}

/// A level of a slide.
pub use crate::abi::reader::Level;

/// A picture that is no level: label, macro, thumbnail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// As `label`.
    pub name: String,
    /// px.
    pub width: u32,
    /// px.
    pub height: u32,
}

/// Who said the size of a pixel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MppOrigin {
    /// Nobody.
    #[default]
    Unknown,
    /// A vendor's key.
    Vendor,
    /// A resolution tag.
    Resolution,
    /// It was computed from the objective's power.
    Objective,
}

/// What a reader found in a slide.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// As `aperio-svs`.
    pub format: String,
    /// As `aperio`.
    pub vendor: String,
    /// um/px of level 0 along x and y.
    pub mpp: Option<(f64, f64)>,
    /// Who said so.
    pub mpp_origin: MppOrigin,
    /// From the greatest to the smallest; at least one.
    pub levels: Vec<Level>,
    /// Pictures.
    pub pictures: Vec<Picture>,
    /// Keys and values as they stand in the file.
    pub properties: Vec<(String, String)>,
}

/// Facts as they cross the border, with what they point to.
pub(crate) struct Lent {
    pub(crate) facts: abi::reader::Facts,
    owner: Facts,
    _pictures: Vec<abi::reader::Picture>,
    _properties: Vec<abi::reader::Property>,
}

// SAFETY: the pointers lead to what the struct itself owns and nobody changes.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl Lent {
    /// Width and height of picture number `i`, px.
    pub(crate) fn picture(&self, i: u32) -> Option<(u32, u32)> {
        let picture = self.owner.pictures.get(i as usize)?;
        Some((picture.width, picture.height))
    }

    pub(crate) fn new(mut owner: Facts) -> Result<Lent> {
        if owner.levels.is_empty() {
            return Err(Error::new("the reader found no level in the slide"));
        }
        owner.properties.sort();
        let pictures: Vec<_> = owner
            .pictures
            .iter()
            .map(|it| abi::reader::Picture {
                name: abi::Str::new(&it.name),
                width: it.width.into(),
                height: it.height.into(),
            })
            .collect();
        let properties: Vec<_> = owner
            .properties
            .iter()
            .map(|(key, value)| abi::reader::Property {
                key: abi::Str::new(key),
                value: abi::Str::new(value),
            })
            .collect();
        let (mpp_x, mpp_y) = owner.mpp.unwrap_or_default();
        // The texts and vectors lie on the heap, so the pointers hold when the struct moves.
        let facts = abi::reader::Facts {
            struct_size: size_of::<abi::reader::Facts>() as u32,
            mpp_origin: match owner.mpp_origin {
                MppOrigin::Unknown => abi::reader::MPP_UNKNOWN,
                MppOrigin::Vendor => abi::reader::MPP_VENDOR,
                MppOrigin::Resolution => abi::reader::MPP_RESOLUTION,
                MppOrigin::Objective => abi::reader::MPP_OBJECTIVE,
            },
            format: abi::Str::new(&owner.format),
            vendor: abi::Str::new(&owner.vendor),
            mpp_x,
            mpp_y,
            levels: owner.levels.as_ptr(),
            pictures: pictures.as_ptr(),
            properties: properties.as_ptr(),
            n_levels: owner.levels.len() as u32,
            n_pictures: pictures.len() as u32,
            n_properties: properties.len() as u32,
            reserved: 0,
        };
        Ok(Lent {
            facts,
            owner,
            _pictures: pictures,
            _properties: properties,
        })
    }
}

/// The host's memory for pixels: interleaved RGB, rows `pitch` bytes apart.
pub struct Region<'a> {
    bytes: &'a mut [u8],
    pitch: usize,
    width: u32,
    height: u32,
}

impl<'a> Region<'a> {
    /// Over `bytes`, whose rows begin `pitch` bytes apart; `None` when they do not hold so many pixels.
    pub fn new(bytes: &'a mut [u8], pitch: usize, width: u32, height: u32) -> Option<Region<'a>> {
        let row = width as usize * 3;
        let needed = match height {
            0 => 0,
            rows => pitch.checked_mul(rows as usize - 1)?.checked_add(row)?,
        };
        (pitch >= row && bytes.len() >= needed).then_some(Region {
            bytes,
            pitch,
            width,
            height,
        })
    }

    /// px.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// px.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Row `y`, 3 bytes a pixel.
    ///
    /// # Panics
    /// When there is no row `y`.
    pub fn row_mut(&mut self, y: u32) -> &mut [u8] {
        assert!(y < self.height, "row {y} of {}", self.height);
        let from = y as usize * self.pitch;
        &mut self.bytes[from..from + self.width as usize * 3]
    }

    /// All of it in one piece, where no bytes lie between the rows.
    pub fn whole_mut(&mut self) -> Option<&mut [u8]> {
        let row = self.width as usize * 3;
        (self.pitch == row || self.height <= 1)
            .then(|| &mut self.bytes[..row * self.height as usize])
    }

    /// Every pixel white: what lies outside a slide.
    pub fn white(&mut self) {
        for y in 0..self.height {
            self.row_mut(y).fill(255);
        }
    }
}
