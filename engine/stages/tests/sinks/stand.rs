//! A stand on which a sink is driven as its operator drives it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use weir_pipeline::model::ModelInput;
use weir_pipeline::{Edge, ModelHeader, ModelKind, Node, Plan, RunSettings, Schema, Value, Values};
use weir_record::*;
use weir_runtime::stage::{Completed, Prepare, Prepared, Shared, Sink, StageError, StageType};
use weir_stages::{attention_pool, classifier, scorer};

pub fn header(kind: ModelKind, sha256: &str) -> ModelHeader {
    ModelHeader {
        format: 1,
        kind,
        arch: "small".into(),
        feature: 128,
        hidden: 64,
        gated: false,
        classes: vec!["normal".into(), "tumour".into()],
        positive: "tumour".into(),
        input: ModelInput {
            size: 50,
            mpp: 4.0,
            mean: [0.5; 3],
            std: [0.25; 3],
        },
        normalise: "squared-average".into(),
        link: "sigmoid".into(),
        power: None,
        contract: "ordered-f32/1".into(),
        sha256: sha256.into(),
        training: None,
        folder: "models".into(),
    }
}

fn node(
    name: &str,
    schema: &'static Schema,
    values: &[(&str, Value)],
    inputs: &[(usize, usize)],
) -> Node {
    Node {
        name: name.into(),
        schema,
        values: Values(
            values
                .iter()
                .map(|(k, v)| (k.to_string(), v.clone()))
                .collect(),
        ),
        inputs: inputs
            .iter()
            .map(|(port, node)| Edge {
                port: *port,
                node: *node,
                output: 0,
            })
            .collect(),
        run: Default::default(),
        shapes: Vec::new(),
    }
}

/// A sink's name, its type, and parameters that differ from its defaults.
pub type SinkOf<'a> = (&'a str, StageType, &'a [(&'a str, Value)]);

/// scorer, attention-pool, classifier, and these sinks.
pub fn plan(out: &Path, sinks: &[SinkOf]) -> Plan {
    let model = |name: &str| ("model", Value::Text(name.into()));
    let mut nodes = vec![
        node("score", &scorer::SCHEMA, &[model("a")], &[]),
        node("pool", &attention_pool::SCHEMA, &[model("b")], &[]),
        node("classify", &classifier::SCHEMA, &[model("b")], &[(0, 1)]),
    ];
    for (name, stage, values) in sinks {
        let source = |port: &str| match port {
            "scores" => 0,
            "attention" => 1,
            _ => 2,
        };
        let ports = stage.schema.ins.iter().enumerate();
        let inputs: Vec<_> = ports.map(|(at, port)| (at, source(port.name))).collect();
        let mut all: Vec<(&str, Value)> = Vec::new();
        for param in stage.schema.params {
            let text = param.default.unwrap().trim_matches('"').to_owned();
            let value = match text.parse::<i64>() {
                Ok(whole) => Value::Integer(whole),
                Err(_) => text.parse().map_or(Value::Text(text), Value::Float),
            };
            all.push((param.name, value));
        }
        all.extend(values.iter().cloned());
        nodes.push(node(name, stage.schema, &all, &inputs));
    }
    Plan {
        name: "test".into(),
        file: "test.weir.toml".into(),
        run: RunSettings {
            out: out.to_owned(),
            ..RunSettings::default()
        },
        plugins: Vec::new(),
        models: BTreeMap::from([
            ("a".into(), header(ModelKind::Scorer, "aa")),
            ("b".into(), header(ModelKind::Bag, "bb")),
        ]),
        nodes,
        hash: "0123".into(),
    }
}

/// The sinks of a plan: for each the parts at home and at process 0.
pub type Parts = Vec<Box<dyn Sink>>;

pub fn prepare(plan: &Plan, shared: &Shared, types: &[StageType]) -> Result<Parts, StageError> {
    let (budget, slab) = (Budget::new(1 << 20), Slab::new(1 << 20));
    let mut parts: Parts = Vec::new();
    for node in &plan.nodes {
        let Some(stage) = types
            .iter()
            .find(|stage| stage.schema.name == node.schema.name)
        else {
            continue;
        };
        let cx = Prepare {
            plan,
            node,
            shared,
            budget: &budget,
            slab: &slab,
        };
        match (stage.prepare)(&cx)? {
            Prepared::Sink(make) => parts.push(make()),
            Prepared::SinkPair { home, first } => parts.extend([home(), first()]),
            _ => panic!("{} is no sink", node.name),
        }
    }
    Ok(parts)
}

pub fn info(id: &str, tiles: u64) -> Arc<SlideInfo> {
    Arc::new(SlideInfo {
        path: format!("slides/{id}.tiff"),
        width: 3000,
        height: 2000,
        mpp: Some((Mpp(4.0), MppOrigin::Resolution)),
        reader: "native/tiff".into(),
        patient: Some("p1".into()),
        grids: vec![Grid {
            footprint: 50.5,
            mpp: 4.0,
            px: 50,
        }],
        tiles,
        background: 7,
        input: Some((12345, 1_700_000_000_000_000_001)),
        ..SlideInfo::unopened(id.into(), SlideKey(1), String::new())
    })
}

pub fn tile(x: i64, y: i64) -> TileId {
    TileId::new(0, 0, x, y).unwrap()
}

pub fn score(score: f32) -> Body {
    Body::Score(Arc::new(Scores {
        score,
        probabilities: vec![1.0 - score, score],
    }))
}

pub fn attention(weight: f32) -> Body {
    Body::Attention(Arc::new(Attention {
        logit: weight * 3.0 - 1.0,
        weight,
        contribution: weight * 0.5,
        leave_one_out: -weight / 7.0,
        class: 1,
    }))
}

pub fn fail() -> Body {
    Body::Fail(Arc::new(failure("tile 20 is all zero", Some((0, 0)))))
}

pub fn failure(what: &str, tile: Option<(i64, i64)>) -> Failure {
    Failure {
        stage: "tiles".into(),
        slide: "s".into(),
        tile,
        what: what.into(),
        help: String::new(),
    }
}

pub fn prediction() -> Prediction {
    let tally = |value, fail| Tally {
        value,
        fail,
        ..Tally::default()
    };
    Prediction {
        revision: 0,
        state: State::Final,
        classes: vec!["normal".into(), "tumour".into()],
        class: Some(1),
        logits: vec![-1.25, 2.5],
        probabilities: vec![0.023, 0.977],
        bag: Bag {
            n: 4,
            flags: BagFlags::DEGRADED,
            pooled: vec![0.1, -2e-9, 1e20],
            effective: 3.5,
            entropy: 1.25,
            exact: Some(ExactSums {
                n: 4,
                s: 3_940_649_673_949_184,
                t: vec![174_727_559_866_176_872_906_752, -1, i128::MIN],
                u: vec![i128::MAX, 0, 3],
            }),
            contract: "ordered-f32/1".into(),
            coverage: Coverage {
                source: tally(9, 1),
                selected: tally(4, 0),
            },
            selection: 2,
            ended: Some(End::Complete),
            state: State::Final,
        },
    }
}

/// What a slide sends to its sinks, apart from Opened: rows of port 0, rows of port 1, and news.
pub struct Story {
    pub info: Arc<SlideInfo>,
    pub rows: Vec<(&'static str, TileId, Body)>,
    pub news: Vec<Event>,
    pub end: End,
}

impl Story {
    pub fn id(&self) -> SlideId {
        SlideId::new(0, self.info.key.0)
    }

    /// Up to the end of the slide at each of `parts` in turn.
    pub fn tell(&self, parts: &mut Parts, plan: &Plan) -> Vec<StageError> {
        let mut errors = Vec::new();
        for (part, schema) in parts.iter_mut().zip(schemas(plan)) {
            errors.extend(self.tell_one(part, schema));
        }
        errors
    }

    pub fn tell_one(&self, part: &mut Box<dyn Sink>, schema: &Schema) -> Vec<StageError> {
        let id = self.id();
        let mut errors = Vec::new();
        let mut note = |result: Result<(), StageError>| errors.extend(result.err());
        note(part.opened(id, &self.info));
        for event in &self.news {
            note(part.event(id, event));
        }
        for (rev, (port, tile, body)) in self.rows.iter().enumerate() {
            if let Some(port) = schema.ins.iter().position(|known| known.name == *port) {
                let key = Key {
                    slide: id,
                    tile: *tile,
                    rev: rev as u32,
                };
                note(part.row(port, key, body.clone()));
            }
        }
        let done: Vec<Completed> = schema
            .ins
            .iter()
            .map(|_| Completed {
                through: 0,
                end: Some(self.end),
                tally: Tally::default(),
            })
            .collect();
        note(part.ended(id, &done));
        part.closed(id);
        errors
    }
}

/// For each part its schema.
pub fn schemas(plan: &Plan) -> Vec<&'static Schema> {
    plan.nodes[3..]
        .iter()
        .flat_map(|node| {
            let parts = if node.schema.name == "predictions-sink" {
                2
            } else {
                1
            };
            std::iter::repeat_n(node.schema, parts)
        })
        .collect()
}

/// Five tiles, of which four are selected.
pub fn five_tiles(id: &str) -> Story {
    let place = |at: i64| tile(at % 3 * 50 - 10, at / 3 * 50);
    let mut rows: Vec<_> = [0.9, 0.25, 1e-7, 0.25, 0.5]
        .iter()
        .enumerate()
        .map(|(at, s)| ("scores", place(at as i64), score(*s)))
        .collect();
    rows.push(("scores", place(7), fail()));
    for (at, weight) in [(0, 0.5), (4, 0.25), (1, 0.2), (2, 0.05)] {
        rows.push(("attention", place(at), attention(weight)));
    }
    rows.push((
        "predictions",
        TileId::SLIDE,
        Body::Prediction(Arc::new(prediction())),
    ));
    Story {
        info: info(id, 6),
        rows,
        news: vec![Event::Selection {
            highest: 2,
            lowest: 2,
        }],
        end: End::Complete,
    }
}
