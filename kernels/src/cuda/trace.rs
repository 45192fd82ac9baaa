//! What a stream ran and when, on the host's clock: spans for a trace.

use super::fault::CudaError;
use super::stream::{Event, Stream};
use std::time::{Duration, Instant};

/// Something that a stream ran.
#[derive(Clone, Debug, PartialEq)]
pub struct Ran {
    /// The kernel's name, `to device`, `to host`, or what [`Stream::traced`] was told.
    pub what: &'static str,
    /// When it began, on the host's clock (to within the time of one event, some ten microseconds).
    pub start: Instant,
    /// How long the device took.
    pub time: Duration,
}

/// The events of a traced stream.
pub(crate) struct Recorder {
    /// Recorded and reached at `began`.
    base: Event,
    began: Instant,
    events: Vec<(&'static str, Event, Event)>,
}

/// The first event of something that is being enqueued.
pub(crate) struct Open {
    what: &'static str,
    start: Event,
}

impl Stream {
    /// From now on what the stream runs is measured, until [`Stream::take_trace`] has brought it: two events each, about a
    /// microsecond of the host's time.
    pub fn trace(&self) -> Result<(), CudaError> {
        let base = Event::new(self.gpu(), true)?;
        base.record(self)?;
        base.synchronize()?;
        *self.recorder() = Some(Recorder {
            base,
            began: Instant::now(),
            events: Vec::new(),
        });
        Ok(())
    }

    /// What the stream ran since it is traced or since the last call, in order. Waits until it is done. Nothing where the
    /// stream is not traced.
    pub fn take_trace(&self) -> Result<Vec<Ran>, CudaError> {
        let mut recorder = self.recorder();
        let Some(recorder) = recorder.as_mut() else {
            return Ok(Vec::new());
        };
        let events = std::mem::take(&mut recorder.events);
        let milliseconds = |from: &Event, to: &Event| {
            to.since(from)
                .map(|time| Duration::from_secs_f64(f64::from(time.max(0.0)) / 1e3))
        };
        events
            .into_iter()
            .map(|(what, start, end)| {
                end.synchronize()?;
                Ok(Ran {
                    what,
                    start: recorder.began + milliseconds(&recorder.base, &start)?,
                    time: milliseconds(&start, &end)?,
                })
            })
            .collect()
    }

    /// Has what `enqueue` enqueues stand in the trace as one thing, as another library's work; with what other threads enqueue
    /// meanwhile. Where the stream is not traced that is all it does.
    pub fn traced<R>(
        &self,
        what: &'static str,
        enqueue: impl FnOnce() -> R,
    ) -> Result<R, CudaError> {
        let open = self.opened(what)?;
        let result = enqueue();
        self.closed(open)?;
        Ok(result)
    }

    /// Marks the beginning of what is enqueued next; `None` where the stream is not traced.
    pub(crate) fn opened(&self, what: &'static str) -> Result<Option<Open>, CudaError> {
        if self.recorder().is_none() {
            return Ok(None);
        }
        let start = Event::new(self.gpu(), true)?;
        start.record(self)?;
        Ok(Some(Open { what, start }))
    }

    /// Marks the end of what was opened.
    pub(crate) fn closed(&self, open: Option<Open>) -> Result<(), CudaError> {
        if let Some(Open { what, start }) = open {
            let end = Event::new(self.gpu(), true)?;
            end.record(self)?;
            if let Some(recorder) = self.recorder().as_mut() {
                recorder.events.push((what, start, end));
            }
        }
        Ok(())
    }
}
