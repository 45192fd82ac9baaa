//! Plugins in a process of their own: `isolate = true`.
//!
//! The same file runs in a child process ([`child`](crate::child)), and the host talks to it as if it were loaded here: what stands
//! in for the plugin is a table of functions (`stand_in`) like any plugin's, so the stages that call it are the same ones. Of a call
//! the stand-in copies the input into memory that the child may only read, says through a socket where what lies, waits for the
//! answer or the child's end, and then does all that the plugin did over again with the host's own functions (`replay`). These
//! check what they are given, so the host believes a child no more than it believes a plugin in its own process, and nothing that a
//! child writes can do more than fail a call.
//!
//! | module | |
//! |---|---|
//! | `cradle` | starts a stage's processes, and counts their deaths |
//! | `process` | a process's start and end |
//! | `remote` | an instance in a process: sends, waits, receives |
//! | `stand_in` | the table that is called in the plugin's place |
//! | `replay` | what the plugin did, done here |
//! | `channel`, `wire`, `message` | frames through the socket, and what stands in them |
//! | `memory` | what both processes see |
//!
//! What differs from a plugin in this process:
//! * A process has one call at a time. A map or filter whose calls may overlap has a process for each helper thread, so that a call
//!   that kills its process takes no other with it; everything else has one. A call that is left pending is waited for.
//! * An input is copied once, and so is what is made; rows that are passed on are not. A batch that a plugin keeps stays as it is.
//! * What a reduce, sink or source held of a slide is gone when its process dies: that slide fails, also where another one's row was
//!   the cause; later slides go to the next process.
//! * Shared memory is outside of the run's budget: as much as the largest batch of the stage's inputs for each process, and as much
//!   as its plugin makes at once, at most 4 GiB.
//! * Slide readers and memory of devices stay in this process.

pub(crate) mod channel;
pub(crate) mod cradle;
pub(crate) mod memory;
pub(crate) mod message;
pub(crate) mod process;
pub(crate) mod remote;
pub(crate) mod replay;
pub(crate) mod stand_in;
pub(crate) mod wire;

use crate::admit::Admitted;
use crate::manifest::Manifest;
use crate::refusal::Refusal;
pub use process::Program;
use std::sync::Arc;

/// A plugin that runs in child processes. Nothing of it is loaded here.
#[derive(Clone, Debug)]
pub struct Isolated {
    admitted: Arc<Admitted>,
    program: Program,
}

impl Isolated {
    /// A plugin for child processes of `program`. Refused (E0519): a plugin with slide readers, which stages of this process ask
    /// for pixels.
    pub fn new(admitted: Arc<Admitted>, program: Program) -> Result<Isolated, Refusal> {
        if let Some(reader) = admitted.manifest().readers.first() {
            return Err(Refusal::new(
                "E0519",
                format!(
                    "it has a slide reader, `{}`, and readers run in weir's own process",
                    reader.id
                ),
                "take `isolate = true` away, or build the plugin's stages as a plugin of their own",
            )
            .of(admitted.file().path()));
        }
        Ok(Isolated { admitted, program })
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        self.admitted.manifest()
    }

    /// SHA-256 of its file.
    pub fn sha256(&self) -> &str {
        self.admitted.file().sha256()
    }
}
