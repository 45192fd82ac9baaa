//! Model B behind its encoder: attention, pool, classifier, in the portable loops of weir-kernels.

use crate::error::ModelError;
use crate::head::CLASSIFIER;
use crate::{folder, head};
use std::path::Path;
use weir_kernels::attention::AttentionHead;
use weir_kernels::classifier::Classifier;
use weir_kernels::gated::{self, GatedHead};
use weir_kernels::normalise::{Link, Normalisation, Normalise};
use weir_kernels::pool::{self, Weighted, leave_one_out};
use weir_kernels::{CONTRACT, dot};
use weir_pipeline::model::{ModelHeader, ModelKind};
use weir_record::{Attention, BagFlags, EXACT_CONTRACT, ExactMember, ExactSums};

/// What a pipeline says of the pool in place of `model.toml`; `None` leaves the model's own.
///
/// The link goes with every normalisation: to put plain softmax in the place of a model's squared average over sigmoids,
/// say both.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pooling {
    /// One of [`Normalisation::NAMES`].
    pub normalise: Option<String>,
    /// One of [`Link::NAMES`].
    pub link: Option<String>,
    /// Exponent of `power`.
    pub power: Option<f32>,
    /// `ordered` (contract `ordered-f32/1`) or `exact` (contract `exact-q128/1`, for `squared-average` and `mean`).
    pub accumulate: Option<String>,
    /// Whether head, normalisation and pool run as one kernel (contract `fused/1`) and not in the portable loops.
    pub fused: bool,
}

/// A pooled bag.
#[derive(Clone, Debug, PartialEq)]
pub struct Pooled {
    /// The weighted mean of the members' features, `[d]`; empty when the bag is.
    pub pooled: Vec<f32>,
    /// Attention logit of each member, before the link.
    pub logits: Vec<f32>,
    /// Weight of each member.
    pub weights: Vec<f32>,
    /// Effective number of members.
    pub effective: f32,
    /// Entropy of the weights, nats.
    pub entropy: f32,
    /// What was noticed.
    pub flags: BagFlags,
    /// The exact sums, for `squared-average` and `mean`; `None` for the others, and where a number lay beyond their range
    /// of +-128 while the pool itself is the ordered one.
    pub exact: Option<ExactSums>,
    /// Numeric contract of `pooled` and `weights`.
    pub contract: &'static str,
    /// Places of the members that were left out because of a number that is none; their weight is 0. [`Encoder`](crate::Encoder)
    /// lets none of them through, so what is here came from elsewhere.
    pub refused: Vec<usize>,
}

/// What the classifier says of a pooled bag.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// `[C]`; empty when there is no class.
    pub logits: Vec<f32>,
    /// Softmax of `logits`, `[C]`.
    pub probabilities: Vec<f32>,
    /// Of the greatest probability, the first of equals; `None` for an empty bag.
    pub class: Option<u32>,
}

/// Attention head, normalisation, pool and classifier.
#[derive(Debug)]
pub struct BagModel {
    pub(crate) head: AttentionHead,
    /// Where the head runs as one kernel with the rest.
    pub(crate) fused: Option<GatedHead>,
    pub(crate) kind: Normalisation,
    rule: Box<dyn Normalise>,
    pub(crate) link: Link,
    accumulate: Accumulate,
    classifier: Classifier,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accumulate {
    Ordered,
    Exact,
}

impl BagModel {
    /// The bag model of `header`, with what `pooling` says in place of its own.
    pub fn load(header: &ModelHeader, pooling: &Pooling) -> Result<BagModel, ModelError> {
        let file = header.folder.join(ModelHeader::FILE);
        if header.kind != ModelKind::Bag {
            return Err(ModelError::new(
                &file,
                "this is a scorer, but bags are pooled by a bag model",
                "name a model of kind `bag`",
            ));
        }
        let (kind, link, accumulate) = rules(header, pooling, &file)?;
        let weights = folder::weights(header)?;
        let head = head::attention(&weights, header)?;
        Ok(BagModel {
            fused: pooling.fused.then(|| GatedHead::new(head.clone())),
            head,
            kind,
            rule: kind.rule(),
            link,
            accumulate,
            classifier: Classifier {
                layer: head::layer(&weights, CLASSIFIER, header.classes.len(), header.feature)?,
            },
        })
    }

    /// Pools `members`, feature vectors in TileId order.
    ///
    /// # Panics
    /// When a member has another width than the model: the planner has matched the two.
    pub fn pool(&self, members: &[&[f32]]) -> Pooled {
        for member in members {
            assert_eq!(
                member.len(),
                self.head.inputs(),
                "a member's features do not have the width of the model"
            );
        }
        let logits = self.head.logits(members);
        let bag = pool::pool(self.rule.as_ref(), self.link, &logits, members);
        self.finish(logits, bag, members)
    }

    /// Numeric contract of its bags.
    pub fn contract(&self) -> &'static str {
        match (&self.fused, self.accumulate) {
            (Some(_), _) => gated::CONTRACT,
            (None, Accumulate::Ordered) => CONTRACT,
            (None, Accumulate::Exact) => EXACT_CONTRACT,
        }
    }

    /// A pooled bag with its exact sums, which stand in for the pool where the model says so.
    pub(crate) fn finish(&self, logits: Vec<f32>, bag: pool::Pooled, members: &[&[f32]]) -> Pooled {
        let mut flags = BagFlags::default();
        for (set, flag) in [
            (bag.flags.empty, BagFlags::EMPTY),
            (bag.flags.uniform, BagFlags::UNIFORM),
            (bag.flags.out_of_domain, BagFlags::OUT_OF_DOMAIN),
            (!bag.refused.is_empty(), BagFlags::DEGRADED),
        ] {
            if set {
                flags = flags.with(flag);
            }
        }
        let mut pooled = Pooled {
            pooled: bag.pooled,
            logits,
            weights: bag.weights,
            effective: bag.effective,
            entropy: bag.entropy,
            flags,
            exact: None,
            contract: CONTRACT,
            refused: bag.refused,
        };
        if self.fused.is_some() {
            // Its logits hang on the device, so sums of them are nothing exact.
            pooled.contract = gated::CONTRACT;
            return pooled;
        }
        let Some((sums, saturated)) = self.sums(&pooled, members) else {
            return pooled;
        };
        match self.accumulate {
            Accumulate::Exact => {
                self.take_exact(&mut pooled, sums, members);
                if saturated {
                    pooled.flags = pooled.flags.with(BagFlags::OUT_OF_DOMAIN);
                }
            }
            Accumulate::Ordered if !saturated => pooled.exact = Some(sums),
            Accumulate::Ordered => {}
        }
        pooled
    }

    /// A member rounded for the exact contract; `None` for a refused one, and for normalisations without exact sums.
    fn rounded(&self, pooled: &Pooled, place: usize, features: &[f32]) -> Option<ExactMember> {
        if pooled.refused.binary_search(&place).is_ok() {
            return None;
        }
        match self.kind {
            Normalisation::SquaredAverage => {
                ExactMember::squared(self.link.apply(pooled.logits[place]), features)
            }
            Normalisation::Mean => ExactMember::equal(features),
            _ => None,
        }
    }

    /// The exact sums, and whether a member was held at their limits. A whole slide's rounded members would be twice its
    /// features, so each is made where it is needed.
    fn sums(&self, pooled: &Pooled, members: &[&[f32]]) -> Option<(ExactSums, bool)> {
        if !matches!(
            self.kind,
            Normalisation::SquaredAverage | Normalisation::Mean
        ) {
            return None;
        }
        let mut sums = ExactSums::new(self.head.inputs());
        let mut saturated = false;
        for (place, features) in members.iter().enumerate() {
            if let Some(member) = self.rounded(pooled, place, features) {
                sums.insert(&member);
                saturated |= member.saturated > 0;
            }
        }
        Some((sums, saturated))
    }

    /// Puts the exact contract's answer in the place of the ordered one's.
    fn take_exact(&self, pooled: &mut Pooled, sums: ExactSums, members: &[&[f32]]) {
        pooled.contract = EXACT_CONTRACT;
        if let Some(pool) = sums.finish() {
            pooled.pooled = pool.pooled;
            pooled.weights = members
                .iter()
                .enumerate()
                .map(|(place, features)| {
                    let member = self.rounded(pooled, place, features);
                    member.map_or(0.0, |member| member.weight(&sums))
                })
                .collect();
            (pooled.effective, pooled.entropy) = pool::spread(&pooled.weights);
            pooled.flags = pooled.flags.without(BagFlags::UNIFORM);
            if pool.uniform {
                pooled.flags = pooled.flags.with(BagFlags::UNIFORM);
            }
        }
        pooled.exact = Some(sums);
    }

    /// The classifier's word on a pooled vector; none for an empty one, or one whose logits are no numbers.
    pub fn classify(&self, pooled: &[f32]) -> Verdict {
        if pooled.is_empty() {
            return Verdict::default();
        }
        let verdict = self.classifier.classify(pooled);
        if !verdict.probabilities.iter().all(|p| p.is_finite()) {
            return Verdict::default();
        }
        Verdict {
            logits: verdict.logits,
            probabilities: verdict.probabilities,
            class: Some(verdict.class as u32),
        }
    }

    /// Each member's part in the bag, for the predicted class; class 0 where there is none.
    pub fn attention(
        &self,
        members: &[&[f32]],
        pooled: &Pooled,
        verdict: &Verdict,
    ) -> Vec<Attention> {
        let class = verdict.class.unwrap_or(0);
        let direction = self.classifier.layer.row(class as usize);
        let parts: Vec<f32> = members.iter().map(|h| dot(&direction, h)).collect();
        let changes = leave_one_out(
            self.rule.as_ref(),
            self.link,
            &pooled.logits,
            &parts,
            Weighted {
                weights: &pooled.weights,
                uniform: pooled.flags.has(BagFlags::UNIFORM),
                refused: &pooled.refused,
            },
        );
        (0..members.len())
            .map(|k| Attention {
                logit: pooled.logits[k],
                weight: pooled.weights[k],
                // Selected, not multiplied: a refused member's part may be no number.
                contribution: if pooled.weights[k] == 0.0 {
                    0.0
                } else {
                    pooled.weights[k] * parts[k]
                },
                leave_one_out: changes[k],
                class,
            })
            .collect()
    }
}

/// Normalisation, link and sums: the pipeline's word, else the model's.
fn rules(
    header: &ModelHeader,
    pooling: &Pooling,
    file: &Path,
) -> Result<(Normalisation, Link, Accumulate), ModelError> {
    let error = |what: String, help: String| Err(ModelError::new(file, what, help));
    let name = pooling.normalise.as_deref().unwrap_or(&header.normalise);
    let exponent = pooling.power.or(header.power);
    let Some(kind) = Normalisation::parse(name, exponent) else {
        return if name == "power" {
            error(
                match exponent {
                    None => "the normalisation `power` without an exponent".to_string(),
                    Some(power) => format!("the exponent {power} of the normalisation `power`"),
                },
                "set `power` to a number of at least 0".to_string(),
            )
        } else {
            error(
                format!("there is no normalisation `{name}`"),
                format!("there are {}", Normalisation::NAMES.join(", ")),
            )
        };
    };
    let name = pooling.link.as_deref().unwrap_or(&header.link);
    // A header that was written before the link had a name means none.
    let link = if name.is_empty() { "none" } else { name };
    let Some(link) = Link::parse(link) else {
        return error(
            format!("there is no link `{link}`"),
            format!("there are {}", Link::NAMES.join(", ")),
        );
    };
    let accumulate = match (pooling.accumulate.as_deref(), header.contract.as_str()) {
        (Some("ordered"), _) | (None, CONTRACT | "") => Accumulate::Ordered,
        (Some("exact"), _) | (None, EXACT_CONTRACT) => Accumulate::Exact,
        (Some(other), _) => {
            return error(
                format!("there is no way `{other}` to accumulate"),
                "there are ordered, exact".to_string(),
            );
        }
        (None, other) => {
            return error(
                format!("this weir does not know the numeric contract `{other}`"),
                format!("it knows {CONTRACT} and {EXACT_CONTRACT}"),
            );
        }
    };
    let has_sums = matches!(kind, Normalisation::SquaredAverage | Normalisation::Mean);
    if accumulate == Accumulate::Exact && !has_sums {
        return error(
            format!("`{}` has no exact sums", kind.rule().name()),
            "set accumulate = \"ordered\", or normalise by squared-average or mean".to_string(),
        );
    }
    if pooling.fused {
        if matches!(kind, Normalisation::Sparsemax | Normalisation::Max) {
            return error(
                format!(
                    "`{}` needs all logits at once, which the fused head never has",
                    kind.rule().name()
                ),
                "set head = \"portable\", or another normalisation".to_string(),
            );
        }
        if accumulate == Accumulate::Exact {
            return error(
                "exact sums stand on the portable head's logits".to_string(),
                "set head = \"portable\", or accumulate = \"ordered\"".to_string(),
            );
        }
    }
    Ok((kind, link, accumulate))
}
