//! What the parts of a call took on the device, by its own clock: for traces.

use super::stream::{Event, Stream};
use std::sync::Arc;

/// Milliseconds of a call's parts, one after the other, the last of which has just ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Took {
    /// From the call's beginning to its first launch: inputs that were carried over.
    pub upload: f32,
    /// From the first launch to the end of the last.
    pub kernel: f32,
    /// From there until the results lay on the host.
    pub download: f32,
}

/// Is told of every call whose results went to the host.
pub trait Watch: Send + Sync {
    /// `kernel` ended just now.
    fn ran(&self, kernel: &'static str, took: Took);
}

/// The events of a call.
pub(crate) struct Marks {
    watch: Arc<dyn Watch>,
    begun: Event,
    /// Before the first launch and behind the last.
    launched: Option<(Event, Event)>,
}

impl Marks {
    /// A call begins; `None` where nobody watches, or events cannot be had: a call never fails of its timing.
    pub(crate) fn begin(stream: &Stream, watch: Option<&Arc<dyn Watch>>) -> Option<Marks> {
        Some(Marks {
            watch: watch?.clone(),
            begun: mark(stream)?,
            launched: None,
        })
    }

    /// A launch is about to be enqueued, by `launch`.
    pub(crate) fn around<T>(
        marks: &mut Option<Marks>,
        stream: &Stream,
        launch: impl FnOnce() -> T,
    ) -> T {
        let Some(marks) = marks else {
            return launch();
        };
        let before = match marks.launched.take() {
            Some((first, _)) => Some(first),
            None => mark(stream),
        };
        let launched = launch();
        marks.launched = before.zip(mark(stream));
        launched
    }

    /// The results lie on the host.
    pub(crate) fn end(self, stream: &Stream, kernel: &'static str) {
        let took = || -> Option<Took> {
            let (first, last) = self.launched.as_ref()?;
            let end = mark(stream)?;
            end.synchronize().ok()?;
            Some(Took {
                upload: first.since(&self.begun).ok()?,
                kernel: last.since(first).ok()?,
                download: end.since(last).ok()?,
            })
        };
        if let Some(took) = took() {
            self.watch.ran(kernel, took);
        }
    }
}

fn mark(stream: &Stream) -> Option<Event> {
    let event = Event::new(stream.gpu(), true).ok()?;
    event.record(stream).ok()?;
    Some(event)
}
