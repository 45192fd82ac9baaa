//! # weir-record: what flows through weir
//!
//! A **stream is, per slide, a register for each tile**: a [`Row`] is one *version* `(slide, tile, rev)` and the greatest
//! `rev` of a tile is what holds. Nothing downstream depends on the order in which rows arrive. Completeness is counted by
//! a [`Ledger`] per slide and port, memory by [`Lease`]s of one [`Budget`].
//!
//! | module | idea |
//! |---|---|
//! | [`id`] | names of slides and tiles that fit in a machine word |
//! | [`unit`](mod@unit) | level-0 pixels, micrometres and um/px, kept apart by type |
//! | [`row`] | the row and its bodies |
//! | [`slide_info`] | what is known of a slide once it is open |
//! | [`outcome`] | skips and failures: what a stage makes of a version when it is no value |
//! | [`prediction`] | bags, attention and predictions |
//! | [`exact`] | pools by integers: merge, insert, retract to the bit |
//! | [`event`] | news that is not counted |
//! | [`ledger`] | when a slide is complete and when it is final |
//! | [`generation`] | how a source numbers what it sends |
//! | [`budget`], [`slab`], [`arena`], [`tile_buf`] | bytes: leases, recycled buffers, their memory for other processes, pixels |
//!
//! No I/O, no threads of its own, no dataflow library: this crate is the ground that the others stand on.

pub mod arena;
pub mod budget;
pub mod event;
pub mod exact;
pub mod generation;
pub mod id;
pub mod ledger;
pub mod outcome;
pub mod prediction;
pub mod row;
pub mod slab;
pub mod slide_info;
pub mod tile_buf;
pub mod unit;

pub use arena::Arena;
pub use budget::{Budget, CacheShare, Class, Lease, Reservation};
pub use event::Event;
pub use exact::{EXACT_CONTRACT, ExactMember, ExactPool};
pub use generation::Generations;
pub use id::{SlideId, SlideKey, TileId};
pub use ledger::{Kind, Ledger, LedgerError, Tally};
pub use outcome::{Failure, Skip};
pub use prediction::{Attention, Bag, BagFlags, Coverage, ExactSums, Picks, Prediction, State};
pub use row::{Body, End, Feature, Key, Row, Scores, Seal, Table};
pub use slab::{Slab, SlabBuf};
pub use slide_info::{Grid, MppOrigin, SlideInfo};
pub use tile_buf::TileBuf;
pub use unit::{Level0Px, Mpp, Um};
