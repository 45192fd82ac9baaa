//! The child process of a plugin that is isolated.
//!
//! It loads the plugin from the sealed memory that the host hashed, makes one instance of one stage or gets one slide reader ready,
//! and then does what the host asks for, one call after the other, until the host wants no more of it or is gone. What of it the
//! host believes is the host's affair ([`isolate`](crate::isolate)).

mod batch;
mod blocks;
mod call;
mod handles;
mod offer;
mod reader;
mod serve;

use crate::admit::{Admitted, Ask, Policy};
use crate::beside::Beside;
use crate::describe::Described;
use crate::file::PluginFile;
use crate::isolate::answer::Answer;
use crate::isolate::channel::{ANSWER, Forever, HELLO, Lost, Receiver, Sender};
use crate::isolate::memory::{Mapping, PAGE};
use crate::isolate::message::Hello;
use crate::load::Loaded;
use crate::refusal::Refusal;
use crate::who::Who;
use crate::wire::Writer;
use call::{ChildCall, Task, World};
use offer::HOST;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serve::Server;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use weir_abi::desk::Said;
use weir_abi::plugin::Plugin;
use weir_abi::status;

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
    let limit = |resource, most: u64| {
        // Who started weir may allow less, and nobody may raise that.
        let most = Some(most.min(getrlimit(resource).maximum.unwrap_or(u64::MAX)));
        let both = Rlimit {
            current: most,
            maximum: most,
        };
        setrlimit(resource, both).map_err(system)
    };
    limit(Resource::Core, 0)?;
    if let Some(most) = memory_of_machine() {
        limit(Resource::Data, most / 2)?;
    }
    // When memory is short, the kernel ends this process and not the host. Where it cannot be told, it chooses as it does.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
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
    let hello = Hello::read(&frame.body)?;
    let (Some(sealed), Some(flag)) = (receiver.fd(), receiver.fd()) else {
        return Err(Lost::Garbage("a greeting without a plugin"));
    };
    let world = Arc::new(World {
        sender: Mutex::new(sender),
        receiver: Mutex::new(receiver),
        flag: Mapping::new(flag, PAGE, false).map_err(system)?,
        plugin: OnceLock::new(),
        make: OnceLock::new(),
        blocks: Arc::default(),
        open: Mutex::default(),
    });
    match loaded(&hello, sealed, &world) {
        Ok(loaded) => {
            world.send(ANSWER, Answer::default().write())?;
            Server::new(loaded, world).serve()
        }
        Err(refusal) => {
            let mut given = Writer::default();
            for text in [refusal.code, &refusal.what, &refusal.help] {
                given.text(text);
            }
            let answer = Answer {
                status: status::FAIL,
                given: given.0,
                ..Answer::default()
            };
            world.send(ANSWER, answer.write())?;
            over()
        }
    }
}

/// Bytes of memory of the machine, or of the part of it that this process may use.
fn memory_of_machine() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let all = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = all.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let part = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let part = part.and_then(|text| text.trim().parse().ok());
    Some((kib << 10).min(part.unwrap_or(u64::MAX)))
}

fn loaded(hello: &Hello, sealed: OwnedFd, world: &Arc<World>) -> Result<&'static Loaded, Refusal> {
    let file = PluginFile::of_sealed(Path::new(&hello.path), sealed.into())?;
    let ask = Ask {
        name: hello.plugin.clone(),
        sha256: Some(hello.sha256.clone()),
        ..Ask::default()
    };
    let beside = hello.beside.clone();
    let beside = beside.map(|text| Beside::of(Beside::place(file.path()), text));
    let admitted = Admitted::new(Described::of(file, beside)?, &ask, Policy::Pinned)?;
    let manifest = admitted.manifest();
    let named = Who::plugin(&manifest.name, &manifest.version).plugin;
    world.plugin.get_or_init(|| named);
    let loaded = Loaded::entered(&admitted, |entry| {
        let call = ChildCall::new(world, Task::Setup);
        let mut out: *const Plugin = std::ptr::null();
        // SAFETY: host and call live through the call, and `out` is a place for a pointer.
        let said = unsafe { entry(&HOST, call.as_ptr(), &mut out) };
        if said == status::OK && !out.is_null() {
            return Ok(out);
        }
        Err(call.failed().unwrap_or_else(|| Said {
            what: format!("it returned {said}"),
            ..Said::default()
        }))
    })?;
    Ok(Box::leak(Box::new(loaded)))
}
