//! # weir-runtime: a plan on timely dataflow
//!
//! One operator for each of four stage traits, leases as back-pressure, ledgers as completeness. A stage's author sees rows,
//! batches and slides; seals, leases, capabilities and threads are the operators' affair.

mod abort;
pub mod cluster;
mod control;
mod crew;
mod failing;
mod graph;
mod host;
mod house;
mod inbox;
mod memory;
mod progress;
mod reading;
mod reduce;
mod report;
mod run;
mod sink;
mod source;
pub mod stage;
#[cfg(test)]
mod stand;
mod trace;
mod wiring;
mod work;

pub use abort::Stop;
pub use cluster::{Cluster, JoinError};
pub use graph::Tap;
pub use host::Edge;
pub use memory::state_bytes;
pub use progress::{Made, Progress, Snapshot, StageCounters, StageSnapshot};
pub use report::{Outcome, SlideRecord, exit};
pub use run::{Options, RunError, counters, run};
pub use trace::DeviceSpans;
