//! `OUT/worklist.csv` and `OUT/patients.csv`: the views of a run, written when it is over.

use super::lock::Shard;
use crate::message::Refusal;
use std::path::Path;
use std::sync::Arc;
use weir_model::{BagModel, Pooling, file};
use weir_pipeline::{ModelHeader, Plan};
use weir_views::{Answers, Classify, Views};

/// The model whose classes a plan predicts; `None` when it predicts nothing.
fn predicts(plan: &Plan) -> Option<&ModelHeader> {
    let classifier = plan
        .nodes
        .iter()
        .find(|node| node.schema.name == "classifier")?;
    plan.models.get(classifier.values.text("model").ok()?)
}

/// Views for a plan that predicts something.
pub fn of(plan: &Plan) -> Option<Views> {
    predicts(plan).map(|_| Views::default())
}

/// Writes the tables, each whole or not at all; a shard's with the shard in their names.
pub fn write(views: &Views, plan: &Plan, shard: Option<Shard>) -> Result<(), Refusal> {
    let Some(header) = predicts(plan) else {
        return Ok(());
    };
    let model =
        BagModel::load(header, &Pooling::default()).map_err(|error| Refusal::failed(error, ""))?;
    let classify: Classify = Arc::new(move |pooled| Some(model.classify(pooled).probabilities));
    let answers = Answers {
        classes: header.classes.clone(),
        positive: Some(header.positive.clone()),
        classify: Some(classify),
    };
    let Some(tables) = views.tables(&answers) else {
        return Ok(());
    };
    for (name, bytes) in [
        ("worklist", &tables.worklist),
        ("patients", &tables.patients),
    ] {
        let path = match shard {
            None => plan.run.out.join(format!("{name}.csv")),
            Some(shard) => plan.run.out.join(format!("{name}-{shard}.csv")),
        };
        write_table(&path, bytes)?;
    }
    Ok(())
}

fn write_table(path: &Path, bytes: &[u8]) -> Result<(), Refusal> {
    file::write(path, bytes).map_err(|error| {
        Refusal::failed(
            format!("{} cannot be written: {error}", path.display()),
            "make room, and run again: slides that are done are not computed again",
        )
    })
}
