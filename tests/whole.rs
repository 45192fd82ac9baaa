//! The program as a user meets it: started from outside, judged by what it prints, writes and exits with.
//!
//! One binary, since each would link every crate again.
#![allow(clippy::unwrap_used)]

#[path = "program/libraries.rs"]
mod libraries;
mod program;

#[path = "whole/abi.rs"]
mod abi;
#[path = "whole/allocated.rs"]
mod allocated;
#[path = "whole/beside.rs"]
mod beside;
#[path = "whole/damage.rs"]
mod damage;
#[path = "whole/demo.rs"]
mod demo;
#[path = "whole/device.rs"]
mod device;
#[path = "whole/embeddings.rs"]
mod embeddings;
#[path = "whole/ends.rs"]
mod ends;
#[path = "whole/feature_files.rs"]
mod feature_files;
#[path = "whole/folders.rs"]
mod folders;
#[path = "whole/inspect.rs"]
mod inspect;
#[path = "whole/interrupt.rs"]
mod interrupt;
#[path = "whole/machine.rs"]
mod machine;
#[path = "whole/memory.rs"]
mod memory;
#[path = "whole/onnx.rs"]
mod onnx;
#[path = "whole/openslide.rs"]
mod openslide;
#[path = "whole/patience.rs"]
mod patience;
#[path = "whole/pipeline.rs"]
mod pipeline;
#[path = "whole/plugins.rs"]
mod plugins;
#[path = "whole/probe.rs"]
mod probe;
#[path = "whole/raised.rs"]
mod raised;
#[path = "whole/rehearsal.rs"]
mod rehearsal;
#[path = "whole/restart.rs"]
mod restart;
#[path = "whole/same.rs"]
mod same;
#[path = "whole/shipped.rs"]
mod shipped;
#[path = "whole/sinner.rs"]
mod sinner;
#[path = "whole/sins.rs"]
mod sins;
#[path = "whole/spoken.rs"]
mod spoken;
#[path = "whole/tried.rs"]
mod tried;
#[path = "whole/trusted.rs"]
mod trusted;
#[path = "whole/usage.rs"]
mod usage;
