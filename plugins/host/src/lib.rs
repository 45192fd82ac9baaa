//! Plugins, from the file to stages that run.
//!
//! ```text
//! name --find--> path --PluginFile::read--> bytes in sealed memory, with their hash
//!      --describe--> manifest out of the ELF section, or beside it --admit--> ABI, version, pin and policy hold
//!      --load--> tables of functions --prepare--> a stage of the runtime
//! ```
//!
//! Each step is a type that only the step before makes, so nothing can be loaded that was not looked at. Whoever loads does so from
//! the sealed memory: the bytes that run are the bytes that were hashed.
//!
//! | module | |
//! |---|---|
//! | [`find`] | a name's file |
//! | [`mod@file`] | a file's bytes |
//! | [`beside`] | a manifest in a file of its own |
//! | [`elf`] | what a shared library must be before a loader may touch it |
//! | [`manifest`] | a plugin's own description |
//! | [`describe`] | a file with its manifest and the schemas made of it |
//! | [`admit`] | ABI, version, pin, policy |
//! | [`rules`] | what the machine's owner allows |
//! | [`catalogue`] | all of this for the checker |
//! | [`scan`] | what lies in the folders, for lists |
//! | [`new`] | a new plugin's project |
//! | [`refusal`] | why not, and what to do |
//! | [`load`] | a plugin's code in this process |
//! | [`isolate`] | a plugin's code in processes of its own |
//! | [`child`] | such a process |
//! | [`prepare`] | its stages as the runtime's |
//! | [`openers()`] | its slide readers as the engine's |
//! | [`log`](mod@log) | what plugins say while they run |
//! | [`check`] | whether a plugin keeps the rules |

mod about;
pub mod admit;
mod batch;
pub mod beside;
mod call;
pub mod catalogue;
pub mod check;
pub mod child;
mod columns;
pub mod describe;
mod desk;
pub mod elf;
mod ended;
mod errand;
pub mod file;
pub mod find;
mod held;
mod inside;
mod instance;
pub mod isolate;
mod kept;
mod listed;
pub mod load;
pub mod log;
pub mod manifest;
pub mod new;
mod offer;
mod opened;
mod openers;
mod outcomes;
mod parameters;
mod patience;
mod places;
mod pool;
pub mod prepare;
mod reader;
mod reading;
mod reduce;
pub mod refusal;
mod rpath;
pub mod rules;
pub mod scan;
mod schema;
mod script;
mod seats;
mod shelf;
mod shown;
mod sink;
mod slides;
mod source;
mod tables;
mod version;
mod who;
mod wire;
mod work;
mod yields;

pub use admit::{Admitted, Ask, Policy};
pub use catalogue::Catalogue;
pub use describe::Described;
pub use file::PluginFile;
pub use find::Folders;
pub use isolate::{Isolated, Program};
pub use load::{Loaded, PATIENCE};
pub use log::{Counters, Level, Log};
pub use openers::openers;
pub use prepare::{Plugins, stage_type};
pub use refusal::Refusal;
pub use rules::Rules;
