//! What a plugin did in its process, done over again here with the functions that a plugin of this process would call.

use crate::call::At;
use crate::columns::row_bytes;
use crate::isolate::answer::{Deed, Spot};
use crate::isolate::memory::Mapping;
use crate::offer::HOST;
use weir_abi::Str;
use weir_abi::column::Batch;
use weir_abi::desk::Desk;
use weir_abi::status::Error;

/// Does the deeds of a call in their order. What cannot be is noted with the call, which then fails (E0520).
pub(crate) fn replay(call: &At, deeds: Vec<Deed>, memories: &[Mapping]) {
    for deed in deeds {
        if one(call, deed, memories).is_none() {
            return;
        }
    }
}

/// A deed; `None` when the call is spoiled.
fn one(call: &At, deed: Deed, memories: &[Mapping]) -> Option<()> {
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
            Desk::count(call, &name, by);
            Some(())
        }
    }
}

/// Fills a batch of the host's with what the child wrote, and emits it.
fn filled(
    call: &At,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::batch::HostBatch;
    use crate::batch::task::{Rows, Task};
    use crate::call::Call;
    use crate::columns::Output;
    use crate::isolate::memory::Memory;
    use crate::outcomes::{Outcome, Outcomes};
    use crate::who::Who;
    use proptest::prelude::*;
    use std::sync::Arc;
    use weir_abi::desk::Said;
    use weir_abi::status;
    use weir_pipeline::Kind;
    use weir_record::{Body, Feature, Key, SlideId, SlideInfo, SlideKey, TileId};

    /// A call with three rows of two numbers in, and two numbers a row out.
    fn call() -> Call<'static> {
        let info = SlideInfo::unopened("a".into(), SlideKey(1), "a.svs".into());
        let info = Arc::new(info);
        let values = (0..3).map(|i| {
            let key = Key {
                slide: SlideId::new(0, 0),
                tile: TileId::new(0, 0, i, 0).unwrap(),
                rev: 0,
            };
            let feature = Feature::new(vec![1.0, 2.0], None);
            (key, Body::Feature(Arc::new(feature)))
        });
        let values: &'static [_] = values.collect::<Vec<_>>().leak();
        let values = values.iter().map(|(key, body)| (*key, body, &info));
        let output = Output {
            name: "features".into(),
            kind: Kind::Features,
            shape: vec![2],
            classes: Vec::new(),
            format: "probe.same/1".into(),
        };
        let mut outcomes = Outcomes::default();
        outcomes.reset(3, 1, false);
        let task = Task::Rows(Box::new(Rows {
            // SAFETY: the values are never freed.
            input: Arc::new(unsafe { HostBatch::input(values, 0) }.unwrap()),
            outputs: [output].into(),
            leases: Vec::new(),
            made: Default::default(),
            drafts: Vec::new(),
            outcomes,
        }));
        let version = semver::Version::new(1, 0, 0);
        let who = Box::leak(Box::new(Arc::new(Who::plugin("probe", &version))));
        Call::new(who, task)
    }

    fn memories() -> Vec<Mapping> {
        vec![Memory::to_host(4096).unwrap().mapping]
    }

    fn rows(source: Vec<u32>, spot: Spot) -> Deed {
        let columns = vec![vec![spot; source.len()]];
        Deed::Rows {
            port: 0,
            source,
            columns,
        }
    }

    #[test]
    fn rows_within_the_memory_are_made_and_all_others_fail_the_call() {
        let well = call();
        let spot = Spot {
            memory: 0,
            at: 4088,
        };
        replay(&well, vec![rows(vec![0, 1, 2], spot)], &memories());
        let Task::Rows(mut done) = well.end(status::OK).unwrap() else {
            panic!("a call with rows");
        };
        let made = |outcome: &Outcome| matches!(outcome, Outcome::Made(_));
        assert_eq!(done.outcomes.take().filter(|it| made(&it.2)).count(), 3);
        for spot in [
            Spot {
                memory: 0,
                at: 4089,
            },
            Spot {
                memory: 0,
                at: u64::MAX,
            },
            Spot { memory: 1, at: 0 },
        ] {
            let call = call();
            replay(&call, vec![rows(vec![0], spot)], &memories());
            let said = call.end(status::OK).err().unwrap().said;
            assert!(said.what.contains("[E0520]"), "{said:?}");
        }
    }

    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![0u32..5, Just(u32::MAX), any::<u32>()]
    }

    fn spots() -> impl Strategy<Value = Vec<Vec<Spot>>> {
        let at = prop_oneof![0u64..5000, any::<u64>()];
        let spot = (number(), at).prop_map(|(memory, at)| Spot { memory, at });
        prop::collection::vec(prop::collection::vec(spot, 0..4), 0..3)
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let list = || prop::collection::vec(number(), 0..4);
        prop_oneof![
            (number(), list(), spots()).prop_map(|(port, source, columns)| Deed::Rows {
                port,
                source,
                columns
            }),
            (number(), any::<u64>(), spots()).prop_map(|(port, slide, columns)| Deed::Tiles {
                port,
                slide,
                tiles: vec![slide, 0],
                columns
            }),
            (number(), list()).prop_map(|(port, rows)| Deed::Pass { port, rows }),
            (number(), number()).prop_map(|(port, source)| Deed::Table {
                port,
                source,
                bytes: vec![1]
            }),
            number().prop_map(|row| Deed::Skip {
                row,
                reason: "dark".into()
            }),
            number().prop_map(|row| Deed::FailRow {
                row,
                said: Said::default()
            }),
        ]
    }

    proptest! {
        /// Whatever a child says that it did, the call ends: with rows, or with why not.
        #[test]
        fn any_deeds_end_a_call(deeds in prop::collection::vec(deed(), 0..6)) {
            let call = call();
            replay(&call, deeds, &memories());
            match call.end(status::OK) {
                Ok(_) => {}
                Err(error) => prop_assert!(error.said.what.contains("[E0520]")),
            }
        }
    }
}
