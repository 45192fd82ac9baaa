//! Several processes, one run: who is in, whether all of them run the same, and the connections between them.
//!
//! timely waits for its peers for ever and says so on standard output. Here the processes meet before timely is called: each
//! listens at its own address and reports to process 0, which compares what they are and names who is missing or differs.
//! The connection to process 0 stays for the whole run (see `control`); timely gets one more for each pair.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How long to sleep between two looks at a listener or two tries to connect.
const POLL: Duration = Duration::from_millis(20);
/// How long a connection may take to say what it is, and a link to come about: everybody listens by then.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Bytes of a message at most: whatever is longer is no message of weir's.
const LONGEST: u32 = 1 << 20;
const MAGIC: &str = "weir-cluster/1";

/// One of several processes of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// This process's place in `addresses`.
    pub process: usize,
    /// `host:port` of every process, the same list in each.
    pub addresses: Vec<String>,
    /// How long to wait for the others.
    pub join_timeout: Duration,
}

/// Why the processes did not come together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinError {
    /// What is wrong, and with which process.
    pub what: String,
    /// What to do about it; may be empty.
    pub help: String,
}

impl JoinError {
    fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        JoinError {
            what: what.into(),
            help: help.into(),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for JoinError {}

/// Addresses for `processes` processes on this machine, at ports that are free now.
pub fn local_addresses(processes: usize) -> io::Result<Vec<String>> {
    // All are bound before any is given up, so that no two are the same.
    let listeners: Vec<TcpListener> = (0..processes)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<io::Result<_>>()?;
    listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.to_string()))
        .collect()
}

/// Reads a hosts file: one `host:port` a line, process 0 first; empty lines and what follows a `#` are left out.
pub fn hosts(file: &Path) -> Result<Vec<String>, JoinError> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        JoinError::new(
            format!("the hosts file {shown} cannot be read: {error}"),
            "give a text file with one host:port a line",
        )
    })?;
    let mut addresses: Vec<String> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let address = line.split('#').next().unwrap_or_default().trim();
        if address.is_empty() {
            continue;
        }
        let place = format!("{shown}:{}", number + 1);
        let port = address
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty() && !host.contains(char::is_whitespace))
            .and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) {
            return Err(JoinError::new(
                format!("{place}: `{address}` is not host:port"),
                "write a line as node-1:4200, with a port between 1 and 65535",
            ));
        }
        if addresses.iter().any(|known| known == address) {
            return Err(JoinError::new(
                format!("{place}: `{address}` stands there twice"),
                "each process needs an address of its own",
            ));
        }
        addresses.push(address.to_owned());
    }
    if addresses.is_empty() {
        return Err(JoinError::new(
            format!("the hosts file {shown} names no process"),
            "write one host:port a line, process 0 first",
        ));
    }
    Ok(addresses)
}

/// What must be the same in every process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    magic: String,
    version: String,
    /// Length of the executable: two builds of one version are seldom as long.
    build: u64,
    plan: String,
    workers: usize,
    addresses: Vec<String>,
}

impl Identity {
    fn of(cluster: &Cluster, plan: &str, workers: usize) -> Self {
        Identity {
            magic: MAGIC.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: std::env::current_exe()
                .and_then(std::fs::metadata)
                .map_or(0, |data| data.len()),
            plan: plan.to_owned(),
            workers,
            addresses: cluster.addresses.clone(),
        }
    }

    /// What differs between process 0 and process `other`.
    fn differs(&self, theirs: &Identity, other: usize) -> Option<JoinError> {
        let say = |what: &str, ours: &dyn fmt::Display, theirs: &dyn fmt::Display, help: &str| {
            let what = format!(
                "process {other} has another {what} than process 0: {theirs} instead of {ours}"
            );
            Some(JoinError::new(what, help))
        };
        if self.magic != theirs.magic || self.version != theirs.version {
            return say(
                "version of weir",
                &self.version,
                &theirs.version,
                SAME_BINARY,
            );
        }
        if self.build != theirs.build {
            let bytes = |build| format!("an executable of {build} bytes");
            return say(
                "build of weir",
                &bytes(self.build),
                &bytes(theirs.build),
                SAME_BINARY,
            );
        }
        if self.plan != theirs.plan {
            let help =
                "start every process with the same pipeline file, models, variables and --set";
            return say("plan", &self.plan, &theirs.plan, help);
        }
        if self.workers != theirs.workers {
            let help = "give every process the same -w";
            return say("number of workers", &self.workers, &theirs.workers, help);
        }
        if self.addresses != theirs.addresses {
            let (ours, theirs) = (self.addresses.join(" "), theirs.addresses.join(" "));
            return say(
                "hosts file",
                &ours,
                &theirs,
                "give every process the same --hosts",
            );
        }
        None
    }
}

const SAME_BINARY: &str = "install the same weir on every machine";

/// What processes say to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// To process 0: here I am.
    Hello { process: usize, identity: Identity },
    /// To a process of lower number: this connection is for rows.
    Link { process: usize },
    /// From process 0: everybody is there and runs the same.
    Welcome,
    /// The run does not take place.
    Refused { what: String, help: String },
    /// To process 0: my stages are ready; digest of the list of slides.
    Ready { slides: u64 },
    /// From process 0: everybody is ready.
    Go,
    /// A person asked for the end, so often.
    Stop { level: u8 },
    /// The run is aborted.
    Fatal { message: String },
    /// To process 0: I am through.
    Done {
        sink_failures: Vec<String>,
        memory_peak: u64,
    },
    /// From process 0: how it ended, for all.
    Final {
        code: u8,
        interrupted: bool,
        stopped: bool,
    },
}

pub(crate) fn send(mut to: &TcpStream, message: &Message) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let mut frame = (text.len() as u32).to_be_bytes().to_vec();
    frame.extend(text);
    to.write_all(&frame)
}

pub(crate) fn receive(mut from: &TcpStream) -> io::Result<Message> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > LONGEST {
        return Err(io::Error::other("that is no message of weir's"));
    }
    let mut text = vec![0; length as usize];
    from.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// A process that has met the others.
pub(crate) struct Member {
    cluster: Cluster,
    listener: TcpListener,
    /// By process: at process 0 all the others, elsewhere process 0 alone.
    pub(crate) lines: Vec<Option<TcpStream>>,
}

/// Meets the other processes, or says who is missing or differs.
pub(crate) fn join(cluster: &Cluster, plan: &str, workers: usize) -> Result<Member, JoinError> {
    let me = cluster.process;
    let Some(address) = cluster.addresses.get(me) else {
        return Err(JoinError::new(
            format!("there is no process {me} among {}", cluster.addresses.len()),
            "--process counts the lines of the hosts file from 0",
        ));
    };
    let listener = TcpListener::bind(address.as_str()).map_err(|error| {
        JoinError::new(
            format!("process {me} cannot listen at {address}: {error}"),
            "the address must be this machine's and its port free",
        )
    })?;
    let mut member = Member {
        cluster: cluster.clone(),
        listener,
        lines: cluster.addresses.iter().map(|_| None).collect(),
    };
    let identity = Identity::of(cluster, plan, workers);
    if me == 0 {
        member.gather(&identity)?;
    } else {
        member.report_to_first(identity)?;
    }
    Ok(member)
}

impl Member {
    /// Address of a process.
    pub(crate) fn address(&self, process: usize) -> &str {
        &self.cluster.addresses[process]
    }

    /// At process 0: waits for everybody.
    fn gather(&mut self, ours: &Identity) -> Result<(), JoinError> {
        let until = Instant::now() + self.cluster.join_timeout;
        while self.lines[1..].iter().any(Option::is_none) {
            let Some(stream) = accept(&self.listener, until)? else {
                let missing: Vec<String> = (1..self.lines.len())
                    .filter(|process| self.lines[*process].is_none())
                    .map(|process| format!("{process} ({})", self.address(process)))
                    .collect();
                let error = JoinError::new(
                    format!(
                        "after {} s no word from process {}",
                        self.cluster.join_timeout.as_secs_f64(),
                        missing.join(", ")
                    ),
                    "start it, look at what it printed, or give more time with --join-timeout",
                );
                return Err(self.refuse(error));
            };
            // Whoever says something else is not one of us.
            let Ok(Message::Hello { process, identity }) = receive(&stream) else {
                continue;
            };
            if process == 0 || process >= self.lines.len() || self.lines[process].is_some() {
                let error = JoinError::new(
                    format!("two processes say that they are process {process}"),
                    "give each its own --process, from 0 on",
                );
                // So that it is told too.
                self.lines.push(Some(stream));
                return Err(self.refuse(error));
            }
            self.lines[process] = Some(stream);
            if let Some(error) = ours.differs(&identity, process) {
                return Err(self.refuse(error));
            }
        }
        self.tell_all(&Message::Welcome)
    }

    /// At the others: reports to process 0 and waits for its word.
    fn report_to_first(&mut self, identity: Identity) -> Result<(), JoinError> {
        let limit = self.cluster.join_timeout;
        let until = Instant::now() + limit;
        let stream = loop {
            match connect(self.address(0)) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() >= until => {
                    return Err(JoinError::new(
                        format!(
                            "after {} s no word from process 0 ({}): {error}",
                            limit.as_secs_f64(),
                            self.address(0)
                        ),
                        "start it, look at what it printed, or give more time with --join-timeout",
                    ));
                }
                Err(_) => std::thread::sleep(POLL),
            }
        };
        let hello = Message::Hello {
            process: self.cluster.process,
            identity,
        };
        // Process 0 has its own time-out and says then who is missing.
        let patience = limit + HANDSHAKE;
        let answer = stream
            .set_read_timeout(Some(patience))
            .and_then(|()| send(&stream, &hello))
            .and_then(|()| receive(&stream));
        self.lines[0] = Some(stream);
        self.expect(answer, Message::Welcome)
    }

    /// Tells the others whether the stages of this process are ready, and waits until all are. `slides` is a digest of the
    /// list of slides, which must be the same everywhere.
    pub(crate) fn ready(&mut self, slides: Result<u64, String>) -> Result<(), JoinError> {
        let me = self.cluster.process;
        if me == 0 {
            let failed = |process: usize, what: &str| {
                JoinError::new(format!("process {process} could not start: {what}"), "")
            };
            let ours = slides.map_err(|what| self.refuse(failed(0, &what)))?;
            for process in 1..self.lines.len() {
                let answer = match &self.lines[process] {
                    // Loading models takes as long as it takes; a process that dies closes its connection.
                    Some(line) => line.set_read_timeout(None).and_then(|()| receive(line)),
                    None => continue,
                };
                let error = match answer {
                    Ok(Message::Ready { slides }) if slides == ours => continue,
                    Ok(Message::Ready { .. }) => JoinError::new(
                        format!("process {process} has other slides than process 0"),
                        "give every process the same list of slides",
                    ),
                    Ok(Message::Refused { what, .. }) => failed(process, &what),
                    Ok(other) => failed(process, &format!("it said {other:?}")),
                    Err(error) => failed(process, &format!("its connection broke: {error}")),
                };
                return Err(self.refuse(error));
            }
            return self.tell_all(&Message::Go);
        }
        let message = match &slides {
            Ok(slides) => Message::Ready { slides: *slides },
            Err(what) => Message::Refused {
                what: what.clone(),
                help: String::new(),
            },
        };
        let Some(line) = &self.lines[0] else {
            return Ok(());
        };
        let sent = line
            .set_read_timeout(None)
            .and_then(|()| send(line, &message));
        if let Err(what) = slides {
            return Err(JoinError::new(what, ""));
        }
        let answer = sent.and_then(|()| receive(line));
        self.expect(answer, Message::Go)
    }

    /// Connections for rows: one to each other process.
    pub(crate) fn link(&self) -> Result<Vec<Option<TcpStream>>, JoinError> {
        let me = self.cluster.process;
        let count = self.lines.len();
        let mut links: Vec<Option<TcpStream>> = (0..count).map(|_| None).collect();
        for (process, link) in links.iter_mut().enumerate().take(me) {
            let stream = connect(self.address(process))
                .and_then(|stream| send(&stream, &Message::Link { process: me }).map(|()| stream));
            *link = Some(stream.map_err(|error| self.unlinked(process, &error.to_string()))?);
        }
        let until = Instant::now() + HANDSHAKE;
        while let Some(process) = (me + 1..count).find(|process| links[*process].is_none()) {
            let Some(stream) = accept(&self.listener, until)? else {
                return Err(self.unlinked(process, "it did not connect"));
            };
            if let Ok(Message::Link { process }) = receive(&stream)
                && process > me
                && process < count
            {
                links[process] = Some(stream);
            }
        }
        for link in links.iter().flatten() {
            link.set_read_timeout(None)
                .and_then(|()| link.set_write_timeout(None))
                .map_err(|error| {
                    JoinError::new(format!("a connection cannot be used: {error}"), "")
                })?;
        }
        Ok(links)
    }

    fn unlinked(&self, process: usize, why: &str) -> JoinError {
        let me = self.cluster.process;
        JoinError::new(
            format!(
                "no connection between process {me} ({}) and process {process} ({}): {why}",
                self.address(me),
                self.address(process)
            ),
            "every process must reach every other one at its address: look at firewalls",
        )
    }

    /// Tells everybody who is there why the run does not take place.
    fn refuse(&self, error: JoinError) -> JoinError {
        for line in self.lines.iter().flatten() {
            // Whoever is gone need not be told.
            let _ = send(
                line,
                &Message::Refused {
                    what: error.what.clone(),
                    help: error.help.clone(),
                },
            );
        }
        error
    }

    fn tell_all(&self, message: &Message) -> Result<(), JoinError> {
        for (process, line) in self.lines.iter().enumerate() {
            if let Some(line) = line
                && let Err(error) = send(line, message)
            {
                let what = format!(
                    "process {process} ({}) was lost: {error}",
                    self.address(process)
                );
                return Err(self.refuse(JoinError::new(what, "look at what it printed")));
            }
        }
        Ok(())
    }

    fn expect(&self, answer: io::Result<Message>, wanted: Message) -> Result<(), JoinError> {
        match answer {
            Ok(message) if message == wanted => Ok(()),
            Ok(Message::Refused { what, help }) => Err(JoinError::new(what, help)),
            Ok(other) => Err(JoinError::new(
                format!("process 0 ({}) said {other:?}", self.address(0)),
                SAME_BINARY,
            )),
            Err(error) => Err(JoinError::new(
                format!("process 0 ({}) was lost: {error}", self.address(0)),
                "look at what it printed",
            )),
        }
    }
}

/// The next connection, or `None` when none came until `until`.
fn accept(listener: &TcpListener, until: Instant) -> Result<Option<TcpStream>, JoinError> {
    let broken = |error: io::Error| JoinError::new(format!("listening failed: {error}"), "");
    listener.set_nonblocking(true).map_err(broken)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let set = stream
                    .set_nonblocking(false)
                    .and_then(|()| stream.set_nodelay(true))
                    .and_then(|()| stream.set_read_timeout(Some(Duration::from_secs(2))));
                match set {
                    Ok(()) => return Ok(Some(stream)),
                    // It went away again.
                    Err(_) => continue,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= until {
                    return Ok(None);
                }
                std::thread::sleep(POLL);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(error)),
        }
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name has no address");
    let candidates: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    for candidate in candidates {
        match TcpStream::connect_timeout(&candidate, HANDSHAKE) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
