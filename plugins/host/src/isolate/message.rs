//! What stands in the frames to a child: what to load, calls, batches.

use crate::columns::Output;
use crate::parameters::Parameters;
use crate::wire::{Garbage, Reader, Writer};
use weir_abi::Str;
use weir_abi::column::Dtype;
use weir_abi::row::{Key, Row, Slide};
use weir_pipeline::Kind;

/// What a child begins with; the plugin's sealed memory and the page with the host's flag come beside it.
#[derive(Debug)]
pub(crate) struct Hello {
    /// The plugin's name.
    pub plugin: String,
    /// Where its file was read from.
    pub path: String,
    pub sha256: String,
    /// The text of the manifest beside it, where it has none in it.
    pub beside: Option<Vec<u8>>,
}

/// What it then makes an instance of, with the stage's parameters; where the host's tiles lie in an arena, its file comes beside it.
#[derive(Debug)]
pub(crate) struct Make {
    /// The stage type's id.
    pub id: String,
    pub folder: String,
    pub outputs: Vec<Output>,
}

const KINDS: [Kind; 8] = [
    Kind::Pixels,
    Kind::Scores,
    Kind::Picks,
    Kind::Features,
    Kind::Attention,
    Kind::Bag,
    Kind::Predictions,
    Kind::Table,
];

/// Bytes of an output in a list.
const OUTPUT: usize = size_of::<Output>();
/// Bytes of a text in a list.
const TEXT: usize = size_of::<String>();

impl Hello {
    pub fn write(&self) -> Writer {
        let mut out = Writer::default();
        for text in [&self.plugin, &self.path, &self.sha256] {
            out.text(text);
        }
        out.u8(u8::from(self.beside.is_some()));
        out.bytes(self.beside.as_deref().unwrap_or_default());
        out
    }

    pub fn read(from: &[u8]) -> Result<Hello, Garbage> {
        let mut from = Reader(from);
        let hello = Hello {
            plugin: from.text()?,
            path: from.text()?,
            sha256: from.text()?,
            beside: {
                let there = from.u8()? != 0;
                let text = from.bytes()?;
                there.then(|| text.to_vec())
            },
        };
        from.end()?;
        Ok(hello)
    }
}

impl Make {
    pub fn write(&self, out: &mut Writer, parameters: &Parameters, arena: u64) {
        out.u64(arena);
        out.text(&self.id);
        out.text(&self.folder);
        out.list::<OUTPUT, _>(&self.outputs, |out, output| {
            out.text(&output.name);
            let kind = KINDS.iter().position(|kind| *kind == output.kind);
            out.u8(kind.unwrap_or(KINDS.len()) as u8);
            out.list::<8, _>(&output.shape, |out, &side| out.u64(side));
            out.list::<TEXT, _>(&output.classes, |out, class| out.text(class));
            out.text(&output.format);
        });
        parameters.write(out);
    }

    /// With the bytes of the arena's file; 0: there is none.
    pub fn read(from: &mut Reader) -> Result<(Make, Parameters, u64), Garbage> {
        let arena = from.u64()?;
        let make = Make {
            id: from.text()?,
            folder: from.text()?,
            outputs: from.list::<OUTPUT, _>(|from| {
                Ok(Output {
                    name: from.text()?,
                    kind: *KINDS
                        .get(from.u8()? as usize)
                        .ok_or(Garbage("a kind that does not exist"))?,
                    shape: from.list::<8, _>(Reader::u64)?,
                    classes: from.list::<TEXT, _>(Reader::text)?,
                    format: from.text()?,
                })
            })?,
        };
        let parameters = Parameters::read(from)?;
        from.end()?;
        Ok((make, parameters, arena))
    }
}

/// The beginning of a call: room for its number, and its function. The arguments follow.
pub(crate) fn request(op: Op) -> Writer {
    let mut out = Writer::default();
    out.u64(0);
    out.u8(op as u8);
    out
}

/// An enum of numbers, each written once, and what reads them.
macro_rules! numbered {
    ($(#[$about:meta])* $name:ident, $none:literal { $($(#[$doc:meta])* $op:ident = $number:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum $name {
            $($(#[$doc])* $op = $number,)*
        }

        impl $name {
            pub fn of(number: u8) -> Result<$name, Garbage> {
                match number {
                    $($number => Ok($name::$op),)*
                    _ => Err(Garbage($none)),
                }
            }
        }
    };
}

numbered! {
    /// Which function a call is for; its arguments follow in its order.
    Op, "a call that does not exist" {
        /// Port, whether rows may be made, batch.
        Process = 1,
        /// Port, rows.
        Remove = 2,
        /// Slide, generation, end.
        Complete = 3,
        /// Number of the slide.
        CloseSlide = 4,
        Finish = 5,
        Destroy = 6,
        /// Place of the slide.
        Slide = 7,
        /// Place of the slide.
        Open = 8,
        /// Slide, as it was opened.
        Next = 9,
        /// Slide, as it was opened; row, bytes.
        Read = 10,
        /// Slide, as it was opened.
        Close = 11,
        /// What to make an instance of. Before anything else of a stage.
        Make = 12,
        /// Id of the reader. Before anything else of a reader.
        Reader = 13,
        /// Path, first bytes of the file.
        Sniff = 14,
        /// Path.
        OpenFile = 15,
        /// File, as it was opened.
        Info = 16,
        /// File, as it was opened; level, left, top, width, height.
        Region = 17,
        /// File, as it was opened; number of the picture, width, height.
        Picture = 18,
        /// File, as it was opened.
        CloseFile = 19,
    }
}

pub(crate) fn write_row(out: &mut Writer, row: &Row) {
    out.u64(row.key.slide);
    out.u64(row.key.tile);
    out.u32(row.key.rev);
    out.u32(row.key.source);
    out.i64(row.x);
    out.i64(row.y);
    out.f64(row.footprint);
    out.f64(row.mpp);
    out.u32(row.slide);
}

/// Bytes of a row in a list.
pub(crate) const ROW: usize = size_of::<Row>();

pub(crate) fn read_row(from: &mut Reader) -> Result<Row, Garbage> {
    Ok(Row {
        key: Key {
            slide: from.u64()?,
            tile: from.u64()?,
            rev: from.u32()?,
            source: from.u32()?,
        },
        x: from.i64()?,
        y: from.i64()?,
        footprint: from.f64()?,
        mpp: from.f64()?,
        slide: from.u32()?,
        reserved: 0,
    })
}

/// # Safety
/// The slide's texts are readable.
pub(crate) unsafe fn write_slide(out: &mut Writer, slide: &Slide) {
    out.u64(slide.number);
    out.u64(slide.seed);
    for text in [
        slide.id,
        slide.path,
        slide.patient,
        slide.label,
        slide.split,
    ] {
        // SAFETY: the caller's.
        out.bytes(unsafe { text.bytes() });
    }
    out.i64(slide.width);
    out.i64(slide.height);
    out.f64(slide.mpp_x);
    out.f64(slide.mpp_y);
    out.u64(slide.tiles);
    out.f64(slide.tile_footprint);
    out.f64(slide.tile_mpp);
    out.u32(slide.tile_px);
}

/// Bytes of a slide in a list.
pub(crate) const SLIDE: usize = size_of::<OwnSlide>();

/// A slide with its texts.
#[derive(Debug)]
pub(crate) struct OwnSlide {
    pub slide: Slide,
    _texts: [Box<str>; 5],
}

// SAFETY: its pointers lead to its own texts, which nothing changes.
unsafe impl Send for OwnSlide {}
// SAFETY: as above.
unsafe impl Sync for OwnSlide {}

pub(crate) fn read_slide(from: &mut Reader) -> Result<OwnSlide, Garbage> {
    let (number, seed) = (from.u64()?, from.u64()?);
    let mut text = || -> Result<Box<str>, Garbage> { Ok(from.text()?.into()) };
    let texts = [text()?, text()?, text()?, text()?, text()?];
    let [id, path, patient, label, split] = texts.each_ref().map(|text| Str::new(text));
    Ok(OwnSlide {
        slide: Slide {
            struct_size: size_of::<Slide>() as u32,
            reserved: 0,
            number,
            seed,
            id,
            path,
            patient,
            label,
            split,
            width: from.i64()?,
            height: from.i64()?,
            mpp_x: from.f64()?,
            mpp_y: from.f64()?,
            tiles: from.u64()?,
            tile_footprint: from.f64()?,
            tile_mpp: from.f64()?,
            tile_px: from.u32()?,
            tile_reserved: 0,
        },
        _texts: texts,
    })
}

/// Where a row of an input lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lies {
    /// In the memory that the call's input was copied to.
    Copied(u64),
    /// Where it lay, in the arena of the host's tiles.
    Shown(u64),
}

/// Bytes of it in a list.
pub(crate) const LIES: usize = size_of::<Lies>();

pub(crate) fn write_lies(out: &mut Writer, lies: Lies) {
    match lies {
        Lies::Copied(at) => {
            out.u8(0);
            out.u64(at);
        }
        Lies::Shown(at) => {
            out.u8(1);
            out.u64(at);
        }
    }
}

fn read_lies(from: &mut Reader) -> Result<Lies, Garbage> {
    match from.u8()? {
        0 => Ok(Lies::Copied(from.u64()?)),
        1 => Ok(Lies::Shown(from.u64()?)),
        _ => Err(Garbage("a memory that does not exist")),
    }
}

/// A column of an input: where its rows lie in the shared memory.
pub(crate) struct Lent {
    pub name: &'static str,
    pub dtype: Dtype,
    pub shape: Vec<i64>,
    pub lengths: Vec<u64>,
    pub rows: Vec<Lies>,
}

/// Bytes of it in a list.
pub(crate) const LENT: usize = size_of::<Lent>();

/// All names of columns.
const NAMES: [&str; 16] = [
    "pixels",
    "score",
    "probabilities",
    "features",
    "logit",
    "weight",
    "contribution",
    "without",
    "pooled",
    "effective",
    "entropy",
    "members",
    "flags",
    "logits",
    "class",
    "bytes",
];

pub(crate) fn read_column(from: &mut Reader) -> Result<Lent, Garbage> {
    let name = from.text()?;
    let name = NAMES.into_iter().find(|known| *known == name);
    Ok(Lent {
        name: name.ok_or(Garbage("a column that does not exist"))?,
        dtype: Dtype {
            code: from.u8()?,
            bits: from.u8()?,
            lanes: 1,
        },
        shape: from.list::<8, _>(Reader::i64)?,
        lengths: from.list::<8, _>(Reader::u64)?,
        rows: from.list::<LIES, _>(read_lies)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever comes, it is a greeting or garbage.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Hello::read(&bytes);
            let _ = Make::read(&mut Reader(&bytes));
            let _ = read_column(&mut Reader(&bytes));
            let _ = read_slide(&mut Reader(&bytes));
        }
    }
}
