//! A plugin's slide reader in a child process.

use super::blocks::Block;
use super::call::ChildCall;
use super::handles::Handles;
use super::offer::HOST;
use super::serve::Spoken;
use crate::isolate::found::write_found;
use crate::isolate::message::Op;
use crate::load::Loaded;
use crate::tables::{self, Fault};
use crate::wire::{Garbage, Reader, Writer};
use std::ffi::c_void;
use std::sync::Arc;
use weir_abi::Str;
use weir_abi::reader::{self, Facts};
use weir_abi::status::{self, Status};

/// A reader and the files that it has open.
pub(super) struct Reading {
    table: reader::Reader,
    files: Handles,
}

impl Reading {
    /// The reader of this id, a status, and its flags.
    pub fn new(
        loaded: &'static Loaded,
        id: &str,
        call: &Arc<ChildCall>,
    ) -> (Option<Reading>, Status, Writer) {
        let mut given = Writer::default();
        let Some(table) = loaded.reader(id).copied() else {
            let said = call.breach(format!("it has no reader `{id}`"));
            return (None, said, given);
        };
        given.u32(table.flags);
        let reading = Reading {
            table,
            files: Handles::default(),
        };
        (Some(reading), status::OK, given)
    }

    pub fn answer(
        &mut self,
        op: Op,
        from: &mut Reader,
        call: &Arc<ChildCall>,
        blocks: &mut Vec<Block>,
    ) -> Result<Spoken, Garbage> {
        match op {
            Op::Sniff => self.sniff(from),
            Op::OpenFile => self.open(from, call),
            _ => {
                let number = from.u64()?;
                let file = self.files.get(number);
                let file = file.ok_or(Garbage("a file that is not open"))?;
                let spoken = match op {
                    Op::Info => self.info(file, call),
                    Op::CloseFile => {
                        self.files.take(number);
                        self.close(file);
                        (status::OK, Writer::default())
                    }
                    _ => self.pixels(op, file, from, call, blocks)?,
                };
                self.files.heard(number, spoken.0);
                Ok(spoken)
            }
        }
    }

    fn sniff(&self, from: &mut Reader) -> Result<Spoken, Garbage> {
        let (path, head) = (from.text()?, from.bytes()?);
        let mut given = Writer::default();
        given.i32(match self.table.sniff {
            // SAFETY: as the header says; path and head live through the call.
            Some(sniff) => unsafe { sniff(Str::new(&path), head.as_ptr(), head.len()) },
            None => 0,
        });
        Ok((status::OK, given))
    }

    fn open(&mut self, from: &mut Reader, call: &Arc<ChildCall>) -> Result<Spoken, Garbage> {
        let path = from.text()?;
        let mut file = std::ptr::null_mut();
        let said = match self.table.open {
            // SAFETY: as the header says; host, path and the place for the handle live through the call.
            Some(open) => unsafe { open(&HOST, call.as_ptr(), Str::new(&path), &mut file) },
            None => status::UNSUPPORTED,
        };
        let mut given = Writer::default();
        given.u64(self.files.opened(said, file));
        Ok((said, given))
    }

    fn info(&self, file: *mut c_void, call: &Arc<ChildCall>) -> Spoken {
        let mut given = Writer::default();
        let mut out: *const Facts = std::ptr::null();
        let said = match self.table.info {
            // SAFETY: as the header says; the file is open and `out` is a place for a pointer.
            Some(info) => unsafe { info(file, call.as_ptr(), &mut out) },
            None => status::UNSUPPORTED,
        };
        if said != status::OK {
            return (said, given);
        }
        // SAFETY: what info() gave lives as long as the file is open and is copied here.
        let found = unsafe { tables::facts(out).and_then(|facts| crate::reader::found(&facts)) };
        match found {
            Ok(found) => {
                write_found(&mut given, &found);
                (said, given)
            }
            Err(Fault(what)) => (call.breach(what), given),
        }
    }

    /// A region or a picture, into memory of the host's.
    fn pixels(
        &self,
        op: Op,
        file: *mut c_void,
        from: &mut Reader,
        call: &Arc<ChildCall>,
        blocks: &mut Vec<Block>,
    ) -> Result<Spoken, Garbage> {
        let mut given = Writer::default();
        let index = from.u32()?;
        let corner = match op {
            Op::Region => (from.i64()?, from.i64()?),
            _ => (0, 0),
        };
        let (width, height) = (from.u32()?, from.u32()?);
        let pitch = width as usize * 3;
        let bytes = pitch.checked_mul(height as usize);
        let bytes = bytes.ok_or(Garbage("a region without end"))?;
        let taken = call.world.blocks.take_one(bytes, |n| call.world.more(n));
        let taken = match taken {
            Ok(taken) => taken,
            Err(what) => return Ok((call.breach(what), given)),
        };
        let (into, spot) = taken.place(0);
        given.u32(spot.memory);
        given.u64(spot.at);
        blocks.push(taken);
        let (into, call) = (into.cast(), call.as_ptr());
        let said = match (op, self.table.read_region, self.table.picture) {
            // SAFETY: as the header says; `into` has `height` rows of `width` px.
            (Op::Region, Some(read), _) => unsafe {
                let (x, y) = corner;
                read(file, call, index, x, y, width, height, into, pitch)
            },
            // SAFETY: as the header says; `into` holds a picture of the size that info() said.
            (Op::Picture, _, Some(picture)) => unsafe { picture(file, call, index, into, pitch) },
            _ => status::UNSUPPORTED,
        };
        Ok((said, given))
    }

    fn close(&self, file: *mut c_void) {
        if let Some(close) = self.table.close {
            // SAFETY: it is open, no call of it is in flight, and none will follow.
            unsafe { close(file) }
        }
    }

    /// Closes what is still open.
    pub fn close_all(&mut self) {
        for file in self.files.take_all() {
            self.close(file);
        }
    }
}
