//! Calls in this process that do not come back: nothing can end them, so the user is told whose they are, and that isolation would.
//!
//! A map or filter whose call is late fails its rows; what else a plugin's stage or slide reader does (opening a slide, its next step,
//! its pixels, its end) is called by a thread of the run's own, which stands still with it, and with it whoever waits for their turn.
//! One thread looks after all such calls; it wakes once in the time that a call may take.

use crate::log::Level;
use crate::who::Who;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

/// A call that is looked after until this is dropped.
pub(crate) struct Watched(u64);

/// Looks after a call of `function`, about the slide of that id where it is about one.
pub(crate) fn watch(who: &Arc<Who>, function: &'static str, slide: Option<&str>) -> Watched {
    let slow = "if it is only slow, give the stage a longer `run.timeout`";
    watch_for(who.timeout, slow, who, function, slide)
}

/// The same of a call that may take `timeout`; `slow`: what to do about one that is only slow.
pub(crate) fn watch_for(
    timeout: Duration,
    slow: &'static str,
    who: &Arc<Who>,
    function: &'static str,
    slide: Option<&str>,
) -> Watched {
    static THREAD: Once = Once::new();
    // Without the thread nobody is told, and all else is as ever.
    THREAD.call_once(|| {
        let name = "weir-patience".to_owned();
        let _ = std::thread::Builder::new().name(name).spawn(look_after);
    });
    let number = crate::call::next_number();
    let since = Instant::now();
    let call = UnderWay {
        who: who.clone(),
        function,
        slide: slide.map(Box::from),
        slow,
        since,
        due: since.checked_add(timeout),
    };
    let mut all = calls();
    let sooner = match (call.due, all.wakes) {
        (Some(due), Some(wakes)) => due < wakes,
        (due, None) => due.is_some(),
        (None, _) => false,
    };
    if sooner {
        all.wakes = call.due;
        WAKE.notify_one();
    }
    all.under_way.insert(number, call);
    Watched(number)
}

impl Drop for Watched {
    fn drop(&mut self) {
        calls().under_way.remove(&self.0);
    }
}

struct UnderWay {
    who: Arc<Who>,
    function: &'static str,
    slide: Option<Box<str>>,
    /// What to do if it is only slow.
    slow: &'static str,
    since: Instant,
    /// When it is told of; never where that is beyond what a clock can say.
    due: Option<Instant>,
}

impl UnderWay {
    /// What the user reads.
    fn line(&self, now: Instant) -> String {
        let of = self.slide.as_ref();
        let of = of.map_or_else(String::new, |slide| format!(" of slide `{slide}`"));
        let (plugin, function, slow) = (&self.who.plugin, self.function, self.slow);
        let took = Duration::from_millis(now.duration_since(self.since).as_millis() as u64);
        format!(
            "{plugin} has been in `{function}`{of} for {took:?} [E0523], and is waited for: in a process of its own (`isolate`) it would be ended; {slow}"
        )
    }
}

struct Calls {
    under_way: BTreeMap<u64, UnderWay>,
    /// When the thread looks again by itself.
    wakes: Option<Instant>,
}

static CALLS: Mutex<Calls> = Mutex::new(Calls {
    under_way: BTreeMap::new(),
    wakes: None,
});
static WAKE: Condvar = Condvar::new();

fn calls() -> MutexGuard<'static, Calls> {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look_after() {
    let mut all = calls();
    loop {
        let now = Instant::now();
        let mut late = Vec::new();
        for call in all.under_way.values_mut() {
            if call.due.is_some_and(|due| due <= now) {
                late.push((call.who.clone(), call.line(now)));
                // Again when it has taken twice as long.
                call.due = now.checked_add(now.duration_since(call.since));
            }
        }
        if !late.is_empty() {
            drop(all);
            for (who, line) in late {
                who.line(Level::Warn, &line);
            }
            all = calls();
            continue;
        }
        let next = all.under_way.values().filter_map(|call| call.due).min();
        // Where nothing is under way it is not asked for anew at each call that begins.
        all.wakes = next.or(all.wakes.filter(|wakes| *wakes > now));
        all = match all.wakes {
            Some(wakes) => {
                let rest = wakes.saturating_duration_since(now);
                let woken = WAKE.wait_timeout(all, rest);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
            None => WAKE.wait(all).unwrap_or_else(PoisonError::into_inner),
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::log::Log;

    #[test]
    fn a_call_that_is_late_is_told_of_again_when_it_took_twice_as_long_and_one_in_time_never() {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = lines.clone();
        let who = |millis| {
            let heard = heard.clone();
            Arc::new(Who {
                log: Log::to(move |_, _, text| heard.lock().unwrap().push(text.to_owned())),
                timeout: Duration::from_millis(millis),
                ..Who::plugin("probe", &semver::Version::new(1, 0, 0))
            })
        };
        let (patient, hasty) = (who(600_000), who(20));
        let _slow = watch(&patient, "open", Some("slow"));
        let late = watch(&hasty, "open", Some("late"));
        let until = Instant::now() + Duration::from_secs(60);
        while lines.lock().unwrap().len() < 3 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(late);
        let told = std::mem::take(&mut *lines.lock().unwrap());
        assert!(told.len() >= 3, "{told:?}");
        for line in &told {
            assert!(
                line.starts_with("plugin `probe` 1.0.0 has been in `open` of slide `late` for "),
                "{line}"
            );
        }
        // One may have been about to be told.
        std::thread::sleep(Duration::from_millis(200));
        assert!(lines.lock().unwrap().len() < 2);
    }
}
