//! `classifier`: a bag becomes a prediction.

use std::sync::Arc;

use weir_model::{BagModel, Pooling};
use weir_pipeline::schema::{ModelField, StateBytes};
use weir_pipeline::{Deliver, Dim, Kind, ModelKind, Param, ParamKind, Place, Port, Rows, Schema};
use weir_record::{Bag, Body, Prediction, State};
use weir_runtime::stage::{Batch, Prepare, Prepared, StageError, StageType, Work};

use crate::executors::model_error;

/// `classifier`.
pub const SCHEMA: Schema = Schema {
    name: "classifier",
    summary: "Classifies a slide's bag",
    doc: "Runs the last layer of a model of kind `bag` on the pooled features: logits, probabilities (softmax), and the class of \
the greatest probability, the first of equals. An empty bag and a slide that failed get a prediction that says so and has no class.",
    rows: Rows::Map,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[Param {
        name: "model",
        kind: ParamKind::Model(ModelKind::Bag),
        default: None,
        required: true,
        doc: "Name of a [model] table; its kind is `bag`",
    }],
    ins: &[Port {
        name: "bag",
        kind: Kind::Bag,
        shape: &[Dim::Model {
            param: "model",
            field: ModelField::Feature,
        }],
        mpp: None,
        many: false,
        optional: false,
        doc: "One bag a slide",
    }],
    outs: &[Port {
        name: "predictions",
        kind: Kind::Predictions,
        shape: &[Dim::Model {
            param: "model",
            field: ModelField::Classes,
        }],
        mpp: None,
        many: false,
        optional: false,
        doc: "One prediction a slide, replaced by later ones while the slide is open",
    }],
    batch_only: false,
    state_bytes: StateBytes::Nothing,
    example: "[stage.classify]
use = \"classifier\"
in = \"pool.bag\"
model = \"b\"
",
};

// ---------------------------------------------------------------------------------------------------- pure function

/// What a bag says of its slide; `revision` is the bag's.
fn predict(model: &BagModel, classes: &[String], bag: &Bag, revision: u32) -> Prediction {
    // An empty bag has no pooled features, and nothing is said of it.
    let verdict = model.classify(&bag.pooled);
    let state = match verdict.class {
        // Numbers so large that the classifier overflows: the weights are no good, and a guess would be worse than nothing.
        None if !bag.pooled.is_empty() => State::Failed,
        _ => bag.state,
    };
    Prediction {
        revision,
        state,
        classes: classes.to_vec(),
        class: verdict.class,
        logits: verdict.logits,
        probabilities: verdict.probabilities,
        bag: bag.clone(),
    }
}

// ------------------------------------------------------------------------------------------------------------- glue

/// The stage type.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    let header = cx.model("model")?;
    let model = BagModel::load(header, &Pooling::default()).map_err(model_error)?;
    let classes = header.classes.clone();
    Ok(Prepared::Work(Arc::new(Classify { model, classes })))
}

struct Classify {
    model: BagModel,
    classes: Vec<String>,
}

impl Work for Classify {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        for i in 0..batch.len() {
            let Body::Bag(bag) = batch.body(i) else {
                return Err(StageError::new(
                    "what came is no bag",
                    "this is a fault of the stage before: please report it",
                ));
            };
            let prediction = predict(&self.model, &self.classes, bag, batch.key(i).rev);
            batch.set(i, 0, Body::Prediction(Arc::new(prediction)));
        }
        Ok(())
    }

    /// A few hundred multiplications.
    fn inline(&self) -> bool {
        true
    }
}
