//! What a child says came of a call: its status, and what the plugin did in it.

use crate::wire::{Garbage, Reader, Writer};
use weir_abi::desk::Said;
use weir_abi::status::Status;

/// Where in the memory of what a child makes a row of a column lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    /// Which of the memories that it was given.
    pub memory: u32,
    pub at: u64,
}

/// Where the rows of a batch lie, column by column, as bytes: they are read one by one, and make no list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spots<'a>(pub &'a [u8]);

impl<'a> Spots<'a> {
    pub fn write(columns: &[Vec<Spot>]) -> Vec<u8> {
        let mut out = Writer::default();
        out.u32(columns.len() as u32);
        for rows in columns {
            out.u32(rows.len() as u32);
            for spot in rows {
                out.u32(spot.memory);
                out.u64(spot.at);
            }
        }
        out.0
    }

    /// Hands each row's to `take`, with the column and the row, where there are so many columns of so many rows.
    pub fn each(
        self,
        columns: usize,
        rows: usize,
        mut take: impl FnMut(usize, usize, Spot) -> Option<()>,
    ) -> Option<()> {
        let mut from = Reader(self.0);
        let is = |n: Result<u32, Garbage>, wanted| (n.ok()? as usize == wanted).then_some(());
        is(from.u32(), columns)?;
        for column in 0..columns {
            is(from.u32(), rows)?;
            for row in 0..rows {
                let (memory, at) = (from.u32().ok()?, from.u64().ok()?);
                take(column, row, Spot { memory, at })?;
            }
        }
        from.end().ok()
    }
}

/// Something that a plugin did in a call.
#[derive(Debug)]
pub(crate) enum Deed<'a> {
    /// A batch: rows of the input, and where the rows of its columns lie.
    Rows {
        port: u32,
        source: Vec<u32>,
        spots: Spots<'a>,
    },
    /// The same of a slide's tiles.
    Tiles {
        port: u32,
        slide: u64,
        tiles: Vec<u64>,
        spots: Spots<'a>,
    },
    Pass {
        port: u32,
        rows: Vec<u32>,
    },
    Table {
        port: u32,
        source: u32,
        bytes: &'a [u8],
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
    /// It completed a call that it did not leave pending.
    Complete(Status),
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

impl<'a> Deed<'a> {
    pub fn write(&self, out: &mut Writer) {
        match self {
            Deed::Rows {
                port,
                source,
                spots,
            } => {
                out.u8(1);
                out.u32(*port);
                out.list::<4, _>(source, |out, &row| out.u32(row));
                out.bytes(spots.0);
            }
            Deed::Tiles {
                port,
                slide,
                tiles,
                spots,
            } => {
                out.u8(2);
                out.u32(*port);
                out.u64(*slide);
                out.list::<8, _>(tiles, |out, &tile| out.u64(tile));
                out.bytes(spots.0);
            }
            Deed::Pass { port, rows } => {
                out.u8(3);
                out.u32(*port);
                out.list::<4, _>(rows, |out, &row| out.u32(row));
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
            Deed::Complete(said) => {
                out.u8(10);
                out.i32(*said);
            }
        }
    }

    pub fn read(from: &mut Reader<'a>) -> Result<Deed<'a>, Garbage> {
        Ok(match from.u8()? {
            1 => Deed::Rows {
                port: from.u32()?,
                source: from.list::<4, _>(Reader::u32)?,
                spots: Spots(from.bytes()?),
            },
            2 => Deed::Tiles {
                port: from.u32()?,
                slide: from.u64()?,
                tiles: from.list::<8, _>(Reader::u64)?,
                spots: Spots(from.bytes()?),
            },
            3 => Deed::Pass {
                port: from.u32()?,
                rows: from.list::<4, _>(Reader::u32)?,
            },
            4 => Deed::Table {
                port: from.u32()?,
                source: from.u32()?,
                bytes: from.bytes()?,
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
            10 => Deed::Complete(from.i32()?),
            _ => return Err(Garbage("a deed that does not exist")),
        })
    }
}

/// What came of a call.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The call's.
    pub number: u64,
    pub status: Status,
    /// The plugin holds on to its input: its memory must stay as it is.
    pub kept: bool,
    /// Numbers of earlier calls whose inputs it held on to, and does no more.
    pub released: Vec<u64>,
    /// What the function gave back beside its status, as its call says.
    pub given: Vec<u8>,
    /// What the plugin did, in its order: [`Deed`]s as they are written, which are read one by one. There may be millions.
    pub deeds: Vec<u8>,
}

impl Answer {
    pub fn write(&self) -> Writer {
        let mut out = Writer::default();
        out.u64(self.number);
        out.i32(self.status);
        out.u8(u8::from(self.kept));
        out.list::<8, _>(&self.released, |out, &number| out.u64(number));
        out.bytes(&self.given);
        out.0.extend(&self.deeds);
        out
    }

    /// An answer whose deeds can all be read.
    pub fn read(mut frame: Vec<u8>) -> Result<Answer, Garbage> {
        let mut from = Reader(&frame);
        let answer = Answer {
            number: from.u64()?,
            status: from.i32()?,
            kept: from.u8()? != 0,
            released: from.list::<8, _>(Reader::u64)?,
            given: from.bytes()?.to_vec(),
            deeds: Vec::new(),
        };
        let deeds = frame.len() - from.0.len();
        while !from.0.is_empty() {
            Deed::read(&mut from)?;
        }
        frame.drain(..deeds);
        Ok(Answer {
            deeds: frame,
            ..answer
        })
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
            let _ = Answer::read(bytes);
        }

        #[test]
        fn an_answer_that_was_damaged_is_an_answer_or_garbage(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let spot = Spot { memory: 0, at: 4096 };
            let spots = Spots::write(&[vec![spot; 2]]);
            let mut deeds = Writer::default();
            Deed::Rows { port: 0, source: vec![0, 1], spots: Spots(&spots) }.write(&mut deeds);
            Deed::FailRow { row: 1, said: Said::default() }.write(&mut deeds);
            Deed::Skip { row: 2, reason: "blurred".into() }.write(&mut deeds);
            let answer = Answer {
                number: 7,
                status: 0,
                kept: false,
                released: vec![5],
                given: vec![1, 2],
                deeds: deeds.0,
            };
            let mut bytes = answer.write().0;
            prop_assert!(Answer::read(bytes.clone()).is_ok());
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Answer::read(bytes);
        }
    }
}
