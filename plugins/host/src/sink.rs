//! A plugin's sink as the runtime's [`Sink`].

use crate::batch::slide;
use crate::batch::task::Task;
use crate::held::{Held, Taken};
use crate::pool::{Holder, Pool};
use crate::reduce::code;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use weir_abi::status;
use weir_record::{Body, End, Key, SlideId, SlideInfo};
use weir_runtime::stage::{Completed, Sink, StageError};

/// A sink, of one worker.
pub(crate) struct PluginSink {
    /// Inputs.
    pub inputs: Vec<Taken>,
    pub slides: HashMap<SlideId, Slide>,
    /// Sinks of this process that have not finished; the last one tells the plugin.
    pub unfinished: Arc<AtomicUsize>,
    /// The last to go: with it go the instances that slides held.
    pub pool: Arc<Pool>,
}

/// A slide at a sink.
pub(crate) struct Slide {
    info: Arc<SlideInfo>,
    held: Vec<Held>,
    holder: Holder,
}

impl PluginSink {
    fn hand_over(&mut self, slide: SlideId) -> Result<(), StageError> {
        let Some(own) = self.slides.get_mut(&slide) else {
            return Ok(());
        };
        for (port, held) in own.held.iter_mut().enumerate() {
            held.take().give(&self.pool, &own.holder, port as u32)?;
        }
        Ok(())
    }
}

impl Sink for PluginSink {
    fn opened(&mut self, slide: SlideId, info: &Arc<SlideInfo>) -> Result<(), StageError> {
        let held = self.inputs.iter().map(|&taken| Held::new(taken)).collect();
        let info = info.clone();
        let holder = Holder::default();
        self.slides.insert(slide, Slide { info, held, holder });
        Ok(())
    }

    fn row(&mut self, port: usize, key: Key, body: Body) -> Result<(), StageError> {
        let Some(own) = self.slides.get_mut(&key.slide) else {
            return Ok(());
        };
        let body = body.is_value().then_some(body);
        if let Some(before) = own.held[port].put(key, body, &own.info) {
            before.give(&self.pool, &own.holder, port as u32)?;
        }
        if own.held[port].is_full() {
            own.held[port]
                .take()
                .give(&self.pool, &own.holder, port as u32)?;
        }
        Ok(())
    }

    fn ended(&mut self, id: SlideId, done: &[Completed]) -> Result<(), StageError> {
        // What it did not take it cannot write: it is told that the slide was aborted.
        let given = self.hand_over(id);
        let Some(own) = self.slides.get(&id) else {
            return Ok(());
        };
        let about = slide(&own.info, id.number());
        let through = done.iter().map(|done| done.through).max().unwrap_or(0);
        let end = done.iter().filter_map(|done| done.end).max();
        let end = match given {
            Ok(()) => end.unwrap_or(End::Complete),
            Err(_) => End::Aborted,
        };
        let told = self
            .pool
            .call_for(&own.holder, Task::Setup, |stage, me, call| {
                let _watched = self.pool.watch("complete_slide", Some(&own.info.id));
                match stage.complete_slide {
                    // SAFETY: as the header says: the slide and its strings live through the call.
                    Some(complete) => unsafe {
                        complete(me, call, &about, through, code(Some(end)))
                    },
                    None => status::UNSUPPORTED,
                }
            });
        given?;
        told?;
        Ok(())
    }

    fn closed(&mut self, slide: SlideId) {
        let Some(own) = self.slides.remove(&slide) else {
            return;
        };
        self.pool.close(&own.holder, |stage, me| {
            if let Some(close) = stage.close_slide {
                let _watched = self.pool.watch("close_slide", Some(&own.info.id));
                // SAFETY: as the header says.
                unsafe { close(me, slide.number()) }
            }
        });
    }

    fn finish(&mut self) -> Result<(), StageError> {
        if self.unfinished.fetch_sub(1, Ordering::SeqCst) != 1 || !self.pool.shelf.finishes() {
            return Ok(());
        }
        if self.pool.shelf.replaced() > 0 {
            return Err(StageError::new(
                format!(
                    "{} lost what it held of the run when it panicked, hung or died [E0521]: what it writes at the end would lack slides",
                    self.pool.who().plugin
                ),
                "see the log for how; run it again",
            ));
        }
        self.pool.call(Task::Setup, |stage, me, call| {
            let _watched = self.pool.watch("finish", None);
            match stage.finish {
                // SAFETY: as the header says.
                Some(finish) => unsafe { finish(me, call) },
                None => status::OK,
            }
        })?;
        Ok(())
    }
}
