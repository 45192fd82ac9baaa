//! A plugin's slide reader whose code is in processes of its own.
//!
//! A process reads one region at a time, so a reader has as many of them as there are processors, and opens each handle in the one
//! that has the fewest. When one ends, the read that ended it fails, with how and where; every other handle that it had is opened
//! again, in another, by the next read from it.

use crate::call::{Call, CallError, GONE, next_number};
use crate::isolate::cradle::Cradle;
use crate::isolate::found::read_found;
use crate::isolate::line::Line;
use crate::isolate::message::Op;
use crate::isolate::remote::Remote;
use crate::isolate::{Isolated, most_processes};
use crate::manifest;
use crate::reader::{absolute, broken, check_room, error};
use crate::who::Who;
use crate::wire::{Garbage, Reader, Writer};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use weir_abi::reader::SPOILS;
use weir_abi::status;
use weir_record::Budget;
use weir_slide::leveled::{Found, Handle, Handles, LeveledSlide};
use weir_slide::{OpenOptions, Opener, SlideError, SlideReader};

/// A reader.
pub(crate) struct IsolatedReader {
    about: manifest::Reader,
    house: Arc<House>,
}

/// The processes of a reader.
struct House {
    cradle: Arc<Cradle>,
    who: Arc<Who>,
    processes: Mutex<Processes>,
    /// A process was started, or could not be.
    started: Condvar,
    /// No more of them.
    most: usize,
    /// Of its table; known once a process was started.
    flags: AtomicU32,
}

/// Those that live, and how many are being started.
#[derive(Default)]
struct Processes {
    live: Vec<Arc<Remote>>,
    starting: usize,
}

impl IsolatedReader {
    pub fn new(isolated: &Isolated, about: &manifest::Reader, who: Arc<Who>) -> IsolatedReader {
        let cradle = Cradle::of_reader(isolated, &about.id);
        IsolatedReader {
            about: about.clone(),
            house: Arc::new(House {
                cradle: Arc::new(cradle),
                who,
                processes: Mutex::default(),
                started: Condvar::new(),
                most: most_processes() as usize,
                flags: AtomicU32::new(0),
            }),
        }
    }
}

impl House {
    /// A process that lives: the one with the fewest open handles. `free`: rather a new one than one that has any.
    fn process(&self, free: bool) -> Result<Arc<Remote>, CallError> {
        let mut processes = self.processes();
        loop {
            processes.live.retain(|process| !process.has_ended());
            let full = processes.live.len() + processes.starting >= self.most;
            // Each handle holds its process.
            let fewest = processes
                .live
                .iter()
                .min_by_key(|process| Arc::strong_count(process));
            if let Some(fewest) = fewest
                && (!free || Arc::strong_count(fewest) == 1 || full)
            {
                return Ok(fewest.clone());
            }
            // Of those that are being started one is soon there, or none.
            if processes.starting == 0 || (free && !full) {
                break;
            }
            processes = self
                .started
                .wait(processes)
                .unwrap_or_else(PoisonError::into_inner);
        }
        // Its place is kept while it is started: that takes as long as the plugin takes to load, and others read meanwhile.
        processes.starting += 1;
        drop(processes);
        let started = self.cradle.start_reader(&self.who);
        let mut processes = self.processes();
        processes.starting -= 1;
        self.started.notify_all();
        let (process, flags) = started?;
        self.flags.store(flags, Ordering::SeqCst);
        processes.live.push(process.clone());
        Ok(process)
    }

    fn processes(&self) -> MutexGuard<'_, Processes> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opener for IsolatedReader {
    fn id(&self) -> &str {
        &self.about.id
    }

    fn extensions(&self) -> &[String] {
        &self.about.extensions
    }

    fn sniff(&self, path: &Path, head: &[u8], options: &OpenOptions) -> Result<i32, SlideError> {
        let Some(shown) = path.to_str() else {
            return Ok(0);
        };
        let failed = |said| error(shown, said);
        let call = Call::setup(&self.house.who);
        let write = |out: &mut Writer| {
            out.text(shown);
            out.bytes(head);
        };
        let place = || format!("while it looked at {shown}");
        let timeout = options.timeout.unwrap_or(self.house.cradle.timeout);
        let (said, given) = loop {
            let process = self.house.process(false).map_err(failed)?;
            let line = process.line();
            if process.is_gone() {
                // A read of another slide ended it while this one waited.
                continue;
            }
            let (said, given, line) =
                process.plain_on(line, &call, Op::Sniff, timeout, write, &place);
            drop(line);
            break (said, given);
        };
        call.end(said).map_err(failed)?;
        Reader(&given).i32().map_err(|garbage| {
            broken(
                &self.house.who,
                shown,
                &format!("its process sent {}", garbage.0),
            )
        })
    }

    fn open(&self, path: &Path, options: &OpenOptions) -> Result<Arc<dyn SlideReader>, SlideError> {
        let handles = Arc::new(IsolatedSlide {
            house: self.house.clone(),
            number: next_number(),
            shown: path.display().to_string(),
            path: absolute(path)?,
            timeout: options.timeout.unwrap_or(self.house.cradle.timeout),
            budget: options.budget.clone(),
        });
        Ok(Arc::new(LeveledSlide::open(
            &self.about.id,
            path,
            options,
            handles,
        )?))
    }
}

/// A slide of the reader.
#[derive(Clone)]
struct IsolatedSlide {
    house: Arc<House>,
    /// That no other slide has.
    number: u64,
    /// As the user named it.
    shown: String,
    path: String,
    /// How long a call may take.
    timeout: Duration,
    /// Of the run that reads the slide.
    budget: Option<Budget>,
}

impl IsolatedSlide {
    /// The line to one of the house's processes. What it shares from here on is missing in the run's budget: a house is of one run.
    fn line<'a>(&self, remote: &'a Remote) -> MutexGuard<'a, Line> {
        let mut line = remote.line();
        if line.budget.is_none() {
            line.budget.clone_from(&self.budget);
        }
        line
    }

    fn error(&self, said: CallError) -> SlideError {
        error(&self.shown, said)
    }

    fn broken(&self, what: &str) -> SlideError {
        broken(&self.house.who, &self.shown, what)
    }

    /// Fails where nothing more of the slide is asked.
    fn still_asked(&self) -> Result<(), SlideError> {
        let (cradle, who) = (&self.house.cradle, &self.house.who);
        match cradle.given_up.why(self.number) {
            Some(why) => {
                let said = cradle.asks_no_more(who, &self.shown, why);
                Err(self.error(CallError::of(status::FAIL, said)))
            }
            None => Ok(()),
        }
    }

    /// Opens the slide in a process; `about`: for what is to be read there, if that is known.
    fn opened(&self, about: Option<&dyn Fn() -> String>) -> Result<Opened, SlideError> {
        self.still_asked()?;
        let call = Call::setup(&self.house.who);
        let place = || format!("while {} was opened", self.shown);
        let (remote, said, given) = loop {
            let process = self.house.process(true);
            let remote = process.map_err(|said| self.error(said))?;
            let line = self.line(&remote);
            if remote.is_gone() {
                // Another handle's read ended it while this one waited.
                continue;
            }
            let write = |out: &mut Writer| out.text(&self.path);
            let began = Instant::now();
            let (said, given, line) =
                remote.plain_on(line, &call, Op::OpenFile, self.timeout, write, &place);
            drop(line);
            if said == GONE {
                let about = about.map(|about| about());
                remote.was_lost(&call, (self.number, &self.shown), about, began);
            }
            break (remote, said, given);
        };
        // Also where the call broke a rule: then it is closed.
        let opened = match (said, Reader(&given).u64()) {
            (status::OK, Ok(number)) => Some(Opened {
                remote,
                number,
                panicked: false,
            }),
            _ => None,
        };
        call.end(said).map_err(|said| self.error(said))?;
        opened.ok_or_else(|| self.broken("its process opened nothing"))
    }
}

impl Handles for IsolatedSlide {
    fn open(&self) -> Result<Arc<dyn Handle>, SlideError> {
        Ok(Arc::new(IsolatedHandle {
            of: self.clone(),
            opened: Mutex::new(Some(self.opened(None)?)),
        }))
    }

    fn parallel(&self) -> bool {
        // A process does one thing at a time.
        false
    }

    fn spoils(&self) -> bool {
        self.house.flags.load(Ordering::SeqCst) & SPOILS != 0
    }
}

/// An open file in a process.
struct Opened {
    remote: Arc<Remote>,
    number: u64,
    /// A function of it did, so its state may be anything: it is used no more, and not closed either.
    panicked: bool,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if self.remote.is_gone() || self.panicked {
            return;
        }
        let call = Call::setup(&self.remote.who);
        let place = || "while a file was closed".to_owned();
        let write = |out: &mut Writer| out.u64(self.number);
        self.remote.plain(&call, Op::CloseFile, write, &place);
    }
}

/// A handle: the slide, opened in a process, and again in another when that one is gone.
struct IsolatedHandle {
    of: IsolatedSlide,
    opened: Mutex<Option<Opened>>,
}

impl IsolatedHandle {
    /// A call, whose answer `take` gets, with the line as it must stay while it is read.
    fn ask<T>(
        &self,
        op: Op,
        write: &dyn Fn(&mut Writer),
        place: &dyn Fn() -> String,
        take: impl FnOnce(&[u8], &Line) -> Result<T, Garbage>,
    ) -> Result<T, SlideError> {
        let of = &self.of;
        let mut own = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            of.still_asked()?;
            let opened = match own.take() {
                Some(opened) if !opened.remote.is_gone() => opened,
                _ => of.opened(Some(place))?,
            };
            let opened = own.insert(opened);
            let (remote, number) = (opened.remote.clone(), opened.number);
            let line = self.of.line(&remote);
            if remote.is_gone() {
                // Another handle's read ended it while this one waited.
                continue;
            }
            let call = Call::setup(&remote.who);
            let write = |out: &mut Writer| {
                out.u64(number);
                write(out);
            };
            let began = Instant::now();
            let (said, given, line) = remote.plain_on(line, &call, op, of.timeout, write, place);
            match said {
                GONE => remote.was_lost(&call, (of.number, &of.shown), Some(place()), began),
                _ => of.house.cradle.given_up.back([of.number].into_iter()),
            }
            let taken = line.as_ref().map(|line| match said {
                status::OK => Some(take(&given, line)),
                _ => None,
            });
            drop(line);
            match said {
                status::PANIC => {
                    if let Some(mut opened) = own.take() {
                        opened.panicked = true;
                    }
                }
                GONE => drop(own.take()),
                _ => {}
            }
            call.end(said).map_err(|said| self.of.error(said))?;
            return match taken.flatten() {
                Some(Ok(taken)) => Ok(taken),
                Some(Err(garbage)) => {
                    Err(self.of.broken(&format!("its process sent {}", garbage.0)))
                }
                None => Err(self.of.broken("its process gave nothing")),
            };
        }
    }

    /// Pixels that the process made, row by row to `into`.
    fn pixels(
        &self,
        op: Op,
        write: &dyn Fn(&mut Writer),
        place: &dyn Fn() -> String,
        (width, height): (u32, u32),
        (into, pitch): (&mut [u8], usize),
    ) -> Result<(), SlideError> {
        let row = width as usize * 3;
        let bytes = row * height as usize;
        self.ask(op, write, place, |given, line| {
            let mut given = Reader(given);
            let (memory, at) = (given.u32()? as usize, given.u64()?);
            let from = line
                .made
                .get(memory)
                .and_then(|memory| memory.at(at, bytes));
            let from = from.ok_or(Garbage("memory that is no region"))?;
            if bytes == 0 {
                return Ok(());
            }
            for (number, to) in into.chunks_mut(pitch).take(height as usize).enumerate() {
                // SAFETY: `bytes` bytes of a mapping that nobody can shrink, and `to` has a whole row. The child may still write
                // there: then the copy holds some of each.
                unsafe {
                    let from = from.add(number * row).cast_const();
                    std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), row);
                }
            }
            Ok(())
        })
    }
}

impl Handle for IsolatedHandle {
    fn found(&self) -> Result<Found, SlideError> {
        let place = || format!("while it described {}", self.of.shown);
        self.ask(Op::Info, &|_| (), &place, |given, _| {
            read_found(&mut Reader(given))
        })
    }

    fn read_region(
        &self,
        level: u32,
        (x, y): (u32, u32),
        (width, height): (u32, u32),
        into: &mut [u8],
        pitch: usize,
    ) -> Result<(), SlideError> {
        check_room(into, pitch, (width, height));
        let write = |out: &mut Writer| {
            out.u32(level);
            out.i64(x.into());
            out.i64(y.into());
            out.u32(width);
            out.u32(height);
        };
        let place = || {
            let path = &self.of.shown;
            format!("at {path}, level {level}, {width} x {height} px from ({x}, {y})")
        };
        self.pixels(Op::Region, &write, &place, (width, height), (into, pitch))
    }

    fn picture(
        &self,
        index: usize,
        (width, height): (u32, u32),
        into: &mut [u8],
    ) -> Result<(), SlideError> {
        let pitch = width as usize * 3;
        check_room(into, pitch, (width, height));
        let write = |out: &mut Writer| {
            out.u32(index as u32);
            out.u32(width);
            out.u32(height);
        };
        let place = || format!("at picture {index} of {}", self.of.shown);
        self.pixels(Op::Picture, &write, &place, (width, height), (into, pitch))
    }
}
