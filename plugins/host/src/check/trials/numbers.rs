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

/// Whether two values are the same but for the last digits: what sums in another order may differ in. Tables that are texts are
/// compared as the numbers and words that they hold; others by their bytes.
pub(super) fn agree(a: &Body, b: &Body) -> bool {
    if let (Body::Ext(a), Body::Ext(b)) = (a, b) {
        return a.format == b.format && tables_agree(&a.bytes, &b.bytes);
    }
    let (a, b) = (of(a), of(b));
    let mut both = a.iter().zip(&b);
    a.len() == b.len() && both.all(|(&a, &b)| near(f64::from(a), f64::from(b)))
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-4 * a.abs().max(b.abs()).max(1.0)
}

fn tables_agree(a: &[u8], b: &[u8]) -> bool {
    let (Ok(left), Ok(right)) = (std::str::from_utf8(a), std::str::from_utf8(b)) else {
        return a == b;
    };
    let words = |text| {
        str::split(text, |one: char| {
            one.is_whitespace() || ",;:[]{}()\"".contains(one)
        })
    };
    let same = |(a, b): (&str, &str)| match (a.parse(), b.parse()) {
        _ if a == b => true,
        (Ok(a), Ok(b)) => near(a, b),
        _ => false,
    };
    words(left).count() == words(right).count() && words(left).zip(words(right)).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_text_agree_when_their_numbers_nearly_do() {
        assert!(tables_agree(b"a,1.000001,2\n", b"a,1.0,2\n"));
        assert!(!tables_agree(b"a,1.1,2\n", b"a,1.0,2\n"));
        assert!(!tables_agree(b"a,1", b"b,1"));
        assert!(!tables_agree(b"a,1", b"a,1,1"));
        assert!(tables_agree(b"\xff\x00", b"\xff\x00") && !tables_agree(b"\xff\x00", b"\xff\x01"));
    }
}
