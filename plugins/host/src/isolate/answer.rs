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
    /// The call's.
    pub number: u64,
    pub status: Status,
    /// The plugin holds on to its input: its memory must stay as it is.
    pub kept: bool,
    /// Numbers of earlier calls whose inputs it held on to, and does no more.
    pub released: Vec<u64>,
    pub deeds: Vec<Deed>,
    /// What the function gave back beside its status, as its call says.
    pub given: Vec<u8>,
}

impl Answer {
    pub fn write(&self) -> Writer {
        let mut out = Writer::default();
        out.u64(self.number);
        out.i32(self.status);
        out.u8(u8::from(self.kept));
        out.list(&self.released, |out, &number| out.u64(number));
        out.list(&self.deeds, |out, deed| deed.write(out));
        out.bytes(&self.given);
        out
    }

    pub fn read(from: &[u8]) -> Result<Answer, Garbage> {
        let mut from = Reader(from);
        let answer = Answer {
            number: from.u64()?,
            status: from.i32()?,
            kept: from.u8()? != 0,
            released: from.list(8, Reader::u64)?,
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
        }

        #[test]
        fn an_answer_that_was_damaged_is_an_answer_or_garbage(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let spot = Spot { memory: 0, at: 4096 };
            let answer = Answer {
                number: 7,
                status: 0,
                kept: false,
                released: vec![5],
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
