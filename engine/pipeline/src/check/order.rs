//! The order of stages, and circles in it.

use super::Cx;
use super::stages::Draft;
use super::wiring::Link;
use crate::codes;
use crate::diagnostic::Diagnostic;

/// Indices of the drafts so that feeders come first, ties in the order of the file; `None` when there are circles, which
/// are reported.
pub(crate) fn order(cx: &mut Cx, drafts: &[Draft], links: &[Vec<Link>]) -> Option<Vec<usize>> {
    let mut waits: Vec<usize> = links.iter().map(Vec::len).collect();
    let mut users = vec![Vec::new(); drafts.len()];
    for (taker, links) in links.iter().enumerate() {
        for link in links {
            users[link.from].push(taker);
        }
    }
    let mut ready: std::collections::BTreeSet<usize> = (0..drafts.len())
        .filter(|index| waits[*index] == 0)
        .collect();
    let mut order = Vec::with_capacity(drafts.len());
    while let Some(next) = ready.pop_first() {
        order.push(next);
        for user in &users[next] {
            waits[*user] -= 1;
            if waits[*user] == 0 {
                ready.insert(*user);
            }
        }
    }
    if order.len() == drafts.len() {
        return Some(order);
    }
    let mut reported = vec![false; drafts.len()];
    for start in 0..drafts.len() {
        if waits[start] > 0 && !reported[start] {
            circle(cx, drafts, links, &waits, start, &mut reported);
        }
    }
    None
}

/// Follows feeders from `start` until a stage comes again, and reports the way round.
fn circle(
    cx: &mut Cx,
    drafts: &[Draft],
    links: &[Vec<Link>],
    waits: &[usize],
    start: usize,
    reported: &mut [bool],
) {
    let mut way: Vec<(usize, Link)> = Vec::new();
    let mut at = start;
    loop {
        if let Some(from) = way.iter().position(|(stage, _)| *stage == at) {
            way.drain(..from);
            break;
        }
        // Every stage that still waits has a feeder that still waits.
        let Some(link) = links[at].iter().find(|link| waits[link.from] > 0) else {
            return;
        };
        way.push((at, *link));
        at = link.from;
    }
    if way.iter().any(|(stage, _)| reported[*stage]) {
        reported[start] = true;
        return;
    }
    way.iter().for_each(|(stage, _)| reported[*stage] = true);
    reported[start] = true;
    // The first of the file first; then in the direction of the flow.
    way.reverse();
    let first = way
        .iter()
        .enumerate()
        .min_by_key(|(_, (stage, _))| *stage)
        .map_or(0, |(at, _)| at);
    way.rotate_left(first);
    let names: Vec<&str> = way
        .iter()
        .map(|(stage, _)| drafts[*stage].name.as_str())
        .collect();
    let title = format!(
        "stages feed each other in a circle: {} -> {}",
        names.join(" -> "),
        names[0]
    );
    let mut diagnostic = Diagnostic::new(
        &codes::E0405,
        way[0].1.span,
        title,
        format!("feeds `{}`", names[0]),
    );
    for ((_, link), name) in way.iter().zip(&names).skip(1) {
        diagnostic = diagnostic.with(link.span, format!("feeds `{name}`"));
    }
    cx.found.push(
        diagnostic.help("a slide could never end: every stage of the circle waits for the others"),
    );
}
