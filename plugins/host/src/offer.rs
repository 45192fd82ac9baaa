//! What the host offers a plugin: the functions of `weir_host`, on calls and batches of this process.

use crate::batch::HostBatch;
use crate::batch::live::{Noted, References};
use crate::batch::task::{OfSlide, Task};
use crate::call::At;
use crate::columns::{self, Output};
use crate::log::Level;
use std::ffi::CStr;
use std::sync::{Arc, Weak};
use weir_abi::Str;
use weir_abi::column::Batch;
use weir_abi::desk::Desk;
use weir_abi::desk::Said;
use weir_abi::host::Host;
use weir_abi::status::Status;
use weir_record::TileId;

/// The table that every plugin gets.
pub(crate) static HOST: Host = weir_abi::desk::host::<At>();

pub(crate) const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!("weir ", env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"weir",
    };

/// Output number `port`.
#[inline]
fn output(outputs: &[Output], port: u32) -> Result<&Output, String> {
    outputs
        .get(port as usize)
        .ok_or_else(|| format!("it has no output number {port}"))
}

/// What a plugin is told that calls a function where there is no input.
#[cold]
fn no_input(function: &str) -> String {
    format!("it called {function}() in a call that has no input")
}

/// What a plugin is told that emits what it does not have.
pub(crate) const LENT: &str =
    "it emitted its input, or a batch that it no longer had: pass() hands rows on as they are";

/// A batch was named that is none of the plugin's, in the call that the thread is in; a thread of the plugin's own is in none, and
/// the batch's own call may be known.
fn stray(what: &str, of: Option<At>) {
    let call = match crate::inside::call() {
        0 => of,
        number => At::numbered(number),
    };
    if let Some(call) = call {
        call.breach(what);
    }
}

impl At {
    /// A fresh batch's address, with one reference for the plugin.
    fn handed(&self, batch: HostBatch, drafts: Option<&mut Vec<Weak<HostBatch>>>) -> *mut Batch {
        batch.references().belongs_to(self.number);
        batch.references().hand();
        let batch = batch.placed();
        if let Some(drafts) = drafts {
            drafts.push(Arc::downgrade(&batch));
        }
        HostBatch::into_ptr(batch)
    }
}

impl Desk for At {
    const VERSION: &'static CStr = VERSION;

    unsafe fn find(of: *mut weir_abi::Call) -> Option<At> {
        At::find(of)
    }

    fn breach(&self, what: String) -> Status {
        At::breach(self, what)
    }

    fn log(&self, level: i32, text: &str) {
        At::log(self, Level::of(level), text);
    }

    fn fail(&self, said: Said) {
        At::fail(self, said);
    }

    fn cancelled(&self) -> bool {
        // A call that is over has nothing left to do.
        self.open().is_none_or(|who| who.stop.level() > 0)
    }

    fn count(&self, name: &str, by: u64) {
        if let Some(who) = self.open()
            && let Some(told) = who.counters.add(&who.stage, name, by)
        {
            let line = format!("{}: {told}", who.plugin);
            who.line(Level::Warn, &line);
        }
    }

    fn folder(&self) -> Str {
        let who = self.open();
        let folder = who.as_ref().and_then(|who| who.folder.to_str());
        // The text is the stage's, whose instances have it as long as they live.
        folder.map_or(Str::EMPTY, |folder| Str {
            ptr: folder.as_ptr().cast(),
            len: folder.len(),
        })
    }

    fn batch_new(&self, port: u32, source: &[u32]) -> Result<*mut Batch, String> {
        let who = self.open();
        let mut desk = self.desk()?;
        let Task::Rows(rows) = &mut desk.task else {
            return Err(no_input("batch_new"));
        };
        let outputs = rows.outputs.clone();
        let output = output(&outputs, port)?;
        let slab = who.as_ref().and_then(|who| who.slab.as_ref());
        let batch = HostBatch::for_rows(output, port as usize, rows, source, slab)?;
        Ok(self.handed(batch, Some(&mut rows.drafts)))
    }

    fn batch_for(&self, port: u32, slide: u64, tiles: &[u64]) -> Result<*mut Batch, String> {
        let desk = self.desk()?;
        let Task::Slides(of) = &desk.task else {
            return Err("it called batch_for(), which is for a reduce".into());
        };
        let output = output(&of.outputs, port)?;
        let batch = HostBatch::for_tiles(output, port as usize, slide, tiles, &of.slides)?;
        Ok(self.handed(batch, None))
    }

    fn batch_edit(&self, port: u32) -> Result<*mut Batch, String> {
        let who = self.open();
        let mut desk = self.desk()?;
        let Task::Rows(rows) = &mut desk.task else {
            return Err(no_input("batch_edit"));
        };
        let outputs = rows.outputs.clone();
        let output = output(&outputs, port)?;
        let slab = who.as_ref().and_then(|who| who.slab.as_ref());
        let batch = HostBatch::edited(output, port as usize, rows, slab)?;
        Ok(self.handed(batch, Some(&mut rows.drafts)))
    }

    unsafe fn retain(batch: *const Batch) {
        if HostBatch::retained(batch) {
            return;
        }
        // One that is retained for the first time is an input whose call is open, which lives as long as it has a desk.
        let call = HostBatch::named(batch, References::call).and_then(At::numbered);
        let desk = call.and_then(|call| call.desk().ok());
        let lent = desk.as_ref().and_then(|desk| desk.task.input());
        match lent.filter(|lent| lent.as_ptr() == batch) {
            Some(lent) => lent.retain(),
            None => {
                drop(desk);
                stray("it retained a batch that it did not have", call);
            }
        }
    }

    unsafe fn release(batch: *const Batch) {
        match HostBatch::named(batch, References::hand_back) {
            // SAFETY: the reference that ends here was the plugin's: one that was only lent to it is the host's.
            Some(true) => unsafe { Arc::decrement_strong_count(HostBatch::of(batch)) },
            _ => stray("it released a batch that it did not have", None),
        }
    }

    unsafe fn emit(&self, port: u32, batch: *mut Batch) -> Result<(), String> {
        if HostBatch::named(batch, References::hand_back) != Some(true) {
            return Err(LENT.into());
        }
        // SAFETY: the reference was the plugin's, which gives it up, also when this fails.
        let batch = unsafe { Arc::from_raw(HostBatch::of(batch)) };
        if batch.references().call() != self.number {
            return Err("it emitted a batch that it made in another call".into());
        }
        let mut desk = self.telling()?;
        match &mut desk.task {
            Task::Rows(rows) => batch.emit_rows(port as usize, &mut rows.outcomes),
            Task::Slides(slides) => batch.emit_tiles(port as usize, slides),
            Task::Setup | Task::Take(_) => Err("it emitted in a call that makes no rows".into()),
        }
    }

    #[inline(always)]
    fn pass_all(&self, port: u32, rows: &[u32]) -> bool {
        let Some(mut desk) = self.at_desk() else {
            return false;
        };
        let open = desk.completed.is_none();
        match &mut desk.task {
            Task::Rows(of) => open && of.fits(port) && of.outcomes.pass_all(rows),
            _ => false,
        }
    }

    fn pass(&self, port: u32, rows: &[u32]) -> Result<(), String> {
        let mut desk = self.telling()?;
        let Task::Rows(of) = &mut desk.task else {
            return Err(no_input("pass"));
        };
        // Rows that are none are seen by the outcomes.
        if !of.fits(port) {
            of.input.fit(output(&of.outputs, port)?, rows)?;
        }
        of.outcomes.pass(rows, port as usize)
    }

    fn table(&self, port: u32, source: u32, bytes: &[u8]) -> Result<(), String> {
        let mut desk = self.telling()?;
        match &mut desk.task {
            Task::Rows(rows) => {
                let body = columns::table(output(&rows.outputs, port)?, bytes)?;
                if source >= rows.input.rows() {
                    let of = rows.input.rows();
                    return Err(format!(
                        "it made a table of row {source} of a batch of {of}"
                    ));
                }
                rows.outcomes.made(source, port as usize, body)
            }
            Task::Slides(slides) => {
                let body = columns::table(output(&slides.outputs, port)?, bytes)?;
                if source != u32::MAX {
                    return Err(
                        "a table of a reduce is the slide's: its source is UINT32_MAX".into(),
                    );
                }
                slides.made(OfSlide {
                    port: port as usize,
                    tile: TileId::SLIDE.word(),
                    body,
                })
            }
            Task::Setup | Task::Take(_) => {
                Err("it gave a table in a call that makes no rows".into())
            }
        }
    }

    fn skip(&self, row: u32, reason: &str) -> Result<(), String> {
        match &mut self.telling()?.task {
            Task::Rows(rows) => rows.outcomes.skipped(row, reason),
            _ => Err(no_input("skip")),
        }
    }

    fn fail_row(&self, row: u32, said: Said) -> Result<(), String> {
        match &mut self.telling()?.task {
            Task::Rows(rows) => rows.outcomes.failed(row, said),
            _ => Err(no_input("fail_row")),
        }
    }

    fn complete(&self, said: Status) {
        At::complete(self, said);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::batch::task::Rows;
    use crate::call::Call;
    use crate::outcomes::{Outcome, Outcomes};
    use crate::who::Who;
    use std::ffi::c_void;
    use weir_abi::status;
    use weir_pipeline::Kind;
    use weir_record::{
        Attention, Body, Feature, Key, Scores, SlideId, SlideInfo, SlideKey, Table, TileBuf,
    };

    /// A map of tiles of 4 px: a call with two of them, and where their pixels lie.
    fn call() -> (Call<'static>, *const Batch, Vec<*const u8>) {
        call_of(Kind::Pixels, vec![4, 4, 3])
    }

    /// The same of a map to something else.
    fn call_of(kind: Kind, shape: Vec<u64>) -> (Call<'static>, *const Batch, Vec<*const u8>) {
        let info = SlideInfo::unopened("a".into(), SlideKey(1), "a.svs".into());
        let info: &'static Arc<SlideInfo> = Box::leak(Box::new(Arc::new(info)));
        let values = (0..2).map(|i| {
            let pixels = vec![i as u8; TileBuf::bytes(4, 4)];
            let tile = TileBuf::new(4, 4, pixels.into(), None).unwrap();
            let key = Key {
                slide: SlideId::new(0, 0),
                tile: TileId::new(0, 0, i, 0).unwrap(),
                rev: 0,
            };
            (key, Body::Pixels(Arc::new(tile)))
        });
        let values: &'static [_] = values.collect::<Vec<_>>().leak();
        let lie = values.iter().map(|(_, body)| match body {
            Body::Pixels(tile) => tile.pixels().as_ptr(),
            _ => std::ptr::null(),
        });
        let output = Output {
            name: "tiles".into(),
            kind,
            shape,
            classes: Vec::new(),
            format: "probe.same/1".into(),
        };
        let mut outcomes = Outcomes::on(1, false);
        outcomes.reset(2);
        let rows = values.iter().map(|(key, body)| (*key, body, info));
        // SAFETY: the values are never freed.
        let input = unsafe { HostBatch::input(rows, 0) }.unwrap().placed();
        let batch = input.as_ptr();
        let rows = Rows {
            input,
            outputs: [output].into(),
            fitting: 0,
            leases: Vec::new(),
            made: Default::default(),
            drafts: Vec::new(),
            outcomes,
        };
        let who = Arc::new(Who::plugin("probe", &semver::Version::new(1, 0, 0)));
        let who = Box::leak(Box::new(who));
        (
            Call::new(who, Task::Rows(Box::new(rows))),
            batch,
            lie.collect(),
        )
    }

    /// Where the rows of a batch's first column lie.
    fn rows(batch: *const Batch) -> Vec<*const u8> {
        // SAFETY: a batch of the host's, which lives.
        let (column, n) = unsafe { (&*(*batch).columns, (*batch).n_rows as usize) };
        // SAFETY: the column has a pointer a row.
        let rows: &[*mut c_void] = unsafe { std::slice::from_raw_parts(column.rows, n) };
        rows.iter()
            .map(|row| row.cast::<u8>().cast_const())
            .collect()
    }

    fn made(call: Call) -> Vec<*const u8> {
        let Ok(Task::Rows(mut rows)) = call.end(status::OK) else {
            panic!("the call failed");
        };
        let all = rows.outcomes.take().map(|(.., outcome)| match outcome {
            Outcome::Made(Body::Pixels(tile)) => tile.pixels().as_ptr(),
            _ => std::ptr::null(),
        });
        all.collect()
    }

    #[test]
    fn tiles_cross_the_border_both_ways_without_a_copy() {
        let (call, input, lie) = call();
        assert_eq!(rows(input), lie);
        let batch = call.batch_new(0, &[0, 1]).unwrap();
        let written = rows(batch);
        // SAFETY: the batch is the plugin's to give up.
        unsafe { Desk::emit(&*call, 0, batch) }.unwrap();
        assert_eq!(made(call), written);
    }

    #[test]
    fn values_of_every_kind_are_shown_where_they_lie() {
        let feature = Arc::new(Feature::new(vec![1.0, 2.0], None));
        let scores = Arc::new(Scores {
            score: 0.5,
            probabilities: vec![0.5, 0.5],
        });
        let attention = Arc::new(Attention {
            logit: 0.0,
            weight: 0.0,
            contribution: 0.0,
            leave_one_out: 0.0,
            class: 0,
        });
        let table = Arc::new(Table {
            format: "probe.same/1".into(),
            bytes: vec![1, 2, 3],
        });
        fn at<T>(of: &T) -> *const u8 {
            std::ptr::from_ref(of).cast()
        }
        for (body, lies) in [
            (Body::Feature(feature.clone()), vec![at(&feature[0])]),
            (
                Body::Score(scores.clone()),
                vec![at(&scores.score), at(&scores.probabilities[0])],
            ),
            (
                Body::Attention(attention.clone()),
                vec![
                    at(&attention.logit),
                    at(&attention.weight),
                    at(&attention.contribution),
                    at(&attention.leave_one_out),
                ],
            ),
            (Body::Ext(table.clone()), vec![at(&table.bytes[0])]),
        ] {
            let info = Arc::new(SlideInfo::unopened("a".into(), SlideKey(1), "a".into()));
            let key = Key {
                slide: SlideId::new(0, 0),
                tile: TileId::new(0, 0, 0, 0).unwrap(),
                rev: 0,
            };
            // SAFETY: the value outlives the batch.
            let input = unsafe { HostBatch::input([(key, &body, &info)].into_iter(), 2) }.unwrap();
            let input = Arc::new(input);
            let batch = input.as_ptr();
            // SAFETY: a batch of the host's, which lives, and has as many columns as it says.
            let columns = unsafe {
                std::slice::from_raw_parts((*batch).columns, (*batch).n_columns as usize)
            };
            // SAFETY: a column has a pointer a row, and there is one row.
            let shown = columns.iter().map(|column| unsafe { *column.rows });
            let shown: Vec<*const u8> = shown.map(|row| row.cast::<u8>().cast_const()).collect();
            assert_eq!(shown, lies, "{body:?}");
        }
    }

    #[test]
    fn a_vector_that_a_plugin_made_is_the_rows_own_without_a_copy() {
        let (call, ..) = call_of(Kind::Features, vec![3]);
        let batch = call.batch_new(0, &[0, 1]).unwrap();
        let written = rows(batch);
        // SAFETY: the batch is the plugin's to give up.
        unsafe { Desk::emit(&*call, 0, batch) }.unwrap();
        let Ok(Task::Rows(mut of)) = call.end(status::OK) else {
            panic!("the call failed");
        };
        let made: Vec<*const u8> = of
            .outcomes
            .take()
            .map(|(.., outcome)| match outcome {
                Outcome::Made(Body::Feature(feature)) => feature.as_ptr().cast(),
                _ => std::ptr::null(),
            })
            .collect();
        assert_eq!(made, written);
    }

    #[test]
    fn a_batch_that_was_only_lent_is_neither_emitted_nor_released() {
        let (call, input, lie) = call();
        // SAFETY: a batch of the host's, which lives.
        call.inside(|_| unsafe {
            assert_eq!(Desk::emit(&*call, 0, input.cast_mut()), Err(LENT.into()));
            At::release(input);
        });
        assert_eq!(rows(input), lie);
        let said = call.close(status::OK);
        assert!(said.what.contains("released a batch"), "{said:?}");
        // One that was retained is released once.
        let (call, input, _) = self::call();
        // SAFETY: as above.
        call.inside(|_| unsafe {
            At::retain(input);
            At::release(input);
        });
        call.pass(0, &[0, 1]).unwrap();
        assert!(call.end(status::OK).is_ok());
    }

    #[test]
    fn an_input_whose_call_is_over_is_not_held_on_to() {
        let (call, input, _) = call();
        // SAFETY: a batch of the host's, which lives.
        call.inside(|_| unsafe { At::retain(input) });
        let Ok(Task::Rows(rows)) = call.end(status::OK) else {
            panic!("the call failed");
        };
        assert_eq!(Arc::strong_count(&rows.input), 2);
        // SAFETY: as above; the reference is the plugin's.
        unsafe { At::retain(input) };
        assert_eq!(Arc::strong_count(&rows.input), 3);
        for left in [2, 1, 1] {
            // SAFETY: as above.
            unsafe { At::release(input) };
            assert_eq!(Arc::strong_count(&rows.input), left);
        }
        // SAFETY: as above.
        unsafe { At::retain(input) };
        assert_eq!(Arc::strong_count(&rows.input), 1);
        drop(rows);
        // SAFETY: nothing is read at an address where no batch is.
        unsafe {
            At::retain(input);
            At::release(input);
        }
    }

    #[test]
    fn a_row_is_asked_for_once_and_a_call_that_is_over_gives_nothing() {
        let (call, ..) = call();
        let batch = call.batch_new(0, &[1]).unwrap();
        assert!(call.batch_new(0, &[0, 1]).is_err());
        // SAFETY: the batch is the plugin's to give up.
        unsafe { At::release(batch) };
        let late = call.at();
        drop(call);
        assert!(late.batch_new(0, &[0]).is_err());
        assert!(late.pass(0, &[0]).is_err());
        assert!(late.cancelled());
        late.complete(status::OK);
        late.fail(Said::default());
    }
}
