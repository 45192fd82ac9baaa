//! What a plugin did in its process, done over again here as a plugin of this process would have it done.

use crate::call::At;
use crate::columns::row_bytes;
use crate::isolate::answer::{Deed, Spots};
use crate::isolate::memory::Mapping;
use crate::wire::{Garbage, Reader};
use weir_abi::column::Batch;
use weir_abi::desk::Desk;

/// Does the deeds of a call in their order, one at a time. What cannot be is noted with the call, which then fails (E0520).
pub(crate) fn replay(call: &At, deeds: &[u8], memories: &[Mapping]) {
    let mut from = Reader(deeds);
    while !from.0.is_empty() {
        let done = match Deed::read(&mut from) {
            Ok(deed) => one(call, deed, memories),
            Err(Garbage(what)) => {
                from = Reader(&[]);
                Err(format!("its process sent {what}"))
            }
        };
        if let Err(what) = done {
            call.breach(what);
        }
    }
}

/// A deed; what of it is against the rules.
fn one(call: &At, deed: Deed, memories: &[Mapping]) -> Result<(), String> {
    match deed {
        Deed::Rows {
            port,
            source,
            spots,
        } => {
            let batch = call.batch_new(port, &source)?;
            // SAFETY: it was made here just now, and nobody else has it.
            unsafe { filled(call, port, batch, spots, memories) }
        }
        Deed::Tiles {
            port,
            slide,
            tiles,
            spots,
        } => {
            let batch = call.batch_for(port, slide, &tiles)?;
            // SAFETY: as above.
            unsafe { filled(call, port, batch, spots, memories) }
        }
        Deed::Pass { port, rows } => call.pass(port, &rows),
        Deed::Table {
            port,
            source,
            bytes,
        } => call.table(port, source, bytes),
        Deed::Skip { row, reason } => call.skip(row, &reason),
        Deed::FailRow { row, said } => call.fail_row(row, said),
        Deed::Fail(said) => {
            call.fail(said);
            Ok(())
        }
        Deed::Breach(what) => Err(what),
        Deed::Count { name, by } => {
            call.count(&name, by);
            Ok(())
        }
        Deed::Complete(said) => {
            call.complete(said);
            Ok(())
        }
    }
}

/// Fills a batch of the host's with what the child wrote, and emits it.
///
/// # Safety
/// A batch that was made for this call and not emitted; its one reference goes with it.
unsafe fn filled(
    call: &At,
    port: u32,
    batch: *mut Batch,
    spots: Spots,
    memories: &[Mapping],
) -> Result<(), String> {
    // SAFETY: the caller's; its columns are of the host's own making.
    let (n, columns) = unsafe {
        let head = &*batch;
        let columns = std::slice::from_raw_parts(head.columns, head.n_columns as usize);
        (head.n_rows as usize, columns)
    };
    let bytes = columns.iter().map(|column| {
        // SAFETY: of the host's own making.
        let shape = unsafe { std::slice::from_raw_parts(column.shape, column.ndim as usize) };
        row_bytes(column.dtype, shape)
    });
    let bytes: Vec<_> = bytes.collect();
    let written = spots.each(columns.len(), n, |column, row, spot| {
        let bytes = bytes[column]?;
        let from = memories.get(spot.memory as usize)?.at(spot.at, bytes)?;
        // SAFETY: `bytes` bytes of a mapping that nobody can shrink, and a row of that many that is the host's. The child may still
        // write there: then the copy holds some of each, and is checked as a copy.
        unsafe {
            let to = *columns[column].rows.add(row);
            std::ptr::copy_nonoverlapping(from.cast_const(), to.cast::<u8>(), bytes);
        }
        Some(())
    });
    match written {
        // SAFETY: the caller's.
        Some(()) => unsafe { call.emit(port, batch) },
        None => {
            // SAFETY: the caller's.
            unsafe { At::release(batch) };
            Err("its process named memory that is no row of its batch".into())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::batch::HostBatch;
    use crate::batch::task::{Rows, Task};
    use crate::call::Call;
    use crate::columns::Output;
    use crate::isolate::answer::Spot;
    use crate::isolate::memory::Memory;
    use crate::outcomes::{Outcome, Outcomes};
    use crate::who::Who;
    use crate::wire::Writer;
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
        let mut outcomes = Outcomes::on(1, false);
        outcomes.reset(3);
        let task = Task::Rows(Box::new(Rows {
            // SAFETY: the values are never freed.
            input: Arc::new(unsafe { HostBatch::input(values, 0) }.unwrap()),
            outputs: [output].into(),
            fitting: 0,
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

    fn written(deed: &Deed) -> Vec<u8> {
        let mut out = Writer::default();
        deed.write(&mut out);
        out.0
    }

    fn rows(source: Vec<u32>, spot: Spot) -> Vec<u8> {
        written(&Deed::Rows {
            port: 0,
            spots: Spots(&Spots::write(&[vec![spot; source.len()]])),
            source,
        })
    }

    #[test]
    fn rows_within_the_memory_are_made_and_all_others_fail_the_call() {
        let well = call();
        let spot = Spot {
            memory: 0,
            at: 4088,
        };
        replay(&well, &rows(vec![0, 1, 2], spot), &memories());
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
            replay(&call, &rows(vec![0], spot), &memories());
            let said = call.end(status::OK).err().unwrap().said;
            assert!(said.what.contains("[E0520]"), "{said:?}");
        }
    }

    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![0u32..5, Just(u32::MAX), any::<u32>()]
    }

    fn spots() -> impl Strategy<Value = Vec<u8>> {
        let at = prop_oneof![0u64..5000, any::<u64>()];
        let spot = (number(), at).prop_map(|(memory, at)| Spot { memory, at });
        prop::collection::vec(prop::collection::vec(spot, 0..4), 0..3)
            .prop_map(|columns| Spots::write(&columns))
    }

    /// A deed as it is written.
    fn deed() -> impl Strategy<Value = Vec<u8>> {
        let list = || prop::collection::vec(number(), 0..4);
        prop_oneof![
            (number(), list(), spots()).prop_map(|(port, source, spots)| written(&Deed::Rows {
                port,
                source,
                spots: Spots(&spots)
            })),
            (number(), any::<u64>(), spots()).prop_map(|(port, slide, spots)| {
                written(&Deed::Tiles {
                    port,
                    slide,
                    tiles: vec![slide, 0],
                    spots: Spots(&spots),
                })
            }),
            (number(), list()).prop_map(|(port, rows)| written(&Deed::Pass { port, rows })),
            (number(), number()).prop_map(|(port, source)| written(&Deed::Table {
                port,
                source,
                bytes: &[1]
            })),
            number().prop_map(|row| written(&Deed::Skip {
                row,
                reason: "dark".into()
            })),
            number().prop_map(|row| written(&Deed::FailRow {
                row,
                said: Said::default()
            })),
        ]
    }

    proptest! {
        /// Whatever a child says that it did, the call ends: with rows, or with why not.
        #[test]
        fn any_deeds_end_a_call(deeds in prop::collection::vec(deed(), 0..6)) {
            let call = call();
            replay(&call, &deeds.concat(), &memories());
            match call.end(status::OK) {
                Ok(_) => {}
                Err(error) => prop_assert!(error.said.what.contains("[E0520]")),
            }
        }
    }
}
