//! Against an earlier run: faster, slower, or within the noise.

use crate::record::Measured;
use crate::table::{Table, seconds};

/// Least share of the time that is taken for a difference, however still the machine.
const LEAST: f64 = 0.03;

/// A case in both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// Its name.
    pub case: String,
    /// Median then, and now.
    pub medians: [f64; 2],
    /// Share of the time within which two runs of the same are expected.
    pub noise: f64,
    /// What became of it.
    pub verdict: Verdict,
}

/// Faster, slower, or neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// By more than the noise.
    Faster,
    /// By more than the noise.
    Slower,
    /// Within it.
    Same,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Faster => "faster",
            Verdict::Slower => "SLOWER",
            Verdict::Same => "same",
        }
    }
}

/// Compares the cases that are in both. `again` is what a second, identical run took now: how far two runs of the same lie
/// apart is the noise; where there is none, the quartiles of the samples say it.
pub fn compare(then: &[Measured], now: &[Measured], again: &[Measured]) -> Vec<Compared> {
    let of = |all: &[Measured], case: &str| -> Option<Measured> {
        all.iter()
            .find(|found| found.case == case && found.by == "weir" && found.median > 0.0)
            .cloned()
    };
    now.iter()
        .filter_map(|now| {
            let now = of(std::slice::from_ref(now), &now.case)?;
            let then = of(then, &now.case)?;
            let spread = |found: &Measured| (found.p90 - found.p10) / 2.0 / found.median;
            let noise = match of(again, &now.case) {
                Some(again) => (again.median / now.median - 1.0).abs(),
                None => 0.0,
            }
            .max(spread(&now).min(spread(&then)))
            .max(LEAST);
            let change = now.median / then.median - 1.0;
            let verdict = if change > noise {
                Verdict::Slower
            } else if change < -noise {
                Verdict::Faster
            } else {
                Verdict::Same
            };
            Some(Compared {
                case: now.case,
                medians: [then.median, now.median],
                noise,
                verdict,
            })
        })
        .collect()
}

/// As a table.
pub fn table(compared: &[Compared]) -> Table {
    let mut table = Table::new(&["case", "then", "now", "change", "noise", "verdict"]);
    for one in compared {
        let [then, now] = one.medians;
        table.row(vec![
            one.case.clone(),
            seconds(then),
            seconds(now),
            format!("{:+.1} %", 100.0 * (now / then - 1.0)),
            format!("{:.1} %", 100.0 * one.noise),
            one.verdict.name().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(median: f64, half: f64) -> Measured {
        Measured {
            case: "pool".into(),
            by: "weir".into(),
            p10: median - half,
            median,
            p90: median + half,
            ..Measured::default()
        }
    }

    #[test]
    fn a_difference_within_the_noise_is_none() {
        let verdict = |then: Measured, now: Measured, again: &[Measured]| {
            compare(&[then], &[now], again)[0].verdict
        };
        assert_eq!(verdict(took(1.0, 0.0), took(1.02, 0.0), &[]), Verdict::Same);
        assert_eq!(
            verdict(took(1.0, 0.0), took(1.1, 0.0), &[]),
            Verdict::Slower
        );
        assert_eq!(
            verdict(took(1.0, 0.0), took(0.9, 0.0), &[]),
            Verdict::Faster
        );
        // Two runs of the same lay 20 % apart, so 10 % says nothing.
        let again = [took(1.32, 0.0)];
        assert_eq!(
            verdict(took(1.0, 0.0), took(1.1, 0.0), &again),
            Verdict::Same
        );
    }
}
