//! `scripted-source`: plays what a scanner might do, from a file.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use weir_pipeline::schema::StateBytes;
use weir_pipeline::{Deliver, Dim, Kind, Param, ParamKind, Place, Port, Rows, Schema};
use weir_record::id::mix;
use weir_record::{
    Body, End, Failure, Generations, Grid, Mpp, MppOrigin, Seal, Skip, SlideInfo, SlideKey,
    TileBuf, TileId,
};
use weir_runtime::stage::{
    OpenedSlide, Overview, Prepare, Prepared, ReadError, Script, SlideRef, Source, StageError,
    StageType, Step, TileReader,
};
use weir_slide::input::slide_key;

/// `scripted-source`.
pub const SCHEMA: Schema = Schema {
    name: "scripted-source",
    summary: "Plays a script of made-up slides, for rehearsals and tests",
    doc: "Reads a file of JSON objects, one a line; each says what a source does next with a slide. Slides play side by side, each \
in the order of its own lines. Pixels are a pattern that depends on the slide, the tile and how often it was sent, or the colour \
`rgb`.

| line | meaning |
|---|---|
| `{\"do\": \"open\", \"slide\": \"s\"}` | the slide; `width` and `height` (level-0 px), `patient`, `label`; `error`: it cannot be opened; `early`: seals go ahead of the tiles; `latest`: only the newest version of a tile can be read again |
| `{\"do\": \"tile\", \"slide\": \"s\", \"x\": 0, \"y\": 0}` | send a tile, or send it again; `rgb`; `ms`: reading it takes so long |
| `{\"do\": \"region\", \"slide\": \"s\", \"x\": 0, \"y\": 0, \"width\": 64, \"height\": 64}` | send every tile of the slide's grid that the region touches |
| `{\"do\": \"fail\", \"slide\": \"s\", \"x\": 0, \"y\": 0, \"what\": \"torn\"}` | send a tile that cannot be read |
| `{\"do\": \"gone\", \"slide\": \"s\", \"x\": 0, \"y\": 0}` | withdraw a tile |
| `{\"do\": \"delay\", \"slide\": \"s\", \"ms\": 50}` | wait |
| `{\"do\": \"seal\", \"slide\": \"s\", \"end\": \"complete\"}` | the slide stands (or `incomplete`, `aborted`); lines after it open it again; at the end of the script every slide is sealed |
| `{\"do\": \"hold\", \"slide\": \"s\"}` | nothing more until the run is stopped |
| `{\"do\": \"panic\", \"slide\": \"s\", \"in\": \"worker\"}` | a fault of the program, there or in a `reader` thread |",
    rows: Rows::Source,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[
        Param {
            name: "script",
            kind: ParamKind::Path { exists: true },
            default: None,
            required: true,
            doc: "The script: a file of JSON lines",
        },
        Param {
            name: "size",
            kind: ParamKind::Integer { min: 2, max: 4096 },
            default: Some("32"),
            required: false,
            doc: "Width and height of a tile, px; level-0 px too, since these slides have one level",
        },
        Param {
            name: "mpp",
            kind: ParamKind::Float {
                min: 0.05,
                max: 200.0,
            },
            default: Some("1.0"),
            required: false,
            doc: "Resolution of a tile's pixels, um/px",
        },
    ],
    ins: &[],
    outs: &[Port {
        name: "tiles",
        kind: Kind::Pixels,
        shape: &[Dim::Param("size"), Dim::Param("size"), Dim::Fixed(3.0)],
        mpp: Some(Dim::Param("mpp")),
        many: false,
        optional: false,
        doc: "Pixels of each tile",
    }],
    batch_only: false,
    state_bytes: StateBytes::Nothing,
    example: "[stage.tiles]
use = \"scripted-source\"
script = \"rehearsal.jsonl\"
size = 32
",
};

// ------------------------------------------------------------------------------------------------------- parameters

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
struct Opening {
    slide: String,
    #[serde(default = "large")]
    width: u64,
    #[serde(default = "large")]
    height: u64,
    patient: Option<String>,
    label: Option<String>,
    error: Option<String>,
    #[serde(default)]
    early: bool,
    #[serde(default)]
    latest: bool,
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

// ---------------------------------------------------------------------------------------------------- pure function

/// What a version's pixels are.
#[derive(Clone, Debug, PartialEq)]
enum Content {
    /// A pattern by the number of times that the tile was sent before.
    Pattern(u32),
    Colour([u8; 3]),
    Unreadable(String),
    Panic,
}

/// A slide's part of a script, with every version numbered.
#[derive(Clone, Debug)]
struct Part {
    opening: Opening,
    steps: VecDeque<Act>,
    /// By tile and revision: what it is, and how long reading takes.
    contents: HashMap<(TileId, u32), (Content, Duration)>,
    tiles: u64,
    /// The generation that a stop seals: greater than all others.
    after: u32,
}

#[derive(Clone, Debug)]
enum Act {
    Step(Step),
    Hold,
    Panic,
}

/// A script by slide, or the first mistake in it with its place.
fn parse(text: &str, place: &str, size: u32) -> Result<BTreeMap<String, Part>, StageError> {
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

/// A tile's pattern: a colour of its own with a grain, by the slide, the tile and how often it was sent before.
fn paint(slide: SlideKey, tile: TileId, sent: u32, into: &mut [u8]) {
    let seed = mix(slide.0 ^ mix(tile.word() ^ (sent as u64) << 32));
    for (at, pixel) in into.chunks_mut(TileBuf::CHANNELS).enumerate() {
        let grain = mix(seed ^ at as u64);
        for (channel, value) in pixel.iter_mut().enumerate() {
            let colour = (seed >> (8 * channel)) as u8 as u64 * 7 / 8;
            *value = (colour + (grain >> (8 * channel) & 31)) as u8;
        }
    }
}

// ------------------------------------------------------------------------------------------------------------- glue

/// The stage type.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    let file = cx.values().path("script")?;
    let size = cx.values().integer("size")? as u32;
    let text = std::fs::read_to_string(file).map_err(|error| {
        StageError::new(
            format!("the script {} cannot be read: {error}", file.display()),
            "give a file of JSON lines",
        )
    })?;
    let parts = parse(&text, &file.display().to_string(), size)?;
    let slides = parts.keys().map(|id| SlideRef {
        id: id.clone(),
        key: slide_key(id),
        path: shown(file, id),
    });
    Ok(Prepared::Source(Arc::new(Scripted {
        stage: cx.node.name.clone(),
        slides: slides.collect(),
        parts,
        size,
        mpp: cx.values().float("mpp")?,
    })))
}

fn shown(file: &Path, slide: &str) -> String {
    format!("{}#{slide}", file.display())
}

struct Scripted {
    stage: String,
    slides: Vec<SlideRef>,
    parts: BTreeMap<String, Part>,
    size: u32,
    mpp: f64,
}

impl Source for Scripted {
    fn slides(&self) -> &[SlideRef] {
        &self.slides
    }

    fn open(&self, slide: &SlideRef) -> Result<OpenedSlide, Failure> {
        let failed = |what: &str| Failure {
            stage: self.stage.clone(),
            slide: slide.id.clone(),
            tile: None,
            what: what.to_owned(),
            help: String::new(),
        };
        let part = self.parts.get(&slide.id);
        let part = part.ok_or_else(|| failed("the script has no such slide"))?;
        if let Some(what) = &part.opening.error {
            return Err(failed(what));
        }
        let mut info = SlideInfo::unopened(slide.id.clone(), slide.key, slide.path.clone());
        (info.width, info.height) = (part.opening.width, part.opening.height);
        info.mpp = Some((Mpp(self.mpp), MppOrigin::Given));
        info.reader = "scripted".into();
        info.patient = part.opening.patient.clone();
        info.label = part.opening.label.clone();
        info.grids = vec![Grid {
            footprint: self.size as f64,
            mpp: self.mpp,
            px: self.size,
        }];
        info.tiles = part.tiles;
        let newest: Arc<Newest> = Arc::default();
        Ok(OpenedSlide {
            info: Arc::new(info),
            script: Box::new(Player {
                steps: part.steps.clone(),
                newest: newest.clone(),
                after: part.after,
                stopped: false,
            }),
            reader: Arc::new(Store {
                key: slide.key,
                contents: part.contents.clone(),
                newest: part.opening.latest.then_some(newest),
                size: (part.opening.width, part.opening.height),
            }),
        })
    }
}

/// The newest revision of each tile that was sent.
type Newest = Mutex<HashMap<TileId, u32>>;

struct Player {
    steps: VecDeque<Act>,
    newest: Arc<Newest>,
    after: u32,
    stopped: bool,
}

impl Script for Player {
    fn next(&mut self) -> Step {
        loop {
            let step = match self.steps.pop_front() {
                None => return Step::Done,
                Some(Act::Hold) if self.stopped => continue,
                Some(Act::Hold) => {
                    self.steps.push_front(Act::Hold);
                    return Step::Wait(Duration::from_secs(1));
                }
                Some(Act::Panic) if self.stopped => continue,
                Some(Act::Panic) => panic!("the script says so"),
                Some(Act::Step(step)) => step,
            };
            match step {
                // A seal that was sent already may count it.
                Step::Tile { tile, rev, .. } if self.stopped => {
                    let body = Body::Skip(Skip::Dropped {
                        stage: "scripted-source".into(),
                        reason: "stopped".into(),
                    });
                    return Step::Outcome { tile, rev, body };
                }
                Step::Wait(_) if self.stopped => continue,
                Step::Tile { tile, rev, .. } | Step::Outcome { tile, rev, .. } => {
                    let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
                    newest.insert(tile, rev);
                }
                _ => {}
            }
            return step;
        }
    }

    fn stop(&mut self) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        // What the script did not come to is no part of the slide: a later generation says that it ended early.
        let seal = Seal {
            n: 0,
            check: 0,
            last: Some(End::Aborted),
        };
        let rev = self.after;
        self.steps.push_back(Act::Step(Step::Seal { rev, seal }));
    }
}

struct Store {
    key: SlideKey,
    contents: HashMap<(TileId, u32), (Content, Duration)>,
    /// When only the newest version is kept.
    newest: Option<Arc<Newest>>,
    size: (u64, u64),
}

impl TileReader for Store {
    fn read(&self, tile: TileId, rev: u32, into: &mut [u8]) -> Result<(), ReadError> {
        let Some((content, time)) = self.contents.get(&(tile, rev)) else {
            return Err(ReadError::Superseded);
        };
        if !time.is_zero() {
            std::thread::sleep(*time);
        }
        if let Some(newest) = &self.newest {
            let newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
            if newest.get(&tile).is_some_and(|newest| *newest > rev) {
                return Err(ReadError::Superseded);
            }
        }
        match content {
            Content::Pattern(sent) => paint(self.key, tile, *sent, into),
            Content::Colour(rgb) => into
                .chunks_mut(rgb.len())
                .for_each(|pixel| pixel.copy_from_slice(&rgb[..pixel.len()])),
            Content::Unreadable(what) => return Err(ReadError::Damaged(what.clone())),
            Content::Panic => panic!("the script says so"),
        }
        Ok(())
    }

    fn overview(&self, max_side: u32) -> Result<Overview, ReadError> {
        let longest = self.size.0.max(self.size.1).max(1);
        let side = |length: u64| (length * max_side as u64 / longest).clamp(1, max_side as u64);
        let (width, height) = (side(self.size.0) as u32, side(self.size.1) as u32);
        Ok(Overview {
            width,
            height,
            pixels: vec![235; width as usize * height as usize * 3],
        })
    }
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
