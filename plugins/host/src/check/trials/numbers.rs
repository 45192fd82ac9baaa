//! Whether what a stage makes is what its port says, and which numbers it holds.

use weir_pipeline::Kind;
use weir_record::Body;

/// Whether a body may flow through a port of this kind and shape.
pub(super) fn fits(kind: Kind, shape: &[u64], body: &Body) -> Result<(), String> {
    let side = |at: usize| shape.get(at).copied().unwrap_or(0);
    let wide = |what: &str, len: usize, wanted: u64| match len as u64 == wanted {
        true => Ok(()),
        false => Err(format!(
            "{len} {what}, and the port says that there are {wanted}"
        )),
    };
    let part = |what: &str, numbers: &[f32]| {
        let beyond = numbers.iter().find(|number| !(0.0..=1.0).contains(*number));
        match beyond {
            None => Ok(()),
            Some(number) => Err(format!("a {what} of {number}, which is not within 0 and 1")),
        }
    };
    if let Some(number) = of(body).into_iter().find(|number| !number.is_finite()) {
        return Err(format!("a number that is {number}"));
    }
    match (kind, body) {
        (Kind::Pixels, Body::Pixels(tile)) => {
            let (height, width) = (u64::from(tile.height()), u64::from(tile.width()));
            match (height, width) == (side(0), side(1)) {
                true => Ok(()),
                false => Err(format!(
                    "a tile of {width} x {height} px, and the port says {} x {}",
                    side(1),
                    side(0)
                )),
            }
        }
        (Kind::Scores, Body::Score(scores)) => {
            wide("probabilities", scores.probabilities.len(), side(2))?;
            part("probability", &scores.probabilities)
        }
        (Kind::Features, Body::Feature(feature)) => wide("numbers", feature.len(), side(0)),
        (Kind::Attention, Body::Attention(attention)) => part("weight", &[attention.weight]),
        (Kind::Bag, Body::Bag(bag)) if bag.pooled.is_empty() => Ok(()),
        (Kind::Bag, Body::Bag(bag)) => wide("numbers", bag.pooled.len(), side(0)),
        (Kind::Predictions, Body::Prediction(it)) if it.probabilities.is_empty() => Ok(()),
        (Kind::Predictions, Body::Prediction(it)) => {
            wide("probabilities", it.probabilities.len(), side(0))?;
            part("probability", &it.probabilities)
        }
        (Kind::Picks, Body::Picked { .. }) | (Kind::Table, Body::Ext(_)) => Ok(()),
        _ => Err(format!("something that is not {}", kind.name())),
    }
}

/// The numbers of a value, in their order; none of pixels and tables.
pub(super) fn of(body: &Body) -> Vec<f32> {
    match body {
        Body::Score(scores) => {
            let mut all = vec![scores.score];
            all.extend(&scores.probabilities);
            all
        }
        Body::Picked { score, .. } => vec![*score],
        Body::Feature(feature) => feature.to_vec(),
        Body::Attention(it) => vec![it.logit, it.weight, it.contribution, it.leave_one_out],
        Body::Bag(bag) => {
            let mut all = bag.pooled.clone();
            all.extend([bag.n as f32, bag.effective, bag.entropy]);
            all
        }
        Body::Prediction(it) => {
            let mut all = it.logits.clone();
            all.extend(&it.probabilities);
            all
        }
        _ => Vec::new(),
    }
}

/// Whether two values are the same but for the last digits: what sums in another order may differ in.
pub(super) fn agree(a: &Body, b: &Body) -> bool {
    let (a, b) = (of(a), of(b));
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * a.abs().max(b.abs()).max(1.0);
    a.len() == b.len() && a.iter().zip(&b).all(near)
}
