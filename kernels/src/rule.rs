//! A rule member by member: what [`crate::normalise`] says of a bag's whole list, in the same operations, and its slope; the
//! numerators themselves are made in `cpu/numerators.rs`. cuda/rule.cuh is the same text.

use crate::error::{Cause, KernelError};
use crate::kernels::Rule;
use crate::math::{power, sigmoid};
use crate::normalise::{Link, Normalisation};

impl Rule {
    /// Refuses what no kernel does: a normalisation that looks at more than one member at a time, an exponent that is none.
    pub(crate) fn check(self, kernel: &'static str, shape: &str) -> Result<(), KernelError> {
        let what = match self.normalisation {
            Normalisation::Sparsemax | Normalisation::Max => format!(
                "the normalisation `{}` needs all logits of a bag at once",
                self.normalisation.rule().name()
            ),
            Normalisation::Power(p) if !(p.is_finite() && p >= 0.0) => {
                format!("the exponent {p} of `power` is not a finite number of 0 or more")
            }
            _ => return Ok(()),
        };
        Err(KernelError {
            kernel,
            shape: shape.into(),
            cause: Cause::Unsupported {
                what,
                help: "use the loop weir_kernels::pool::pool, or another normalisation",
            },
        })
    }

    /// Whether numerators need the greatest g of the bag.
    pub(crate) fn shifted(self) -> bool {
        self.normalisation == Normalisation::Softmax
    }

    /// Whether g lies where its numerator keeps f32's precision.
    #[inline(always)]
    pub(crate) fn in_domain(self, g: f32) -> bool {
        match self.normalisation {
            Normalisation::SquaredAverage | Normalisation::Power(_) => {
                (g == 0.0) | ((1e-18 < g.abs()) & (g.abs() < 1e18))
            }
            _ => true,
        }
    }

    /// dL/da of a member with the logit `a` and the weight `weight`, in a bag whose numerators add up to `sum`: the slope of
    /// the numerator by the logit over `sum`, times `apart` = g_k - sum w g, how far the member's gradient lies from the
    /// bag's mean (METHOD 2.2). 1 - sigmoid(x) is written sigmoid(-x), which keeps its precision where the former is small.
    #[inline(always)]
    pub(crate) fn slope(self, a: f32, weight: f32, sum: f32, apart: f32) -> f32 {
        let g = self.link.apply(a);
        let share = match self.normalisation {
            Normalisation::SquaredAverage => (g + g) / sum,
            Normalisation::Power(p) => {
                if g == 0.0 || p == 0.0 {
                    0.0
                } else {
                    (p * power(g, p - 1.0)).copysign(g) / sum
                }
            }
            Normalisation::Sigmoid => sigmoid(g) * sigmoid(-g) / sum,
            Normalisation::Softmax => weight,
            Normalisation::Mean | Normalisation::Max | Normalisation::Sparsemax => 0.0,
        };
        let share = match self.link {
            Link::None => share,
            Link::Sigmoid => share * (g * sigmoid(-a)),
        };
        share * apart
    }
}
