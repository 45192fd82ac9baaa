//! A thread that is in a plugin's code, in this process.
//!
//! Two things that such code can do reach far beyond its call, and C libraries do both in good faith. One changes how the thread
//! computes: the direction of rounding, or that tiny numbers are taken for zero, which every library does when it is loaded that was
//! linked with `-ffast-math`. Built-in stages would give other bits then, so how the thread rounds is put back. The other calls
//! `exit()` on an error: the process would be gone with exit status 0 and half of its outputs, so whose code it was is said, and that
//! the run failed.

use crate::log::Level;
use crate::places::{named, turn};
use crate::who::Who;
use std::cell::Cell;
use std::sync::{Mutex, Once, PoisonError};
use weir_runtime::exit;

thread_local! {
    /// Whose code the thread is in where that is for no call.
    static WHOSE: Cell<*const Who> = const { Cell::new(std::ptr::null()) };
    /// The number of the call that the thread is in; 0 where it is in none.
    static CALL: Cell<u64> = const { Cell::new(0) };
}

/// The number of the call that the thread is in; 0 where it is in none.
pub(crate) fn call() -> u64 {
    CALL.get()
}

/// Runs code of the plugin's, for the call of that number; 0: a function that has none.
#[inline]
pub(crate) fn inside<T>(who: &Who, call: u64, code: impl FnOnce() -> T) -> T {
    let (outer, before) = ((WHOSE.replace(who), CALL.replace(call)), rounding::read());
    let done = code();
    WHOSE.set(outer.0);
    CALL.set(outer.1);
    let after = rounding::read();
    if after != before {
        changed(who, before);
    }
    done
}

/// Whether the thread computes as programs are begun with.
pub(crate) fn is_usual() -> bool {
    rounding::read() == rounding::USUAL
}

/// So often all settings of a thread are looked at whose results are looked at each time.
const WHOLE: u64 = 64;

/// The same of a thread that computed as usual before it ran the stage's code first: to read its settings would be a good part of what a
/// call costs, so whether results are rounded as usual is seen by sums, and the settings are read at every 64th call. In between,
/// exceptions that a plugin lets the processor raise (`feenableexcept`) stay so.
#[inline(always)]
pub(crate) fn inside_again<T>(who: &Who, call: u64, code: impl FnOnce() -> T) -> T {
    let outer = CALL.replace(call);
    let done = code();
    CALL.set(outer);
    let usual = match turn(call).is_multiple_of(WHOLE) {
        true => is_usual(),
        false => rounding::sums_are_usual(),
    };
    if !usual {
        changed(who, rounding::USUAL);
    }
    done
}

#[cold]
fn changed(who: &Who, before: u64) {
    rounding::write(before);
    let mut told = who
        .rounding_told
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if !std::mem::replace(&mut *told, true) {
        let line = format!(
            "{} changed how the thread rounds, takes tiny numbers for zero or lets exceptions end the program, and left it so: it was put back after each of its calls, but its own numbers may differ from run to run; a library does so that was linked with -ffast-math or -Ofast",
            who.plugin
        );
        who.line(Level::Warn, &line);
    }
}

/// The plugins whose code this process has.
static LOADED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Has the end of the process looked at from now on: one that a plugin brings about is told, by `who` or another one that was loaded.
pub(crate) fn watch_exit(who: &Who) {
    static ONCE: Once = Once::new();
    // SAFETY: the function lives as long as the process. Where it cannot be noted, nothing is told.
    ONCE.call_once(|| unsafe {
        libc::atexit(at_exit);
    });
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if !loaded.contains(&who.plugin) {
        loaded.push(who.plugin.clone());
    }
}

/// Runs on the thread that called `exit()`: one that is in a plugin's code, one of a plugin's own, or the program's, which says before
/// that it is about to.
extern "C" fn at_exit() {
    let number = call();
    let of_call = named(number).filter(|_| number != 0);
    let of_call = of_call.and_then(|place| place.whose(number));
    // SAFETY: where it is not null the thread is in `inside`, whose caller has it.
    let whose = unsafe { WHOSE.get().as_ref() };
    let by = match of_call.as_deref().or(whose) {
        Some(who) if who.stage.is_empty() => who.plugin.clone(),
        Some(who) => format!("stage `{}`: {}", who.stage, who.plugin),
        None if exit::at_work() => {
            let loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
            format!("a thread of {}", loaded.join(" or "))
        }
        None => return,
    };
    eprintln!(
        "error: {by} ended the process: it called exit(), and what was not written yet is lost\n  = help: `isolate = true` in its table gives it a process of its own; a plugin says what is wrong with fail()"
    );
    // SAFETY: ends the process without what else is to be done at its end, which may wait for the thread that is in here.
    unsafe { libc::_exit(exit::INTERNAL.into()) }
}

/// How a thread rounds: its control bits, without the flags that every operation may set.
#[cfg(target_arch = "x86_64")]
mod rounding {
    /// Rounding, masks, denormals; MXCSR's lowest six bits are flags (Intel SDM volume 1, 10.2.3).
    const CONTROL: u32 = 0xFFC0;

    #[inline]
    fn all() -> u32 {
        let mut now = 0_u32;
        // SAFETY: stores four bytes where they may be stored.
        unsafe {
            std::arch::asm!("stmxcsr [{}]", in(reg) &mut now, options(nostack, preserves_flags));
        }
        now
    }

    #[inline]
    pub fn read() -> u64 {
        u64::from(all() & CONTROL)
    }

    /// As a thread begins: to the nearest, tiny numbers as they are, no exception raised (Intel SDM volume 1, 10.2.3).
    pub const USUAL: u64 = 0x1F80;

    #[repr(align(16))]
    struct Sums(#[expect(dead_code, reason = "read by what is no Rust")] [[u32; 4]; 3]);

    /// Sums that come out so only where results are rounded to the nearest, and neither what is tiny nor its sum is taken for zero:
    /// 2^-128 and itself, 1 and three quarters of its last place, 1 and a quarter of it.
    static SUMS: Sums = Sums([
        [0x0020_0000, 0x3F80_0000, 0x3F80_0000, 0],
        [0x0020_0000, 0x33C0_0000, 0x3300_0000, 0],
        [0x0040_0000, 0x3F80_0001, 0x3F80_0000, 0],
    ]);

    /// Whether results are rounded as usual. Reading the register takes several times as long.
    #[inline(always)]
    pub fn sums_are_usual() -> bool {
        let alike: u32;
        // SAFETY: reads three times 16 bytes that lie where they have to.
        unsafe {
            std::arch::asm!(
                "movaps {sum}, [{sums}]",
                "addps {sum}, [{sums} + 16]",
                "pcmpeqd {sum}, [{sums} + 32]",
                "pmovmskb {alike:e}, {sum}",
                sums = in(reg) &SUMS, sum = out(xmm_reg) _, alike = out(reg) alike,
                options(nostack, readonly),
            );
        }
        alike == 0xFFFF
    }

    pub fn write(control: u64) {
        let new = all() & !CONTROL | control as u32;
        // SAFETY: the bits are those that the thread had before.
        unsafe {
            std::arch::asm!("ldmxcsr [{}]", in(reg) &new, options(nostack, readonly, preserves_flags));
        }
    }
}

/// The same of the other kind of processor.
#[cfg(target_arch = "aarch64")]
mod rounding {
    #[inline]
    pub fn read() -> u64 {
        let control: u64;
        // SAFETY: reads a register.
        unsafe {
            std::arch::asm!("mrs {}, fpcr", out(reg) control, options(nomem, nostack, preserves_flags));
        }
        control
    }

    /// As a thread begins.
    pub const USUAL: u64 = 0;

    /// Reading the register costs little here.
    #[inline(always)]
    pub fn sums_are_usual() -> bool {
        read() == USUAL
    }

    pub fn write(control: u64) {
        // SAFETY: the bits are those that the thread had before.
        unsafe {
            std::arch::asm!("msr fpcr, {}", in(reg) control, options(nomem, nostack, preserves_flags));
        }
    }
}

/// Elsewhere nothing is known of it.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod rounding {
    pub fn read() -> u64 {
        0
    }

    pub const USUAL: u64 = 0;

    pub fn sums_are_usual() -> bool {
        true
    }

    pub fn write(_: u64) {}
}

#[cfg(test)]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::log::Log;
    use std::hint::black_box;
    use std::sync::{Arc, Mutex};

    /// A call after which not all settings are read.
    #[cfg(target_arch = "x86_64")]
    const NO_WHOLE: u64 = 1 << 20;

    /// A third, to the bit that the thread's rounding gives.
    #[inline(never)]
    fn third() -> u64 {
        (black_box(1.0_f64) / black_box(3.0)).to_bits()
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_change_of_results_is_seen_by_sums_and_undone() {
        let who = Who::plugin("probe", &semver::Version::new(1, 0, 0));
        let before = rounding::read();
        // Down, up, to zero, tiny results are zero, tiny numbers are zero; with exceptions as they are.
        for changed in [0x2000, 0x4000, 0x6000, 0x8000, 0x0040] {
            let within = inside_again(&who, NO_WHOLE, || {
                rounding::write(before | changed);
                rounding::read()
            });
            assert_eq!(within, before | changed);
            assert_eq!(rounding::read(), before, "{changed:x}");
        }
        assert!(*who.rounding_told.lock().unwrap());
        let who = Who::plugin("probe", &semver::Version::new(1, 0, 0));
        inside_again(&who, NO_WHOLE, || black_box(third()));
        assert!(!*who.rounding_told.lock().unwrap());
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn exceptions_that_a_plugin_lets_be_raised_are_raised_no_more_after_64_calls() {
        let who = Who::plugin("probe", &semver::Version::new(1, 0, 0));
        assert!(is_usual());
        // Division by zero.
        inside_again(&who, NO_WHOLE, || {
            rounding::write(rounding::USUAL & !0x0200)
        });
        assert!(!is_usual());
        for turn in 2..=WHOLE {
            inside_again(&who, turn << 20, || ());
            assert_eq!(is_usual(), turn == WHOLE, "{turn}");
        }
    }

    #[test]
    fn what_a_plugin_does_to_the_rounding_of_a_thread_is_undone_and_told_once() {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = lines.clone();
        let who = Who {
            log: Log::to(move |_, _, text| heard.lock().unwrap().push(text.to_owned())),
            ..Who::plugin("probe", &semver::Version::new(1, 0, 0))
        };
        let nearest = third();
        unsafe extern "C" {
            fn fesetround(mode: i32) -> i32;
        }
        // Upward, as the C libraries of these processors number it.
        let upward = if cfg!(target_arch = "x86_64") {
            0x800
        } else {
            0x40_0000
        };
        for _ in 0..3 {
            let within = inside(&who, 0, || {
                // SAFETY: of the C library.
                assert_eq!(unsafe { fesetround(upward) }, 0);
                third()
            });
            assert_ne!(within, nearest);
            assert_eq!(third(), nearest);
        }
        let told = lines.lock().unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("plugin `probe` 1.0.0"), "{told:?}");
    }
}
