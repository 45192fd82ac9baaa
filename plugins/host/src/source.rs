//! A plugin's source as the runtime's [`Source`].

use crate::batch::task::Task;
use crate::call::FAULT;
use crate::listed::{self, Listed, empty};
use crate::opened::Opened;
use crate::pool::{Holder, Pool};
use crate::script::PluginScript;
use crate::yields::Of;
use std::sync::Arc;
use weir_abi::status;
use weir_record::{Failure, Mpp, MppOrigin, SlideInfo};
use weir_runtime::stage::{OpenedSlide, SlideRef, Source, StageError};
use weir_slide::mpp::SQUARE;
use weir_slide::slide_key;

/// A source.
pub(crate) struct PluginSource {
    pool: Arc<Pool>,
    name: Arc<str>,
    of: Of,
    /// `run.default-mpp`.
    default_mpp: Option<f64>,
    slides: Vec<SlideRef>,
    /// Of each slide: its number with the plugin, and what that said of it.
    listed: Vec<(u64, Listed)>,
}

impl PluginSource {
    /// Asks the plugin for its slides.
    pub fn new(
        pool: Arc<Pool>,
        name: Arc<str>,
        of: Of,
        default_mpp: Option<f64>,
    ) -> Result<PluginSource, StageError> {
        let found = listed::all(&pool)?;
        let slides = found
            .iter()
            .map(|(_, listed)| SlideRef {
                id: listed.id.clone(),
                key: slide_key(&listed.id),
                path: listed.path.clone(),
            })
            .collect();
        Ok(PluginSource {
            pool,
            name,
            of,
            default_mpp,
            slides,
            listed: found,
        })
    }

    fn failure(&self, slide: &SlideRef, error: StageError) -> Failure {
        Failure {
            stage: self.name.to_string(),
            slide: slide.id.clone(),
            tile: None,
            what: error.what,
            help: error.help,
        }
    }
}

impl Source for PluginSource {
    fn slides(&self) -> &[SlideRef] {
        &self.slides
    }

    fn open(&self, slide: &SlideRef) -> Result<OpenedSlide, Failure> {
        let place = self.slides.iter().position(|known| known.id == slide.id);
        let Some((number, listed)) = place.map(|place| &self.listed[place]) else {
            let error = StageError::new("the source has no such slide", "");
            return Err(self.failure(slide, error));
        };
        let mut out = empty();
        let mut handle = std::ptr::null_mut();
        let mut said = status::UNSUPPORTED;
        let mut holder = Holder::default();
        let done = self.pool.call_for(&holder, Task::Setup, |stage, me, call| {
            if let Some(open) = stage.open {
                let _watched = self.pool.watch("open", Some(&slide.id));
                // SAFETY: as the header says; both places are this call's.
                said = unsafe {
                    open(
                        me,
                        call,
                        *number,
                        std::ptr::null_mut(),
                        &mut out,
                        &mut handle,
                    )
                };
            }
            said
        });
        // Also where the call broke a rule: then this closes it.
        let handle = (said == status::OK).then(|| {
            let holder = std::mem::take(&mut holder);
            Arc::new(Opened::new(self.pool.clone(), &slide.id, holder, handle))
        });
        if handle.is_none() {
            self.pool.left(&holder);
        }
        done.map_err(|error| self.failure(slide, error.into()))?;
        let Some(handle) = handle else {
            let error = StageError::new("the plugin opened nothing", "");
            return Err(self.failure(slide, error));
        };
        // SAFETY: the texts live until the slide's next call, which is not made before this is done.
        let opened = unsafe { Listed::of(&out) };
        if let Some(what) = opened.fault(&listed.id) {
            let what = format!("{} broke the contract [E0520]: {what}", handle.who.plugin);
            return Err(self.failure(slide, StageError::new(what, FAULT)));
        }
        let mpp =
            pixel(&opened, listed, self.default_mpp).map_err(|error| self.failure(slide, error))?;
        let grid = self.of.grid(&opened, mpp.map_or(0.0, |(mpp, _)| mpp.0));
        let info = Arc::new(SlideInfo {
            id: listed.id.clone(),
            key: slide.key,
            path: listed.path.clone(),
            width: u64::try_from(opened.width.max(listed.width)).unwrap_or(0),
            height: u64::try_from(opened.height.max(listed.height)).unwrap_or(0),
            mpp,
            reader: format!("plugin/{}", self.pool.who().plugin_name),
            patient: opened.patient.or_else(|| listed.patient.clone()),
            label: opened.label.or_else(|| listed.label.clone()),
            split: opened.split.or_else(|| listed.split.clone()),
            grids: vec![grid],
            tiles: opened.tiles.max(listed.tiles),
            background: 0,
            input: None,
        });
        // Nobody has set it before.
        let _ = handle.info.set(info.clone());
        Ok(OpenedSlide {
            info,
            script: Box::new(PluginScript::new(
                handle.clone(),
                self.of,
                self.name.clone(),
            )),
            reader: handle,
        })
    }
}

/// Size of a level-0 pixel as the plugin says it when it opens the slide, else when it lists it, else `run.default-mpp`.
///
/// # Errors
/// Of pixels that are not square, which no reader of weir's takes either.
fn pixel(
    opened: &Listed,
    listed: &Listed,
    default: Option<f64>,
) -> Result<Option<(Mpp, MppOrigin)>, StageError> {
    let said = [opened, listed].into_iter().find(|said| said.mpp.0 > 0.0);
    let Some(said) = said else {
        return Ok(default.map(|mpp| (Mpp(mpp), MppOrigin::Default)));
    };
    let (x, y) = said.mpp;
    if y > 0.0 && (x / y).max(y / x) > SQUARE {
        return Err(StageError::new(
            format!("its pixels are {x} x {y} um; pixels that are not square are not read"),
            "resample the slide to square pixels",
        ));
    }
    Ok(Some((Mpp(x), MppOrigin::Vendor)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn said(x: f64, y: f64) -> Listed {
        Listed {
            mpp: (x, y),
            ..Listed::default()
        }
    }

    #[test]
    fn the_slide_says_its_mpp_before_its_line_in_the_list_and_that_before_the_run() {
        let of = |opened: &Listed, listed: &Listed, default| pixel(opened, listed, default);
        let vendor = |mpp| Ok(Some((Mpp(mpp), MppOrigin::Vendor)));
        assert_eq!(of(&said(0.5, 0.5), &said(1.0, 1.0), Some(2.0)), vendor(0.5));
        assert_eq!(of(&said(0.0, 0.0), &said(1.0, 1.0), Some(2.0)), vendor(1.0));
        let none = said(0.0, 0.0);
        let by_run = Some((Mpp(2.0), MppOrigin::Default));
        assert_eq!(of(&none, &none, Some(2.0)), Ok(by_run));
        assert_eq!(of(&none, &none, None), Ok(None));
        assert_eq!(of(&said(0.5, 0.0), &none, None), vendor(0.5));
        let error = of(&said(0.5, 0.25), &none, None).unwrap_err();
        assert!(error.what.contains("0.5 x 0.25 um"), "{error}");
    }
}
