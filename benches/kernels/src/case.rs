//! A case: one kernel on one shape. Its name is the key by which runs and peers are compared.

use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::{Bags, Dtype, KernelError, Rule};

/// Which kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// (a) logits to weights.
    Weights,
    /// (b) the weighted mean of the features.
    Pool,
    /// (c) attention head, weights and pool at once.
    Gated,
    /// (d) the highest and lowest of each bag.
    TopK,
    /// (e) bytes to a network's numbers.
    Tiles,
}

impl Kernel {
    /// All, in the order of the tables.
    pub const ALL: [Kernel; 5] = [
        Kernel::Weights,
        Kernel::Pool,
        Kernel::Gated,
        Kernel::TopK,
        Kernel::Tiles,
    ];

    /// As the launchers name it.
    pub fn name(self) -> &'static str {
        match self {
            Kernel::Weights => "weights",
            Kernel::Pool => "pool",
            Kernel::Gated => "gated-pool",
            Kernel::TopK => "top-k",
            Kernel::Tiles => "tiles",
        }
    }

    /// Its letter in kernels/README.md.
    pub fn letter(self) -> char {
        match self {
            Kernel::Weights => 'a',
            Kernel::Pool => 'b',
            Kernel::Gated => 'c',
            Kernel::TopK => 'd',
            Kernel::Tiles => 'e',
        }
    }

    /// Whether it has a backward pass.
    pub fn has_backward(self) -> bool {
        matches!(self, Kernel::Weights | Kernel::Pool | Kernel::Gated)
    }

    /// Whether it normalises weights, so that squared average and softmax are both of interest.
    pub fn has_rule(self) -> bool {
        self.has_backward()
    }
}

/// One kernel on one shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case {
    /// The kernel.
    pub kernel: Kernel,
    /// Its backward pass.
    pub backward: bool,
    /// Softmax instead of the squared average.
    pub softmax: bool,
    /// Of the features, or of the tiles' numbers.
    pub dtype: Dtype,
    /// Number of bags; of tiles for (e).
    pub bags: usize,
    /// Rows of a bag; of ragged bags the mean. The side of a tile, px, for (e).
    pub rows: usize,
    /// Bags of 1 to 2 `rows` rows instead of equal ones.
    pub ragged: bool,
    /// A tenth of the rows is masked, and holds NaN.
    pub masked: bool,
    /// Components of a feature vector; how many of each end for (d); 3 for (e).
    pub d: usize,
    /// Hidden units of the head for (c), else 0.
    pub l: usize,
    /// For (c)'s backward pass: the forward pass kept the hidden units, which else are made again.
    pub kept: bool,
    /// For (c)'s backward pass: the forward pass is part of what is timed, a training step of the head.
    pub step: bool,
}

impl Case {
    /// The key, as `pool.forward squared-average f32 64x1024 ragged d1024 masked`.
    pub fn name(&self) -> String {
        let mut words = vec![format!("{}.{}", self.kernel.name(), self.direction())];
        if self.kernel.has_rule() {
            words.push(self.rule_name().into());
        }
        words.push(self.dtype.name().into());
        words.push(format!("{}x{}", self.bags, self.rows));
        if self.ragged {
            words.push("ragged".into());
        }
        match self.kernel {
            Kernel::Weights | Kernel::Tiles => {}
            Kernel::TopK => words.push(format!("k{}", self.d)),
            _ => words.push(format!("d{}", self.d)),
        }
        if self.l > 0 {
            words.push(format!("l{}", self.l));
        }
        if self.kept && !self.step {
            words.push("kept".into());
        }
        if self.masked {
            words.push("masked".into());
        }
        words.join(" ")
    }

    /// `forward`, `backward`, or `step` for both as one call.
    pub fn direction(&self) -> &'static str {
        match (self.step, self.backward) {
            (true, _) => "step",
            (false, true) => "backward",
            (false, false) => "forward",
        }
    }

    /// Whether the name holds every word of `filter`; a word with a leading `-` must not be in it.
    pub fn matches(&self, filter: &str) -> bool {
        let name = self.name();
        let words: Vec<&str> = name.split(' ').collect();
        filter
            .split_whitespace()
            .all(|word| match word.strip_prefix('-') {
                Some(word) => !words.iter().any(|w| holds(w, word)),
                None => words.iter().any(|w| holds(w, word)),
            })
    }

    /// As `model.toml` calls the normalisation.
    pub fn rule_name(&self) -> &'static str {
        self.rule().normalisation.rule().name()
    }

    /// The rule.
    pub fn rule(&self) -> Rule {
        Rule {
            normalisation: if self.softmax {
                Normalisation::Softmax
            } else {
                Normalisation::SquaredAverage
            },
            link: Link::None,
        }
    }

    /// Offsets of the bags. Ragged lengths follow the golden ratio, so that benches/peers/pool.py makes the same ones.
    pub fn offsets(&self) -> Vec<usize> {
        let mut offsets = vec![0];
        for bag in 0..self.bags {
            let rows = if self.ragged {
                let part = ((bag + 1) as f64 * 0.618_033_988_749_894_9).fract();
                ((2.0 * self.rows as f64 * part) as usize).max(1)
            } else {
                self.rows
            };
            offsets.push(offsets[bag] + rows);
        }
        offsets
    }

    /// Rows of all bags; pixels of all tiles for (e).
    pub fn total(&self) -> usize {
        match self.kernel {
            Kernel::Tiles => self.bags * self.rows * self.rows,
            _ => self.offsets().last().copied().unwrap_or(0),
        }
    }

    /// Which rows are members; `None`: all. Every row whose number's golden part lies under a tenth is masked.
    pub fn mask(&self) -> Option<Vec<bool>> {
        let member = |row: usize| ((row + 1) as f64 * 0.618_033_988_749_894_9).fract() >= 0.1;
        self.masked.then(|| (0..self.total()).map(member).collect())
    }

    /// The bags.
    pub fn make_bags(&self) -> Result<Bags, KernelError> {
        Bags::new(&self.offsets(), self.mask().as_deref())
    }
}

/// `pool` means the word `pool.forward` but not `gated-pool.forward`; `f16` not `bf16`; `d512` not `d5120`.
fn holds(word: &str, wanted: &str) -> bool {
    word == wanted || word.split('.').any(|part| part == wanted)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(crate) const CASE: Case = Case {
        kernel: Kernel::Pool,
        backward: false,
        softmax: false,
        dtype: Dtype::F32,
        bags: 64,
        rows: 100,
        ragged: true,
        masked: true,
        d: 512,
        l: 0,
        kept: false,
        step: false,
    };

    #[test]
    fn a_name_says_every_axis_and_filters_match_whole_words() {
        assert_eq!(
            CASE.name(),
            "pool.forward squared-average f32 64x100 ragged d512 masked"
        );
        assert!(CASE.matches("pool f32"));
        assert!(CASE.matches("pool.forward d512 -softmax"));
        assert!(!CASE.matches("gated-pool"));
        assert!(!CASE.matches("d51"));
        assert!(!CASE.matches("-ragged"));
    }

    #[test]
    fn ragged_bags_have_about_the_rows_that_the_case_names_and_a_tenth_is_masked() {
        let total = CASE.total() as f64;
        assert!((total / 6400.0 - 1.0).abs() < 0.1);
        let bags = CASE.make_bags().unwrap();
        let masked = 1.0 - bags.members() as f64 / total;
        assert!((masked - 0.1).abs() < 0.01);
    }
}
