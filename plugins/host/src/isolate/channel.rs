//! The two processes' socket: frames with a kind, and descriptors beside them.
//!
//! Pixels never go through it, only what says where they lie.

use crate::wire::{Garbage, Reader, Writer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Host to child: what to load and make.
pub(crate) const HELLO: u32 = 1;
/// Host to child: a call.
pub(crate) const CALL: u32 = 2;
/// Host to child: memory from which the next calls' inputs are read; with a descriptor.
pub(crate) const INPUT: u32 = 3;
/// Host to child: memory that was asked for; with a descriptor, or without one where it was refused.
pub(crate) const MEMORY: u32 = 4;
/// Child to host: what came of a call.
pub(crate) const ANSWER: u32 = 16;
/// Child to host: a line of the log.
pub(crate) const LINE: u32 = 17;
/// Child to host: it wants memory for what it makes.
pub(crate) const MORE: u32 = 18;

/// No frame is longer, bytes; tables travel in frames.
pub(crate) const LONGEST: usize = 256 << 20;
/// Descriptors with a frame.
const MOST: usize = 4;
const _: () = assert!(weir_record::Arena::FILES <= MOST);

/// A frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub kind: u32,
    pub body: Vec<u8>,
}

/// Why no frame comes or goes any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The other side is gone.
    Closed,
    /// It did not answer in time.
    Late,
    /// What it sent is none of what it may send.
    Garbage(&'static str),
    /// The system said no.
    System(Errno),
}

impl From<Garbage> for Lost {
    fn from(Garbage(what): Garbage) -> Lost {
        Lost::Garbage(what)
    }
}

/// Waits until a socket can be read or written.
pub(crate) trait Patience {
    /// Returns when one of `events` holds; an error when it is not worth waiting any longer.
    fn wait(&mut self, socket: BorrowedFd, events: PollFlags) -> Result<(), Lost>;
}

/// Waits for as long as it takes.
pub(crate) struct Forever;

impl Patience for Forever {
    fn wait(&mut self, socket: BorrowedFd, events: PollFlags) -> Result<(), Lost> {
        polled(&mut [PollFd::from_borrowed_fd(socket, events)], None).map(drop)
    }
}

/// `poll`, again after a signal.
pub(crate) fn polled(fds: &mut [PollFd], time: Option<&Timespec>) -> Result<usize, Lost> {
    loop {
        match poll(fds, time) {
            Ok(ready) => return Ok(ready),
            Err(Errno::INTR) => {}
            Err(error) => return Err(Lost::System(error)),
        }
    }
}

/// The sending end.
#[derive(Clone, Debug)]
pub(crate) struct Sender(pub Arc<OwnedFd>);

impl Sender {
    /// Sends a frame whole.
    pub fn send(
        &self,
        kind: u32,
        body: Writer,
        fds: &[BorrowedFd],
        patience: &mut dyn Patience,
    ) -> Result<(), Lost> {
        if body.0.len() > LONGEST {
            return Err(Lost::System(Errno::MSGSIZE));
        }
        let mut head = Writer::default();
        head.u32(body.0.len() as u32);
        head.u32(kind);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Lost::System(Errno::MSGSIZE));
        }
        let (mut head, mut body) = (&head.0[..], &body.0[..]);
        while !head.is_empty() || !body.is_empty() {
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(&self.0, &parts, &mut beside, flags) {
                Ok(sent) => {
                    // The descriptors went with the first byte.
                    beside.clear();
                    let of_head = sent.min(head.len());
                    head = &head[of_head..];
                    body = &body[sent - of_head..];
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => patience.wait(self.0.as_fd(), PollFlags::OUT)?,
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Lost::Closed),
                Err(error) => return Err(Lost::System(error)),
            }
        }
        Ok(())
    }
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Receiver {
    socket: Arc<OwnedFd>,
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Receiver {
    pub fn new(socket: Arc<OwnedFd>) -> Receiver {
        Receiver {
            socket,
            bytes: Vec::new(),
            fds: VecDeque::new(),
        }
    }

    /// The next frame.
    pub fn recv(&mut self, patience: &mut dyn Patience) -> Result<Frame, Lost> {
        loop {
            if let Some(frame) = self.whole()? {
                return Ok(frame);
            }
            patience.wait(self.socket.as_fd(), PollFlags::IN)?;
            self.read()?;
        }
    }

    /// A descriptor that came with the last frame or before.
    pub fn fd(&mut self) -> Option<OwnedFd> {
        self.fds.pop_front()
    }

    fn whole(&mut self) -> Result<Option<Frame>, Lost> {
        if self.bytes.len() < 8 {
            return Ok(None);
        }
        let mut head = Reader(&self.bytes);
        let (len, kind) = (head.u32()? as usize, head.u32()?);
        if len > LONGEST {
            return Err(Lost::Garbage("a message without end"));
        }
        if self.bytes.len() < 8 + len {
            // A long one is not to take twice its length on its way.
            self.bytes.reserve_exact(8 + len - self.bytes.len());
            return Ok(None);
        }
        let rest = self.bytes.split_off(8 + len);
        let mut body = std::mem::replace(&mut self.bytes, rest);
        body.drain(..8);
        Ok(Some(Frame { kind, body }))
    }

    fn read(&mut self) -> Result<(), Lost> {
        let have = self.bytes.len();
        // As much as is known to come, else a socket's worth.
        let wanted = match Reader(&self.bytes).u32() {
            Ok(len) => (len as usize + 8).saturating_sub(have).clamp(1, 1 << 20),
            Err(_) => 16 << 10,
        };
        self.bytes.resize(have + wanted, 0);
        // Room for one too many, so that it is seen.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST + 1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(&mut self.bytes[have..])];
        let got = recvmsg(&self.socket, &mut parts, &mut beside, flags);
        let read = got.as_ref().map_or(0, |got| got.bytes);
        self.bytes.truncate(have + read);
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if self.fds.len() > MOST {
            return Err(Lost::Garbage("more descriptors than it may send"));
        }
        match got {
            // No more could be opened here.
            Ok(got) if got.flags.contains(ReturnFlags::CTRUNC) => Err(Lost::System(Errno::MFILE)),
            Ok(_) if read == 0 => Err(Lost::Closed),
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => Ok(()),
            Err(Errno::CONNRESET) => Err(Lost::Closed),
            Err(error) => Err(Lost::System(error)),
        }
    }
}
