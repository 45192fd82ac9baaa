//! # weir-runtime: a plan on timely dataflow
//!
//! One operator for each of four stage traits, leases as back-pressure, ledgers as completeness. A stage's author sees rows,
//! batches and slides; seals, leases, capabilities and threads are the operators' affair.

pub mod stage;
