//! Plans for tests of parts of a run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use weir_pipeline::{
    Deliver, Edge, Kind, Node, Place, Plan, Port, Rows, RunSettings, Schema, StateBytes, Values,
    plan::StageRun,
};

use crate::house::House;

const PORT: Port = Port {
    name: "rows",
    kind: Kind::Picks,
    shape: &[],
    mpp: None,
    many: true,
    optional: true,
    doc: "",
};

const MAP: Schema = Schema {
    name: "map",
    summary: "",
    doc: "",
    rows: Rows::Map,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[],
    ins: &[PORT, PORT],
    outs: &[PORT],
    batch_only: false,
    state_bytes: StateBytes::Nothing,
    example: "",
};
/// One input that counts, one output.
pub(crate) static ONE: Schema = MAP;
/// Two outputs.
pub(crate) static TWO: Schema = Schema {
    outs: &[PORT, PORT],
    ..MAP
};

/// A node that takes (port, node, output).
pub(crate) fn node(schema: &'static Schema, inputs: &[(usize, usize, usize)]) -> Node {
    let edge = |&(port, node, output): &(usize, usize, usize)| Edge { port, node, output };
    Node {
        name: "stage".into(),
        schema,
        values: Values::default(),
        inputs: inputs.iter().map(edge).collect(),
        run: StageRun::default(),
        shapes: vec![],
    }
}

/// Bytes that a run has.
pub(crate) const MEMORY: u64 = 1 << 20;

/// Of a run of these stages.
pub(crate) fn house(nodes: Vec<Node>) -> House {
    House::of(Plan {
        name: "test".into(),
        file: PathBuf::new(),
        run: RunSettings {
            memory: MEMORY,
            ..RunSettings::default()
        },
        models: BTreeMap::new(),
        plugins: Vec::new(),
        nodes,
        hash: String::new(),
    })
}
