//! Slides about which a map, filter or reader does not answer: each such call costs its whole time, and a slide may have thousands of
//! tiles that are alike.
//!
//! After a few in a row nothing more of the slide is asked; the others go on. Only a call about one tile or region tells whose fault it
//! was; a batch that is late is tried again tile by tile. In a row means that
//! * nothing of the slide came back between, alone or in a batch,
//! * they are about different places: that one which is tried again is late again says nothing of the others, and
//! * each was begun when the one before was over: what makes one late (a disk, a service) makes those beside it late too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// So many late calls in a row, and the slide is asked about no more.
pub(crate) const MOST: u32 = 3;

/// Slides about which the last calls were late.
#[derive(Debug, Default)]
pub(crate) struct Late {
    /// By numbers that only they have.
    slides: Mutex<HashMap<u64, InARow>>,
    /// There are some: as long as nothing was late no call looks.
    some: AtomicBool,
}

#[derive(Debug)]
struct InARow {
    calls: u32,
    /// What the last one was about, and when it was over.
    place: String,
    over: Instant,
}

impl Late {
    fn slides(&self) -> MutexGuard<'_, HashMap<u64, InARow>> {
        self.slides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call about this place of a slide alone, which began then, is late. Whether the slide is given up with it.
    pub fn was_late(&self, slide: u64, place: String, began: Instant) -> bool {
        let mut slides = self.slides();
        self.some.store(true, Ordering::SeqCst);
        let before = slides.get(&slide);
        if before.is_some_and(|it| it.calls == MOST || began < it.over || place == it.place) {
            return false;
        }
        let calls = before.map_or(0, |it| it.calls) + 1;
        let over = Instant::now();
        slides.insert(slide, InARow { calls, place, over });
        calls == MOST
    }

    /// Calls about these slides came back. What was given up stays so: that has been told.
    pub fn back(&self, of: impl Iterator<Item = u64>) {
        if !self.some.load(Ordering::SeqCst) {
            return;
        }
        let mut slides = self.slides();
        for slide in of {
            if slides.get(&slide).is_some_and(|it| it.calls < MOST) {
                slides.remove(&slide);
            }
        }
    }

    /// Whether nothing more is asked about a slide.
    pub fn gave_up(&self, slide: u64) -> bool {
        self.some.load(Ordering::SeqCst)
            && self.slides().get(&slide).is_some_and(|it| it.calls == MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call about that place, which begins now.
    fn late(all: &Late, slide: u64, place: u32) -> bool {
        all.was_late(slide, place.to_string(), Instant::now())
    }

    #[test]
    fn a_slide_is_given_up_after_three_late_calls_in_a_row_and_stays_so() {
        let all = Late::default();
        for place in 1..=MOST {
            assert!(!all.gave_up(7));
            assert_eq!(late(&all, 7, place), place == MOST);
            // Others say nothing of it.
            all.back([8].into_iter());
        }
        all.back([7, 8].into_iter());
        assert_eq!((all.gave_up(7), all.gave_up(8)), (true, false));
        assert!(!late(&all, 7, 9), "it is told once");
    }

    #[test]
    fn a_call_that_comes_back_between_begins_the_count_anew() {
        let all = Late::default();
        for round in 0..5 {
            assert!((1..MOST).all(|place| !late(&all, 7, 10 * round + place)));
            all.back([8, 7].into_iter());
        }
        assert!(!all.gave_up(7));
    }

    #[test]
    fn a_place_that_is_tried_again_and_calls_that_are_late_at_the_same_time_count_once() {
        let all = Late::default();
        let began = Instant::now();
        for place in 0..10 {
            assert!(!late(&all, 7, 1));
            assert!(!all.was_late(8, place.to_string(), began));
        }
        assert_eq!((all.gave_up(7), all.gave_up(8)), (false, false));
    }
}
