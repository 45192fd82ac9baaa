//! Shapes of what flows, found from sources to sinks.

use crate::model::ModelHeader;
use crate::schema::{Dim, Kind, ModelField, Port, Rows, Schema};
use crate::values::{Value, Values};
use std::collections::BTreeMap;

/// A stage, as far as shapes depend on it.
pub(crate) struct Staged<'a> {
    pub(crate) schema: &'static Schema,
    pub(crate) values: &'a Values,
    /// Port, feeding stage, its output.
    pub(crate) inputs: Vec<(usize, usize, usize)>,
}

/// A number of a shape, and what said it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number {
    /// The number.
    pub value: f64,
    /// What said it.
    pub because: Because,
}

/// What says a number of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// The stage type itself.
    Type {
        /// Index of the stage.
        stage: usize,
    },
    /// A parameter.
    Param {
        /// Index of the stage.
        stage: usize,
        /// The parameter.
        param: &'static str,
    },
    /// The model that a parameter names.
    Model {
        /// Index of the stage.
        stage: usize,
        /// The parameter.
        param: &'static str,
        /// Which number of the model.
        field: ModelField,
    },
}

/// What is known of an output.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// Its dimensions, without that of the batch; `None` is not known before the run.
    pub dims: Vec<Option<Number>>,
    /// um/px of pixels.
    pub mpp: Option<Number>,
}

/// An edge whose ends do not agree.
#[derive(Clone, Debug)]
pub(crate) struct Conflict {
    /// Index of the taking stage.
    pub(crate) stage: usize,
    /// Index in its inputs.
    pub(crate) input: usize,
    /// Number that is wanted and number that is given; of dimensions, and then of um/px.
    pub(crate) dims: Vec<(Number, Number)>,
    /// The same of um/px.
    pub(crate) mpp: Option<(Number, Number)>,
    /// Counts of dimensions, when these differ.
    pub(crate) ranks: Option<(usize, usize)>,
}

/// Resolutions agree to within this fraction: what a decimal number of a file is rounded to.
const MPP_TOLERANCE: f64 = 1e-4;

/// The shapes of all outputs, and the edges that do not agree. Stages stand in topological order.
pub(crate) fn unify(
    stages: &[Staged],
    models: &BTreeMap<&str, &ModelHeader>,
) -> (Vec<Vec<Shape>>, Vec<Conflict>) {
    let mut shapes: Vec<Vec<Shape>> = Vec::with_capacity(stages.len());
    let mut conflicts = Vec::new();
    for (at, stage) in stages.iter().enumerate() {
        let mut same: BTreeMap<&str, Number> = BTreeMap::new();
        for (input, &(port, from, output)) in stage.inputs.iter().enumerate() {
            let (port, given) = (&stage.schema.ins[port], &shapes[from][output]);
            let mut conflict = Conflict {
                stage: at,
                input,
                dims: Vec::new(),
                mpp: None,
                ranks: None,
            };
            if port.shape.len() == given.dims.len() {
                for (dim, given) in port.shape.iter().zip(&given.dims) {
                    if let Some(pair) = agree(dim, *given, at, stage, models, &mut same, 0.0) {
                        conflict.dims.push(pair);
                    }
                }
            } else if !port.shape.is_empty() && !given.dims.is_empty() {
                // An empty shape says nothing.
                conflict.ranks = Some((port.shape.len(), given.dims.len()));
            }
            if let Some(dim) = &port.mpp {
                conflict.mpp = agree(dim, given.mpp, at, stage, models, &mut same, MPP_TOLERANCE);
            }
            if !conflict.dims.is_empty() || conflict.mpp.is_some() || conflict.ranks.is_some() {
                conflicts.push(conflict);
            }
        }
        let outs = stage
            .schema
            .outs
            .iter()
            .map(|port| out(port, at, stage, models, &same));
        let mut outs: Vec<Shape> = outs.collect();
        if fetches(stage.schema) {
            fetched(stages, &shapes, stage, &mut outs);
        }
        shapes.push(outs);
    }
    (shapes, conflicts)
}

/// Whether a stage sends pixels that it did not get: it reads those of the source again.
pub(crate) fn fetches(schema: &Schema) -> bool {
    let pixels = |ports: &[Port]| ports.iter().any(|port| port.kind == Kind::Pixels);
    schema.rows != Rows::Source && pixels(schema.outs) && !pixels(schema.ins)
}

/// The index of the source that feeds a stage, directly or through others: the first, when there are several.
fn source_of(stages: &[Staged], stage: &Staged) -> Option<usize> {
    let mut at = stage.inputs.first()?.1;
    while let Some(&(_, from, _)) = stages.get(at)?.inputs.first() {
        at = from;
    }
    (stages[at].schema.rows == Rows::Source).then_some(at)
}

/// Gives pixels that are read again the shape that they have at their source.
fn fetched(stages: &[Staged], shapes: &[Vec<Shape>], stage: &Staged, outs: &mut [Shape]) {
    let Some(source) = source_of(stages, stage) else {
        return;
    };
    let pixels = stages[source]
        .schema
        .outs
        .iter()
        .position(|port| port.kind == Kind::Pixels);
    let Some(original) = pixels.and_then(|output| shapes.get(source)?.get(output)) else {
        return;
    };
    for (port, shape) in stage.schema.outs.iter().zip(outs) {
        if port.kind != Kind::Pixels {
            continue;
        }
        for (dim, original) in shape.dims.iter_mut().zip(&original.dims) {
            *dim = dim.or(*original);
        }
        shape.mpp = shape.mpp.or(original.mpp);
    }
}

fn out(
    port: &Port,
    at: usize,
    stage: &Staged,
    models: &BTreeMap<&str, &ModelHeader>,
    same: &BTreeMap<&str, Number>,
) -> Shape {
    let known = |dim: &Dim| match dim {
        Dim::Same(name) => same.get(name).copied(),
        dim => number(dim, at, stage, models),
    };
    Shape {
        dims: port.shape.iter().map(known).collect(),
        mpp: port.mpp.as_ref().and_then(known),
    }
}

/// Both numbers when they differ.
fn agree(
    dim: &Dim,
    given: Option<Number>,
    at: usize,
    stage: &Staged,
    models: &BTreeMap<&str, &ModelHeader>,
    same: &mut BTreeMap<&'static str, Number>,
    tolerance: f64,
) -> Option<(Number, Number)> {
    let given = given?;
    let wanted = match dim {
        Dim::Same(name) => *same.entry(name).or_insert(given),
        dim => number(dim, at, stage, models)?,
    };
    let scale = wanted.value.abs().max(given.value.abs());
    ((wanted.value - given.value).abs() > tolerance * scale).then_some((wanted, given))
}

fn number(
    dim: &Dim,
    at: usize,
    stage: &Staged,
    models: &BTreeMap<&str, &ModelHeader>,
) -> Option<Number> {
    let (value, because) = match dim {
        Dim::Fixed(value) => (*value, Because::Type { stage: at }),
        Dim::Param(param) => {
            let value = match stage.values.0.get(*param)? {
                Value::Integer(number) => *number as f64,
                Value::Float(number) => *number,
                _ => return None,
            };
            (value, Because::Param { stage: at, param })
        }
        Dim::Model { param, field } => {
            let Some(Value::Text(name)) = stage.values.0.get(*param) else {
                return None;
            };
            let header = models.get(name.as_str())?;
            let value = match field {
                ModelField::InputSize => f64::from(header.input.size),
                ModelField::InputMpp => header.input.mpp,
                ModelField::Feature => f64::from(header.feature),
                ModelField::Classes => header.classes.len() as f64,
            };
            let because = Because::Model {
                stage: at,
                param,
                field: *field,
            };
            (value, because)
        }
        Dim::Same(_) => return None,
    };
    Some(Number { value, because })
}

impl Shape {
    /// As `50x50x3 at 4 um/px`; `?` is not known before the run; empty when nothing is to say.
    pub fn text(&self) -> String {
        let dims: Vec<String> = self
            .dims
            .iter()
            .map(|dim| dim.map_or("?".into(), |number| number.value.to_string()))
            .collect();
        let mut text = dims.join("x");
        if let Some(mpp) = self.mpp {
            text.push_str(&format!(" at {} um/px", mpp.value));
        }
        text
    }
}

/// The shapes of every output of a plan, by node.
pub fn of_plan(plan: &crate::Plan) -> Vec<Vec<Shape>> {
    let stages: Vec<Staged> = plan
        .nodes
        .iter()
        .map(|node| Staged {
            schema: node.schema,
            values: &node.values,
            inputs: node
                .inputs
                .iter()
                .map(|edge| (edge.port, edge.node, edge.output))
                .collect(),
        })
        .collect();
    let models = plan
        .models
        .iter()
        .map(|(name, header)| (name.as_str(), header))
        .collect();
    unify(&stages, &models).0
}
