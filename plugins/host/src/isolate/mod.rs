//! Plugins in a process of their own: `isolate = true`.
//!
//! The same file runs in a child process ([`child`](crate::child)), and the host talks to it as if it were loaded here: what stands
//! in for the plugin is a table of functions ([`remote`]) like any plugin's, so the stages that call it are the same ones. Of a call
//! the stand-in copies the input into memory that the child may only read, says through a socket where what lies, waits for the
//! answer or the child's end, and then does all that the plugin did over again with the host's own functions ([`replay`]). These
//! check what they are given, so the host believes a child no more than it believes a plugin in its own process, and nothing that a
//! child writes can do more than fail a call.
//!
//! | module | |
//! |---|---|
//! | [`process`] | the child's start and end |
//! | [`channel`] | frames through the socket |
//! | [`memory`] | what both processes see |
//! | [`wire`], [`message`] | what stands in frames |
//! | [`remote`] | what stands in for the plugin |
//! | [`replay`] | what the plugin did, done here |

pub(crate) mod channel;
pub(crate) mod memory;
pub(crate) mod message;
pub(crate) mod process;
pub(crate) mod remote;
pub(crate) mod replay;
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
