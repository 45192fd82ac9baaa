//! What a child process is asked, one call after the other.

use super::batch::{Lot, Memories, Slides};
use super::blocks::Block;
use super::call::{ChildCall, Task, World};
use super::handles::Handles;
use super::offer::HOST;
use super::reader::Reading;
use super::{Never, over};
use crate::batch::live::Noted;
use crate::isolate::answer::{Answer, Deed};
use crate::isolate::channel::{ANSWER, CALL, Forever, INPUT, LONGEST, Lost};
use crate::isolate::memory::Mapping;
use crate::isolate::message::{Make, Op, ROW, read_row, read_slide, write_slide};
use crate::load::Loaded;
use crate::wire::{Garbage, Reader, Writer};
use std::ffi::c_void;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use weir_abi::row::Slide;
use weir_abi::stage::{Stage, Step};
use weir_abi::status::{self, Status};

/// The instance, or the reader, and what it is asked.
pub(super) struct Server {
    world: Arc<World>,
    loaded: &'static Loaded,
    /// What the instance is of; without functions before one is made.
    stage: Stage,
    me: *mut c_void,
    reading: Option<Reading>,
    memories: Memories,
    /// Open slides of a source.
    open: Handles,
    /// The last call and what it used: the host reads of it until it asks for the next.
    last: Option<(Arc<ChildCall>, Vec<Block>)>,
}

/// What a call answers: its status, and what it gives beside it.
pub(super) type Spoken = (Status, Writer);

/// An answer as it is sent. What the plugin gave back may be longer than any answer: then the host hears of that instead.
fn told(answer: Answer, longest: usize) -> Writer {
    let n = answer.given.len();
    let whole = answer.write();
    if whole.0.len() <= longest {
        return whole;
    }
    let mut deeds = Writer::default();
    let what = format!(
        "it gave back {n} bytes of texts, and a plugin in a process of its own can hand over no more than {longest} at once"
    );
    Deed::Breach(what).write(&mut deeds);
    Answer {
        status: status::USE,
        deeds: deeds.0,
        given: Vec::new(),
        ..answer
    }
    .write()
}

impl Server {
    pub fn new(loaded: &'static Loaded, world: Arc<World>) -> Server {
        Server {
            world,
            loaded,
            stage: Stage::EMPTY,
            me: std::ptr::null_mut(),
            reading: None,
            memories: Memories::default(),
            open: Handles::default(),
            last: None,
        }
    }

    /// Does what the host asks for.
    pub fn serve(&mut self) -> Result<Never, Lost> {
        loop {
            let (frame, mut fds) = {
                let mut receiver = self
                    .world
                    .receiver
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                let frame = receiver.recv(&mut Forever)?;
                let fds: Vec<OwnedFd> = match frame.kind {
                    INPUT | CALL => std::iter::from_fn(|| receiver.fd()).collect(),
                    _ => Vec::new(),
                };
                (frame, fds)
            };
            self.last = None;
            self.world.forget();
            let mut body = Reader(&frame.body);
            match frame.kind {
                INPUT => {
                    let memory = fds.pop().ok_or(Lost::Garbage("no memory for an input"))?;
                    let len = usize::try_from(body.u64()?).unwrap_or(0);
                    let mapping = Mapping::new(memory, len, false).map_err(Lost::System)?;
                    self.memories.copied = Some(Arc::new(mapping));
                }
                CALL => {
                    let (number, op) = (body.u64()?, Op::of(body.u8()?)?);
                    let answer = match op {
                        Op::Process => self.process(number, &mut body)?,
                        Op::Make => self.make(&mut body, &fds)?,
                        _ => self.answer(op, &mut body)?,
                    };
                    let answer = Answer {
                        number,
                        released: self.memories.released(),
                        ..answer
                    };
                    let unmade = matches!(op, Op::Make | Op::Reader) && answer.status != status::OK;
                    self.world.send(ANSWER, told(answer, LONGEST))?;
                    if op == Op::Destroy || unmade {
                        over();
                    }
                }
                _ => return Err(Lost::Garbage("what is no call")),
            }
        }
    }

    /// Makes the instance.
    fn make(&mut self, from: &mut Reader, arena: &[OwnedFd]) -> Result<Answer, Lost> {
        let (make, parameters, size) = Make::read(from)?;
        if !arena.is_empty() {
            let size = usize::try_from(size).unwrap_or(0);
            let mapping = Mapping::of_all(arena, size).map_err(Lost::System)?;
            self.memories.shown = Some(Arc::new(mapping));
        }
        let call = ChildCall::new(&self.world, Task::Setup);
        let Some(stage) = self.loaded.stage(&make.id).copied() else {
            let said = call.breach(format!("it has no stage `{}`", make.id));
            return Ok(call.end(said, Writer::default()));
        };
        if self.world.make.set(make).is_err() {
            return Err(Lost::Garbage("a second instance"));
        }
        let values = parameters.as_slice();
        let said = match stage.create {
            // SAFETY: as the header says: host, call and values live through the call.
            Some(create) => unsafe {
                create(
                    &HOST,
                    call.as_ptr(),
                    values.as_ptr(),
                    values.len() as u32,
                    &mut self.me,
                )
            },
            None => status::UNSUPPORTED,
        };
        self.stage = stage;
        let mut given = Writer::default();
        given.u8(u8::from(stage.finish.is_some()));
        Ok(call.end(said, given))
    }

    fn answer(&mut self, op: Op, from: &mut Reader) -> Result<Answer, Lost> {
        let mut slides = None;
        if op == Op::Complete {
            slides = Some(Arc::new(Slides::new(vec![read_slide(from)?])));
        }
        let task = match &slides {
            Some(slides) => Task::Slide(slides.clone()),
            None => Task::Setup,
        };
        let call = ChildCall::new(&self.world, task);
        let mut blocks = Vec::new();
        let (said, given) = match op {
            Op::Slide | Op::Open | Op::Next | Op::Read | Op::Close => {
                self.source(op, from, &call, &mut blocks)?
            }
            Op::Reader => {
                let (reading, said, given) = Reading::new(self.loaded, &from.text()?, &call);
                self.reading = reading;
                (said, given)
            }
            Op::Sniff | Op::OpenFile | Op::Info | Op::Region | Op::Picture | Op::CloseFile => {
                let reading = self.reading.as_mut().ok_or(Lost::Garbage("no reader"))?;
                reading.answer(op, from, &call, &mut blocks)?
            }
            _ => (
                self.plain(op, from, &call, slides.as_deref())?,
                Writer::default(),
            ),
        };
        let answer = call.end(said, given);
        self.last = Some((call, blocks));
        Ok(answer)
    }

    fn process(&mut self, number: u64, from: &mut Reader) -> Result<Answer, Lost> {
        let (port, makes) = (from.u32()?, from.u8()? != 0);
        let input = Lot::read(from, &self.memories, number)?.placed();
        let task = match makes {
            true => Task::Rows(input.clone(), Mutex::default()),
            false => Task::Take(input.clone()),
        };
        let call = ChildCall::new(&self.world, task);
        input.references().belongs_to(call.number);
        let mut said = match self.stage.process {
            // SAFETY: as the header says: the batch lives at least as long as the call.
            Some(process) => unsafe { process(self.me, call.as_ptr(), port, input.as_ptr()) },
            None => status::UNSUPPORTED,
        };
        if said == status::PENDING {
            said = call.wait(|| {
                if let Some(cancel) = self.stage.cancel {
                    // SAFETY: the instance lives, and `cancel` may be called from any thread.
                    unsafe { cancel(self.me) }
                }
            });
        }
        let mut answer = call.end(said, Writer::default());
        // One is ours, one the call's.
        answer.kept = Arc::strong_count(&input) > 2;
        if answer.kept && input.keep() {
            // The host copies to other memory for the next one.
            self.memories.copied = None;
        }
        self.last = Some((call, Vec::new()));
        Ok(answer)
    }

    /// Calls that give nothing but a status.
    fn plain(
        &mut self,
        op: Op,
        from: &mut Reader,
        call: &Arc<ChildCall>,
        slides: Option<&Slides>,
    ) -> Result<Status, Garbage> {
        let (me, call) = (self.me, call.as_ptr());
        Ok(match op {
            Op::Remove => {
                let (port, rows) = (from.u32()?, from.list::<ROW, _>(read_row)?);
                match self.stage.remove {
                    // SAFETY: as the header says: the rows live through the call.
                    Some(remove) => unsafe {
                        remove(me, call, port, rows.as_ptr(), rows.len() as u32)
                    },
                    None => status::UNSUPPORTED,
                }
            }
            Op::Complete => {
                let (rev, end) = (from.u32()?, from.u32()?);
                match (self.stage.complete_slide, slides.and_then(Slides::first)) {
                    // SAFETY: as the header says: the slide and its texts live through the call.
                    (Some(complete), Some(about)) => unsafe { complete(me, call, about, rev, end) },
                    _ => status::UNSUPPORTED,
                }
            }
            Op::CloseSlide => {
                if let Some(close) = self.stage.close_slide {
                    // SAFETY: as the header says.
                    unsafe { close(me, from.u64()?) }
                }
                status::OK
            }
            Op::Finish => match self.stage.finish {
                // SAFETY: as the header says.
                Some(finish) => unsafe { finish(me, call) },
                None => status::OK,
            },
            Op::Destroy => {
                if let Some(reading) = &mut self.reading {
                    reading.close_all();
                }
                for slide in self.open.take_all() {
                    self.close(slide);
                }
                if let Some(destroy) = self.stage.destroy {
                    // SAFETY: `create` made it, and no call is in flight.
                    unsafe { destroy(me) }
                }
                status::OK
            }
            _ => status::UNSUPPORTED,
        })
    }

    /// Calls of a source.
    fn source(
        &mut self,
        op: Op,
        from: &mut Reader,
        call: &Arc<ChildCall>,
        blocks: &mut Vec<Block>,
    ) -> Result<Spoken, Garbage> {
        let (me, call_) = (self.me, call.as_ptr());
        let number = from.u64()?;
        let handle = self.open.get(number);
        let mut given = Writer::default();
        let mut about = Slide {
            struct_size: size_of::<Slide>() as u32,
            ..Slide::default()
        };
        let said = match (op, handle) {
            (Op::Slide, _) => {
                let said = match self.stage.slide {
                    // SAFETY: as the header says; `about` is a place for a slide.
                    Some(slide) => unsafe { slide(me, call_, number, &mut about) },
                    None => status::UNSUPPORTED,
                };
                // SAFETY: the plugin's texts live until its next call.
                unsafe { write_slide(&mut given, &about) }
                said
            }
            (Op::Open, _) => {
                let mut handle = std::ptr::null_mut();
                let said = match self.stage.open {
                    // SAFETY: as the header says; both places are this call's.
                    Some(open) => unsafe {
                        open(
                            me,
                            call_,
                            number,
                            std::ptr::null_mut(),
                            &mut about,
                            &mut handle,
                        )
                    },
                    None => status::UNSUPPORTED,
                };
                given.u64(self.open.opened(said, handle));
                // SAFETY: as above.
                unsafe { write_slide(&mut given, &about) }
                said
            }
            (Op::Next, Some(handle)) => {
                let mut step = Step {
                    struct_size: size_of::<Step>() as u32,
                    ..Step::default()
                };
                let said = match self.stage.next {
                    // SAFETY: as the header says; `step` is a place for a step.
                    Some(next) => unsafe { next(handle, call_, &mut step) },
                    None => status::UNSUPPORTED,
                };
                given.u32(step.kind);
                given.i64(step.x);
                given.i64(step.y);
                given.u32(step.width);
                given.u32(step.height);
                said
            }
            (Op::Read, Some(handle)) => {
                let row = read_row(from)?;
                let bytes =
                    usize::try_from(from.u64()?).map_err(|_| Garbage("a tile without end"))?;
                let taken = self.world.blocks.take(bytes, 1, |n| self.world.more(n));
                match (taken, self.stage.read) {
                    (Ok(taken), Some(read)) => {
                        let (into, spot) = taken[0].place(0);
                        given.u32(spot.memory);
                        given.u64(spot.at);
                        blocks.extend(taken);
                        // SAFETY: as the header says: row and memory live through the call.
                        unsafe { read(handle, call_, &row, into, bytes) }
                    }
                    (Err(what), _) => call.breach(what),
                    (_, None) => status::UNSUPPORTED,
                }
            }
            (Op::Close, Some(handle)) => {
                self.open.take(number);
                self.close(handle);
                status::OK
            }
            _ => status::UNSUPPORTED,
        };
        if matches!(op, Op::Next | Op::Read) {
            self.open.heard(number, said);
        }
        Ok((said, given))
    }

    /// Closes a slide of a source.
    fn close(&self, slide: *mut c_void) {
        if let Some(close) = self.stage.close {
            // SAFETY: it is open, no call of it is in flight, and none will follow.
            unsafe { close(slide) }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_answer_that_is_too_long_says_so_instead() {
        let answer = |n| Answer {
            number: 7,
            given: vec![1; n],
            ..Answer::default()
        };
        assert_eq!(
            Answer::read(told(answer(100), 200).0).unwrap().given.len(),
            100
        );
        let short = told(answer(200), 200);
        assert!(short.0.len() <= 200);
        let short = Answer::read(short.0).unwrap();
        assert_eq!(
            (short.number, short.status, short.given.len()),
            (7, status::USE, 0)
        );
        let deed = Deed::read(&mut Reader(&short.deeds)).unwrap();
        assert!(
            matches!(&deed, Deed::Breach(what) if what.contains("200 bytes of texts")),
            "{deed:?}"
        );
    }
}
