//! Samples until their median is steady.

use crate::Fault;
use std::time::{Duration, Instant};

/// Times, seconds, ascending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Of times in any order.
    pub fn new(mut times: Vec<f64>) -> Samples {
        times.sort_by(f64::total_cmp);
        Samples(times)
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time under which a part `q` of the samples lies.
    pub fn quantile(&self, q: f64) -> f64 {
        if self.0.is_empty() {
            return f64::NAN;
        }
        let place = q * (self.0.len() - 1) as f64;
        let (low, part) = (place.floor() as usize, place.fract());
        let high = (low + 1).min(self.0.len() - 1);
        self.0[low] * (1.0 - part) + self.0[high] * part
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The least.
    pub fn least(&self) -> f64 {
        self.quantile(0.0)
    }

    /// Whether the median's standard error, from the quartiles, lies under a hundredth of it.
    fn steady(&self) -> bool {
        let spread = (self.quantile(0.75) - self.quantile(0.25)) / 1.349;
        1.253 * spread / (self.0.len() as f64).sqrt() < 0.01 * self.median()
    }
}

/// Samples of one that say how many it takes at least and at most and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// At least so many.
    pub least: usize,
    /// At most so many.
    pub most: usize,
    /// No further one after this, preparation counted in.
    pub limit: Duration,
}

/// Calls `one`, which gives the seconds that its own measured part took, until the median is steady.
pub fn sample(
    patience: Patience,
    mut one: impl FnMut(usize) -> Result<f64, Fault>,
) -> Result<Samples, Fault> {
    let begun = Instant::now();
    let mut times = Vec::new();
    loop {
        times.push(one(times.len())?);
        let enough = times.len() >= patience.least
            && (begun.elapsed() > patience.limit || Samples::new(times.clone()).steady());
        if enough || times.len() >= patience.most {
            return Ok(Samples::new(times));
        }
    }
}

/// Seconds that `work` took, and what it gave.
pub fn time<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begun = Instant::now();
    let made = work();
    (made, begun.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_the_samples() {
        let samples = Samples::new(vec![4.0, 1.0, 3.0, 2.0, 5.0]);
        assert_eq!(samples.median(), 3.0);
        assert_eq!(samples.least(), 1.0);
        assert_eq!(samples.quantile(0.1), 1.4);
    }

    #[test]
    fn steady_times_end_the_sampling_early() {
        let patience = Patience {
            least: 5,
            most: 1000,
            limit: Duration::from_secs(60),
        };
        let samples = sample(patience, |_| Ok(1.0));
        assert_eq!(samples.map(|s| s.count()), Ok(5));
    }
}
