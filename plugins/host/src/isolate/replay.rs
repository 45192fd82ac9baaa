//! What a plugin did in its process, done over again here with the functions that a plugin of this process would call.

use crate::call::Call;
use crate::isolate::memory::Mapping;
use crate::isolate::message::{Deed, Spot, row_bytes};
use crate::offer::HOST;
use std::sync::Arc;
use weir_abi::Str;
use weir_abi::column::Batch;
use weir_abi::status::Error;

/// Does the deeds of a call in their order. What cannot be is noted with the call, which then fails (E0520).
pub(crate) fn replay(call: &Arc<Call>, deeds: Vec<Deed>, memories: &[Mapping]) {
    for deed in deeds {
        if one(call, deed, memories).is_none() {
            return;
        }
    }
}

/// A deed; `None` when the call is spoiled.
fn one(call: &Arc<Call>, deed: Deed, memories: &[Mapping]) -> Option<()> {
    let it = call.as_ptr();
    match deed {
        Deed::Rows {
            port,
            source,
            columns,
        } => {
            // SAFETY: the call is open, and the list is as long as it says.
            let batch = unsafe { HOST.batch_new?(it, port, source.len() as u32, source.as_ptr()) };
            filled(call, port, batch, &columns, memories)
        }
        Deed::Tiles {
            port,
            slide,
            tiles,
            columns,
        } => {
            // SAFETY: as above.
            let batch =
                unsafe { HOST.batch_for?(it, port, slide, tiles.len() as u32, tiles.as_ptr()) };
            filled(call, port, batch, &columns, memories)
        }
        Deed::Pass { port, rows } => {
            // SAFETY: as above.
            unsafe { HOST.pass?(it, port, rows.as_ptr(), rows.len() as u32) };
            Some(())
        }
        Deed::Table {
            port,
            source,
            bytes,
        } => {
            // SAFETY: the call is open, and the bytes are as many as they say.
            unsafe { HOST.table?(it, port, source, bytes.as_ptr().cast(), bytes.len()) };
            Some(())
        }
        Deed::Skip { row, reason } => {
            // SAFETY: the call is open; the text lives through the function.
            unsafe { HOST.skip?(it, row, Str::new(&reason)) };
            Some(())
        }
        Deed::FailRow { row, said } => {
            let error = Error {
                message: Str::new(&said.what),
                param: Str::new(&said.param),
                help: Str::new(&said.help),
            };
            // SAFETY: the call is open; the texts live through the function.
            unsafe { HOST.fail_row?(it, row, &error) };
            Some(())
        }
        Deed::Fail(said) => {
            call.fail(said);
            Some(())
        }
        Deed::Breach(what) => {
            call.breach(what);
            Some(())
        }
        Deed::Count { name, by } => {
            call.who.counters.add(&call.who.stage, &name, by);
            Some(())
        }
    }
}

/// Fills a batch of the host's with what the child wrote, and emits it.
fn filled(
    call: &Arc<Call>,
    port: u32,
    batch: *mut Batch,
    columns: &[Vec<Spot>],
    memories: &[Mapping],
) -> Option<()> {
    // SAFETY: it is null, or a batch that the host has just made for this call.
    let head = unsafe { batch.as_ref() }?;
    // SAFETY: of the host's own making.
    let own = unsafe { std::slice::from_raw_parts(head.columns, head.n_columns as usize) };
    let n = head.n_rows as usize;
    let written = own.len() == columns.len()
        && own.iter().zip(columns).all(|(column, spots)| {
            // SAFETY: of the host's own making.
            let shape = unsafe { std::slice::from_raw_parts(column.shape, column.ndim as usize) };
            let Some(bytes) = row_bytes(column.dtype, shape) else {
                return false;
            };
            spots.len() == n
                && spots.iter().enumerate().all(|(row, spot)| {
                    let memory = memories.get(spot.memory as usize);
                    let Some(from) = memory.and_then(|memory| memory.at(spot.at, bytes)) else {
                        return false;
                    };
                    // SAFETY: `bytes` bytes of a mapping that nobody can shrink, and a row of that many that is the host's. The
                    // child may still write there: then the copy holds some of each, and is checked as a copy.
                    unsafe {
                        let to = *column.rows.add(row);
                        std::ptr::copy_nonoverlapping(from.cast_const(), to.cast::<u8>(), bytes);
                    }
                    true
                })
        });
    if !written {
        // SAFETY: the reference that `batch_new` gave.
        unsafe { HOST.batch_release?(batch) };
        call.breach("its process named memory that is no row of its batch");
        return None;
    }
    // SAFETY: the call is open, and the reference goes with it.
    unsafe { HOST.emit?(call.as_ptr(), port, batch) };
    Some(())
}
