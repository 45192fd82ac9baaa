//! Readers of further formats: they are asked where the native reader declines.

use crate::{Fault, OpenOptions, SlideError, SlideReader};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// First bytes of a file that [`Opener::sniff`] is shown. DICOM's sign stands at byte 128.
pub const HEAD: usize = 4096;

/// A reader of further formats, as a plugin brings them.
pub trait Opener: Send + Sync {
    /// Its name, as `openslide`.
    fn id(&self) -> &str;

    /// Endings of files that folders are searched for, without the dot.
    fn extensions(&self) -> &[String];

    /// How surely a file is this reader's, 0 (not mine) to 100, by its name and its first bytes (up to [`HEAD`]). Reads nothing
    /// else.
    ///
    /// # Errors
    /// Where it could not be asked: a reader in a process of its own died, or did not answer within [`OpenOptions::timeout`].
    fn sniff(&self, path: &Path, head: &[u8], options: &OpenOptions) -> Result<i32, SlideError>;

    /// Opens the slide. [`Fault::NotASlide`] and [`Fault::Unsupported`] mean that it is not this reader's after all.
    fn open(&self, path: &Path, options: &OpenOptions) -> Result<Arc<dyn SlideReader>, SlideError>;
}

/// The readers of a run beside the native one, none by default.
#[derive(Clone, Default)]
pub struct Openers(Arc<[Arc<dyn Opener>]>);

impl fmt::Debug for Openers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(Opener::id)).finish()
    }
}

/// What a further reader said of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The reader.
    pub id: String,
    /// Its [`Opener::sniff`], within 0 to 100; 0 where it could not be asked.
    pub score: i32,
    /// Why it did not open the file, or could not be asked about it; `None` when it did, or was not asked to.
    pub declined: Option<SlideError>,
}

/// Which reader took a slide, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// `native`, or an opener's id.
    pub reader: String,
    /// Why the native reader declined; `None` when it took the slide.
    pub native: Option<SlideError>,
    /// Further readers, best score first.
    pub asked: Vec<Asked>,
}

impl Openers {
    /// These readers.
    pub fn new(openers: impl IntoIterator<Item = Arc<dyn Opener>>) -> Openers {
        Openers(openers.into_iter().collect())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &dyn Opener> {
        self.0.iter().map(Arc::as_ref)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Endings that any of them names, without the dot, sorted.
    pub fn extensions(&self) -> Vec<String> {
        let mut endings: Vec<String> = self.iter().flat_map(Opener::extensions).cloned().collect();
        endings.sort();
        endings.dedup();
        endings
    }

    /// Asks them in the order of their scores, ties by name, after the native reader has declined with `native`.
    pub(crate) fn open(
        &self,
        path: &Path,
        options: &OpenOptions,
        native: SlideError,
    ) -> Result<(Arc<dyn SlideReader>, Choice), SlideError> {
        let head = head(path)?;
        let mut asked: Vec<(&dyn Opener, Asked)> = self
            .iter()
            .map(|opener| {
                let (score, declined) = match opener.sniff(path, &head, options) {
                    Ok(score) => (score.clamp(0, 100), None),
                    Err(error) => (0, Some(error)),
                };
                let asked = Asked {
                    id: opener.id().to_string(),
                    score,
                    declined,
                };
                (opener, asked)
            })
            .collect();
        asked.sort_by(|a, b| b.1.score.cmp(&a.1.score).then(a.1.id.cmp(&b.1.id)));
        let mut opened = None;
        for (opener, asked) in asked.iter_mut().filter(|(_, asked)| asked.score > 0) {
            match opener.open(path, options) {
                Ok(slide) => {
                    opened = Some((slide, asked.id.clone()));
                    break;
                }
                Err(error) if error.declines() => asked.declined = Some(error),
                // It is this reader's file, and there is something wrong with it.
                Err(mut error) => {
                    if error.help.is_empty() {
                        // It knows of no remedy; what the native reader lacks may be one.
                        error.help.clone_from(&native.help);
                    }
                    error.what = format!(
                        "{} (read by {}; the native reader declined it: {})",
                        error.what, asked.id, native.what
                    );
                    return Err(error);
                }
            }
        }
        let asked: Vec<Asked> = asked.into_iter().map(|(_, asked)| asked).collect();
        match opened {
            Some((slide, reader)) => Ok((
                slide,
                Choice {
                    reader,
                    native: Some(native),
                    asked,
                },
            )),
            None => Err(nobody(native, &asked)),
        }
    }
}

/// The native reader's error, with what the others said; before it that of a reader which knows what to do.
fn nobody(mut native: SlideError, asked: &[Asked]) -> SlideError {
    if asked.is_empty() {
        let add = "further readers come as plugins: `[plugin.openslide]` in the pipeline, or in a training's recipe, adds what OpenSlide reads";
        native.help = match native.help.is_empty() {
            true => add.into(),
            false => format!("{}; {add}", native.help),
        };
        return native;
    }
    // Whoever says what to do about it would have read it: that is what is wrong, and the rest is beside it.
    let cause = asked.iter().find_map(|asked| {
        let error = asked.declined.as_ref()?;
        (!error.help.is_empty()).then_some((asked, error))
    });
    if let Some((asked, error)) = cause {
        native.what = format!(
            "{}; the native reader declined it: {}",
            declined(asked, error),
            native.what
        );
        native.help.clone_from(&error.help);
    }
    let told = cause.map(|(asked, _)| &asked.id);
    for asked in asked.iter().filter(|asked| Some(&asked.id) != told) {
        native.what += "; ";
        native.what += &match &asked.declined {
            Some(error) => declined(asked, error),
            None => format!("{} does not know it", asked.id),
        };
    }
    native
}

fn declined(asked: &Asked, error: &SlideError) -> String {
    format!("{} declined it: {}", asked.id, error.what_and_where())
}

fn head(path: &Path) -> Result<Vec<u8>, SlideError> {
    let mut head = Vec::with_capacity(HEAD);
    File::open(path)
        .and_then(|file| file.take(HEAD as u64).read_to_end(&mut head))
        .map_err(|error| {
            SlideError::new(
                Fault::Io,
                path.display().to_string(),
                format!("cannot be read: {error}"),
                "check the path and its permissions",
            )
        })?;
    Ok(head)
}
