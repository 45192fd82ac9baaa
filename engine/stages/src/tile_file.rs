//! The sinks that write one file of tiles a slide: what they have in common.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use weir_model::file::Whole;
use weir_record::{Body, Event, Key, SlideId, SlideInfo};
use weir_runtime::stage::{Completed, Prepare, Prepared, Sink, StageError};

use crate::folder;
use crate::tiles::{OpenTiles, Tiles, Verdict};
use crate::writers::{Writers, cannot_write, remove};

/// Writes a slide's tiles; the same bytes for the same tiles.
pub(crate) type WriteTiles = dyn Fn(&Tiles, &mut dyn Write) -> io::Result<()> + Send + Sync;

/// A sink that writes `file` with `write` in the folder of each slide that ends well.
pub(crate) fn prepare(
    cx: &Prepare,
    file: &'static str,
    write: Arc<WriteTiles>,
) -> Result<Prepared, StageError> {
    let writers = cx.shared.get::<Writers>();
    writers.enlist(&cx.node.name, file)?;
    let (stage, out) = (cx.node.name.clone(), cx.out());
    Ok(Prepared::Sink(Arc::new(move || {
        Box::new(TileFile {
            stage: stage.clone(),
            file,
            out: out.clone(),
            writers: writers.clone(),
            open: OpenTiles::default(),
            write: write.clone(),
        })
    })))
}

struct TileFile {
    stage: String,
    file: &'static str,
    out: PathBuf,
    writers: Arc<Writers>,
    open: OpenTiles,
    write: Arc<WriteTiles>,
}

impl TileFile {
    /// Writes or removes the slide's file; whether there is one now.
    fn settle(&self, tiles: &Tiles, verdict: Verdict) -> Result<bool, StageError> {
        let path = folder::of(&self.out, &tiles.info.id)?.join(self.file);
        if verdict == Verdict::Remove {
            remove(&path)?;
            return Ok(false);
        }
        let written = Whole::create(&path).and_then(|mut whole| {
            (self.write)(tiles, &mut whole)?;
            whole.finish()
        });
        written.map_err(|error| cannot_write(&path, &error))?;
        Ok(true)
    }
}

impl Sink for TileFile {
    fn opened(&mut self, slide: SlideId, info: &Arc<SlideInfo>) -> Result<(), StageError> {
        self.open.opened(slide, info);
        Ok(())
    }

    fn row(&mut self, port: usize, key: Key, body: Body) -> Result<(), StageError> {
        self.open.row(port, key, &body);
        Ok(())
    }

    fn event(&mut self, slide: SlideId, event: &Event) -> Result<(), StageError> {
        self.open.event(slide, event);
        Ok(())
    }

    fn ended(&mut self, slide: SlideId, done: &[Completed]) -> Result<(), StageError> {
        let Some(tiles) = self.open.get(slide) else {
            return Ok(());
        };
        match tiles.verdict(done) {
            Verdict::Skipped => Ok(()),
            Verdict::Interrupted => self.writers.wrote(slide, &self.stage, None),
            verdict => {
                let settled = self.settle(tiles, verdict);
                let file = settled
                    .as_ref()
                    .ok()
                    .map(|there| there.then_some(self.file));
                self.writers.wrote(slide, &self.stage, file)?;
                settled.map(|_| ())
            }
        }
    }

    fn closed(&mut self, slide: SlideId) {
        self.open.closed(slide);
    }
}
