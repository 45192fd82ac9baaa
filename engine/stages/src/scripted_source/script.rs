//! A script: lines read, versions numbered, generations closed. A pure function of the text.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use serde::Deserialize;
use weir_record::{Body, End, Generations, TileId};
use weir_runtime::stage::{StageError, Step};

/// A line of a script.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
enum Line {
    Open(Opening),
    #[serde(alias = "rescan")]
    Tile {
        slide: String,
        x: i64,
        y: i64,
        #[serde(default)]
        rgb: Option<[u8; 3]>,
        #[serde(default)]
        ms: u64,
    },
    Region {
        slide: String,
        x: i64,
        y: i64,
        width: u32,
        height: u32,
    },
    Fail {
        slide: String,
        x: i64,
        y: i64,
        what: String,
    },
    Gone {
        slide: String,
        x: i64,
        y: i64,
    },
    Delay {
        slide: String,
        ms: u64,
    },
    Seal {
        slide: String,
        end: End,
    },
    Hold {
        slide: String,
    },
    Panic {
        slide: String,
        r#in: Thread,
    },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Opening {
    slide: String,
    #[serde(default = "large")]
    pub(super) width: u64,
    #[serde(default = "large")]
    pub(super) height: u64,
    pub(super) patient: Option<String>,
    pub(super) label: Option<String>,
    pub(super) error: Option<String>,
    #[serde(default)]
    early: bool,
    #[serde(default)]
    pub(super) latest: bool,
}

/// Side of a slide whose script says nothing, level-0 px.
fn large() -> u64 {
    100_000
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Thread {
    Worker,
    Reader,
}

impl Line {
    fn slide(&self) -> &str {
        match self {
            Line::Open(opening) => &opening.slide,
            Line::Tile { slide, .. }
            | Line::Region { slide, .. }
            | Line::Fail { slide, .. }
            | Line::Gone { slide, .. }
            | Line::Delay { slide, .. }
            | Line::Seal { slide, .. }
            | Line::Hold { slide }
            | Line::Panic { slide, .. } => slide,
        }
    }
}

/// What a version's pixels are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// A pattern by the number of times that the tile was sent before.
    Pattern(u32),
    Colour([u8; 3]),
    Unreadable(String),
    Panic,
}

/// A slide's part of a script, with every version numbered.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) opening: Opening,
    pub(super) steps: VecDeque<Act>,
    /// By tile and revision: what it is, and how long reading takes.
    pub(super) contents: HashMap<(TileId, u32), (Content, Duration)>,
    pub(super) tiles: u64,
    /// The generation that a stop seals: greater than all others.
    pub(super) after: u32,
}

#[derive(Clone, Debug)]
pub(super) enum Act {
    Step(Step),
    Hold,
    Panic,
}

/// A script by slide, or the first mistake in it with its place.
pub(super) fn parse(
    text: &str,
    place: &str,
    size: u32,
) -> Result<BTreeMap<String, Part>, StageError> {
    let mut lines: BTreeMap<String, (Opening, Vec<(usize, Line)>)> = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |what: String| {
            StageError::new(
                format!("{place}:{}: {what}", number + 1),
                "`weir stages scripted-source` shows the lines that there are",
            )
        };
        let line: Line = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
        match (line, lines.len()) {
            (Line::Open(opening), _) => {
                let slide = opening.slide.clone();
                if lines.insert(slide.clone(), (opening, Vec::new())).is_some() {
                    return Err(wrong(format!("the slide `{slide}` is opened twice")));
                }
            }
            (line, _) => {
                let slide = line.slide().to_owned();
                let Some((_, known)) = lines.get_mut(&slide) else {
                    return Err(wrong(format!("the slide `{slide}` is not open yet")));
                };
                known.push((number + 1, line));
            }
        }
    }
    let parts = lines.into_iter().map(|(slide, (opening, lines))| {
        let part = number_versions(opening, lines, size).map_err(|(line, what)| {
            StageError::new(format!("{place}:{line}: {what}"), "see its other lines")
        });
        Ok((slide, part?))
    });
    parts.collect()
}

/// Numbers the versions of a slide and closes its generations.
fn number_versions(
    opening: Opening,
    lines: Vec<(usize, Line)>,
    size: u32,
) -> Result<Part, (usize, String)> {
    let mut generations = Generations::default();
    let (mut steps, mut seals) = (VecDeque::new(), VecDeque::new());
    let mut contents = HashMap::new();
    let mut times: HashMap<TileId, u32> = HashMap::new();
    let mut stands = false;
    let mut seal = |generations: &mut Generations, steps: &mut VecDeque<Act>, end| {
        for (rev, seal) in generations.seal(Some(end)) {
            let act = Act::Step(Step::Seal { rev, seal });
            if opening.early {
                seals.push_back(act);
            } else {
                steps.push_back(act);
            }
        }
    };
    for (number, line) in lines {
        let at = |x: i64, y: i64| {
            TileId::new(0, 0, x, y).ok_or((number, format!("no tile can be at ({x}, {y})")))
        };
        let mut send = |tile: TileId, content: Option<Content>, ms: u64| {
            let sent = times.entry(tile).or_default();
            let content = content.unwrap_or(Content::Pattern(*sent));
            *sent += 1;
            let rev = generations.send(tile);
            contents.insert((tile, rev), (content, Duration::from_millis(ms)));
            steps.push_back(Act::Step(Step::Tile {
                tile,
                rev,
                width: size,
                height: size,
            }));
            stands = false;
        };
        match line {
            Line::Open(_) => {}
            Line::Tile { x, y, rgb, ms, .. } => send(at(x, y)?, rgb.map(Content::Colour), ms),
            Line::Fail { x, y, what, .. } => send(at(x, y)?, Some(Content::Unreadable(what)), 0),
            Line::Region {
                x,
                y,
                width,
                height,
                ..
            } => {
                let side = size as i64;
                let places = |from: i64, length: u32| {
                    let last = from + length.max(1) as i64 - 1;
                    from.div_euclid(side)..=last.div_euclid(side)
                };
                for row in places(y, height) {
                    for column in places(x, width) {
                        send(at(column * side, row * side)?, None, 0);
                    }
                }
            }
            Line::Gone { x, y, .. } => {
                let tile = at(x, y)?;
                let rev = generations.send(tile);
                let body = Body::Gone;
                steps.push_back(Act::Step(Step::Outcome { tile, rev, body }));
                stands = false;
            }
            Line::Delay { ms, .. } => {
                steps.push_back(Act::Step(Step::Wait(Duration::from_millis(ms))));
            }
            Line::Seal { end, .. } => {
                seal(&mut generations, &mut steps, end);
                stands = true;
            }
            Line::Hold { .. } => steps.push_back(Act::Hold),
            Line::Panic {
                r#in: Thread::Worker,
                ..
            } => steps.push_back(Act::Panic),
            Line::Panic { .. } => send(at(0, 0)?, Some(Content::Panic), 0),
        }
    }
    if !stands {
        seal(&mut generations, &mut steps, End::Complete);
    }
    seals.append(&mut steps);
    let tiles: BTreeSet<TileId> = contents.keys().map(|(tile, _)| *tile).collect();
    Ok(Part {
        opening,
        steps: seals,
        tiles: tiles.len() as u64,
        contents,
        after: generations.sealed().map_or(0, |rev| rev + 1),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn wrong(script: &str) -> String {
        parse(script, "rehearsal.jsonl", 32)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_mistake_in_a_script_is_told_with_its_line() {
        let open = "{\"do\":\"open\",\"slide\":\"s\"}\n";
        for (line, told) in [
            (
                "{\"do\":\"open\",\"slide\":\"s\"}",
                "rehearsal.jsonl:2: the slide `s` is opened twice",
            ),
            (
                "{\"do\":\"tile\",\"slide\":\"t\",\"x\":0,\"y\":0}",
                "rehearsal.jsonl:2: the slide `t` is not open yet",
            ),
            (
                "{\"do\":\"fly\",\"slide\":\"s\"}",
                "rehearsal.jsonl:2: unknown variant `fly`",
            ),
            (
                "{\"do\":\"tile\",\"slide\":\"s\",\"x\":0}",
                "rehearsal.jsonl:2: missing field `y`",
            ),
            (
                "{\"do\":\"gone\",\"slide\":\"s\",\"x\":99999999,\"y\":0}",
                "rehearsal.jsonl:2: no tile can be at (99999999, 0)",
            ),
        ] {
            let error = wrong(&format!("{open}{line}\n"));
            assert!(error.starts_with(told), "{error}");
        }
    }

    #[test]
    fn versions_are_numbered_and_every_slide_is_sealed() {
        let script = r#"
            {"do":"open","slide":"s","early":true}
            {"do":"region","slide":"s","x":16,"y":0,"width":32,"height":8}
            {"do":"gone","slide":"s","x":0,"y":0}
            {"do":"seal","slide":"s","end":"complete"}
            {"do":"rescan","slide":"s","x":32,"y":0}
            {"do":"open","slide":"empty"}
        "#;
        let parts = parse(script, "rehearsal.jsonl", 32).unwrap();
        let part = &parts["s"];
        let acts: Vec<String> = part
            .steps
            .iter()
            .map(|act| match act {
                Act::Step(Step::Seal { rev, seal }) => {
                    format!("seal {rev}: {} {:?}", seal.n, seal.last)
                }
                Act::Step(Step::Tile { tile, rev, .. }) => format!("{tile:?} {rev}"),
                Act::Step(Step::Outcome { tile, rev, .. }) => format!("gone {tile:?} {rev}"),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(
            acts,
            [
                "seal 0: 2 None",
                "seal 1: 1 Some(Complete)",
                "seal 2: 1 Some(Complete)",
                "tile(0, 0) 0",
                "tile(32, 0) 0",
                "gone tile(0, 0) 1",
                "tile(32, 0) 2",
            ]
        );
        assert_eq!((part.tiles, part.after), (2, 3));
        assert_eq!(
            part.contents[&(TileId::new(0, 0, 32, 0).unwrap(), 2)].0,
            Content::Pattern(1)
        );
        assert_eq!(parts["empty"].steps.len(), 1);
    }
}
