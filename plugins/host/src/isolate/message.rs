//! What stands in the frames: what to load, calls, batches, answers.

use crate::call::Said;
use crate::columns::Output;
use crate::isolate::wire::{Garbage, Reader, Writer};
use crate::parameters::Parameters;
use weir_abi::Str;
use weir_abi::column::Dtype;
use weir_abi::row::{Key, Row, Slide};
use weir_abi::status::Status;
use weir_pipeline::Kind;

/// What a child begins with, with the stage's parameters; the plugin's sealed memory and the page with the host's flag come
/// beside it.
#[derive(Debug)]
pub(crate) struct Hello {
    /// The plugin's name.
    pub plugin: String,
    /// Where its file was read from.
    pub path: String,
    pub sha256: String,
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

impl Hello {
    pub fn write(&self, parameters: &Parameters) -> Writer {
        let mut out = Writer::default();
        let texts = [
            &self.plugin,
            &self.path,
            &self.sha256,
            &self.id,
            &self.folder,
        ];
        for text in texts {
            out.text(text);
        }
        out.list(&self.outputs, |out, output| {
            out.text(&output.name);
            let kind = KINDS.iter().position(|kind| *kind == output.kind);
            out.u8(kind.unwrap_or(KINDS.len()) as u8);
            out.list(&output.shape, |out, &side| out.u64(side));
            out.list(&output.classes, |out, class| out.text(class));
            out.text(&output.format);
        });
        parameters.write(&mut out);
        out
    }

    pub fn read(from: &[u8]) -> Result<(Hello, Parameters), Garbage> {
        let mut from = Reader(from);
        let hello = Hello {
            plugin: from.text()?,
            path: from.text()?,
            sha256: from.text()?,
            id: from.text()?,
            folder: from.text()?,
            outputs: from.list(25, |from| {
                Ok(Output {
                    name: from.text()?,
                    kind: *KINDS
                        .get(from.u8()? as usize)
                        .ok_or(Garbage("a kind that does not exist"))?,
                    shape: from.list(8, Reader::u64)?,
                    classes: from.list(8, Reader::text)?,
                    format: from.text()?,
                })
            })?,
        };
        let parameters = Parameters::read(&mut from)?;
        from.end()?;
        Ok((hello, parameters))
    }
}

/// Which function a call is for; its arguments follow in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
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
    /// Port, symbol.
    Resolve = 7,
    /// Place of the slide.
    Slide = 8,
    /// Place of the slide.
    Open = 9,
    /// Slide, as it was opened.
    Next = 10,
    /// Slide, as it was opened; row, bytes.
    Read = 11,
    /// Slide, as it was opened.
    Close = 12,
}

impl Op {
    pub fn of(number: u8) -> Result<Op, Garbage> {
        use Op::*;
        [
            Process, Remove, Complete, CloseSlide, Finish, Destroy, Resolve, Slide, Open, Next,
            Read, Close,
        ]
        .into_iter()
        .find(|op| *op as u8 == number)
        .ok_or(Garbage("a call that does not exist"))
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

/// Bytes of a row.
pub(crate) const ROW: usize = 60;

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

/// Bytes of the shortest slide.
pub(crate) const SLIDE: usize = 2 * 8 + 5 * 8 + 7 * 8 + 4;

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

/// A column of an input: where its rows lie in the shared memory.
pub(crate) struct Lent {
    pub name: &'static str,
    pub dtype: Dtype,
    pub shape: Vec<i64>,
    pub lengths: Vec<u64>,
    pub rows: Vec<u64>,
}

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
        shape: from.list(8, Reader::i64)?,
        lengths: from.list(8, Reader::u64)?,
        rows: from.list(8, Reader::u64)?,
    })
}

/// Bytes of a row of this shape; `None` where that is no number, or the shape says -1.
pub(crate) fn row_bytes(dtype: Dtype, shape: &[i64]) -> Option<usize> {
    shape.iter().try_fold(dtype.bytes(), |bytes, &side| {
        bytes.checked_mul(usize::try_from(side).ok()?)
    })
}

/// Where in the memory of what a child makes a row of a column lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    /// Which of the memories that it was given.
    pub memory: u32,
    pub at: u64,
}

/// What a plugin did in a call, in its order.
#[derive(Debug)]
pub(crate) enum Deed {
    /// A batch: rows of the input, and of each column where each row lies.
    Rows {
        port: u32,
        source: Vec<u32>,
        columns: Vec<Vec<Spot>>,
    },
    /// The same of a slide's tiles.
    Tiles {
        port: u32,
        slide: u64,
        tiles: Vec<u64>,
        columns: Vec<Vec<Spot>>,
    },
    Pass {
        port: u32,
        rows: Vec<u32>,
    },
    Table {
        port: u32,
        source: u32,
        bytes: Vec<u8>,
    },
    Skip {
        row: u32,
        reason: String,
    },
    FailRow {
        row: u32,
        said: Said,
    },
    Fail(Said),
    Breach(String),
    Count {
        name: String,
        by: u64,
    },
}

fn write_said(out: &mut Writer, said: &Said) {
    for text in [&said.what, &said.param, &said.help] {
        out.text(text);
    }
}

fn read_said(from: &mut Reader) -> Result<Said, Garbage> {
    Ok(Said {
        what: from.text()?,
        param: from.text()?,
        help: from.text()?,
    })
}

fn write_spots(out: &mut Writer, columns: &[Vec<Spot>]) {
    out.list(columns, |out, rows| {
        out.list(rows, |out, spot| {
            out.u32(spot.memory);
            out.u64(spot.at);
        });
    });
}

fn read_spots(from: &mut Reader) -> Result<Vec<Vec<Spot>>, Garbage> {
    from.list(4, |from| {
        from.list(12, |from| {
            Ok(Spot {
                memory: from.u32()?,
                at: from.u64()?,
            })
        })
    })
}

impl Deed {
    fn write(&self, out: &mut Writer) {
        match self {
            Deed::Rows {
                port,
                source,
                columns,
            } => {
                out.u8(1);
                out.u32(*port);
                out.list(source, |out, &row| out.u32(row));
                write_spots(out, columns);
            }
            Deed::Tiles {
                port,
                slide,
                tiles,
                columns,
            } => {
                out.u8(2);
                out.u32(*port);
                out.u64(*slide);
                out.list(tiles, |out, &tile| out.u64(tile));
                write_spots(out, columns);
            }
            Deed::Pass { port, rows } => {
                out.u8(3);
                out.u32(*port);
                out.list(rows, |out, &row| out.u32(row));
            }
            Deed::Table {
                port,
                source,
                bytes,
            } => {
                out.u8(4);
                out.u32(*port);
                out.u32(*source);
                out.bytes(bytes);
            }
            Deed::Skip { row, reason } => {
                out.u8(5);
                out.u32(*row);
                out.text(reason);
            }
            Deed::FailRow { row, said } => {
                out.u8(6);
                out.u32(*row);
                write_said(out, said);
            }
            Deed::Fail(said) => {
                out.u8(7);
                write_said(out, said);
            }
            Deed::Breach(what) => {
                out.u8(8);
                out.text(what);
            }
            Deed::Count { name, by } => {
                out.u8(9);
                out.text(name);
                out.u64(*by);
            }
        }
    }

    fn read(from: &mut Reader) -> Result<Deed, Garbage> {
        Ok(match from.u8()? {
            1 => Deed::Rows {
                port: from.u32()?,
                source: from.list(4, Reader::u32)?,
                columns: read_spots(from)?,
            },
            2 => Deed::Tiles {
                port: from.u32()?,
                slide: from.u64()?,
                tiles: from.list(8, Reader::u64)?,
                columns: read_spots(from)?,
            },
            3 => Deed::Pass {
                port: from.u32()?,
                rows: from.list(4, Reader::u32)?,
            },
            4 => Deed::Table {
                port: from.u32()?,
                source: from.u32()?,
                bytes: from.bytes()?.to_vec(),
            },
            5 => Deed::Skip {
                row: from.u32()?,
                reason: from.text()?,
            },
            6 => Deed::FailRow {
                row: from.u32()?,
                said: read_said(from)?,
            },
            7 => Deed::Fail(read_said(from)?),
            8 => Deed::Breach(from.text()?),
            9 => Deed::Count {
                name: from.text()?,
                by: from.u64()?,
            },
            _ => return Err(Garbage("a deed that does not exist")),
        })
    }
}

/// What came of a call.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub status: Status,
    /// The plugin holds on to its input: its memory must stay as it is.
    pub kept: bool,
    pub deeds: Vec<Deed>,
    /// What the function gave back beside its status, as its call says.
    pub given: Vec<u8>,
}

impl Answer {
    pub fn write(&self) -> Writer {
        let mut out = Writer::default();
        out.i32(self.status);
        out.u8(u8::from(self.kept));
        out.list(&self.deeds, |out, deed| deed.write(out));
        out.bytes(&self.given);
        out
    }

    pub fn read(from: &[u8]) -> Result<Answer, Garbage> {
        let mut from = Reader(from);
        let answer = Answer {
            status: from.i32()?,
            kept: from.u8()? != 0,
            deeds: from.list(5, Deed::read)?,
            given: from.bytes()?.to_vec(),
        };
        from.end()?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever a child sends, it is an answer or garbage.
        #[test]
        fn any_bytes_are_an_answer_or_garbage(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Answer::read(&bytes);
            let _ = Hello::read(&bytes);
        }

        #[test]
        fn an_answer_that_was_damaged_is_an_answer_or_garbage(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let spot = Spot { memory: 0, at: 4096 };
            let answer = Answer {
                status: 0,
                kept: false,
                deeds: vec![
                    Deed::Rows { port: 0, source: vec![0, 1], columns: vec![vec![spot; 2]] },
                    Deed::FailRow { row: 1, said: Said::default() },
                    Deed::Skip { row: 2, reason: "blurred".into() },
                ],
                given: vec![1, 2],
            };
            let mut bytes = answer.write().0;
            prop_assert!(Answer::read(&bytes).is_ok());
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Answer::read(&bytes);
        }
    }
}
