//! Slides about which a map, filter or reader does not answer, or at which it loses its process: each such call costs its whole time,
//! or a new process, and a slide may have thousands of tiles that are alike.
//!
//! After a few that are late in a row, or many deaths, nothing more of the slide is asked; the others go on. Only a call about one
//! tile or region tells whose fault it was; a batch is tried again tile by tile. In a row means that
//! * nothing of the slide came back between, alone or in a batch,
//! * they are about different places: that one which is tried again is lost again says nothing of the others, and
//! * each that is late was begun when the last one that counted was over: what makes one late (a disk, a service) makes those beside it
//!   late too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How a call lost its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It did not answer in time, and was ended.
    Late,
    /// It died, or was ended for what it sent.
    Died,
}

impl Loss {
    /// So many in a row, and the slide is asked about no more.
    pub const fn most(self) -> usize {
        match self {
            Loss::Late => 3,
            Loss::Died => 100,
        }
    }
}

/// Slides whose last calls were lost.
#[derive(Debug, Default)]
pub(crate) struct GivenUp {
    /// By numbers that only they have.
    slides: Mutex<HashMap<u64, InARow>>,
    /// There are some: as long as nothing was lost no call looks.
    some: AtomicBool,
}

/// What was lost of a slide since a call about it came back.
#[derive(Debug, Default)]
struct InARow {
    late: Places,
    died: Places,
    /// When the last that was late was over.
    over: Option<Instant>,
    given_up: Option<Loss>,
}

/// What the calls were about; `None`: the slide as a whole.
type Places = Vec<Option<String>>;

impl GivenUp {
    fn slides(&self) -> MutexGuard<'_, HashMap<u64, InARow>> {
        self.slides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call about this place of a slide alone, or about the slide as a whole, which began then, lost its process. Whether the slide
    /// is given up with it.
    pub fn was_lost(&self, slide: u64, loss: Loss, place: Option<String>, began: Instant) -> bool {
        let mut slides = self.slides();
        self.some.store(true, Ordering::SeqCst);
        let it = slides.entry(slide).or_default();
        let places = match loss {
            Loss::Late => &mut it.late,
            Loss::Died => &mut it.died,
        };
        let again = place.is_some() && places.contains(&place);
        let beside = loss == Loss::Late && it.over.is_some_and(|over| began < over);
        if it.given_up.is_some() || again || beside {
            return false;
        }
        places.push(place);
        if places.len() == loss.most() {
            it.given_up = Some(loss);
        }
        if loss == Loss::Late {
            it.over = Some(Instant::now());
        }
        it.given_up.is_some()
    }

    /// Calls about these slides came back. What was given up stays so: that has been told.
    pub fn back(&self, of: impl Iterator<Item = u64>) {
        if !self.some.load(Ordering::SeqCst) {
            return;
        }
        let mut slides = self.slides();
        for slide in of {
            if slides.get(&slide).is_some_and(|it| it.given_up.is_none()) {
                slides.remove(&slide);
            }
        }
    }

    /// Why nothing more is asked about a slide, if that is so.
    pub fn why(&self, slide: u64) -> Option<Loss> {
        match self.some.load(Ordering::SeqCst) {
            true => self.slides().get(&slide)?.given_up,
            false => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Loss; 2] = [Loss::Late, Loss::Died];

    /// A call about that place, which begins now.
    fn lost(all: &GivenUp, slide: u64, loss: Loss, place: usize) -> bool {
        all.was_lost(slide, loss, Some(place.to_string()), Instant::now())
    }

    #[test]
    fn a_slide_is_given_up_after_three_late_calls_or_a_hundred_deaths_in_a_row_and_stays_so() {
        for (loss, most) in BOTH.into_iter().zip([3, 100]) {
            let all = GivenUp::default();
            for place in 1..=most {
                assert_eq!(all.why(7), None);
                assert_eq!(lost(&all, 7, loss, place), place == most);
                // Others say nothing of it.
                all.back([8].into_iter());
            }
            all.back([7, 8].into_iter());
            assert_eq!((all.why(7), all.why(8)), (Some(loss), None));
            for other in BOTH {
                assert!(!lost(&all, 7, other, 1000), "it is told once");
            }
            assert_eq!(all.why(7), Some(loss));
        }
    }

    #[test]
    fn a_call_that_comes_back_between_begins_the_count_anew() {
        for loss in BOTH {
            let all = GivenUp::default();
            for _ in 0..5 {
                assert!((1..loss.most()).all(|place| !lost(&all, 7, loss, place)));
                all.back([8, 7].into_iter());
            }
            assert_eq!(all.why(7), None);
        }
    }

    #[test]
    fn a_place_that_is_tried_again_counts_once_whatever_comes_between() {
        for loss in BOTH {
            let all = GivenUp::default();
            for _ in 0..200 {
                assert!((1..loss.most()).all(|place| !lost(&all, 7, loss, place)));
            }
            assert_eq!(all.why(7), None);
            assert!(lost(&all, 7, loss, 0));
        }
    }

    #[test]
    fn calls_about_a_slide_as_a_whole_count_each() {
        let all = GivenUp::default();
        let late = || all.was_lost(7, Loss::Late, None, Instant::now());
        assert_eq!([late(), late(), late()], [false, false, true]);
    }

    #[test]
    fn calls_that_are_late_at_the_same_time_count_once() {
        let all = GivenUp::default();
        let began = Instant::now();
        for place in 0..10 {
            assert!(!all.was_lost(7, Loss::Late, Some(place.to_string()), began));
        }
        assert_eq!(all.why(7), None);
    }
}
