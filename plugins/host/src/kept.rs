//! Inputs that a stage's plugin holds on to beyond their calls.
//!
//! A batch that is retained keeps its rows, and the leases on their memory with them. Were these like any other, a plugin that never
//! lets go would take the run's memory away from everybody, until no tile can be read any more and the run stands still. So they are
//! set apart: nobody waits for them. For that, what a stage keeps is bounded. Much of it is told in the log, by the plugin's name; too
//! much of it fails the stage's further calls, so that the run ends and says why. A process that keeps too much is ended instead, and
//! what it kept is free.

use crate::batch::HostBatch;
use crate::batch::live::Noted;
use crate::batch::slide_id;
use crate::call::FAULT;
use crate::columns::row_bytes;
use crate::log::Level;
use crate::who::Who;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use weir_abi::desk::Said;
use weir_record::Body;

/// What a stage may keep: this part of the run's memory, half of what can be set apart. Calls that run at once may go beyond it.
const PART: usize = 16;

/// Of what it may keep, the part from which on it is told of; then at each doubling.
const TOLD: usize = 4;

/// So many inputs are noted before it is looked which of them are gone.
const LOOK: usize = 64;

/// Takes a value that a plugin holds on to out of the account of the stage that made it.
pub(crate) fn set_apart(body: &Body) {
    if let Some(lease) = body.lease() {
        lease.set_apart();
    }
}

/// What a stage's plugin keeps.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Bytes that it may keep.
    most: usize,
    /// Bytes that it keeps, or has let go of since the last look.
    bytes: AtomicUsize,
    all: Mutex<All>,
}

#[derive(Debug)]
struct All {
    inputs: Vec<Input>,
    /// So many inputs, and it is looked again.
    look: usize,
    /// So many bytes, and it is told of.
    tell: usize,
}

#[derive(Debug)]
struct Input {
    batch: Weak<HostBatch>,
    bytes: usize,
    /// Of its first row.
    slide: String,
}

impl All {
    /// Forgets what is gone; the bytes of the rest.
    fn look(&mut self) -> usize {
        self.inputs.retain(|input| input.batch.strong_count() > 0);
        self.look = (2 * self.inputs.len()).max(LOOK);
        self.inputs.iter().map(|input| input.bytes).sum()
    }

    /// As "3 batches (1.5 MiB) beyond their calls, the first of them of slide `a`".
    fn told(&self, bytes: usize) -> String {
        let n = self.inputs.len();
        let first = self.inputs.first().map_or("", |input| &input.slide);
        format!(
            "{n} {} ({:.1} MiB) beyond {}, the first of slide `{first}`",
            if n == 1 { "batch" } else { "batches" },
            bytes as f64 / f64::from(1 << 20),
            if n == 1 { "its call" } else { "their calls" },
        )
    }
}

impl Kept {
    /// For a stage of a run with so many bytes of memory.
    pub fn within(memory: usize) -> Kept {
        let most = memory / PART;
        Kept {
            most,
            bytes: AtomicUsize::new(0),
            all: Mutex::new(All {
                inputs: Vec::new(),
                look: LOOK,
                tell: most / TOLD,
            }),
        }
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an input that the plugin has beyond its call.
    pub fn note(&self, input: &Arc<HostBatch>, who: &Who) {
        let (bytes, slide) = about(input);
        let mut all = self.all();
        all.inputs.push(Input {
            batch: Arc::downgrade(input),
            bytes,
            slide,
        });
        let mut sum = self.bytes.load(Ordering::Relaxed).saturating_add(bytes);
        if all.inputs.len() >= all.look || sum > all.tell {
            sum = all.look();
        }
        self.bytes.store(sum, Ordering::Relaxed);
        if sum <= all.tell {
            return;
        }
        all.tell = 2 * sum;
        let told = all.told(sum);
        drop(all);
        let line = format!(
            "{} keeps {told}: they hold memory beside that of the run",
            who.plugin
        );
        who.line(Level::Warn, &line);
    }

    /// Whether it keeps too much by what is known without a look, and without copies.
    #[inline]
    pub fn may_be_too_much(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.most
    }

    /// Why the stage gets no more rows, when it keeps too many. `beside`: bytes of copies that are kept with them.
    pub fn refusal(&self, who: &Who, beside: usize) -> Option<Said> {
        match self.bytes.load(Ordering::Relaxed) + beside <= self.most {
            true => None,
            false => self.refused(who, beside),
        }
    }

    #[cold]
    fn refused(&self, who: &Who, beside: usize) -> Option<Said> {
        let mut all = self.all();
        let rows = all.look();
        self.bytes.store(rows, Ordering::Relaxed);
        let sum = rows + beside;
        (sum > self.most).then(|| Said {
            what: format!(
                "{} broke the contract [E0520]: it keeps {}, and may keep a sixteenth of the run's memory, {:.1} MiB",
                who.plugin,
                all.told(sum),
                self.most as f64 / f64::from(1 << 20),
            ),
            help: format!("{FAULT}; if it has to keep them, raise `memory` of [run]"),
            ..Said::default()
        })
    }

    /// Tells of what is still kept when the stage's instances are gone: nobody will give it back.
    pub fn left(&self, who: &Who) {
        let mut all = self.all();
        let sum = all.look();
        if all.inputs.is_empty() {
            return;
        }
        let line = format!(
            "{} was destroyed and has not given back {}: it leaks them",
            who.plugin,
            all.told(sum)
        );
        drop(all);
        who.line(Level::Warn, &line);
    }
}

/// Bytes of an input's rows, and the slide of its first, as the plugin sees them.
fn about(input: &Arc<HostBatch>) -> (usize, String) {
    // SAFETY: a batch of the host's that the caller has: its lists are as long as they say, and its slides live as long as it.
    unsafe {
        let head = &*input.as_ptr();
        let n = head.n_rows as usize;
        let columns = std::slice::from_raw_parts(head.columns, head.n_columns as usize);
        let bytes = columns.iter().map(|column| {
            if !column.lengths.is_null() {
                let lengths = std::slice::from_raw_parts(column.lengths, n);
                return lengths.iter().sum::<u64>() as usize * column.dtype.bytes();
            }
            let shape = std::slice::from_raw_parts(column.shape, column.ndim as usize);
            row_bytes(column.dtype, shape).unwrap_or(0) * n
        });
        let slides = std::slice::from_raw_parts(head.slides, head.n_slides as usize);
        let slide = slides
            .first()
            .map_or_else(String::new, |slide| slide_id(&**slide));
        (bytes.sum(), slide)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::log::Log;
    use weir_record::{Key, SlideId, SlideInfo, SlideKey, TileBuf, TileId};

    /// A tile of 64 x 64 px, 12 KiB, of that slide.
    fn input(slide: &str) -> Arc<HostBatch> {
        let info = SlideInfo::unopened(slide.into(), SlideKey(1), "a.svs".into());
        let tile = TileBuf::new(64, 64, vec![0; TileBuf::bytes(64, 64)].into(), None).unwrap();
        let key = Key {
            slide: SlideId::new(0, 0),
            tile: TileId::new(0, 0, 0, 0).unwrap(),
            rev: 0,
        };
        let (info, body) = (Arc::new(info), Body::Pixels(Arc::new(tile)));
        // SAFETY: `keep` is called before the value goes.
        let batch = unsafe { HostBatch::input([(key, &body, &info)].into_iter(), 0) }.unwrap();
        batch.keep();
        batch.placed()
    }

    fn who() -> (Who, Arc<Mutex<Vec<String>>>) {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = lines.clone();
        let who = Who {
            log: Log::to(move |_, _, text| heard.lock().unwrap().push(text.to_owned())),
            ..Who::plugin("probe", &semver::Version::new(1, 0, 0))
        };
        (who, lines)
    }

    #[test]
    fn what_is_kept_is_told_of_then_refused_and_forgiven_when_it_is_let_go() {
        let (who, lines) = who();
        // A sixteenth is 192 KiB: sixteen tiles.
        let kept = Kept::within(3 << 20);
        let mut held = Vec::new();
        for n in 1..=17 {
            held.push(input(if n == 1 { "a" } else { "b" }));
            kept.note(held.last().unwrap(), &who);
            assert_eq!(kept.refusal(&who, 0).is_some(), n > 16, "{n}");
        }
        let said = kept.refusal(&who, 0).unwrap();
        for part in [
            "plugin `probe` 1.0.0 broke the contract [E0520]",
            "17 batches (0.2 MiB)",
            "the first of slide `a`",
        ] {
            assert!(said.what.contains(part), "{}", said.what);
        }
        // From a quarter on, at each doubling.
        let told = lines.lock().unwrap().clone();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("keeps 5 batches (0.1 MiB)"), "{}", told[0]);
        held.remove(0);
        assert!(kept.refusal(&who, 0).is_none());
        assert!(kept.refusal(&who, 1).is_some());
        kept.left(&who);
        held.clear();
        kept.left(&who);
        let told = lines.lock().unwrap().clone();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told[2].contains("has not given back 16 batches") && told[2].contains("slide `b`"),
            "{}",
            told[2]
        );
    }

    #[test]
    fn what_is_let_go_in_time_is_never_told_of() {
        let (who, lines) = who();
        let kept = Kept::within(3 << 20);
        for _ in 0..10_000 {
            kept.note(&input("a"), &who);
            assert!(kept.refusal(&who, 0).is_none());
        }
        assert!(kept.all().inputs.len() <= LOOK);
        assert_eq!(*lines.lock().unwrap(), [""; 0]);
    }
}
