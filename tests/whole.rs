//! The program as a user meets it: started from outside, judged by what it prints, writes and exits with.
//!
//! One binary, since each would link every crate again.
#![allow(clippy::unwrap_used)]

mod program;

#[path = "whole/inspect.rs"]
mod inspect;
#[path = "whole/usage.rs"]
mod usage;
