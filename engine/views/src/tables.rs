//! `worklist.csv` and `patients.csv`.

use std::cmp::Reverse;

use crate::rollup::Rollup;
use crate::slide::{Number, Owner, SlideEntry, Standing};
use crate::view::Answers;

/// The tables of a run, as the bytes of their files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// `worklist.csv`: slides, what is to be looked at first on top.
    pub worklist: Vec<u8>,
    /// `patients.csv`: sorted by patient.
    pub patients: Vec<u8>,
}

pub(crate) fn write<'a>(
    slides: impl Iterator<Item = &'a SlideEntry>,
    patients: impl Iterator<Item = &'a (Owner, Rollup)>,
    answers: &Answers,
) -> Tables {
    let slides: Vec<&SlideEntry> = slides.collect();
    let mut classes = answers.classes.clone();
    if classes.is_empty() {
        let answered = slides.iter().filter_map(|entry| entry.answered());
        classes = answered
            .flat_map(|(answer, _)| answer.classes.clone())
            .collect();
        classes.sort();
        classes.dedup();
    }
    Tables {
        worklist: worklist(slides, &classes, answers.positive.as_deref()),
        patients: roll_up(patients, &classes, answers),
    }
}

// -------------------------------------------------------------------------------------------------------- worklist

/// The place of a slide: first those that are called positive, the most probable on top; then those without an answer,
/// since nobody may take them for negative; then those that are called something else, the nearest to positive on top;
/// then those without tissue. Where no class is the positive one, by the probability of what they are called.
fn place<'a>(entry: &'a SlideEntry, positive: Option<&str>) -> (u8, Reverse<Number>, &'a str) {
    let (group, p) = match entry.answered() {
        Some((answer, class)) => {
            let index = positive.and_then(|p| answer.classes.iter().position(|name| name == p));
            let p = answer.probabilities[index.unwrap_or(class)];
            (
                if index.is_none_or(|index| index == class) {
                    0
                } else {
                    2
                },
                p,
            )
        }
        None if entry.standing == Standing::NoTissue => (3, Number(0.0)),
        None => (1, Number(0.0)),
    };
    (group, Reverse(p), &entry.slide)
}

fn worklist(mut slides: Vec<&SlideEntry>, classes: &[String], positive: Option<&str>) -> Vec<u8> {
    slides.sort_by(|a, b| place(a, positive).cmp(&place(b, positive)));
    let mut head = texts([
        "rank",
        "slide",
        "patient",
        "label",
        "state",
        "class",
        "probability",
    ]);
    head.extend(classes.iter().map(|class| format!("p_{class}")));
    head.extend(texts(["members", "tiles", "failed", "flags", "reason"]));
    let rows = slides.into_iter().zip(1..).map(|(entry, rank)| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let answered = entry.answered();
        let mut row = vec![
            rank.to_string(),
            entry.slide.clone(),
            text(&entry.patient),
            text(&entry.label),
            entry.standing.name().to_owned(),
            answered.map_or_else(String::new, |(answer, class)| answer.classes[class].clone()),
            answered.map_or_else(String::new, |(answer, class)| {
                number(answer.probabilities[class].0)
            }),
        ];
        row.extend(classes.iter().map(|class| {
            let p = answered.and_then(|(answer, _)| {
                let at = answer.classes.iter().position(|name| name == class)?;
                Some(answer.probabilities[at].0)
            });
            p.map_or_else(String::new, number)
        }));
        let answer = entry.answer.as_ref();
        row.extend([
            answer.map_or(0, |answer| answer.members).to_string(),
            entry.tiles.to_string(),
            entry.failed.to_string(),
            answer.map_or_else(String::new, |answer| answer.flags.join(" ")),
            entry.reason.clone(),
        ]);
        row
    });
    csv(head, rows)
}

// -------------------------------------------------------------------------------------------------------- patients

fn roll_up<'a>(
    patients: impl Iterator<Item = &'a (Owner, Rollup)>,
    classes: &[String],
    answers: &Answers,
) -> Vec<u8> {
    let mut head = texts(["patient", "by", "class", "probability"]);
    head.extend(classes.iter().map(|class| format!("p_{class}")));
    head.extend(texts([
        "slides",
        "answered",
        "failed",
        "no_tissue",
        "members",
        "tiles",
        "failed_tiles",
    ]));
    let rows = patients.map(|(owner, rollup)| {
        let (by, probabilities) = probabilities(rollup, classes, answers);
        // The first of equals, as everywhere.
        let best = (0..probabilities.len()).reduce(|best, at| {
            if probabilities[at] > probabilities[best] {
                at
            } else {
                best
            }
        });
        let mut row = vec![
            owner.name.clone(),
            by.to_owned(),
            best.map_or_else(String::new, |best| classes[best].clone()),
            best.map_or_else(String::new, |best| number(probabilities[best])),
        ];
        row.extend((0..classes.len()).map(|at| {
            probabilities
                .get(at)
                .map_or_else(String::new, |p| number(*p))
        }));
        row.extend(
            [
                rollup.slides,
                rollup.answered,
                rollup.failed,
                rollup.no_tissue,
                rollup.members,
                rollup.tiles,
                rollup.failed_tiles,
            ]
            .map(|count| count.to_string()),
        );
        row
    });
    csv(head, rows)
}

/// By the classifier's word on the merged pool where every slide has its sums, else by the mean of the slides'.
fn probabilities(
    rollup: &Rollup,
    classes: &[String],
    answers: &Answers,
) -> (&'static str, Vec<f32>) {
    let pooled = answers.classify.as_ref().and_then(|classify| {
        let pool = rollup.pool()?.finish()?;
        classify(&pool.pooled).filter(|p| p.len() == classes.len())
    });
    if let Some(probabilities) = pooled {
        return ("pool", probabilities);
    }
    let means: Option<Vec<f32>> = classes.iter().map(|class| rollup.mean(class)).collect();
    match means.filter(|means| !means.is_empty()) {
        Some(means) => ("mean", means),
        None => ("", Vec::new()),
    }
}

// ------------------------------------------------------------------------------------------------------------- csv

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).into()
}

/// The shortest text that reads back to the same bits; empty where there is none.
fn number(value: f32) -> String {
    let size = value.abs();
    if !value.is_finite() {
        String::new()
    } else if size != 0.0 && !(1e-5..1e16).contains(&size) {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}

fn csv(head: Vec<String>, rows: impl Iterator<Item = Vec<String>>) -> Vec<u8> {
    let mut table = csv::Writer::from_writer(Vec::new());
    for row in std::iter::once(head).chain(rows) {
        // A vector takes every byte, and each row has the head's length.
        let written = table.write_record(&row);
        debug_assert!(written.is_ok());
    }
    table.into_inner().unwrap_or_default()
}
