//! The child process: its start, its end, and what is said of that.

use crate::call::FAULT;
use crate::ended::told;
use crate::isolate::channel::{Lost, Patience, Receiver, Sender, polled};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::io::Error;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver as Answered, Sender as Door, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How often a wait looks whether the run is being stopped.
const LOOK: Duration = Duration::from_millis(50);

/// How long a process that closed its socket may take to end.
const LAST: Duration = Duration::from_secs(1);

/// The program that a plugin runs in.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Default for Program {
    /// This very program, as `plugin-host`.
    fn default() -> Program {
        Program::new("/proc/self/exe", ["plugin-host"])
    }
}

impl Program {
    /// A program that calls [`child::main`](crate::child::main) when it gets these arguments.
    pub fn new<'a>(
        path: impl AsRef<Path>,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Program {
        Program {
            path: path.as_ref().to_owned(),
            arguments: arguments.into_iter().map(str::to_owned).collect(),
            variables: Vec::new(),
        }
    }

    /// The same, with these variables in its environment.
    pub(crate) fn with_variables<'a>(
        mut self,
        variables: impl IntoIterator<Item = (&'a str, String)>,
    ) -> Program {
        let variables = variables.into_iter();
        self.variables
            .extend(variables.map(|(name, value)| (name.to_owned(), value)));
        self
    }

    fn command(&self, socket: OwnedFd) -> Result<Command, Error> {
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(socket))
            // What a plugin prints is for people; the host's standard output may be for programs.
            .stdout(Stdio::from(std::io::stderr().as_fd().try_clone_to_owned()?))
            // A group of its own: Ctrl-C is for the host, which then asks the plugin to stop.
            .process_group(0);
        Ok(command)
    }
}

/// A process that runs a plugin.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    watch: OwnedFd,
    /// How it ended, once it was waited for, and whether by itself.
    over: Option<(Option<ExitStatus>, bool)>,
    pub sender: Sender,
    pub receiver: Receiver,
}

type Errand = Box<dyn FnOnce() + Send>;

/// Runs `errand` on a thread that lives as long as the process, and does not wait for it: a child whose parent wants to be told by
/// signal dies with the *thread* that made it, and helper threads come and go.
pub(crate) fn for_life<T: Send + 'static>(
    errand: impl FnOnce() -> T + Send + 'static,
) -> Result<Answered<T>, Error> {
    static THREAD: OnceLock<Mutex<Option<Door<Errand>>>> = OnceLock::new();
    let door = THREAD.get_or_init(|| {
        let (door, errands) = channel::<Errand>();
        let made = std::thread::Builder::new()
            .name("weir-plugin-start".into())
            .spawn(move || errands.into_iter().for_each(|errand| errand()));
        Mutex::new(made.ok().map(|_| door))
    });
    let (answer, answered) = channel();
    let errand = Box::new(move || {
        // Who asked may have been aborted.
        let _ = answer.send(errand());
    });
    door.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_ref()
        .ok_or_else(gone)?
        .send(errand)
        .map_err(|_| gone())?;
    Ok(answered)
}

/// Why nothing comes of an errand.
pub(crate) fn gone() -> Error {
    Error::other("the thread that starts plugin processes is gone")
}

impl Process {
    /// Starts it, on a thread that lives as long as this process.
    pub fn start(program: &Program) -> Result<Process, Error> {
        let (own, other) = UnixStream::pair()?;
        // The command holds the child's end of the socket; it must be gone before anybody waits for that to close.
        let child = program.command(other.into())?.spawn()?;
        let mut child = Unclaimed(Some(child));
        let pid = child.pid().ok_or_else(|| Error::other("no process"))?;
        let watch = pidfd_open(pid, PidfdFlags::empty())?;
        let socket = Arc::new(OwnedFd::from(own));
        let child = child.0.take().ok_or_else(|| Error::other("no process"))?;
        Ok(Process {
            child,
            watch,
            over: None,
            sender: Sender(socket.clone()),
            receiver: Receiver::new(socket),
        })
    }

    /// How long to wait for it: until `until`, with `look` asked every now and then.
    pub fn watched<'a>(
        watch: &'a OwnedFd,
        until: Instant,
        look: &'a mut dyn FnMut(),
    ) -> Watched<'a> {
        Watched { watch, until, look }
    }

    pub fn parts(&mut self) -> (&OwnedFd, &Sender, &mut Receiver) {
        (&self.watch, &self.sender, &mut self.receiver)
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.ended_within(Duration::ZERO)
    }

    fn ended_within(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut fds = [PollFd::new(&self.watch, PollFlags::IN)];
        polled(&mut fds, Some(&timespec(until))).is_ok_and(|ready| ready > 0)
    }

    /// Ends it, unless it ends by itself within `grace`; with everything that it started. How it ended, and whether by itself.
    pub fn end(&mut self, grace: Duration) -> (Option<ExitStatus>, bool) {
        if let Some(over) = self.over {
            return over;
        }
        let by_itself = self.ended_within(grace);
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            // Before it is reaped, so that the number is still its own.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        if !by_itself {
            let _ = self.child.kill();
        }
        let over = (self.child.wait().ok(), by_itself);
        self.over = Some(over);
        over
    }

    /// How it ended, after its socket said that it did.
    pub fn death(&mut self) -> String {
        match self.end(LAST) {
            (Some(status), true) => told(status),
            _ => "closed its connection and had to be killed".into(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// A child that dies when nobody takes it over.
struct Unclaimed(Option<Child>);

impl Unclaimed {
    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.0.as_ref()?.id() as i32)
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits for a process's socket and for its end.
pub(crate) struct Watched<'a> {
    watch: &'a OwnedFd,
    until: Instant,
    look: &'a mut dyn FnMut(),
}

impl Patience for Watched<'_> {
    fn wait(&mut self, socket: BorrowedFd, events: PollFlags) -> Result<(), Lost> {
        loop {
            let now = Instant::now();
            if now >= self.until {
                return Err(Lost::Late);
            }
            let mut fds = [
                PollFd::from_borrowed_fd(socket, events),
                PollFd::new(self.watch, PollFlags::IN),
            ];
            let ready = polled(&mut fds, Some(&timespec(self.until.min(now + LOOK))))?;
            (self.look)();
            if ready == 0 {
                continue;
            }
            // What it said before it ended is read first.
            let said = fds[0].revents();
            if said.intersects(events) {
                return Ok(());
            }
            if !said.is_empty() || !fds[1].revents().is_empty() {
                return Err(Lost::Closed);
            }
        }
    }
}

fn timespec(until: Instant) -> Timespec {
    let left = until.saturating_duration_since(Instant::now());
    Timespec {
        tv_sec: left.as_secs() as i64,
        // Rounded up to a millisecond, so that nobody spins before the time.
        tv_nsec: i64::from(left.subsec_nanos()).min(999_000_000) + 999_999,
    }
}

/// What to do about a process that ended as `death` says.
pub(crate) fn remedy(death: &str) -> &'static str {
    if death.contains("(Killed)") {
        "somebody killed it, perhaps the kernel for want of memory: see `dmesg`"
    } else if death.contains("(Segmentation fault)") || death.contains("(Bus error)") {
        "it used memory that it does not have: `weir plugin check` may find out where; please report it to its author"
    } else {
        FAULT
    }
}
