//! Tests of a stage that gathers a slide's rows: the orders in which the header lets its functions be called.

use super::{No, Said, numbers};
use crate::check::gather::Gatherer;
use crate::check::rows::{self, Value};
use crate::check::stand::Stand;
use std::collections::HashMap;
use std::sync::Arc;
use weir_pipeline::Rows;
use weir_record::{Body, End, Key, SlideId, TileId};

/// Rows of one slide of each input.
fn of_slide(stand: &Stand, slide: u64, n: usize) -> Vec<(usize, Value)> {
    let mut all = Vec::new();
    for port in 0..stand.about.ins.len() {
        // Made-up rows alternate between two slides.
        let rows = stand.rows(port, n * 2).into_iter().step_by(2);
        all.extend(rows.map(|(key, body, info)| {
            let slide = SlideId::new(0, slide);
            (port, (Key { slide, ..key }, body, info))
        }));
    }
    all
}

/// The same tile with what another one says.
fn replaced(of: &Value, by: &Value) -> Value {
    let key = Key {
        rev: of.0.rev + 1,
        ..of.0
    };
    (key, by.1.clone(), of.2.clone())
}

fn put(gatherer: &mut Gatherer, rows: &[(usize, Value)]) {
    for (port, (key, body, _)) in rows {
        gatherer.row(*port, *key, Some(body.clone()));
    }
}

pub(super) fn flush_order(stand: &Stand) -> Said {
    // A run without a slide.
    let made = stand.ready()?;
    let mut gatherer = Gatherer::new(stand, &made)?;
    gatherer.finish();
    gatherer.told.well()?;
    drop(gatherer);

    let made = stand.ready()?;
    let mut gatherer = Gatherer::new(stand, &made)?;
    let ids: Vec<SlideId> = (0..5).map(|number| SlideId::new(0, number)).collect();
    let (a, b) = (of_slide(stand, 0, 8), of_slide(stand, 1, 8));
    let info = |number: usize| match a.first() {
        Some((_, (_, _, info))) => {
            let mut info = (**info).clone();
            info.id = format!("slide-{number}");
            Arc::new(info)
        }
        None => rows::slide(number as u64, 1),
    };
    for (number, &id) in ids.iter().enumerate() {
        gatherer.open(id, &info(number));
    }
    let live = !stand.about.batch_only;
    // Rows of two slides in turn; some are withdrawn, and some replaced, before anybody asked for anything.
    let (early, late) = a.split_at(a.len() / 2);
    for (one, other) in early.iter().zip(&b) {
        put(&mut gatherer, std::slice::from_ref(one));
        put(&mut gatherer, std::slice::from_ref(other));
    }
    if live {
        let (port, (key, ..)) = &early[0];
        gatherer.row(*port, *key, None);
        // What is asked for before the end, and then again with what came meanwhile.
        gatherer.complete(ids[0], 0, None);
        let (port, row) = &early[early.len() - 1];
        put(&mut gatherer, &[(*port, replaced(row, &late[0].1))]);
        gatherer.complete(ids[0], 1, None);
    }
    put(&mut gatherer, late);
    put(&mut gatherer, &b[early.len()..]);
    gatherer.complete(ids[0], 2, Some(End::Complete));
    // A sender that fell silent, a slide that failed, one of which nothing came, and one that is closed before its end.
    gatherer.complete(ids[1], 0, Some(End::Incomplete));
    put(&mut gatherer, &of_slide(stand, 2, 2));
    gatherer.complete(ids[2], 0, Some(End::Aborted));
    gatherer.complete(ids[3], 0, Some(End::Complete));
    put(&mut gatherer, &of_slide(stand, 4, 2));
    // An end that was none: the slide grew.
    if live {
        let (port, row) = &late[0];
        put(
            &mut gatherer,
            &[(*port, replaced(row, &late[late.len() - 1].1))],
        );
    }
    gatherer.complete(ids[0], 3, Some(End::Complete));
    for &id in &ids {
        gatherer.close(id);
    }
    gatherer.finish();
    gatherer.told.well()?;
    for (output, _, _, body) in &gatherer.told.versions {
        let port = &stand.about.outs[*output];
        if body.is_value() {
            numbers::fits(port.kind, &stand.shape(&port.shape), body)
                .map_err(|what| No::Failed(format!("on output `{}` it made {what}", port.name)))?;
        }
    }
    Ok(match gatherer.told.versions.len() {
        0 => String::new(),
        n => format!("{n} rows"),
    })
}

/// A reduce's answer is one to what holds, whatever held before; and the same when it is asked for twice.
pub(super) fn remove_undoes(stand: &Stand) -> Said {
    if stand.about.rows != Rows::Reduce {
        return Err(No::Skipped("what a sink writes is its own affair".into()));
    }
    if stand.about.batch_only {
        return Err(No::Skipped(
            "its manifest says that nothing is removed".into(),
        ));
    }
    let id = SlideId::new(0, 0);
    let rows = of_slide(stand, 0, 12);
    let Some((_, (_, _, info))) = rows.first() else {
        return Err(No::Skipped("it has no input".into()));
    };
    let with = |history: bool| -> Result<_, No> {
        let made = stand.ready()?;
        let mut gatherer = Gatherer::new(stand, &made)?;
        gatherer.open(id, info);
        // Every third row is withdrawn, and every fourth replaced by what another one says.
        let gone = |at: usize| at % 3 == 1;
        let anew = |at: usize| at % 4 == 2 && !gone(at);
        if history {
            put(&mut gatherer, &rows);
            // What was asked for in between is one answer more.
            gatherer.complete(id, 0, None);
        }
        for (at, (port, row)) in rows.iter().enumerate() {
            let mut of_port = rows.iter().filter(|(other, _)| other == port);
            let other = of_port.next_back().map_or(row, |(_, other)| other);
            if gone(at) {
                if history {
                    gatherer.row(*port, Key { rev: 1, ..row.0 }, None);
                }
            } else if anew(at) {
                put(&mut gatherer, &[(*port, replaced(row, other))]);
            } else if !history {
                put(&mut gatherer, &[(*port, row.clone())]);
            }
        }
        gatherer.complete(id, 1, Some(End::Complete));
        gatherer.told.well()?;
        let once = gatherer.told.holds(id);
        gatherer.complete(id, 2, Some(End::Complete));
        gatherer.told.well()?;
        let twice = gatherer.told.holds(id);
        gatherer.close(id);
        match same(&once, &twice) {
            true => Ok(once),
            false => Err(No::Failed(
                "complete_slide() gave other rows when it was called again and nothing had changed"
                    .into(),
            )),
        }
    };
    let (with, without) = (with(true)?, with(false)?);
    if with.len() != without.len() {
        return Err(No::Failed(format!(
            "it gave {} rows after some were removed or replaced, and {} where they never were there",
            with.len(),
            without.len()
        )));
    }
    for ((output, tile), body) in &with {
        let same = without
            .get(&(*output, *tile))
            .is_some_and(|it| numbers::agree(body, it));
        if !same {
            return Err(No::Failed(format!(
                "on output `{}` it gave another row after some were removed or replaced than where they never were there",
                stand.about.outs[*output].name
            )));
        }
    }
    Ok(format!("{} rows", with.len()))
}

/// What it gave of a slide, by output and tile.
type Answer = HashMap<(usize, TileId), Body>;

/// A slide's answer is one to that slide's rows, whatever other slides are in hand.
pub(super) fn slides_apart(stand: &Stand) -> Said {
    if stand.about.rows != Rows::Reduce {
        return Err(No::Skipped("what a sink writes is its own affair".into()));
    }
    let (a, b) = (SlideId::new(0, 0), SlideId::new(0, 1));
    // The second slide has the first one's tiles and more, and they say something else.
    let (of_a, mut of_b) = (of_slide(stand, 0, 8), of_slide(stand, 1, 12));
    let others = of_slide(stand, 1, 20);
    for (port, rows) in of_b.chunks_mut(12).enumerate() {
        let others = others.iter().skip(20 * port + 8);
        for ((_, (_, body, _)), (_, (_, other, _))) in rows.iter_mut().zip(others) {
            body.clone_from(other);
        }
    }
    if of_a.is_empty() {
        return Err(No::Skipped("it has no input".into()));
    }
    let alone = |slide, rows: &[(usize, Value)]| -> Result<Answer, No> {
        let all: Vec<_> = rows.iter().map(|row| (slide, row)).collect();
        let mut said = gathered(stand, &[slide], &all)?;
        Ok(said.remove(&slide).unwrap_or_default())
    };
    let (only_a, only_b) = (alone(a, &of_a)?, alone(b, &of_b)?);
    for (slide, rows, once) in [(a, &of_a, &only_a), (b, &of_b, &only_b)] {
        if !same(once, &alone(slide, rows)?) {
            return Err(No::Skipped(
                "it gives another answer to the same rows each time".into(),
            ));
        }
    }
    let mut in_turn = Vec::new();
    for at in 0..of_a.len().max(of_b.len()) {
        in_turn.extend(of_a.get(at).map(|row| (a, row)));
        in_turn.extend(of_b.get(at).map(|row| (b, row)));
    }
    let both = [
        (
            gathered(stand, &[a, b], &in_turn)?,
            "rows of another one came in between",
        ),
        (
            in_succession(stand, &[(a, &of_a), (b, &of_b)])?,
            "another one was done before",
        ),
    ];
    for (both, when) in &both {
        for (slide, alone) in [(a, &only_a), (b, &only_b)] {
            if !both.get(&slide).is_some_and(|it| same(it, alone)) {
                return Err(No::Failed(format!(
                    "it gave other rows of a slide when {when}: it mixes slides; what it keeps belongs to a slide each \
(weir_row.key.slide), of which several may be in hand at once, and goes when close_slide() says so"
                )));
            }
        }
    }
    Ok(format!("{} rows", only_a.len() + only_b.len()))
}

/// What an instance gives of slides whose rows come in this order.
fn gathered(
    stand: &Stand,
    slides: &[SlideId],
    rows: &[(SlideId, &(usize, Value))],
) -> Result<HashMap<SlideId, Answer>, No> {
    let made = stand.ready()?;
    let mut gatherer = Gatherer::new(stand, &made)?;
    for (slide, (_, (_, _, info))) in rows {
        let mut info = (**info).clone();
        info.id = format!("slide-{}", slide.number());
        gatherer.open(*slide, &Arc::new(info));
    }
    for (_, row) in rows {
        put(&mut gatherer, std::slice::from_ref(*row));
    }
    for &slide in slides {
        gatherer.complete(slide, 0, Some(End::Complete));
    }
    gatherer.told.well()?;
    let holds = |&slide: &SlideId| (slide, gatherer.told.holds(slide));
    let said = slides.iter().map(holds).collect();
    for &slide in slides {
        gatherer.close(slide);
    }
    Ok(said)
}

/// What an instance gives of slides that come one after the other.
fn in_succession(
    stand: &Stand,
    slides: &[(SlideId, &[(usize, Value)])],
) -> Result<HashMap<SlideId, Answer>, No> {
    let made = stand.ready()?;
    let mut gatherer = Gatherer::new(stand, &made)?;
    let mut said = HashMap::new();
    for (slide, rows) in slides {
        for (_, (_, _, info)) in rows.iter().take(1) {
            gatherer.open(*slide, info);
        }
        put(&mut gatherer, rows);
        gatherer.complete(*slide, 0, Some(End::Complete));
        gatherer.told.well()?;
        said.insert(*slide, gatherer.told.holds(*slide));
        gatherer.close(*slide);
    }
    Ok(said)
}

fn same(a: &Answer, b: &Answer) -> bool {
    let agrees = |(place, body): (&(usize, TileId), &Body)| {
        b.get(place)
            .is_some_and(|other| numbers::agree(body, other))
    };
    a.len() == b.len() && a.iter().all(agrees)
}
