//! The child process of a plugin that is isolated.
//!
//! It loads the plugin from the sealed memory that the host hashed, makes one instance of one stage, and then does what the host
//! asks for, one call after the other, until the host wants no more of it or is gone. What of it the host believes is the host's
//! affair ([`isolate`](crate::isolate)).

mod batch;
mod blocks;
mod call;
mod offer;

use crate::admit::{Admitted, Ask, Policy};
use crate::call::Said;
use crate::describe::Described;
use crate::file::PluginFile;
use crate::isolate::channel::{ANSWER, CALL, Forever, HELLO, INPUT, Lost, Receiver, Sender};
use crate::isolate::memory::{Mapping, PAGE};
use crate::isolate::message::{Answer, Deed, Hello, Op, ROW, read_row, read_slide, write_slide};
use crate::isolate::wire::{Garbage, Reader, Writer};
use crate::load::Loaded;
use crate::parameters::Parameters;
use crate::refusal::Refusal;
use batch::{Lot, Slides};
use blocks::Block;
use call::{ChildCall, Task, World};
use offer::HOST;
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use std::collections::HashMap;
use std::ffi::c_void;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use weir_abi::plugin::Plugin;
use weir_abi::row::Slide;
use weir_abi::stage::{Stage, Step};
use weir_abi::status::{self, Status};

/// Runs a plugin for the process at the other end of standard input, which must be a socket; returns only to say why it cannot.
pub fn main() -> String {
    match start() {
        Ok(never) => match never {},
        Err(Lost::Closed) => over(),
        Err(Lost::Garbage(what)) => format!("plugin-host: the host sent {what}"),
        Err(Lost::System(rustix::io::Errno::NOTSOCK)) => {
            "plugin-host is started by weir itself, for plugins that say `isolate = true`".into()
        }
        Err(error) => format!("plugin-host: {error:?}"),
    }
}

enum Never {}

/// Ends the process at once. Threads that a plugin left behind may still use what would be torn down otherwise.
fn over() -> ! {
    // SAFETY: no memory of this process is used by it any more.
    unsafe { libc::_exit(0) }
}

fn start() -> Result<Never, Lost> {
    let system = Lost::System;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(system)?;
    rustix::thread::set_no_new_privs(true).map_err(system)?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(system)?;
    // The socket is nobody else's: what a plugin reads from standard input is nothing.
    let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).map_err(system)?;
    let nothing = File::open("/dev/null").map_err(|_| Lost::Garbage("no /dev/null"))?;
    rustix::stdio::dup2_stdin(&nothing).map_err(system)?;
    drop(nothing);
    let socket = Arc::new(socket);
    let (sender, mut receiver) = (Sender(socket.clone()), Receiver::new(socket));
    let frame = receiver.recv(&mut Forever)?;
    if frame.kind != HELLO {
        return Err(Lost::Garbage("no greeting"));
    }
    let (hello, parameters) = Hello::read(&frame.body)?;
    let (Some(sealed), Some(flag)) = (receiver.fd(), receiver.fd()) else {
        return Err(Lost::Garbage("a greeting without a plugin"));
    };
    let world = Arc::new(World {
        sender: Mutex::new(sender),
        receiver: Mutex::new(receiver),
        flag: Mapping::new(flag, PAGE, false).map_err(system)?,
        outputs: hello.outputs.clone(),
        folder: hello.folder.clone(),
        blocks: Arc::default(),
        open: Mutex::default(),
    });
    let made = loaded(&hello, sealed, &world)
        .map_err(|refusal| Answer {
            status: status::FAIL,
            deeds: vec![Deed::Fail(Said {
                what: format!("[{}] {}", refusal.code, refusal.what),
                help: refusal.help,
                ..Said::default()
            })],
            ..Answer::default()
        })
        .and_then(|loaded| Server::create(&hello, &parameters, loaded, world.clone()));
    match made {
        Ok((mut server, answer)) => {
            world.send(ANSWER, answer.write())?;
            server.serve()
        }
        Err(answer) => {
            world.send(ANSWER, answer.write())?;
            over()
        }
    }
}

fn loaded(hello: &Hello, sealed: OwnedFd, world: &Arc<World>) -> Result<&'static Loaded, Refusal> {
    let file = PluginFile::of_sealed(Path::new(&hello.path), sealed.into())?;
    let ask = Ask {
        name: hello.plugin.clone(),
        sha256: Some(hello.sha256.clone()),
        ..Ask::default()
    };
    let admitted = Admitted::new(Described::of(file)?, &ask, Policy::Pinned)?;
    let loaded = Loaded::entered(&admitted, |entry| {
        let call = ChildCall::new(world, Task::Setup);
        let mut out: *const Plugin = std::ptr::null();
        // SAFETY: host and call live through the call, and `out` is a place for a pointer.
        let said = unsafe { entry(&HOST, call.as_ptr(), &mut out) };
        if said == status::OK && !out.is_null() {
            return Ok(out);
        }
        let told = call.end(said, Writer::default()).deeds.into_iter();
        Err(told
            .rev()
            .find_map(|deed| match deed {
                Deed::Fail(said) => Some(said),
                _ => None,
            })
            .unwrap_or_else(|| Said {
                what: format!("it returned {said}"),
                ..Said::default()
            }))
    })?;
    Ok(Box::leak(Box::new(loaded)))
}

/// The instance, and what it is asked.
struct Server {
    world: Arc<World>,
    stage: Stage,
    me: *mut c_void,
    input: Option<Arc<Mapping>>,
    /// Open slides of a source.
    open: HashMap<u64, *mut c_void>,
    opened: u64,
    /// The last call and what it used: the host reads of it until it asks for the next.
    last: Option<(Arc<ChildCall>, Vec<Block>)>,
}

/// What a call answers: its status, and what it gives beside it.
type Spoken = (Status, Writer);

impl Server {
    fn create(
        hello: &Hello,
        parameters: &Parameters,
        loaded: &'static Loaded,
        world: Arc<World>,
    ) -> Result<(Server, Answer), Answer> {
        let Some(stage) = loaded.stage(&hello.id).copied() else {
            let said = Said {
                what: format!("it has no stage `{}`", hello.id),
                ..Said::default()
            };
            return Err(Answer {
                status: status::FAIL,
                deeds: vec![Deed::Fail(said)],
                ..Answer::default()
            });
        };
        let call = ChildCall::new(&world, Task::Setup);
        let mut me = std::ptr::null_mut();
        let values = parameters.as_slice();
        let said = match stage.create {
            // SAFETY: as the header says: host, call and values live through the call.
            Some(create) => unsafe {
                create(
                    &HOST,
                    call.as_ptr(),
                    values.as_ptr(),
                    values.len() as u32,
                    &mut me,
                )
            },
            None => status::UNSUPPORTED,
        };
        let mut given = Writer::default();
        given.u8(u8::from(stage.finish.is_some()));
        let answer = call.end(said, given);
        if said != status::OK {
            return Err(answer);
        }
        let server = Server {
            world,
            stage,
            me,
            input: None,
            open: HashMap::new(),
            opened: 0,
            last: None,
        };
        Ok((server, answer))
    }

    fn serve(&mut self) -> Result<Never, Lost> {
        loop {
            let (frame, fd) = {
                let mut receiver = self
                    .world
                    .receiver
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                let frame = receiver.recv(&mut Forever)?;
                let fd = match frame.kind {
                    INPUT => receiver.fd(),
                    _ => None,
                };
                (frame, fd)
            };
            self.last = None;
            self.world.forget();
            let mut body = Reader(&frame.body);
            match (frame.kind, fd) {
                (INPUT, Some(memory)) => {
                    let len = usize::try_from(body.u64()?).unwrap_or(0);
                    let mapping = Mapping::new(memory, len, false).map_err(Lost::System)?;
                    self.input = Some(Arc::new(mapping));
                }
                (CALL, _) => {
                    let op = Op::of(body.u8()?)?;
                    let answer = self.answer(op, &mut body)?;
                    self.world.send(ANSWER, answer.write())?;
                    if op == Op::Destroy {
                        over();
                    }
                }
                _ => return Err(Lost::Garbage("what is no call")),
            }
        }
    }

    fn answer(&mut self, op: Op, from: &mut Reader) -> Result<Answer, Lost> {
        if op == Op::Process {
            return self.process(from);
        }
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
            _ => (
                self.plain(op, from, &call, slides.as_deref())?,
                Writer::default(),
            ),
        };
        let answer = call.end(said, given);
        self.last = Some((call, blocks));
        Ok(answer)
    }

    fn process(&mut self, from: &mut Reader) -> Result<Answer, Lost> {
        let (port, makes) = (from.u32()?, from.u8()? != 0);
        let memory = self
            .input
            .clone()
            .ok_or(Lost::Garbage("rows without memory"))?;
        let input = Arc::new(Lot::read(from, &memory)?);
        let task = match makes {
            true => Task::Rows(input.clone()),
            false => Task::Setup,
        };
        let call = ChildCall::new(&self.world, task);
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
        answer.kept = Arc::strong_count(&input) > 1 + usize::from(makes);
        if answer.kept {
            // The host gives other memory for the next one.
            self.input = None;
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
                let (port, rows) = (from.u32()?, from.list(ROW, read_row)?);
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
        let handle = self.open.get(&number).copied();
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
                if said == status::OK {
                    self.opened += 1;
                    self.open.insert(self.opened, handle);
                }
                given.u64(self.opened);
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
                self.open.remove(&number);
                if let Some(close) = self.stage.close {
                    // SAFETY: no call of the slide is in flight, and none will follow.
                    unsafe { close(handle) }
                }
                status::OK
            }
            _ => status::UNSUPPORTED,
        };
        Ok((said, given))
    }
}
