//! Streams, and events by which one waits for another without the host.

use super::arena::Arena;
use super::fault::CudaError;
use super::lists::Lists;
use super::ring::{Download, Upload};
use super::trace::Recorder;
use super::{Context, Gpu};
use cudarc::driver::{result, sys};
use std::ffi::c_void;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::ThreadId;

/// An order of work on the device. Cheap to clone; clones are the same stream.
#[derive(Clone)]
pub struct Stream {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {:p} of {}", self.raw(), self.gpu().place())
    }
}

pub(crate) struct Inner {
    raw: sys::CUstream,
    owned: bool,
    gpu: Gpu,
    /// What the stream's work needs, used again by the next: the lock makes one thread at a time enqueue.
    workshop: Mutex<Workshop>,
    /// The thread that has it.
    holder: Mutex<Option<ThreadId>>,
    recorder: Mutex<Option<Recorder>>,
}

/// Scratch memory, kept lists and pinned rings of a stream.
#[derive(Default)]
pub(crate) struct Workshop {
    pub(crate) arena: Arena,
    pub(crate) lists: Lists,
    pub(crate) upload: Upload,
    pub(crate) download: Download,
}

/// A stream's workshop, for the thread that has it.
pub(crate) struct Held<'a> {
    workshop: MutexGuard<'a, Workshop>,
    of: &'a Inner,
}

impl Deref for Held<'_> {
    type Target = Workshop;

    fn deref(&self) -> &Workshop {
        &self.workshop
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Workshop {
        &mut self.workshop
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Before the lock opens, which the guard does after this.
        *self.of.holder() = None;
    }
}

impl Inner {
    fn holder(&self) -> MutexGuard<'_, Option<ThreadId>> {
        // It is whole whenever a panic comes.
        self.holder
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

// SAFETY: the driver's streams may be used from any thread whose current context is the stream's; every call binds it first.
unsafe impl Send for Inner {}
// SAFETY: as above; what is mutable is behind the lock.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.gpu.bind().is_err() {
            return;
        }
        // What the stream still runs may use its scratch and its rings, which are freed after this.
        // SAFETY: the stream is alive: it is destroyed below, or its owner keeps it (see `Gpu::borrow_stream`).
        let _ = unsafe { result::stream::synchronize(self.raw) };
        let workshop = match self.workshop.get_mut() {
            Ok(workshop) => workshop,
            Err(poisoned) => poisoned.into_inner(),
        };
        *workshop = Workshop::default();
        if self.owned {
            // SAFETY: made by `Stream::new`, and nothing else holds it any more.
            let _ = unsafe { result::stream::destroy(self.raw) };
        }
    }
}

impl Stream {
    /// A stream of its own, not ordered with the null stream.
    pub(crate) fn new(gpu: &Gpu) -> Result<Stream, CudaError> {
        gpu.bind()?;
        let raw = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(|error| CudaError::driver("make a stream", error))?;
        Ok(Stream::of(gpu, raw, true))
    }

    pub(crate) fn of(gpu: &Gpu, raw: sys::CUstream, owned: bool) -> Stream {
        Stream {
            inner: Arc::new(Inner {
                raw,
                owned,
                gpu: gpu.clone(),
                workshop: Mutex::default(),
                holder: Mutex::default(),
                recorder: Mutex::default(),
            }),
        }
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.inner.gpu
    }

    /// The driver's handle (`CUstream`), for other libraries that take one.
    pub fn raw(&self) -> *mut c_void {
        self.inner.raw.cast()
    }

    pub(crate) fn cu(&self) -> sys::CUstream {
        self.inner.raw
    }

    /// The workshop for the calling thread alone, once other threads are done with it. Where this thread has it already, it
    /// would wait for itself: an error that names what it was `doing`.
    pub(crate) fn workshop(&self, doing: &'static str) -> Result<Held<'_>, CudaError> {
        let here = std::thread::current().id();
        if *self.inner.holder() == Some(here) {
            return Err(CudaError::UnderWay { doing });
        }
        // A panic between two enqueued operations leaves the rings and the arena consistent: they are changed last.
        let workshop = self.inner.workshop.lock();
        let workshop = workshop.unwrap_or_else(|poisoned| poisoned.into_inner());
        *self.inner.holder() = Some(here);
        Ok(Held {
            workshop,
            of: &self.inner,
        })
    }

    pub(crate) fn recorder(&self) -> MutexGuard<'_, Option<Recorder>> {
        // A panic leaves the list as it was.
        self.inner
            .recorder
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits on the host until everything enqueued so far is done.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.gpu().bind()?;
        // SAFETY: the stream is alive while `self` is.
        unsafe { result::stream::synchronize(self.cu()) }
            .map_err(|error| CudaError::driver("finish the stream's work", error))
    }

    /// An event after everything enqueued so far, for another stream to wait for. Without times, hence cheap.
    pub fn record(&self) -> Result<Event, CudaError> {
        let event = Event::new(self.gpu(), false)?;
        event.record(self)?;
        Ok(event)
    }

    /// What is enqueued from now on waits for `event` on the device; the host does not wait.
    pub fn wait(&self, event: &Event) -> Result<(), CudaError> {
        self.gpu().bind()?;
        // SAFETY: both are alive.
        unsafe {
            result::stream::wait_event(
                self.cu(),
                event.raw,
                sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT,
            )
        }
        .map_err(|error| CudaError::driver("let a stream wait for an event", error))
    }

    /// What is enqueued from now on waits for what `other` has so far.
    pub fn wait_for(&self, other: &Stream) -> Result<(), CudaError> {
        self.wait(&other.record()?)
    }

    /// Starts measuring the device's time of what is enqueued from now on.
    pub fn timer(&self) -> Result<Timer, CudaError> {
        let start = Event::new(self.gpu(), true)?;
        start.record(self)?;
        Ok(Timer {
            start,
            stream: self.clone(),
        })
    }
}

/// A point in a stream's work.
pub struct Event {
    raw: sys::CUevent,
    context: Arc<Context>,
}

// SAFETY: as for `Inner`: events may be used from any thread whose current context is theirs.
unsafe impl Send for Event {}
// SAFETY: no method changes the event but `record`, which the driver orders.
unsafe impl Sync for Event {}

impl Drop for Event {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: made by `Event::new`; the driver keeps what is pending on it until it is done.
            let _ = unsafe { result::event::destroy(self.raw) };
        }
    }
}

impl Event {
    /// An event that nothing has recorded yet; `timed` ones hold the device's time.
    pub fn new(gpu: &Gpu, timed: bool) -> Result<Event, CudaError> {
        gpu.bind()?;
        let flags = if timed {
            sys::CUevent_flags::CU_EVENT_DEFAULT
        } else {
            sys::CUevent_flags::CU_EVENT_DISABLE_TIMING
        };
        let raw = result::event::create(flags)
            .map_err(|error| CudaError::driver("make an event", error))?;
        Ok(Event {
            raw,
            context: gpu.context().clone(),
        })
    }

    /// Moves the event behind everything that `stream` has so far.
    pub fn record(&self, stream: &Stream) -> Result<(), CudaError> {
        self.record_on(stream.cu())
    }

    pub(crate) fn record_on(&self, stream: sys::CUstream) -> Result<(), CudaError> {
        self.context.bind()?;
        // SAFETY: both are alive.
        unsafe { result::event::record(self.raw, stream) }
            .map_err(|error| CudaError::driver("record an event", error))
    }

    /// Waits on the host until the event is reached.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.context.bind()?;
        // SAFETY: the event is alive.
        unsafe { result::event::synchronize(self.raw) }
            .map_err(|error| CudaError::driver("reach an event", error))
    }

    /// Whether the event is reached; does not wait.
    pub fn reached(&self) -> Result<bool, CudaError> {
        self.context.bind()?;
        // SAFETY: the event is alive.
        match unsafe { result::event::query(self.raw) } {
            Ok(()) => Ok(true),
            Err(error) if error.0 == sys::cudaError_enum::CUDA_ERROR_NOT_READY => Ok(false),
            Err(error) => Err(CudaError::driver("ask for an event", error)),
        }
    }

    /// Milliseconds of the device from `earlier` to this one; both must be timed and reached.
    pub fn since(&self, earlier: &Event) -> Result<f32, CudaError> {
        self.context.bind()?;
        // SAFETY: both are alive.
        unsafe { result::event::elapsed(earlier.raw, self.raw) }
            .map_err(|error| CudaError::driver("measure between events", error))
    }

    /// The driver's handle (`CUevent`), for other libraries that take one.
    pub fn raw(&self) -> *mut c_void {
        self.raw.cast()
    }
}

/// Measures the device's time of a stretch of a stream's work.
pub struct Timer {
    start: Event,
    stream: Stream,
}

impl Timer {
    /// Ends the stretch, waits until it is done, and gives its milliseconds.
    pub fn stop(self) -> Result<f32, CudaError> {
        self.lap()?.milliseconds()
    }

    /// Ends the stretch without waiting.
    pub fn lap(self) -> Result<Lap, CudaError> {
        let end = Event::new(self.stream.gpu(), true)?;
        end.record(&self.stream)?;
        Ok(Lap {
            start: self.start,
            end,
        })
    }
}

/// A measured stretch of a stream's work.
pub struct Lap {
    start: Event,
    end: Event,
}

impl Lap {
    /// Waits until the stretch is done, and gives its milliseconds.
    pub fn milliseconds(&self) -> Result<f32, CudaError> {
        self.end.synchronize()?;
        self.end.since(&self.start)
    }

    /// The stretch's first event, to place it on a trace's time line by [`Event::since`].
    pub fn start(&self) -> &Event {
        &self.start
    }
}
