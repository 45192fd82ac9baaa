//! The kinds of stages. What is withdrawn, skipped or failed never comes; revisions and seals are the host's affair.

use crate::batch::Batch;
use crate::call::Call;
use crate::error::{Error, Result};
use crate::row::{End, Row, Slide};

/// A value for each value: each row of the input comes out on every output, or fails.
///
/// Several calls may run at once unless [`derive@crate::Stage`] says `serial` or `per_worker`.
pub trait Map: Send + Sync + 'static {
    /// Once, with the parameters set: loads what is needed.
    ///
    /// # Errors
    /// [`Error::param`] names a parameter that cannot be used; the user's file is marked there.
    fn start(&mut self, _call: &Call) -> Result<()> {
        Ok(())
    }

    /// Reserved: a size that the manifest left open, of an output port the dimension of that name. Hosts of 1.0 do not ask, so that a
    /// file is checked without running anything: in the manifest a size is a number or a parameter.
    fn size(&self, _port: &str, _symbol: &str) -> Option<u64> {
        None
    }

    /// Makes the output rows.
    ///
    /// # Errors
    /// The rows are tried again one by one, and those that fail alone are failed tiles.
    fn map(&self, batch: &Batch, call: &Call) -> Result<()>;

    /// Completes [detached](Call::detach) calls soon; from any thread.
    fn cancel(&self) {}
}

/// Keeps rows or leaves them out, as they are. A row that is neither kept nor failed is skipped.
///
/// Several calls may run at once unless [`derive@crate::Stage`] says `serial` or `per_worker`.
pub trait Filter: Send + Sync + 'static {
    /// As [`Map::start`].
    ///
    /// # Errors
    /// As there.
    fn start(&mut self, _call: &Call) -> Result<()> {
        Ok(())
    }

    /// As [`Map::size`].
    fn size(&self, _port: &str, _symbol: &str) -> Option<u64> {
        None
    }

    /// Decides; [`Call::sift`] does it row by row.
    ///
    /// # Errors
    /// As of [`Map::map`].
    fn filter(&self, batch: &Batch, call: &Call) -> Result<()>;

    /// As [`Map::cancel`].
    fn cancel(&self) {}
}

/// Makes of all rows of a slide other rows of it.
///
/// Each open slide has an instance of its own, which goes on to another slide when it is [closed](Reduce::close).
///
/// A stream is a register for each tile: a later row with the same [`tile`](crate::Key::tile) replaces the earlier one.
pub trait Reduce: Send + 'static {
    /// As [`Map::start`].
    ///
    /// # Errors
    /// As there.
    fn start(&mut self, _call: &Call) -> Result<()> {
        Ok(())
    }

    /// As [`Map::size`].
    fn size(&self, _port: &str, _symbol: &str) -> Option<u64> {
        None
    }

    /// Rows came on the input of this name. Nothing is emitted yet.
    ///
    /// # Errors
    /// The slides of these rows fail.
    fn take(&mut self, port: &str, batch: &Batch, call: &Call) -> Result<()>;

    /// These rows hold no more: withdrawn, failed, or about to be replaced. Never called of a stage that is `batch_only`.
    ///
    /// # Errors
    /// The slides of these rows fail.
    fn remove(&mut self, _port: &str, _rows: &[Row], _call: &Call) -> Result<()> {
        Err(Error::new(
            "this stage takes no withdrawals: it must say `batch_only`, or implement `remove`",
        ))
    }

    /// Everything of the slide up to `generation` came: its rows are emitted now. Called again when the slide grows.
    ///
    /// # Errors
    /// The slide fails.
    fn complete(&mut self, slide: Slide, generation: u32, end: End, call: &Call) -> Result<()>;

    /// What is kept of this slide ([`Slide::number`]) may be dropped.
    fn close(&mut self, _slide: u64) {}
}

/// Takes rows out of the run: writes them somewhere. One that writes tables which span slides is a [`Finish`] too.
pub trait Sink: Send + 'static {
    /// As [`Map::start`].
    ///
    /// # Errors
    /// As there.
    fn start(&mut self, _call: &Call) -> Result<()> {
        Ok(())
    }

    /// As [`Reduce::take`].
    ///
    /// # Errors
    /// As there.
    fn take(&mut self, port: &str, batch: &Batch, call: &Call) -> Result<()>;

    /// As [`Reduce::remove`].
    ///
    /// # Errors
    /// As there.
    fn remove(&mut self, port: &str, rows: &[Row], call: &Call) -> Result<()>;

    /// Everything of the slide up to `generation` came: it is written now, whole or not at all.
    ///
    /// # Errors
    /// The slide fails.
    fn complete(&mut self, slide: Slide, generation: u32, end: End, call: &Call) -> Result<()>;

    /// As [`Reduce::close`].
    fn close(&mut self, _slide: u64) {}
}

/// A sink that has something to do when the run is over. All slides go to one instance of it then, so that a panic takes what it held of
/// every open one; any other sink has an instance for each.
pub trait Finish: Sink {
    /// The run is over: tables that span slides are written now.
    ///
    /// # Errors
    /// The run fails.
    fn finish(&mut self, call: &Call) -> Result<()>;
}
